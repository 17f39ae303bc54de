//! Shares of Manila: who is let in, what RPCs cost, and what refusals come to. `manila_matrix` has the faults.

use crate::driver::{Driver, Setup};
use crate::proto;
use crate::sidecar::{Sidecar, create_request, from_snapshot};
use crate::standin::Standin;
use fuxi_csi::initiator::Initiator;
use fuxi_csi::seal::PrivateKey;
use serde_json::json;
use tonic::Code;

pub(crate) fn setup() -> Setup {
    Setup { provider: Some("manila"), ..Setup::default() }
}

/// A node that mounts shares from this address.
pub(crate) fn node(number: u8) -> String {
    node_of(&format!("node-{number}"), number)
}

/// The id of this host at this address, with a key that it has just made.
pub(crate) fn node_of(host: &str, address: u8) -> String {
    let facts = Initiator {
        public_key: PrivateKey::generate().public(),
        host: host.to_owned(),
        ip: Some([10, 0, 0, address].into()),
        iqn: None,
        nqn: None,
        nvme_host_id: None,
        wwpns: Vec::new(),
        wwnns: Vec::new(),
        multipath: false,
        system_uuid: None,
    };
    facts.pack().unwrap().to_string()
}

#[tokio::test]
async fn rules_open_a_share_to_one_node_each_and_only_ours_are_revoked() {
    let standin = Standin::start();
    let driver = Driver::start_with(&standin, setup()).await;
    let sidecar = Sidecar::new(&driver);
    let share = sidecar.create("pvc-1", 1).await.unwrap();
    let (one, two) = (node(1), node(2));
    let who = |standin: &Standin| {
        standin.cloud(|cloud| cloud.manila.rules.iter().map(|rule| rule.to.clone()).collect::<Vec<_>>())
    };
    assert!(who(&standin).is_empty(), "a new share lets nobody in");
    let context = sidecar.publish(&share.volume_id, &one).await.unwrap();
    assert_eq!(context.get("kind").map(String::as_str), Some("nfs"));
    assert!(context["data"].contains(&share.volume_id), "{context:?}");
    assert_eq!(sidecar.publish(&share.volume_id, &one).await.unwrap(), context, "the same again");
    sidecar.publish(&share.volume_id, &two).await.unwrap();
    assert_eq!(who(&standin), ["10.0.0.1", "10.0.0.2"]);
    let published = sidecar.get(&share.volume_id).await.unwrap().status.unwrap().published_node_ids;
    assert_eq!(published.len(), 2);
    assert!(published.contains(&one) && published.contains(&two));
    sidecar.unpublish(&share.volume_id, &one).await.unwrap();
    sidecar.unpublish(&share.volume_id, &one).await.unwrap();
    assert_eq!(who(&standin), ["10.0.0.2"]);
    sidecar.unpublish(&share.volume_id, "").await.unwrap();
    sidecar.delete(&share.volume_id).await.unwrap();
    assert!(standin.cloud(|cloud| cloud.manila.shares.is_empty() && cloud.manila.rules.is_empty()));
}

#[tokio::test]
async fn what_the_rpcs_cost_alone() {
    let standin = Standin::start();
    let driver = Driver::start_with(&standin, setup()).await;
    let sidecar = Sidecar::new(&driver);
    let node = node(1);
    // Logs in, and learns what the service speaks.
    sidecar.list(1, "").await.unwrap();
    let count = || {
        let count = standin.count("*manila*");
        standin.clear_log();
        count
    };
    count();
    let share = sidecar.create("pvc-1", 1).await.unwrap();
    assert!(count() <= 4, "create");
    sidecar.publish(&share.volume_id, &node).await.unwrap();
    assert!(count() <= 5, "publish");
    assert_eq!(sidecar.expand(&share.volume_id, 2).await.unwrap(), 2 << 30);
    assert!(count() <= 3, "expand");
    let snapshot = sidecar.snapshot("snapshot-1", &share.volume_id, false).await.unwrap();
    assert!(count() <= 3, "snapshot");
    let request = proto::CreateVolumeRequest {
        volume_content_source: from_snapshot(&snapshot.snapshot_id),
        ..create_request("pvc-2", 2)
    };
    let restored = sidecar.create_as(request).await.unwrap();
    assert!(count() <= 4, "restore");
    sidecar.delete(&restored.volume_id).await.unwrap();
    assert!(count() <= 3, "delete");
    let error = sidecar.delete(&share.volume_id).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    assert!(error.message().contains(&snapshot.snapshot_id), "{error}");
}

/// What a publication costs, and the path that it leads to.
async fn published(standin: &Standin, sidecar: &Sidecar, share: &str, node: &str) -> (usize, String) {
    standin.clear_log();
    let context = sidecar.publish(share, node).await.unwrap();
    (standin.count("*manila*"), context["data"].clone())
}

#[tokio::test]
async fn a_share_is_published_from_the_export_that_users_should_take() {
    let standin = Standin::start();
    let driver = Driver::start_with(&standin, setup()).await;
    let sidecar = Sidecar::new(&driver);
    let share = sidecar.create("pvc-1", 1).await.unwrap().volume_id;
    let one = json!({"path": "10.0.0.9:/one", "preferred": false, "is_admin_only": false});
    let better = json!({"path": "10.0.0.8:/better", "preferred": true, "is_admin_only": false});
    let for_admins = json!({"path": "10.0.0.7:/admin", "preferred": true, "is_admin_only": true});
    for (number, exports, expected) in
        [(1, vec![one.clone()], "/one"), (2, vec![one.clone(), better], "/better"), (3, vec![for_admins, one], "/one")]
    {
        standin.cloud(|cloud| cloud.manila.exports = Some(exports));
        let node = node(number);
        let (cost, data) = published(&standin, &sidecar, &share, &node).await;
        assert!(data.contains(expected), "{data}");
        assert!(cost <= 4, "{cost} requests: {:#?}", standin.calls());
        // The rule is there, and in force.
        let (cost, again) = published(&standin, &sidecar, &share, &node).await;
        assert_eq!(again, data);
        assert!(cost <= 4, "{cost} requests: {:#?}", standin.calls());
    }
}

#[tokio::test]
async fn a_service_that_no_longer_shows_exports_with_the_share_is_asked_for_them() {
    let standin = Standin::start();
    standin.cloud(|cloud| {
        cloud.manila_lowest = (2, 40);
        cloud.manila.exports = Some(vec![json!({"path": "10.0.0.9:/one"})]);
    });
    let driver = Driver::start_with(&standin, setup()).await;
    let sidecar = Sidecar::new(&driver);
    let share = sidecar.create("pvc-1", 1).await.unwrap().volume_id;
    let (cost, data) = published(&standin, &sidecar, &share, &node(1)).await;
    assert!(data.contains("/one"), "{data}");
    assert!(cost <= 5, "{cost} requests: {:#?}", standin.calls());
}

#[tokio::test]
async fn a_hundred_publications_at_once_cost_little_more_than_three_requests_each() {
    const SHARES: usize = 100;
    let standin = Standin::start();
    standin.cloud(|cloud| cloud.manila.exports = Some(vec![json!({"path": "10.0.0.9:/one"})]));
    let driver = Driver::start_with(&standin, setup()).await;
    let sidecar = Sidecar::new(&driver);
    let shares: Vec<_> = standin.cloud(|cloud| {
        let now = cloud.stamp();
        (0..SHARES).map(|number| cloud.manila.add_share(&format!("share-{number}"), now)).collect()
    });
    sidecar.list(1, "").await.unwrap();
    standin.clear_log();
    let mut calls = tokio::task::JoinSet::new();
    for share in shares {
        let sidecar = sidecar.clone();
        calls.spawn(async move { sidecar.publish(&share, &node(1)).await });
    }
    while let Some(published) = calls.join_next().await {
        published.unwrap().unwrap();
    }
    let cost = standin.count("*manila*");
    assert!(cost <= SHARES * 7 / 2, "{cost} requests for {SHARES}");
    assert_eq!(standin.cloud(|cloud| cloud.manila.rules.len()), SHARES);
}

#[tokio::test]
async fn a_rule_that_the_back_end_refuses_is_an_error_and_does_not_stay() {
    let standin = Standin::start();
    let driver = Driver::start_with(&standin, setup()).await;
    let sidecar = Sidecar::new(&driver);
    let share = sidecar.create("pvc-1", 1).await.unwrap();
    standin.cloud(|cloud| cloud.manila.refuses_rules = true);
    let error = sidecar.publish(&share.volume_id, &node(1)).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal, "{error}");
    assert!(error.message().contains("10.0.0.1"), "{error}");
    standin.cloud(|cloud| cloud.manila.refuses_rules = false);
    sidecar.publish(&share.volume_id, &node(1)).await.unwrap();
    assert_eq!(standin.cloud(|cloud| cloud.manila.rules.len()), 1);
}
