//! Objects that are stuck, end in error, or are seen differently by Nova and Cinder.

use crate::driver::Driver;
use crate::proto;
use crate::sidecar::{Sidecar, create_request};
use crate::standin::Standin;
use crate::standin::cloud::{Kind, Outcome, Pace, Step};
use crate::standin::fault::{Action, Rule};
use std::time::{Duration, Instant};
use tonic::{Code, Status};

const REASON: &str = "schedule allocate volume:Could not find any available weighted backend.";

/// Enough for a few looks, far less than any change takes that is stuck.
const SHORT: Duration = Duration::from_millis(1500);

async fn ready() -> (Standin, Driver, Sidecar, String) {
    let standin = Standin::start();
    let driver = Driver::start(&standin).await;
    let sidecar = Sidecar::new(&driver);
    let node = standin.cloud(|cloud| cloud.first_server());
    (standin, driver, sidecar, node)
}

/// The codes that make a sidecar ask again later, without having to take the operation for failed.
fn assert_in_progress(status: &Status) {
    let code = status.code();
    assert!(matches!(code, Code::DeadlineExceeded | Code::Aborted | Code::Cancelled), "{status:?}");
}

#[tokio::test]
async fn a_volume_that_is_long_in_the_making_is_waited_for_by_the_next_call() {
    let (standin, _driver, sidecar, _) = ready().await;
    standin.cloud(|cloud| cloud.plan(Step::CreateVolume, Outcome::Stuck));
    for _ in 0..2 {
        let status = sidecar.with_deadline(SHORT).create("pvc", 1).await.unwrap_err();
        assert_in_progress(&status);
    }
    let id = standin.cloud(|cloud| {
        let id = cloud.named(Kind::Volume, "pvc")[0].id.clone();
        cloud.set_status(Kind::Volume, &id, "available");
        id
    });
    assert_eq!(sidecar.create("pvc", 1).await.unwrap().volume_id, id);
    assert_eq!(standin.cloud(|cloud| cloud.items.len()), 1, "it was made a second time");
}

#[tokio::test]
async fn a_volume_that_ends_in_error_is_reported_with_the_reason_removed_and_made_again() {
    let (standin, _driver, sidecar, _) = ready().await;
    standin.cloud(|cloud| cloud.plan(Step::CreateVolume, Outcome::Error(REASON.to_owned())));
    let status = sidecar.create("pvc", 1).await.unwrap_err();
    assert!(matches!(status.code(), Code::ResourceExhausted | Code::Internal), "{status:?}");
    assert!(status.message().contains(REASON), "the reason is not told: {status:?}");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(standin.cloud(|cloud| cloud.inventory()), Vec::<String>::new(), "the broken volume is still there");
    sidecar.create("pvc", 1).await.unwrap();
}

#[tokio::test]
async fn a_volume_in_error_from_before_a_crash_is_replaced() {
    let (standin, mut driver, sidecar, _) = ready().await;
    standin.cloud(|cloud| cloud.plan(Step::CreateVolume, Outcome::Stuck));
    assert_in_progress(&sidecar.with_deadline(SHORT).create("pvc", 1).await.unwrap_err());
    driver.kill();
    let broken = standin.cloud(|cloud| {
        let id = cloud.named(Kind::Volume, "pvc")[0].id.clone();
        cloud.set_status(Kind::Volume, &id, "error");
        cloud.say(Kind::Volume, &id, REASON);
        id
    });
    driver.restart(&standin).await;
    let sidecar = Sidecar::new(&driver);
    let made = match sidecar.create("pvc", 1).await {
        Ok(volume) => volume.volume_id,
        Err(status) => {
            assert!(status.message().contains(REASON), "{status:?}");
            sidecar.create("pvc", 1).await.unwrap().volume_id
        }
    };
    assert_ne!(made, broken);
    assert_eq!(standin.cloud(|cloud| cloud.items.len()), 1);
}

#[tokio::test]
async fn a_snapshot_or_backup_that_ends_in_error_is_reported_removed_and_made_again() {
    let (standin, _driver, sidecar, _) = ready().await;
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    for (step, backup) in [(Step::CreateSnapshot, false), (Step::CreateBackup, true)] {
        let name = format!("snapshot-{backup}");
        standin.cloud(|cloud| cloud.plan(step, Outcome::Error("the array is on fire".to_owned())));
        let begun = Instant::now();
        let status = loop {
            match sidecar.snapshot(&name, &volume, backup).await {
                Err(status) => break status,
                Ok(snapshot) => {
                    assert!(!snapshot.ready_to_use, "a broken snapshot was reported as ready");
                    assert!(begun.elapsed() < Duration::from_secs(10), "the error is never reported");
                }
            }
        };
        assert!(status.message().contains("the array is on fire"), "{status:?}");
        sidecar.ready_snapshot(&name, &volume, backup).await.unwrap();
        let kind = if backup { Kind::Backup } else { Kind::Snapshot };
        assert_eq!(standin.cloud(|cloud| cloud.named(kind, &name).len()), 1, "the broken one is still there");
        let errors = standin.cloud(|cloud| cloud.items.iter().filter(|item| item.status == "error").count());
        assert_eq!(errors, 0, "{:#?}", standin.cloud(|cloud| cloud.inventory()));
    }
}

#[tokio::test]
async fn what_failed_and_cannot_be_removed_is_asked_for_again() {
    let (standin, _driver, sidecar, _) = ready().await;
    let source = sidecar.create("source", 1).await.unwrap().volume_id;
    for (step, kind) in
        [(Step::CreateVolume, Kind::Volume), (Step::CreateSnapshot, Kind::Snapshot), (Step::CreateBackup, Kind::Backup)]
    {
        let attempt = async || match kind {
            Kind::Volume => sidecar.create("made", 1).await.map(drop),
            _ => sidecar.ready_snapshot("made", &source, kind == Kind::Backup).await.map(drop),
        };
        standin.cloud(|cloud| cloud.plan(step, Outcome::Error("the array is on fire".to_owned())));
        standin.inject(Rule::on(&format!("DELETE cinder /{}/{{}}", kind.plural()), Action::status(403)).always());
        for _ in 0..2 {
            // A final code would let the orchestrator forget what is left.
            let status = attempt().await.unwrap_err();
            assert_eq!(status.code(), Code::Aborted, "{status:?}");
            assert!(status.message().contains("on fire") && status.message().contains("Policy"), "{status:?}");
        }
        standin.clear_faults();
        let status = attempt().await.unwrap_err();
        assert_ne!(status.code(), Code::Aborted, "{status:?}");
        assert_eq!(standin.cloud(|cloud| cloud.named(kind, "made").len()), 0);
        attempt().await.unwrap();
    }
    assert_eq!(standin.cloud(|cloud| cloud.items.iter().filter(|item| item.status == "error").count()), 0);
}

#[tokio::test]
async fn a_volume_that_failed_in_one_zone_does_not_keep_its_claim_from_another() {
    let (standin, _driver, sidecar, _) = ready().await;
    let in_zone = |zone: &str, volume_type: &str| {
        let segment = ("topology.cinder.fuxi.openstack.org/zone".to_owned(), zone.to_owned());
        let topology = proto::Topology { segments: [segment].into() };
        let mut request = create_request("pvc", 1);
        request.parameters.insert("type".to_owned(), volume_type.to_owned());
        request.accessibility_requirements =
            Some(proto::TopologyRequirement { requisite: vec![topology.clone()], preferred: vec![topology] });
        request
    };
    // What a call leaves that dies between the failure and the removal.
    standin.cloud(|cloud| cloud.plan(Step::CreateVolume, Outcome::Error(REASON.to_owned())));
    standin.inject(Rule::on("DELETE cinder /volumes/{}", Action::status(403)).always());
    sidecar.create_as(in_zone("nova", "loop")).await.unwrap_err();
    standin.clear_faults();
    let status = sidecar.create_as(in_zone("az2", "loop-b")).await.unwrap_err();
    assert!(status.message().contains(REASON), "{status:?}");
    assert_eq!(standin.cloud(|cloud| cloud.inventory()), Vec::<String>::new(), "the broken volume is still there");
    sidecar.create_as(in_zone("az2", "loop-b")).await.unwrap();
    assert_eq!(standin.cloud(|cloud| cloud.named(Kind::Volume, "pvc")[0].zone.clone()), "az2");
}

#[tokio::test]
async fn a_volume_that_is_being_deleted_is_waited_for_whatever_it_was_made_for() {
    let (standin, _driver, sidecar, _) = ready().await;
    let old = sidecar.create("pvc", 1).await.unwrap().volume_id;
    standin.cloud(|cloud| cloud.set_status(Kind::Volume, &old, "deleting"));
    assert_in_progress(&sidecar.with_deadline(SHORT).create("pvc", 2).await.unwrap_err());
    standin.cloud(|cloud| cloud.remove(Kind::Volume, &old));
    sidecar.create("pvc", 2).await.unwrap();
    // A deletion that comes to nothing leaves what was there before, with its own size.
    let other = standin.cloud(|cloud| cloud.named(Kind::Volume, "pvc")[0].id.clone());
    standin.cloud(|cloud| {
        cloud.set_status(Kind::Volume, &other, "deleting");
        cloud.later(Pace::Looks(1), &other.clone(), move |cloud| cloud.set_status(Kind::Volume, &other, "available"));
    });
    assert_eq!(sidecar.create("pvc", 3).await.unwrap_err().code(), Code::AlreadyExists);
}

#[tokio::test]
async fn a_snapshot_that_takes_long_is_answered_as_not_ready_and_becomes_ready() {
    let (standin, _driver, sidecar, _) = ready().await;
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    standin.cloud(|cloud| (cloud.paces.snapshot, cloud.paces.backup) = (Pace::millis(4000), Pace::millis(4000)));
    let begun = Instant::now();
    let snapshot = sidecar.snapshot("snapshot", &volume, false).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(3500), "blocked for {:?}", begun.elapsed());
    assert!(!snapshot.ready_to_use);
    let ready = sidecar.ready_snapshot("snapshot", &volume, false).await.unwrap();
    assert_eq!(ready.snapshot_id, snapshot.snapshot_id);
}

#[tokio::test]
async fn an_attach_that_is_stuck_is_in_progress_and_succeeds_when_it_is_done() {
    let (standin, _driver, sidecar, node) = ready().await;
    for state in ["reserved", "attaching"] {
        let volume = sidecar.create(&format!("pvc-{state}"), 1).await.unwrap().volume_id;
        standin.cloud(|cloud| cloud.plan(Step::Attach, Outcome::Stuck));
        assert_in_progress(&sidecar.with_deadline(SHORT).publish(&volume, &node).await.unwrap_err());
        let attachment = standin.cloud(|cloud| {
            let attachment = cloud.disks.iter().find(|disk| disk.volume == volume).unwrap().attachment.clone();
            cloud.set_attachment(&attachment, state);
            attachment
        });
        assert_in_progress(&sidecar.with_deadline(SHORT).publish(&volume, &node).await.unwrap_err());
        standin.cloud(|cloud| cloud.set_attachment(&attachment, "attached"));
        sidecar.publish(&volume, &node).await.unwrap();
        sidecar.unpublish(&volume, &node).await.unwrap();
    }
}

#[tokio::test]
async fn an_attach_that_the_hypervisor_undoes_is_reported_and_can_be_repeated() {
    let (standin, _driver, sidecar, node) = ready().await;
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    standin.cloud(|cloud| {
        cloud.paces.attach = Pace::millis(100);
        cloud.plan(Step::Attach, Outcome::Undone);
    });
    match sidecar.publish(&volume, &node).await {
        // The driver may have tried again by itself.
        Ok(_) => {}
        Err(status) => {
            let final_codes = [Code::NotFound, Code::FailedPrecondition, Code::InvalidArgument];
            assert!(!final_codes.contains(&status.code()), "{status:?}");
            sidecar.publish(&volume, &node).await.unwrap();
        }
    }
    assert_eq!(standin.cloud(|cloud| cloud.disks.len()), 1);
}

#[tokio::test]
async fn a_detach_that_is_stuck_is_in_progress_and_succeeds_when_it_is_done() {
    let (standin, _driver, sidecar, node) = ready().await;
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    sidecar.publish(&volume, &node).await.unwrap();
    standin.cloud(|cloud| cloud.plan(Step::Detach, Outcome::Stuck));
    for _ in 0..2 {
        let status = sidecar.with_deadline(SHORT).unpublish(&volume, &node).await.unwrap_err();
        assert_in_progress(&status);
    }
    standin.cloud(|cloud| {
        let attachment = cloud.disks[0].attachment.clone();
        cloud.drop_attachment(&attachment);
        cloud.disks.clear();
    });
    sidecar.unpublish(&volume, &node).await.unwrap();
    sidecar.publish(&volume, &node).await.unwrap();
}

#[tokio::test]
async fn a_detach_that_the_hypervisor_undoes_is_not_reported_as_done() {
    let (standin, _driver, sidecar, node) = ready().await;
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    sidecar.publish(&volume, &node).await.unwrap();
    standin.cloud(|cloud| cloud.plan(Step::Detach, Outcome::Undone));
    let first = sidecar.with_deadline(Duration::from_secs(4)).unpublish(&volume, &node).await;
    if first.is_ok() {
        assert!(standin.cloud(|cloud| cloud.disks.is_empty()), "reported as detached, and it is not");
    }
    sidecar.unpublish(&volume, &node).await.unwrap();
    assert!(standin.cloud(|cloud| cloud.disks.is_empty() && cloud.attachments.is_empty()));
}

#[tokio::test]
async fn a_server_that_is_gone_is_not_found_for_publish_and_success_for_unpublish() {
    let (standin, _driver, sidecar, node) = ready().await;
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    sidecar.publish(&volume, &node).await.unwrap();
    standin.cloud(|cloud| cloud.remove_server(&node));
    sidecar.unpublish(&volume, &node).await.unwrap();
    let status = sidecar.publish(&volume, &node).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    assert!(status.message().contains(&node), "{status:?}");
    sidecar.delete(&volume).await.unwrap();
}

#[tokio::test]
async fn an_attachment_that_a_vanished_server_left_in_cinder_is_cleaned_up() {
    let (standin, _driver, sidecar, node) = ready().await;
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    sidecar.publish(&volume, &node).await.unwrap();
    // Nova has lost server and disk, Cinder still has the volume in use by it.
    standin.cloud(|cloud| {
        cloud.disks.clear();
        cloud.servers.retain(|server| server.id != node);
    });
    sidecar.unpublish(&volume, &node).await.unwrap();
    assert_eq!(standin.cloud(|cloud| cloud.volume(&volume).unwrap().status.clone()), "available");
    sidecar.delete(&volume).await.unwrap();
}

#[tokio::test]
async fn a_volume_that_is_gone_is_not_found_for_publish_and_success_for_unpublish_and_delete() {
    let (standin, _driver, sidecar, node) = ready().await;
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    standin.cloud(|cloud| cloud.items.clear());
    let status = sidecar.publish(&volume, &node).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    sidecar.unpublish(&volume, &node).await.unwrap();
    sidecar.delete(&volume).await.unwrap();
}

#[tokio::test]
async fn detached_means_that_nova_has_forgotten_it_too() {
    let (standin, _driver, sidecar, node) = ready().await;
    standin.cloud(|cloud| cloud.paces.nova_lag = Pace::millis(700));
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    for _ in 0..3 {
        sidecar.publish(&volume, &node).await.unwrap();
        sidecar.unpublish(&volume, &node).await.unwrap();
        assert!(standin.cloud(|cloud| cloud.disks.is_empty()), "unpublished, and Nova still has the disk");
    }
}

#[tokio::test]
async fn a_disk_that_nova_is_about_to_forget_is_no_attachment() {
    let (standin, _driver, sidecar, node) = ready().await;
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    sidecar.publish(&volume, &node).await.unwrap();
    // Somebody detached it: Cinder has let go, Nova's record is a moment behind.
    standin.cloud(|cloud| {
        let attachment = cloud.disks[0].attachment.clone();
        cloud.drop_attachment(&attachment);
    });
    let publishing = {
        let (sidecar, volume, node) = (sidecar.clone(), volume.clone(), node.clone());
        tokio::spawn(async move {
            loop {
                match sidecar.publish(&volume, &node).await {
                    Err(status) if matches!(status.code(), Code::Aborted | Code::Unavailable | Code::Internal) => {}
                    other => return other,
                }
            }
        })
    };
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(!publishing.is_finished(), "published although Cinder has no attachment: {:?}", publishing.await.unwrap());
    standin.cloud(|cloud| cloud.disks.clear());
    publishing.await.unwrap().unwrap();
    let attached = standin.cloud(|cloud| cloud.volume(&volume).unwrap().status.clone());
    assert_eq!(attached, "in-use");
}

#[tokio::test]
async fn an_attachment_that_nova_does_not_know_is_removed_from_cinder() {
    let (standin, _driver, sidecar, node) = ready().await;
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    sidecar.publish(&volume, &node).await.unwrap();
    standin.cloud(|cloud| cloud.disks.clear());
    sidecar.unpublish(&volume, &node).await.unwrap();
    assert_eq!(standin.cloud(|cloud| cloud.volume(&volume).unwrap().status.clone()), "available");
}

#[tokio::test]
async fn a_reservation_that_an_attach_left_behind_does_not_hinder_the_next() {
    let (standin, _driver, sidecar, node) = ready().await;
    let other = standin.cloud(|cloud| cloud.add_server("node-2"));
    for owner in [&node, &other] {
        let volume = sidecar.create(&format!("pvc-{owner}"), 1).await.unwrap().volume_id;
        standin.cloud(|cloud| {
            cloud.reserve(&volume, owner, "/dev/sdb");
            cloud.age(&volume);
        });
        sidecar.publish(&volume, &node).await.unwrap();
        sidecar.unpublish(&volume, &node).await.unwrap();
        sidecar.delete(&volume).await.unwrap();
    }
    assert_eq!(standin.cloud(|cloud| cloud.inventory()), Vec::<String>::new());
}

#[tokio::test]
async fn a_detach_that_nobody_will_finish_is_started_over() {
    let (standin, _driver, sidecar, node) = ready().await;
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    sidecar.publish(&volume, &node).await.unwrap();
    standin.cloud(|cloud| {
        cloud.set_status(Kind::Volume, &volume, "detaching");
        cloud.age(&volume);
    });
    sidecar.unpublish(&volume, &node).await.unwrap();
    assert!(standin.cloud(|cloud| cloud.disks.is_empty() && cloud.attachments.is_empty()));
}

#[tokio::test]
async fn a_change_is_seen_however_many_looks_it_takes() {
    let (standin, _driver, sidecar, node) = ready().await;
    standin.cloud(|cloud| {
        cloud.paces.create = Pace::Looks(4);
        cloud.paces.attach = Pace::Looks(3);
        cloud.paces.extend = Pace::Looks(2);
        cloud.paces.detach = Pace::Looks(3);
        cloud.paces.delete = Pace::Looks(2);
    });
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    sidecar.publish(&volume, &node).await.unwrap();
    sidecar.expand(&volume, 2).await.unwrap();
    sidecar.unpublish(&volume, &node).await.unwrap();
    sidecar.delete(&volume).await.unwrap();
    assert_eq!(standin.cloud(|cloud| cloud.inventory()), Vec::<String>::new());
}

#[tokio::test]
async fn a_volume_that_is_attached_elsewhere_is_a_failed_precondition() {
    let (standin, _driver, sidecar, node) = ready().await;
    let other = standin.cloud(|cloud| cloud.add_server("node-2"));
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    sidecar.publish(&volume, &node).await.unwrap();
    let status = sidecar.publish(&volume, &other).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert!(status.message().contains(&node), "says not where it is: {status:?}");
    let status = sidecar.delete(&volume).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    sidecar.unpublish(&volume, &other).await.unwrap();
    assert_eq!(standin.cloud(|cloud| cloud.disks.len()), 1, "it was taken from the wrong node");
}

#[tokio::test]
async fn a_volume_with_snapshots_is_not_deleted() {
    let (standin, _driver, sidecar, _) = ready().await;
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    let snapshot = sidecar.ready_snapshot("snapshot", &volume, false).await.unwrap().snapshot_id;
    let status = sidecar.delete(&volume).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    sidecar.delete_snapshot(&snapshot).await.unwrap();
    sidecar.delete(&volume).await.unwrap();
    assert_eq!(standin.cloud(|cloud| cloud.inventory()), Vec::<String>::new());
}

#[tokio::test]
async fn a_deletion_that_cinder_refuses_for_good_is_not_repeated_without_end() {
    let (standin, _driver, sidecar, _) = ready().await;
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    let set_group = |group: Option<&str>| {
        standin.cloud(|cloud| cloud.item_mut(Kind::Volume, &volume).unwrap().group = group.map(str::to_owned));
    };
    set_group(Some("g"));
    standin.clear_log();
    let status = sidecar.delete(&volume).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert!(status.message().contains("belong to a group"), "the reason is not told: {status:?}");
    let attempts = standin.count("DELETE cinder /volumes/{}");
    assert!((2..=5).contains(&attempts), "{attempts} attempts");
    // What is over a moment later does not fail the deletion.
    standin.clear_log();
    let deleting = {
        let (sidecar, volume) = (sidecar.clone(), volume.clone());
        tokio::spawn(async move { sidecar.delete(&volume).await })
    };
    while standin.count("DELETE cinder /volumes/{}") == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    set_group(None);
    deleting.await.unwrap().unwrap();
    assert_eq!(standin.cloud(|cloud| cloud.inventory()), Vec::<String>::new());
}

#[tokio::test]
async fn a_deletion_that_fails_is_never_reported_as_done() {
    let (standin, _driver, sidecar, _) = ready().await;
    for outcome in [Outcome::Undone, Outcome::Error("the array is on fire".to_owned()), Outcome::Stuck] {
        let volume = sidecar.create(&format!("{outcome:?}"), 1).await.unwrap().volume_id;
        standin.cloud(|cloud| {
            cloud.paces.delete = Pace::millis(50);
            cloud.plan(Step::DeleteVolume, outcome.clone());
        });
        let first = sidecar.with_deadline(Duration::from_secs(3)).delete(&volume).await;
        let gone = standin.cloud(|cloud| cloud.volume(&volume).is_none());
        assert_eq!(first.is_ok(), gone, "{outcome:?}: {first:?}");
        if let (Outcome::Error(reason), Err(status)) = (&outcome, &first) {
            assert!(status.message().contains(reason), "{status:?}");
        }
        if outcome == Outcome::Undone {
            sidecar.delete(&volume).await.unwrap();
        }
    }
}

#[tokio::test]
async fn an_expansion_that_fails_is_reported_and_never_taken_for_done() {
    let (standin, _driver, sidecar, _) = ready().await;
    for outcome in [Outcome::Undone, Outcome::Error("the array is on fire".to_owned()), Outcome::Stuck] {
        let volume = sidecar.create(&format!("{outcome:?}"), 1).await.unwrap().volume_id;
        standin.cloud(|cloud| {
            cloud.paces.extend = Pace::millis(50);
            cloud.plan(Step::Extend, outcome.clone());
        });
        let result = sidecar.with_deadline(Duration::from_secs(3)).expand(&volume, 2).await;
        let size = standin.cloud(|cloud| cloud.volume(&volume).unwrap().size);
        assert_eq!(result.is_ok(), size == 2, "{outcome:?}: {result:?}");
        if let (Outcome::Error(_), Err(status)) = (&outcome, &result) {
            assert!(status.message().contains("error_extending") || status.message().contains("on fire"), "{status:?}");
        }
    }
}
