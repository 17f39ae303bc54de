//! How many OpenStack calls each thing costs.

use crate::driver::Driver;
use crate::proto;
use crate::sidecar::Sidecar;
use crate::standin::Standin;
use crate::standin::cloud::{Outcome, Pace, Step};
use std::time::Duration;

async fn ready() -> (Standin, Driver, Sidecar, String) {
    let standin = Standin::start();
    let driver = Driver::start(&standin).await;
    let sidecar = Sidecar::new(&driver);
    let node = standin.cloud(|cloud| cloud.first_server());
    (standin, driver, sidecar, node)
}

/// Checks the calls since the log was cleared, and clears it.
fn at_most(standin: &Standin, most: usize, what: &str) {
    let calls = standin.calls();
    println!("{what}: {} calls", calls.len());
    assert!(calls.len() <= most, "{what} made {} calls, not {most}: {calls:#?}", calls.len());
    assert!(!calls.is_empty(), "{what} made no call at all");
    standin.clear_log();
}

#[tokio::test]
async fn each_rpc_alone_makes_no_more_calls_than_it_needs() {
    let (standin, _driver, sidecar, node) = ready().await;
    standin.clear_log();
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    at_most(&standin, 3, "create: look up, make, look");
    sidecar.create("pvc", 1).await.unwrap();
    at_most(&standin, 1, "create what is there: look up");
    sidecar.publish(&volume, &node).await.unwrap();
    at_most(&standin, 2, "publish: attach, look");
    sidecar.publish(&volume, &node).await.unwrap();
    at_most(&standin, 1, "publish what was published just now: look");
    sidecar.expand(&volume, 2).await.unwrap();
    at_most(&standin, 2, "expand: extend, look");
    sidecar.expand(&volume, 2).await.unwrap();
    at_most(&standin, 2, "expand what is large enough: try, look");
    sidecar.unpublish(&volume, &node).await.unwrap();
    at_most(&standin, 4, "unpublish: detach, look at Cinder, look at Nova");
    sidecar.unpublish(&volume, &node).await.unwrap();
    at_most(&standin, 2, "unpublish what is not published: try, look");
    let snapshot = sidecar.snapshot("snapshot", &volume, false).await.unwrap();
    assert!(snapshot.ready_to_use);
    at_most(&standin, 4, "snapshot: look up, look at the volume, make, look");
    let backup = sidecar.ready_snapshot("backup", &volume, true).await.unwrap();
    at_most(&standin, 12, "backup: look up, snapshot, look, backup, look, remove the snapshot");
    sidecar.delete_snapshot(&snapshot.snapshot_id).await.unwrap();
    at_most(&standin, 2, "delete snapshot: delete, look");
    sidecar.delete_snapshot(&backup.snapshot_id).await.unwrap();
    at_most(&standin, 4, "delete backup: look, delete, look, look for its snapshot");
    sidecar.list(0, "").await.unwrap();
    at_most(&standin, 1, "list: one page");
    sidecar.list_snapshots(proto::ListSnapshotsRequest::default()).await.unwrap();
    at_most(&standin, 2, "list snapshots: one page each");
    sidecar.get(&volume).await.unwrap();
    at_most(&standin, 1, "get: look");
    sidecar.delete(&volume).await.unwrap();
    at_most(&standin, 2, "delete: delete, look");
    sidecar.delete(&volume).await.unwrap();
    at_most(&standin, 1, "delete what is gone: try");
}

#[tokio::test]
async fn a_hundred_volumes_at_once_share_their_looks() {
    let (standin, _driver, sidecar, node) = ready().await;
    standin.cloud(|cloud| {
        cloud.servers[0].room = 1000;
        (cloud.paces.create, cloud.paces.attach) = (Pace::millis(800), Pace::millis(800));
    });
    // What is usual is learned first.
    sidecar.create("warm", 1).await.unwrap();
    standin.clear_log();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..100 {
        let (sidecar, node) = (sidecar.clone(), node.clone());
        calls.spawn(async move {
            let volume = sidecar.create(&format!("pvc-{number}"), 1).await?.volume_id;
            sidecar.publish(&volume, &node).await
        });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap().unwrap();
    }
    // Some 305 where nothing else runs; looks that come late on a busy machine are more.
    at_most(&standin, 500, "a hundred volumes made and published");
}

#[tokio::test]
async fn an_idle_driver_and_its_probes_make_no_call() {
    let (standin, driver, sidecar, node) = ready().await;
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    sidecar.publish(&volume, &node).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    standin.clear_log();
    let mut identity = driver.identity();
    for _ in 0..50 {
        let answer = identity.probe(proto::ProbeRequest {}).await.unwrap().into_inner();
        assert_ne!(answer.ready, Some(false));
        identity.get_plugin_capabilities(proto::GetPluginCapabilitiesRequest {}).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(standin.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn a_probe_does_not_notice_that_the_cloud_is_away() {
    let (standin, driver, sidecar, _) = ready().await;
    sidecar.create("pvc", 1).await.unwrap();
    drop(standin);
    let answer = driver.identity().probe(proto::ProbeRequest {}).await.unwrap().into_inner();
    assert_ne!(answer.ready, Some(false), "an outage of the cloud would restart the pod");
}

#[tokio::test]
async fn looks_end_with_the_call_that_waits_for_them() {
    let (standin, _driver, sidecar, _) = ready().await;
    standin.cloud(|cloud| cloud.plan(Step::CreateVolume, Outcome::Stuck));
    sidecar.with_deadline(Duration::from_millis(1500)).create("pvc", 1).await.unwrap_err();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    standin.clear_log();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(standin.calls(), Vec::<String>::new(), "somebody still looks, and nobody waits");
}

#[tokio::test]
async fn requests_name_the_driver_and_a_microversion_that_the_service_has() {
    let (standin, _driver, sidecar, node) = ready().await;
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    sidecar.publish(&volume, &node).await.unwrap();
    let log = standin.log();
    assert!(log.len() > 4);
    for logged in &log {
        let agent = logged.user_agent.clone().unwrap_or_default();
        assert!(agent.starts_with("fuxi-csi/"), "{} has user agent {agent:?}", logged.line);
        assert_ne!(logged.status, Some(406), "{}", logged.line);
    }
}
