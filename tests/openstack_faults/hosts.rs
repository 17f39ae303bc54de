//! Volumes at hosts that Nova does not know.

use crate::driver::{Driver, Setup};
use crate::proto;
use crate::proto::volume_capability::access_mode::Mode;
use crate::sidecar::{Sidecar, capability, create_request, mounted};
use crate::standin::Standin;
use crate::standin::cloud::{Attachment, Cloud};
use crate::standin::fault::{Action, Gate, Rule};
use fuxi_csi::initiator::Initiator;
use fuxi_csi::model::{Connection, VolumeId};
use fuxi_csi::seal::{Binding, PrivateKey, open};
use secrecy::ExposeSecret;
use serde_json::json;
use std::collections::HashMap;
use std::time::Duration;
use tonic::Code;

/// A host, with its key.
pub(crate) struct Host {
    key: PrivateKey,
    pub(crate) facts: Initiator,
}

impl Host {
    pub(crate) fn id(&self) -> String {
        self.facts.pack().unwrap().into()
    }
}

/// A host of this name. Its key is the name's: the same each time.
pub(crate) fn host(name: &str) -> Host {
    use base64::Engine as _;
    let mut seed = [7_u8; 32];
    seed[..name.len()].copy_from_slice(name.as_bytes());
    let key = PrivateKey::from_text(&base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(seed)).unwrap();
    let facts = Initiator {
        public_key: key.public(),
        host: name.to_owned(),
        ip: Some("10.0.0.7".parse().unwrap()),
        iqn: Some(format!("iqn.1993-08.org.debian:01:{name}")),
        nqn: None,
        nvme_host_id: None,
        wwpns: Vec::new(),
        wwnns: Vec::new(),
        multipath: false,
        system_uuid: None,
    };
    Host { key, facts }
}

pub(crate) async fn ready_with(setup: Setup) -> (Standin, Driver, Sidecar) {
    let standin = Standin::start();
    let driver = Driver::start_with(&standin, setup).await;
    let sidecar = Sidecar::new(&driver);
    (standin, driver, sidecar)
}

async fn ready() -> (Standin, Driver, Sidecar) {
    ready_with(Setup::default()).await
}

/// A volume that several nodes may have.
pub(crate) async fn shareable(sidecar: &Sidecar, name: &str) -> String {
    let mut request = create_request(name, 1);
    request.parameters.insert("type".to_owned(), "multi".to_owned());
    request.volume_capabilities = vec![shared()];
    sidecar.create_as(request).await.unwrap().volume_id
}

pub(crate) fn shared() -> proto::VolumeCapability {
    capability(Mode::MultiNodeMultiWriter, true)
}

fn connection(context: HashMap<String, String>) -> Connection {
    Connection::from_context(&context.into_iter().collect()).unwrap()
}

pub(crate) fn attachments(standin: &Standin) -> Vec<Attachment> {
    standin.cloud(|cloud| cloud.attachments.clone())
}

pub(crate) fn status(standin: &Standin, volume: &str) -> String {
    standin.cloud(|cloud| cloud.volume(volume).unwrap().status.clone())
}

/// An attachment as somebody else makes it.
fn foreign(cloud: &mut Cloud, volume: &str, device: &str, status: &str) -> String {
    let id = cloud.reserve(volume, "", device);
    let attachment = cloud.attachments.iter_mut().find(|attachment| attachment.id == id).unwrap();
    attachment.server = None;
    cloud.set_attachment(&id, status);
    id
}

#[tokio::test]
async fn a_volume_comes_to_a_host_in_two_calls_and_goes_in_two() {
    let (standin, _driver, sidecar) = ready().await;
    let host = host("rack-1");
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    standin.clear_log();
    let connection = connection(sidecar.publish(&volume, &host.id()).await.unwrap());
    assert_eq!(standin.calls(), ["POST cinder /attachments", "POST cinder /attachments/{}/action os-complete"]);
    assert_eq!(connection.kind, "local");
    assert_eq!(connection.data, json!({"device_path": "/dev/loop0", "enforce_multipath": false}));
    assert_eq!(connection.size.unwrap().gib_ceil(), 1);
    let made = attachments(&standin);
    assert_eq!((made.len(), made[0].status.as_str(), made[0].mode.as_str()), (1, "attached", "rw"));
    assert_eq!(made[0].device, format!("csi:test:{}", host.id()));
    assert_eq!(made[0].server, None);

    standin.clear_log();
    sidecar.unpublish(&volume, &host.id()).await.unwrap();
    assert_eq!(standin.calls(), ["GET cinder /volumes/{}", "DELETE cinder /attachments/{}"]);
    assert_eq!((attachments(&standin).len(), status(&standin, &volume).as_str()), (0, "available"));
    standin.clear_log();
    sidecar.unpublish(&volume, &host.id()).await.unwrap();
    assert_eq!(standin.calls().len(), 1, "a look");
}

#[tokio::test]
async fn a_hundred_volumes_come_to_hosts_in_two_calls_each() {
    let (standin, _driver, sidecar) = ready().await;
    let mut volumes = Vec::new();
    for number in 0..100 {
        volumes.push(sidecar.create(&format!("pvc-{number}"), 1).await.unwrap().volume_id);
    }
    standin.clear_log();
    let mut calls = tokio::task::JoinSet::new();
    for (number, volume) in volumes.into_iter().enumerate() {
        let (sidecar, node) = (sidecar.clone(), host(&format!("rack-{}", number % 10)).id());
        calls.spawn(async move { sidecar.publish(&volume, &node).await });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap().unwrap();
    }
    assert_eq!(standin.calls().len(), 200);
}

#[tokio::test]
async fn publishing_again_gives_the_same_and_makes_nothing() {
    let (standin, mut driver, sidecar) = ready().await;
    let host = host("rack-1");
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    let first = sidecar.publish(&volume, &host.id()).await.unwrap();
    assert_eq!(sidecar.publish(&volume, &host.id()).await.unwrap(), first);
    driver.restart(&standin).await;
    let sidecar = Sidecar::new(&driver);
    assert_eq!(sidecar.publish(&volume, &host.id()).await.unwrap(), first);
    assert_eq!(attachments(&standin).len(), 1);
}

#[tokio::test]
async fn secrets_reach_only_the_node_they_are_for() {
    let arguments = ["--log-level", "trace"].map(str::to_owned).to_vec();
    let (standin, driver, sidecar) = ready_with(Setup { arguments, ..Setup::default() }).await;
    standin.cloud(|cloud| {
        cloud.connection = json!({ "driver_volume_type": "iscsi", "target_portal": "10.0.0.1:3260",
            "target_iqn": "iqn.2010-10.org.openstack:volume-1", "target_lun": 1, "auth_method": "CHAP",
            "auth_username": "u1", "auth_password": "correct battery", "discovery_auth_method": "CHAP",
            "discovery_auth_username": "u2", "discovery_auth_password": "horse staple" });
    });
    let (host, neighbour) = (host("rack-1"), host("rack-2"));
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    let context = sidecar.publish(&volume, &host.id()).await.unwrap();
    let text = format!("{context:?}");
    assert!(!text.contains("battery") && !text.contains("staple"), "{text}");
    let connection = connection(context);
    assert_eq!(connection.data["auth_username"], "u1");
    let id: VolumeId = volume.parse().unwrap();
    let sealed = connection.sealed.unwrap();
    let binding = Binding { volume: &id, host: "rack-1" };
    let opened = open(std::slice::from_ref(&host.key), binding, &sealed).unwrap();
    assert_eq!(opened["auth_password"].expose_secret(), "correct battery");
    assert_eq!(opened["discovery_auth_password"].expose_secret(), "horse staple");
    assert!(open(&[neighbour.key], binding, &sealed).is_err());
    sidecar.publish(&volume, &neighbour.facts.pack().unwrap().to_string()).await.unwrap_err();
    driver.kill();
    let log = driver.log();
    assert!(log.len() > 1000);
    for secret in ["correct battery", "horse staple"] {
        assert!(!log.contains(secret), "a password is in the log: {:?}", log.lines().find(|it| it.contains(secret)));
    }
}

#[tokio::test]
async fn who_has_a_volume_is_told_and_who_has_it_keeps_it() {
    let (standin, _driver, sidecar) = ready().await;
    let server = standin.cloud(|cloud| cloud.first_server());
    let (one, two) = (host("rack-1").id(), host("rack-2").id());
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    for (holder, expected) in [("host", "host rack-1"), ("server", "server "), ("green", "green"), ("person", "/mnt")] {
        match holder {
            "host" => drop(sidecar.publish(&volume, &one).await.unwrap()),
            "server" => drop(sidecar.publish(&volume, &server).await.unwrap()),
            "green" => drop(standin.cloud(|cloud| foreign(cloud, &volume, &format!("csi:green:{one}"), "attached"))),
            _ => drop(standin.cloud(|cloud| foreign(cloud, &volume, "/mnt", "attached"))),
        }
        let before = attachments(&standin).len();
        let refused = sidecar.publish(&volume, &two).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{holder}: {refused}");
        assert!(refused.message().contains(expected), "{holder}: {refused}");
        // Neither this node nor all nodes of this cluster have what another one has.
        sidecar.unpublish(&volume, &two).await.unwrap();
        if matches!(holder, "green" | "person") {
            sidecar.unpublish(&volume, &one).await.unwrap();
            sidecar.unpublish(&volume, "").await.unwrap();
        }
        assert_eq!(attachments(&standin).len(), before, "{holder}");
        let listed = sidecar.list(0, "").await.unwrap().entries.remove(0).status.unwrap().published_node_ids;
        let expected = match holder {
            "host" => vec![one.clone()],
            "server" => vec![server.clone()],
            _ => Vec::new(),
        };
        assert_eq!(listed, expected, "{holder}");
        let node = if holder == "server" { &server } else { &one };
        sidecar.unpublish(&volume, node).await.unwrap();
        standin.cloud(|cloud| {
            let left: Vec<_> = cloud.attachments.iter().map(|attachment| attachment.id.clone()).collect();
            left.iter().for_each(|id| cloud.drop_attachment(id));
        });
    }
}

#[tokio::test]
async fn a_shared_volume_comes_to_many_hosts_and_to_no_second_one_that_was_promised_it_alone() {
    let (standin, _driver, sidecar) = ready().await;
    let volume = shareable(&sidecar, "pvc").await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..5 {
        let (sidecar, volume) = (sidecar.clone(), volume.clone());
        calls.spawn(async move { sidecar.publish_as(&volume, &host(&format!("rack-{number}")).id(), shared()).await });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap().unwrap();
    }
    assert_eq!(attachments(&standin).len(), 5);
    sidecar.publish_as(&volume, &host("rack-3").id(), shared()).await.unwrap();
    assert_eq!(attachments(&standin).len(), 5, "no second attachment to a host that has it");
    let alone = sidecar.publish(&volume, &host("rack-9").id()).await.unwrap_err();
    assert_eq!(alone.code(), Code::FailedPrecondition);
    sidecar.unpublish(&volume, &host("rack-3").id()).await.unwrap();
    let listed = sidecar.list(0, "").await.unwrap().entries.remove(0).status.unwrap().published_node_ids;
    assert_eq!(listed.len(), 4);
    sidecar.unpublish(&volume, "").await.unwrap();
    assert_eq!(attachments(&standin).len(), 0);
}

#[tokio::test]
async fn a_volume_that_is_only_read_is_attached_so_and_told_from_one_that_is_written() {
    let (standin, _driver, sidecar) = ready().await;
    let node = host("rack-1").id();
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    let reader = capability(Mode::SingleNodeReaderOnly, false);
    let context = sidecar.publish_as(&volume, &node, reader.clone()).await.unwrap();
    assert!(connection(context).read_only);
    assert_eq!(attachments(&standin)[0].mode, "ro");
    sidecar.publish_as(&volume, &node, reader).await.unwrap();
    let refused = sidecar.publish_as(&volume, &node, mounted()).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
}

#[tokio::test]
async fn what_others_are_attaching_is_left_alone_until_it_is_clear_that_they_are_gone() {
    let (standin, _driver, sidecar) = ready().await;
    let node = host("rack-1").id();
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    standin.cloud(|cloud| {
        // Not made by this cluster.
        let item = cloud.items.iter_mut().find(|item| item.id == volume).unwrap();
        item.metadata.clear();
        foreign(cloud, &volume, "/mnt", "attaching")
    });
    let refused = sidecar.publish(&volume, &node).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted, "{refused}");
    sidecar.unpublish(&volume, &node).await.unwrap();
    assert_eq!(attachments(&standin).len(), 1);
    standin.cloud(|cloud| cloud.age(&volume));
    sidecar.publish(&volume, &node).await.unwrap();
    let made = attachments(&standin);
    assert_eq!((made.len(), made[0].status.as_str()), (1, "attached"));
}

#[tokio::test]
async fn a_request_that_never_arrived_costs_nobody_else_their_attachment() {
    let (standin, _driver, sidecar) = ready().await;
    let node = host("rack-1").id();
    for action in [Action::Reset, Action::status(500)] {
        let volume = standin.cloud(|cloud| {
            let volume = cloud.add_volume("static");
            foreign(cloud, &volume, "/mnt", "attaching");
            volume
        });
        let strikes = standin.inject(Rule::on("POST cinder /attachments", action.clone()));
        sidecar.publish(&volume, &node).await.unwrap_err();
        assert_eq!(strikes.count(), 1, "{action:?}");
        let left = attachments(&standin).into_iter().filter(|attachment| attachment.volume == volume).count();
        assert_eq!(left, 1, "{action:?}: somebody else's attachment is gone");
    }
}

#[tokio::test]
async fn a_call_whose_time_ended_before_its_request_looks_for_nothing_that_it_left() {
    let (standin, _driver, sidecar) = ready().await;
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    let gate = Gate::default();
    standin.inject(Rule::on("POST cinder /attachments", Action::RevokeToken));
    let logins = standin.inject(Rule::on("POST keystone /auth/tokens", Action::Hold(gate.clone())));
    standin.clear_log();
    let late = sidecar.with_deadline(Duration::from_secs(1)).publish(&volume, &host("rack-1").id()).await.unwrap_err();
    assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late}");
    assert_eq!(logins.count(), 1, "{:#?}", standin.calls());
    gate.open();
    sidecar.list(1, "").await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(standin.count("GET cinder /volumes/{}"), 0, "{:#?}", standin.calls());
}

#[tokio::test]
async fn a_host_that_is_gone_or_has_another_key_is_detached_by_its_old_id_and_its_new_one() {
    let (standin, _driver, sidecar) = ready().await;
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    let old = host("rack-1");
    let mut facts = old.facts.clone();
    facts.public_key = PrivateKey::generate().public();
    let new: String = facts.pack().unwrap().into();
    sidecar.publish(&volume, &old.id()).await.unwrap();
    // The same host with a new key is told again, sealed to that key; nothing is attached anew.
    sidecar.publish(&volume, &new).await.unwrap();
    assert_eq!(attachments(&standin).len(), 1);
    sidecar.unpublish(&volume, &new).await.unwrap();
    assert_eq!(attachments(&standin).len(), 0);
    // With another initiator name it is another host to the storage: not used, but still found to be detached.
    sidecar.publish(&volume, &old.id()).await.unwrap();
    facts.iqn = Some("iqn.1993-08.org.debian:01:new".to_owned());
    let changed: String = facts.pack().unwrap().into();
    assert_eq!(sidecar.publish(&volume, &changed).await.unwrap_err().code(), Code::FailedPrecondition);
    sidecar.unpublish(&volume, &changed).await.unwrap();
    assert_eq!(attachments(&standin).len(), 0);
}

#[tokio::test]
async fn what_a_node_cannot_use_is_not_left_attached() {
    let (standin, _driver, sidecar) = ready().await;
    let node = host("rack-1").id();
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    for (connection, code) in [
        (json!({"driver_volume_type": "iscsi", "encrypted": true}), Code::Unimplemented),
        (json!({"driver_volume_type": "iscsi", "target_iqns": ["x".repeat(5000)]}), Code::Internal),
        (json!({"device_path": "/dev/loop0"}), Code::Internal),
    ] {
        standin.cloud(|cloud| cloud.connection = connection.clone());
        let refused = sidecar.publish(&volume, &node).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        assert_eq!((attachments(&standin).len(), status(&standin, &volume).as_str()), (0, "available"), "{connection}");
    }
}

#[tokio::test]
async fn a_back_end_that_fails_leaves_nothing_reserved() {
    let (standin, _driver, sidecar) = ready().await;
    let node = host("rack-1").id();
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    // As Cinder does it: the attachment is made, the driver fails, and nobody is told its id.
    standin.inject(Rule::on("POST cinder /attachments", Action::StatusAfter { status: 500 }));
    let refused = sidecar.publish(&volume, &node).await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal, "{refused}");
    assert_eq!((attachments(&standin).len(), status(&standin, &volume).as_str()), (0, "available"));
}

#[tokio::test]
async fn an_attachment_that_may_be_complete_is_left_to_whoever_looks_next() {
    let (standin, _driver, sidecar) = ready().await;
    let other = Driver::start(&standin).await;
    let replica = Sidecar::new(&other);
    let node = host("rack-1").id();
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    for action in [Action::LoseAnswer, Action::StatusAfter { status: 504 }] {
        standin.inject(Rule::on("POST cinder /attachments/{}/action os-complete", action.clone()));
        let lost = sidecar.publish(&volume, &node).await.unwrap_err();
        assert_eq!(lost.code(), Code::Unavailable, "{lost}");
        // By now another replica may have found it, and its node may use it.
        let made = attachments(&standin);
        assert_eq!((made.len(), made[0].status.as_str()), (1, "attached"), "{action:?}");
        replica.publish(&volume, &node).await.unwrap();
        assert_eq!(attachments(&standin)[0].id, made[0].id, "{action:?}");
        replica.unpublish(&volume, &node).await.unwrap();
        assert_eq!((attachments(&standin).len(), status(&standin, &volume).as_str()), (0, "available"));
    }
    // One that did not become complete was used by nobody, and is made again.
    standin.inject(Rule::on("POST cinder /attachments/{}/action os-complete", Action::Reset));
    sidecar.publish(&volume, &node).await.unwrap_err();
    sidecar.publish(&volume, &node).await.unwrap();
    assert_eq!(attachments(&standin).len(), 1);
    sidecar.unpublish(&volume, &node).await.unwrap();
    // Of a volume that somebody else made, no later call could tell whose it is.
    let foreign = standin.cloud(|cloud| cloud.add_volume("static"));
    standin.inject(Rule::on("POST cinder /attachments/{}/action os-complete", Action::Reset));
    sidecar.publish(&foreign, &node).await.unwrap_err();
    assert_eq!((attachments(&standin).len(), status(&standin, &foreign).as_str()), (0, "available"));
    standin.inject(Rule::on("POST cinder /attachments/{}/action os-complete", Action::LoseAnswer));
    sidecar.publish(&foreign, &node).await.unwrap_err();
    assert_eq!((attachments(&standin).len(), status(&standin, &foreign).as_str()), (1, "in-use"));
    replica.unpublish(&foreign, &node).await.unwrap();
    // One that Cinder refuses to complete is of no use, and does not stay.
    standin.inject(Rule::on("POST cinder /attachments/{}/action os-complete", Action::status(400)));
    sidecar.publish(&volume, &node).await.unwrap_err();
    assert_eq!((attachments(&standin).len(), status(&standin, &volume).as_str()), (0, "available"));
}

#[tokio::test]
async fn with_attach_host_there_need_be_no_nova_and_servers_are_refused() {
    let standin = Standin::start();
    let server = standin.cloud(|cloud| {
        cloud.hidden_services.insert("compute".to_owned());
        cloud.first_server()
    });
    let arguments = ["--attach", "host"].map(str::to_owned).to_vec();
    let driver = Driver::start_with(&standin, Setup { arguments, ..Setup::default() }).await;
    let sidecar = Sidecar::new(&driver);
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    sidecar.publish(&volume, &host("rack-1").id()).await.unwrap();
    sidecar.unpublish(&volume, "").await.unwrap();
    let refused = sidecar.publish(&volume, &server).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    sidecar.delete(&volume).await.unwrap();
    assert_eq!(standin.cloud(|cloud| cloud.inventory()), Vec::<String>::new());
}

#[tokio::test]
async fn a_cinder_that_is_too_old_is_named() {
    let standin = Standin::start();
    standin.cloud(|cloud| cloud.cinder_highest = (3, 43));
    let driver = Driver::start_with(&standin, Setup::default()).await;
    let sidecar = Sidecar::new(&driver);
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    let refused = sidecar.publish(&volume, &host("rack-1").id()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(refused.message().contains("3.44"), "{refused}");
    standin.cloud(|cloud| cloud.cinder_highest = (3, 50));
}

#[tokio::test]
async fn a_node_that_cannot_be_is_not_found_and_nothing_is_on_it() {
    let (standin, _driver, sidecar) = ready().await;
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    standin.clear_log();
    let id = host("rack-1").id();
    for node in ["nobody", &id[1..], &format!("{id}AA")] {
        assert_eq!(sidecar.publish(&volume, node).await.unwrap_err().code(), Code::NotFound, "{node}");
        sidecar.unpublish(&volume, node).await.unwrap();
    }
    assert_eq!(attachments(&standin).len(), 0);
}
