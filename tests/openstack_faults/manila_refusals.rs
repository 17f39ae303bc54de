//! What Manila refuses or fails: the right code, its words, and nothing left over.

use crate::driver::Driver;
use crate::manila::{node, setup};
use crate::proto;
use crate::sidecar::{Sidecar, create_request, from_snapshot};
use crate::standin::Standin;
use crate::standin::fault::{Action, Rule};
use serde_json::json;
use tonic::{Code, Status};

/// That it ended so, and that this is said.
fn assert_says<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, words: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    assert!(error.message().contains(words), "{error}");
}

fn refuse(standin: &Standin, line: &'static str, status: u16, words: &'static str) {
    standin.cloud(|cloud| cloud.manila.refusals.push((line, status, words)));
}

fn counts(standin: &Standin) -> (usize, usize, usize, usize) {
    standin.cloud(|cloud| {
        let manila = &cloud.manila;
        (manila.shares.len(), manila.snapshots.len(), manila.backups.len(), manila.rules.len())
    })
}

#[tokio::test]
async fn a_share_type_that_cannot_snapshot_is_a_wrong_argument() {
    let standin = Standin::start();
    let driver = Driver::start_with(&standin, setup()).await;
    let sidecar = Sidecar::new(&driver);
    let share = sidecar.create("pvc-1", 1).await.unwrap().volume_id;
    let words = "Snapshots cannot be created for share since it does not have that capability.";
    refuse(&standin, "POST manila /snapshots", 422, words);
    assert_says(sidecar.snapshot("s", &share, false).await, Code::InvalidArgument, words);
    assert_eq!(counts(&standin), (1, 0, 0, 0));
}

#[tokio::test]
async fn a_protocol_that_is_not_offered_is_a_wrong_argument() {
    let standin = Standin::start();
    let driver = Driver::start_with(&standin, setup()).await;
    let sidecar = Sidecar::new(&driver);
    let words = "Invalid share protocol provided: NFS. It is either disabled or unsupported.";
    refuse(&standin, "POST manila /shares", 400, words);
    assert_says(sidecar.create("pvc-1", 1).await, Code::InvalidArgument, words);
    assert_eq!(counts(&standin), (0, 0, 0, 0));
    sidecar.create("pvc-1", 1).await.unwrap();
}

#[tokio::test]
async fn a_share_that_no_export_leads_to_is_not_published_and_can_be_left() {
    let standin = Standin::start();
    let driver = Driver::start_with(&standin, setup()).await;
    let sidecar = Sidecar::new(&driver);
    let share = sidecar.create("pvc-1", 1).await.unwrap().volume_id;
    let node = node(1);
    for exports in [
        vec![],
        vec![json!({"path": "10.0.0.9:/a", "is_admin_only": true})],
        vec![
            json!({"path": "10.0.0.9:/a", "is_admin_only": true}),
            json!({"path": "10.0.0.8:/a", "is_admin_only": true}),
        ],
        vec![json!({"path": "10.0.0.9:/a", "is_admin_only": true}), json!({"path": "[fd00::1]:/a"})],
        vec![json!({"path": "[fd00::1]:/a"})],
    ] {
        standin.cloud(|cloud| cloud.manila.exports = Some(exports));
        assert_says(sidecar.publish(&share, &node).await, Code::FailedPrecondition, "can be reached from the node");
    }
    sidecar.unpublish(&share, &node).await.unwrap();
    assert_eq!(counts(&standin), (1, 0, 0, 0));
}

#[tokio::test]
async fn a_quota_is_exhausted_however_manila_says_so() {
    let standin = Standin::start();
    let driver = Driver::start_with(&standin, setup()).await;
    let sidecar = Sidecar::new(&driver);
    let words = "Requested share exceeds allowed gigabytes quota.";
    refuse(&standin, "POST manila /shares", 413, words);
    assert_says(sidecar.create("pvc-1", 1).await, Code::ResourceExhausted, words);
    let share = sidecar.create("pvc-1", 1).await.unwrap().volume_id;
    for status in [413, 403] {
        refuse(&standin, "POST manila /shares/{}/action extend", status, words);
        assert_says(sidecar.expand(&share, 2).await, Code::ResourceExhausted, words);
    }
    refuse(&standin, "POST manila /snapshots", 413, words);
    assert_says(sidecar.snapshot("s", &share, false).await, Code::ResourceExhausted, words);
    refuse(&standin, "POST manila /share-backups", 413, words);
    assert_says(sidecar.snapshot("b", &share, true).await, Code::ResourceExhausted, words);
    assert_eq!(counts(&standin), (1, 0, 0, 0));
}

#[tokio::test]
async fn a_share_that_ends_in_error_is_removed_and_its_reason_told() {
    let standin = Standin::start();
    let driver = Driver::start_with(&standin, setup()).await;
    let sidecar = Sidecar::new(&driver);
    for (detail, code) in [("009", Code::ResourceExhausted), ("008", Code::InvalidArgument), ("001", Code::Internal)] {
        let words = "schedule: the words of the service";
        standin.cloud(|cloud| cloud.manila.failure = Some((detail, words)));
        assert_says(sidecar.create("pvc-1", 1).await, code, words);
        standin.cloud(|cloud| cloud.manila.failure = None);
        assert_eq!(counts(&standin), (0, 0, 0, 0), "{detail}");
    }
    sidecar.create("pvc-1", 1).await.unwrap();
}

#[tokio::test]
async fn what_failed_and_cannot_be_removed_is_asked_for_again() {
    let standin = Standin::start();
    let driver = Driver::start_with(&standin, setup()).await;
    let sidecar = Sidecar::new(&driver);
    let source = sidecar.create("source", 1).await.unwrap().volume_id;
    let words = "schedule: the words of the service";
    for what in ["shares", "snapshots", "share-backups"] {
        let attempt = async || match what {
            "shares" => sidecar.create("made", 1).await.map(|share| share.volume_id),
            _ => {
                let taken = sidecar.ready_snapshot("made", &source, what == "share-backups").await;
                taken.map(|snapshot| snapshot.snapshot_id)
            }
        };
        standin.cloud(|cloud| cloud.manila.failure = Some(("001", words)));
        standin.inject(Rule::on(&format!("DELETE manila /{what}/{{}}"), Action::status(403)).always());
        for _ in 0..2 {
            // A final code would let the orchestrator forget what is left.
            let error = attempt().await.unwrap_err();
            assert_eq!(error.code(), Code::Aborted, "{error}");
            assert!(error.message().contains(words) && error.message().contains("Policy"), "{error}");
        }
        standin.clear_faults();
        assert_says(attempt().await, Code::Internal, words);
        standin.cloud(|cloud| cloud.manila.failure = None);
        let made = attempt().await.unwrap();
        assert!(standin.cloud(|cloud| cloud.manila.shares.iter().all(|share| share.status == "available")));
        match what {
            "shares" => sidecar.delete(&made).await.unwrap(),
            _ => sidecar.delete_snapshot(&made).await.unwrap(),
        }
        assert_eq!(counts(&standin), (1, 0, 0, 0), "{what}");
    }
}

#[tokio::test]
async fn a_share_that_failed_does_not_keep_its_claim_from_another_class() {
    let standin = Standin::start();
    let driver = Driver::start_with(&standin, setup()).await;
    let sidecar = Sidecar::new(&driver);
    standin.cloud(|cloud| cloud.manila.failure = Some(("009", "no room")));
    standin.inject(Rule::on("DELETE manila /shares/{}", Action::status(403)).always());
    assert_says(sidecar.create("pvc-1", 1).await, Code::Aborted, "no room");
    standin.clear_faults();
    standin.cloud(|cloud| cloud.manila.failure = None);
    assert_says(sidecar.create("pvc-1", 2).await, Code::Internal, "ended in status error");
    assert_eq!(counts(&standin), (0, 0, 0, 0));
    sidecar.create("pvc-1", 2).await.unwrap();
}

#[tokio::test]
async fn a_share_is_restored_from_a_backup_and_a_failed_restoration_leaves_none() {
    let standin = Standin::start();
    let driver = Driver::start_with(&standin, setup()).await;
    let sidecar = Sidecar::new(&driver);
    let share = sidecar.create("pvc-1", 1).await.unwrap().volume_id;
    let backup = sidecar.ready_snapshot("b", &share, true).await.unwrap();
    assert!(backup.snapshot_id.starts_with("backup/"), "{backup:?}");
    assert_eq!(sidecar.snapshot("b", &share, true).await.unwrap().snapshot_id, backup.snapshot_id, "the same again");
    let listed = sidecar.list_snapshots(proto::ListSnapshotsRequest::default()).await.unwrap();
    let ids: Vec<_> = listed.entries.into_iter().map(|entry| entry.snapshot.unwrap().snapshot_id).collect();
    assert_eq!(ids, [backup.snapshot_id.as_str()]);
    let restore = || proto::CreateVolumeRequest {
        volume_content_source: from_snapshot(&backup.snapshot_id),
        ..create_request("pvc-2", 2)
    };
    standin.cloud(|cloud| cloud.manila.refuses_restorations = true);
    standin.inject(Rule::on("DELETE manila /shares/{}", Action::status(403)));
    assert_says(sidecar.create_as(restore()).await, Code::Aborted, "restore backup");
    assert_says(sidecar.create_as(restore()).await, Code::Internal, "ended in status backup_restoring_error");
    assert_says(sidecar.create_as(restore()).await, Code::Internal, "restore backup");
    assert_eq!(counts(&standin), (1, 0, 1, 0));
    standin.cloud(|cloud| cloud.manila.refuses_restorations = false);
    let restored = sidecar.create_as(restore()).await.unwrap();
    assert_eq!(sidecar.create_as(restore()).await.unwrap(), restored, "the same again");
    let other = proto::CreateVolumeRequest { volume_content_source: None, ..restore() };
    assert_says(sidecar.create_as(other).await, Code::AlreadyExists, "made of something else");
    sidecar.delete(&restored.volume_id).await.unwrap();
    sidecar.delete_snapshot(&backup.snapshot_id).await.unwrap();
    sidecar.delete(&share).await.unwrap();
    assert_eq!(counts(&standin), (0, 0, 0, 0));
}

#[tokio::test]
async fn a_share_with_snapshots_is_not_backed_up_and_old_services_have_no_backups() {
    let standin = Standin::start();
    let driver = Driver::start_with(&standin, setup()).await;
    let sidecar = Sidecar::new(&driver);
    let share = sidecar.create("pvc-1", 1).await.unwrap().volume_id;
    sidecar.snapshot("s", &share, false).await.unwrap();
    assert_says(sidecar.snapshot("b", &share, true).await, Code::FailedPrecondition, "without snapshots");

    let old = Standin::start();
    old.cloud(|cloud| cloud.manila_highest = (2, 79));
    let driver = Driver::start_with(&old, setup()).await;
    let sidecar = Sidecar::new(&driver);
    let share = sidecar.create("pvc-1", 1).await.unwrap().volume_id;
    assert_says(sidecar.snapshot("b", &share, true).await, Code::Unimplemented, "2.80");
    assert_eq!(sidecar.list_snapshots(proto::ListSnapshotsRequest::default()).await.unwrap().entries, []);
}
