//! The Cinder provider on a real Keystone, Cinder and Nova (`tests/openstack/cloud start`).
//!
//! Ignored unless asked for: `FUXI_TEST_CLOUD=<state>/info.json cargo test --test cinder_on_openstack -- --ignored
//! --test-threads 1 --nocapture`. It prints what each step took and how many requests it made.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that cannot go on should say so and stop, and this one reports"
)]

use fuxi_csi::call::Call;
use fuxi_csi::error::{Error, Kind, Result};
use fuxi_csi::model::{
    AccessKind, AccessMode, Bytes, Capability, ContentSource, NodeId, PageRequest, Secrets, SizeRange, SnapshotFilter,
    SnapshotSpec, StringMap, VolumeSpec,
};
use fuxi_csi::openstack::client::{Client, Microversion, Route, ServiceKind};
use fuxi_csi::openstack::cloud::{ApplicationCredentialId, Auth, Cloud, Interface, Scope, Tls};
use fuxi_csi::openstack::session::Session;
use fuxi_csi::provider::Provider;
use fuxi_csi::provider::cinder::{CinderProvider, Settings};
use serde_json::{Value, json};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Rig {
    provider: Arc<CinderProvider>,
    cinder: Client,
    nova: Client,
    state: PathBuf,
    run: String,
}

fn rig() -> Rig {
    replica(&format!("live-{}-{}", std::process::id(), fastrand::u16(..)))
}

/// One more of the same cluster, that shares nothing with the first but the cloud.
fn replica(run: &str) -> Rig {
    let path = PathBuf::from(std::env::var("FUXI_TEST_CLOUD").expect("FUXI_TEST_CLOUD names an info.json"));
    let info: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let text = |key: &str| info[key].as_str().unwrap().to_owned();
    let cloud = Arc::new(Cloud {
        name: String::new(),
        auth_url: text("auth_url").parse().unwrap(),
        auth: Auth::ApplicationCredential {
            id: ApplicationCredentialId::Id(text("app_cred_id")),
            secret: text("app_cred_secret").into(),
        },
        scope: Scope::Implied,
        region: Some(text("region")),
        interface: Interface::Public,
        endpoint_overrides: Vec::new(),
        tls: Tls::default(),
        origin: path.display().to_string(),
    });
    let session = Session::new(cloud, vec!["fuxi-csi-test".to_owned()], Arc::new(()));
    let cinder = Client::new(session.clone(), ServiceKind::BlockStorage, 32);
    let nova = Client::new(session, ServiceKind::Compute, 32);
    let settings =
        Settings { driver: "cinder.fuxi.openstack.org".to_owned(), cluster: run.to_owned(), ignore_volume_zone: false };
    let provider = CinderProvider::new(&settings, [(String::new(), cinder.clone(), nova.clone())]).unwrap();
    let state = path.parent().unwrap().to_owned();
    Rig { provider: Arc::new(provider), cinder, nova, state, run: run.to_owned() }
}

fn call() -> Call {
    Call::lasting(Duration::from_secs(60))
}

/// Runs one step and prints what it cost.
async fn step<T>(what: &str, work: impl AsyncFnOnce(&Call) -> Result<T>) -> Result<T> {
    let call = call();
    let started = Instant::now();
    let outcome = work(&call).await;
    let took = started.elapsed().as_millis();
    match &outcome {
        Ok(_) => println!("{what:<44} {took:>6} ms {:>3} calls", call.openstack_calls()),
        Err(error) => {
            println!("{what:<44} {took:>6} ms {:>3} calls  {:?}: {error}", call.openstack_calls(), error.kind())
        }
    }
    outcome
}

fn block(mode: AccessMode) -> Capability {
    Capability { mode, kind: AccessKind::Block }
}

fn single() -> Capability {
    block(AccessMode::SingleNodeWriter)
}

impl Rig {
    fn spec(&self, name: &str) -> VolumeSpec {
        VolumeSpec {
            name: format!("{}-{name}", self.run),
            size: SizeRange { required: Bytes::from_gib(1).unwrap(), limit: None },
            source: None,
            capabilities: vec![single()],
            parameters: StringMap::new(),
            mutable_parameters: StringMap::new(),
            topology: None,
            secrets: Secrets::new(),
        }
    }

    async fn server(&self) -> NodeId {
        let body = json!({"server": {"name": self.run, "flavorRef": "1", "networks": "none",
            "imageRef": "00000000-0000-0000-0000-000000000001"}});
        let route = Route::new("/servers").microversion(Microversion(2, 37));
        let made: Value = self.nova.post(&call(), route, &body).await.unwrap();
        let id = made["server"]["id"].as_str().unwrap().to_owned();
        loop {
            let server: Value = self.nova.get(&call(), Route::new("/servers/{}").id(&id)).await.unwrap();
            match server["server"]["status"].as_str().unwrap() {
                "ACTIVE" => return id.parse().unwrap(),
                "ERROR" => panic!("server in error: {server}"),
                _ => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    async fn remove_server(&self, server: &NodeId) {
        self.nova.delete(&call(), Route::new("/servers/{}").id(server)).await.unwrap();
        while self.nova.get::<Value>(&call(), Route::new("/servers/{}").id(server)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn fault(&self, faults: &Value) {
        self.fault_in("cinder", faults);
    }

    fn fault_in(&self, service: &str, faults: &Value) {
        std::fs::write(self.state.join(format!("faults/{service}.json")), faults.to_string()).unwrap();
    }

    async fn nothing_is_left(&self) {
        let left = self.provider.volumes(&call(), &PageRequest::default()).await.unwrap();
        assert!(left.items.is_empty(), "{left:?}");
        let snapshots = self.provider.snapshots().unwrap();
        let left = snapshots.snapshots(&call(), &SnapshotFilter::default(), &PageRequest::default()).await.unwrap();
        assert!(left.items.is_empty(), "{left:?}");
        let raw: Value = self.cinder.get(&call(), Route::new("/snapshots")).await.unwrap();
        assert_eq!(raw["snapshots"], json!([]));
    }
}

fn kind_of<T>(outcome: Result<T>) -> Kind {
    outcome.err().map(|error: Error| error.kind()).expect("this must fail")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a running OpenStack"]
async fn a_volumes_life() {
    let rig = rig();
    let provider = &rig.provider;
    let (a, b) = (rig.server().await, rig.server().await);
    let capability = single();
    for round in 0..3 {
        println!("--- round {round}");
        let spec = rig.spec(&format!("a{round}"));
        let volume = step("create", async |call| provider.create_volume(call, &spec).await).await.unwrap();
        let again = step("create again", async |call| provider.create_volume(call, &spec).await).await.unwrap();
        assert_eq!(volume, again);
        let mut other = spec.clone();
        other.size.required = Bytes::from_gib(2).unwrap();
        assert_eq!(kind_of(provider.create_volume(&call(), &other).await), Kind::Conflict);

        let publish = async |what: &str, node: &NodeId| {
            step(what, async |call| provider.publish(call, &volume.id, node, &capability, false).await).await
        };
        let unpublish = async |what: &str, node: &NodeId| {
            step(what, async |call| provider.unpublish(call, &volume.id, Some(node)).await).await
        };
        let connection = publish("publish", &a).await.unwrap();
        assert_eq!(connection.size, Some(volume.size));
        assert_eq!(publish("publish again", &a).await.unwrap(), connection);
        assert_eq!(kind_of(publish("publish elsewhere", &b).await), Kind::WrongState);
        assert_eq!(
            kind_of(step("delete attached", async |call| provider.delete_volume(call, &volume.id).await).await),
            Kind::WrongState
        );
        let size = SizeRange { required: Bytes::from_gib(2).unwrap(), limit: None };
        let expand = provider.expand().unwrap();
        step("expand in use", async |call| expand.expand_volume(call, &volume.id, size, None).await).await.unwrap();
        step("expand again", async |call| expand.expand_volume(call, &volume.id, size, None).await).await.unwrap();
        unpublish("unpublish", &a).await.unwrap();
        publish("publish at once", &a).await.unwrap();
        unpublish("unpublish", &a).await.unwrap();
        publish("publish on the next", &b).await.unwrap();
        unpublish("unpublish a stranger", &a).await.unwrap();
        let status = step("show", async |call| provider.volume(call, &volume.id).await).await.unwrap();
        assert_eq!(status.published, std::slice::from_ref(&b));

        let snapshots = provider.snapshots().unwrap();
        let taken = |name: &str, parameters: &[(&str, &str)]| SnapshotSpec {
            name: format!("{}-{name}{round}", rig.run),
            source: volume.id.clone(),
            parameters: parameters.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            topology: None,
            secrets: Secrets::new(),
        };
        let plain = taken("snapshot", &[]);
        let snapshot = step("snapshot", async |call| snapshots.create_snapshot(call, &plain).await).await.unwrap();
        assert!(snapshot.ready);
        let again = step("snapshot again", async |call| snapshots.create_snapshot(call, &plain).await).await.unwrap();
        assert_eq!(snapshot, again);
        let backed = taken("backup", &[("type", "backup")]);
        let mut backup = step("backup", async |call| snapshots.create_snapshot(call, &backed).await).await.unwrap();
        while !backup.ready {
            tokio::time::sleep(Duration::from_millis(300)).await;
            backup = step("look at the backup", async |call| snapshots.snapshot(call, &backup.id).await).await.unwrap();
        }
        let mine = SnapshotFilter { source: Some(volume.id.clone()), id: None };
        let all = snapshots.snapshots(&call(), &mine, &PageRequest::default()).await.unwrap();
        assert_eq!(all.items.len(), 2, "{all:?}");
        let one = PageRequest { most: NonZeroU32::new(1), token: None };
        let first = snapshots.snapshots(&call(), &mine, &one).await.unwrap();
        let rest = PageRequest { most: None, token: first.next };
        assert_eq!(snapshots.snapshots(&call(), &mine, &rest).await.unwrap().items.len(), 1);

        unpublish("unpublish", &b).await.unwrap();
        assert_eq!(
            kind_of(step("delete with snapshot", async |call| provider.delete_volume(call, &volume.id).await).await),
            Kind::WrongState
        );
        let mut copies = Vec::new();
        for (name, source) in [
            ("restored", ContentSource::Snapshot(snapshot.id.clone())),
            ("from-backup", ContentSource::Snapshot(backup.id.clone())),
            ("clone", ContentSource::Volume(volume.id.clone())),
        ] {
            let spec = VolumeSpec { source: Some(source), ..rig.spec(&format!("{name}{round}")) };
            let copy = step(name, async |call| provider.create_volume(call, &spec).await).await.unwrap();
            assert_eq!(copy.size, Bytes::from_gib(2).unwrap());
            let again = step("again", async |call| provider.create_volume(call, &spec).await).await.unwrap();
            assert_eq!(copy, again);
            copies.push(copy.id);
        }
        for copy in &copies {
            step("delete a copy", async |call| provider.delete_volume(call, copy).await).await.unwrap();
        }
        step("delete snapshot", async |call| snapshots.delete_snapshot(call, &snapshot.id).await).await.unwrap();
        step("delete backup", async |call| snapshots.delete_snapshot(call, &backup.id).await).await.unwrap();
        step("delete backup again", async |call| snapshots.delete_snapshot(call, &backup.id).await).await.unwrap();
        step("delete", async |call| provider.delete_volume(call, &volume.id).await).await.unwrap();
        step("delete again", async |call| provider.delete_volume(call, &volume.id).await).await.unwrap();
        assert_eq!(kind_of(provider.volume(&call(), &volume.id).await), Kind::NotFound);
        unpublish("unpublish what is gone", &b).await.unwrap();
    }
    step("capacity", async |call| provider.capacity().unwrap().room(call, &StringMap::new(), None).await)
        .await
        .unwrap();
    rig.remove_server(&a).await;
    rig.remove_server(&b).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a running OpenStack"]
async fn failures_have_reasons_and_leave_nothing() {
    let rig = rig();
    let provider = &rig.provider;
    rig.fault(&json!({"create_volume": {"error": "array on fire"}}));
    let spec = rig.spec("failing");
    let error =
        step("create, array on fire", async |call| provider.create_volume(call, &spec).await).await.unwrap_err();
    rig.fault(&json!({}));
    assert!(matches!(error.kind(), Kind::Exhausted | Kind::Internal), "{error}");
    let volume = step("create, fire out", async |call| provider.create_volume(call, &spec).await).await.unwrap();

    rig.fault(&json!({"create_snapshot": {"error": "array on fire"}}));
    let snapshots = provider.snapshots().unwrap();
    let taken = SnapshotSpec {
        name: format!("{}-failing", rig.run),
        source: volume.id.clone(),
        parameters: StringMap::new(),
        topology: None,
        secrets: Secrets::new(),
    };
    assert_eq!(
        kind_of(step("snapshot, array on fire", async |call| snapshots.create_snapshot(call, &taken).await).await),
        Kind::Internal
    );
    rig.fault(&json!({}));
    let snapshot =
        step("snapshot, fire out", async |call| snapshots.create_snapshot(call, &taken).await).await.unwrap();
    snapshots.delete_snapshot(&call(), &snapshot.id).await.unwrap();

    let huge =
        VolumeSpec { size: SizeRange { required: Bytes::from_gib(100_000).unwrap(), limit: None }, ..rig.spec("huge") };
    assert_eq!(
        kind_of(step("create too much", async |call| provider.create_volume(call, &huge).await).await),
        Kind::Exhausted
    );
    let mut typed = rig.spec("typed");
    typed.parameters.insert("type".to_owned(), "no-such-type".to_owned());
    assert_eq!(
        kind_of(step("unknown type", async |call| provider.create_volume(call, &typed).await).await),
        Kind::InvalidArgument
    );
    let mut zoned = rig.spec("zoned");
    zoned.parameters.insert("availability".to_owned(), "no-such-zone".to_owned());
    assert_eq!(
        kind_of(step("unknown zone", async |call| provider.create_volume(call, &zoned).await).await),
        Kind::InvalidArgument
    );
    let shared = VolumeSpec { capabilities: vec![block(AccessMode::MultiNodeMultiWriter)], ..rig.spec("shared") };
    assert_eq!(
        kind_of(step("not shareable", async |call| provider.create_volume(call, &shared).await).await),
        Kind::InvalidArgument
    );
    let nobody: NodeId = "11111111-2222-4333-8444-555555555555".parse().unwrap();
    assert_eq!(
        kind_of(
            step("publish to nobody", async |call| provider.publish(call, &volume.id, &nobody, &single(), false).await)
                .await
        ),
        Kind::NotFound
    );
    step("unpublish from nobody", async |call| provider.unpublish(call, &volume.id, Some(&nobody)).await)
        .await
        .unwrap();
    provider.delete_volume(&call(), &volume.id).await.unwrap();
    rig.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a running OpenStack"]
async fn many_at_once() {
    let rig = rig();
    let provider = &rig.provider;
    let (a, b) = (rig.server().await, rig.server().await);

    let twins: Vec<_> = (0..20)
        .map(|_| {
            let (provider, spec) = (Arc::clone(provider), rig.spec("twin"));
            tokio::spawn(async move { provider.create_volume(&call(), &spec).await })
        })
        .collect();
    let mut ids = Vec::new();
    for twin in twins {
        match twin.await.unwrap() {
            Ok(volume) => ids.push(volume.id),
            Err(error) => println!("twin: {error}"),
        }
    }
    let found = provider.create_volume(&call(), &rig.spec("twin")).await.unwrap();
    println!(
        "twins: {} answers, {} different from the one that stays",
        ids.len(),
        ids.iter().filter(|id| **id != found.id).count()
    );
    provider.delete_volume(&call(), &found.id).await.unwrap();

    let started = Instant::now();
    let lives: Vec<_> = (0..12)
        .map(|n| {
            let (provider, spec) = (Arc::clone(provider), rig.spec(&format!("many{n}")));
            let node = if n % 2 == 0 { a.clone() } else { b.clone() };
            tokio::spawn(async move {
                let mut calls = Vec::new();
                let call = call();
                let volume = provider.create_volume(&call, &spec).await.unwrap();
                calls.push(call.openstack_calls());
                let next = self::call();
                provider.publish(&next, &volume.id, &node, &single(), false).await.unwrap();
                calls.push(next.openstack_calls());
                let next = self::call();
                provider.unpublish(&next, &volume.id, Some(&node)).await.unwrap();
                calls.push(next.openstack_calls());
                let next = self::call();
                provider.delete_volume(&next, &volume.id).await.unwrap();
                calls.push(next.openstack_calls());
                calls
            })
        })
        .collect();
    for life in lives {
        println!("calls of create, publish, unpublish, delete: {:?}", life.await.unwrap());
    }
    println!("12 lives at once: {} ms", started.elapsed().as_millis());

    let origin = provider.create_volume(&call(), &rig.spec("origin")).await.unwrap();
    let taking: Vec<_> = (0..12)
        .map(|n| {
            let kind = if n % 3 == 0 { "backup" } else { "snapshot" };
            let spec = SnapshotSpec {
                name: format!("{}-many{n}", rig.run),
                source: origin.id.clone(),
                parameters: StringMap::from([("type".to_owned(), kind.to_owned())]),
                topology: None,
                secrets: Secrets::new(),
            };
            let provider = Arc::clone(provider);
            tokio::spawn(async move {
                let taking = call();
                let snapshots = provider.snapshots().unwrap();
                let mut taken = snapshots.create_snapshot(&taking, &spec).await.unwrap();
                while !taken.ready {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    taken = snapshots.snapshot(&call(), &taken.id).await.unwrap();
                }
                let deleting = call();
                snapshots.delete_snapshot(&deleting, &taken.id).await.unwrap();
                (kind, taking.openstack_calls(), deleting.openstack_calls())
            })
        })
        .collect();
    for taking in taking {
        println!("calls of take and delete: {:?}", taking.await.unwrap());
    }
    provider.delete_volume(&call(), &origin.id).await.unwrap();

    let shared = VolumeSpec {
        capabilities: vec![block(AccessMode::MultiNodeMultiWriter)],
        parameters: StringMap::from([("type".to_owned(), "multi".to_owned())]),
        ..rig.spec("shared")
    };
    let volume = provider.create_volume(&call(), &shared).await.unwrap();
    let publishing: Vec<_> = [a.clone(), b.clone()]
        .into_iter()
        .map(|node| {
            let (provider, id) = (Arc::clone(provider), volume.id.clone());
            tokio::spawn(async move {
                provider.publish(&call(), &id, &node, &block(AccessMode::MultiNodeMultiWriter), false).await
            })
        })
        .collect();
    for publishing in publishing {
        publishing.await.unwrap().unwrap();
    }
    assert_eq!(provider.volume(&call(), &volume.id).await.unwrap().published.len(), 2);
    rig.remove_server(&a).await;
    step("unpublish from a deleted server", async |call| provider.unpublish(call, &volume.id, Some(&a)).await)
        .await
        .unwrap();
    step("unpublish everywhere", async |call| provider.unpublish(call, &volume.id, None).await).await.unwrap();
    step("delete", async |call| provider.delete_volume(call, &volume.id).await).await.unwrap();
    rig.remove_server(&b).await;
    rig.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a running OpenStack"]
async fn what_is_begun_is_gone_on_with() {
    let rig = rig();
    let provider = &rig.provider;
    let server = rig.server().await;
    rig.fault(&json!({"create_volume": {"delay": 3}, "delete_volume": {"delay": 2}, "create_snapshot": {"delay": 3},
        "backup": {"delay": 3}}));
    let spec = rig.spec("slow");
    let short = |time| Call::lasting(Duration::from_millis(time));
    assert_eq!(kind_of(provider.create_volume(&short(800), &spec).await), Kind::Deadline);
    // Another replica goes on with it, and so does the first.
    let other = replica(&rig.run);
    let volume = step("resume create", async |call| other.provider.create_volume(call, &spec).await).await.unwrap();
    assert_eq!(provider.create_volume(&call(), &spec).await.unwrap().id, volume.id);

    let slow = rig.spec("slow-publish");
    assert_eq!(kind_of(provider.create_volume(&short(800), &slow).await), Kind::Deadline);
    let listed = provider.volumes(&call(), &PageRequest::default()).await.unwrap();
    let creating = listed.items.iter().map(|item| item.volume.id.clone()).find(|id| *id != volume.id).unwrap();
    step("publish while creating", async |call| provider.publish(call, &creating, &server, &single(), false).await)
        .await
        .unwrap();
    assert_eq!(kind_of(provider.unpublish(&short(100), &creating, Some(&server)).await), Kind::Deadline);
    step("resume unpublish", async |call| other.provider.unpublish(call, &creating, Some(&server)).await)
        .await
        .unwrap();
    step("publish once more", async |call| provider.publish(call, &creating, &server, &single(), false).await)
        .await
        .unwrap();
    step("unpublish", async |call| provider.unpublish(call, &creating, Some(&server)).await).await.unwrap();
    assert_eq!(kind_of(provider.delete_volume(&short(500), &creating).await), Kind::Deadline);
    step("resume delete", async |call| other.provider.delete_volume(call, &creating).await).await.unwrap();

    let gone = rig.spec("slow-delete");
    assert_eq!(kind_of(provider.create_volume(&short(800), &gone).await), Kind::Deadline);
    let listed = provider.volumes(&call(), &PageRequest::default()).await.unwrap();
    let creating = listed.items.iter().map(|item| item.volume.id.clone()).find(|id| *id != volume.id).unwrap();
    step("delete while creating", async |call| provider.delete_volume(call, &creating).await).await.unwrap();

    let snapshots = provider.snapshots().unwrap();
    let mut taken = SnapshotSpec {
        name: format!("{}-slow", rig.run),
        source: volume.id.clone(),
        parameters: StringMap::new(),
        topology: None,
        secrets: Secrets::new(),
    };
    let begun = step("snapshot, slow", async |call| snapshots.create_snapshot(call, &taken).await).await.unwrap();
    assert!(!begun.ready);
    step("delete snapshot while creating", async |call| snapshots.delete_snapshot(call, &begun.id).await)
        .await
        .unwrap();

    taken.parameters.insert("type".to_owned(), "backup".to_owned());
    assert_eq!(kind_of(snapshots.create_snapshot(&short(1000), &taken).await), Kind::Deadline);
    let others = other.provider.snapshots().unwrap();
    let begun = step("resume backup", async |call| others.create_snapshot(call, &taken).await).await.unwrap();
    assert!(!begun.ready);
    let filter = SnapshotFilter { id: Some(begun.id.clone()), source: None };
    let mut looks = 0;
    loop {
        let listed = snapshots.snapshots(&call(), &filter, &PageRequest::default()).await.unwrap();
        assert_eq!(listed.items.len(), 1);
        if listed.items[0].ready {
            break;
        }
        looks += 1;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    println!("backup ready after {looks} looks");
    let raw: Value = rig.cinder.get(&call(), Route::new("/snapshots")).await.unwrap();
    assert_eq!(raw["snapshots"], json!([]), "the temporary snapshot is removed by whoever sees the backup finished");
    step("delete backup", async |call| snapshots.delete_snapshot(call, &begun.id).await).await.unwrap();

    // A temporary snapshot of a backup that nobody asks for any more does not keep the volume.
    taken.name.push_str("-abandoned");
    assert_eq!(kind_of(snapshots.create_snapshot(&short(1000), &taken).await), Kind::Deadline);
    step("delete with a leftover", async |call| provider.delete_volume(call, &volume.id).await).await.unwrap();
    rig.fault(&json!({}));
    rig.remove_server(&server).await;
    rig.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a running OpenStack"]
async fn stuck_states_have_exits() {
    let rig = rig();
    let provider = &rig.provider;
    let (a, b) = (rig.server().await, rig.server().await);
    let volume = provider.create_volume(&call(), &rig.spec("stuck")).await.unwrap();
    let publish = async |what: &str, node: &NodeId| {
        step(what, async |call| provider.publish(call, &volume.id, node, &single(), false).await).await
    };

    rig.fault_in("nova", &json!({"attach_volume": {"error": "no slot", "count": 1}}));
    assert_eq!(kind_of(publish("publish, hypervisor refuses", &a).await), Kind::Internal);
    publish("publish again", &a).await.unwrap();
    rig.fault_in("nova", &json!({"detach_volume": {"error": "guest is busy", "count": 1}}));
    step("unpublish, guest is busy once", async |call| provider.unpublish(call, &volume.id, Some(&a)).await)
        .await
        .unwrap();
    rig.fault_in("nova", &json!({}));

    // Reserved for a server that never got it: by an attempt that broke off.
    let reserve = async |server: &str| {
        let body = json!({"attachment": {"volume_uuid": volume.id.as_str(), "instance_uuid": server}});
        let route = Route::new("/attachments").microversion(Microversion(3, 27));
        let _: Value = rig.cinder.post(&call(), route, &body).await.unwrap();
    };
    reserve(a.as_str()).await;
    publish("publish what is reserved for us", &a).await.unwrap();
    step("unpublish", async |call| provider.unpublish(call, &volume.id, Some(&a)).await).await.unwrap();
    reserve(a.as_str()).await;
    step("unpublish what is only reserved", async |call| provider.unpublish(call, &volume.id, Some(&a)).await)
        .await
        .unwrap();
    publish("publish on the next", &b).await.unwrap();
    step("unpublish", async |call| provider.unpublish(call, &volume.id, Some(&b)).await).await.unwrap();
    reserve(a.as_str()).await;
    // It may be a server that is being built with it: not ours to judge before it is stuck.
    assert_eq!(kind_of(publish("publish what is reserved elsewhere", &b).await), Kind::WrongState);
    step("unpublish everywhere", async |call| provider.unpublish(call, &volume.id, None).await).await.unwrap();

    publish("publish", &a).await.unwrap();
    rig.remove_server(&a).await;
    publish("publish after its server was deleted", &b).await.unwrap();
    step("unpublish", async |call| provider.unpublish(call, &volume.id, Some(&b)).await).await.unwrap();
    step("delete", async |call| provider.delete_volume(call, &volume.id).await).await.unwrap();
    rig.remove_server(&b).await;
    rig.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a running OpenStack"]
async fn two_replicas_make_one_volume() {
    let rig = rig();
    let other = replica(&rig.run);
    for round in 0..5 {
        let name = format!("race{round}");
        let making: Vec<_> = (0..6)
            .map(|n| {
                let maker = if n % 2 == 0 { &rig } else { &other };
                let (provider, spec) = (Arc::clone(&maker.provider), rig.spec(&name));
                tokio::spawn(async move { provider.create_volume(&call(), &spec).await })
            })
            .collect();
        let mut ids = Vec::new();
        for making in making {
            match making.await.unwrap() {
                Ok(volume) => ids.push(volume.id),
                Err(error) => println!("a racer: {error}"),
            }
        }
        ids.dedup();
        let raw: Value = rig.cinder.get(&call(), Route::new("/volumes")).await.unwrap();
        println!("race {round}: {} ids, {} volumes", ids.len(), raw["volumes"].as_array().unwrap().len());
        let found = rig.provider.create_volume(&call(), &rig.spec(&name)).await.unwrap();
        assert_eq!(ids, std::slice::from_ref(&found.id));
        rig.provider.delete_volume(&call(), &found.id).await.unwrap();
        rig.nothing_is_left().await;
    }
}
