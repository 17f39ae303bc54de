//! Many calls at once.

use crate::driver::Driver;
use crate::sidecar::{Sidecar, until_done};
use crate::standin::Standin;
use crate::standin::cloud::{Kind, Outcome, Pace, Step};
use crate::standin::fault::{Action, Gate, Rule};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tonic::Code;

async fn ready() -> (Standin, Driver, Sidecar) {
    let standin = Standin::start();
    let driver = Driver::start(&standin).await;
    let sidecar = Sidecar::new(&driver);
    (standin, driver, sidecar)
}

#[tokio::test]
async fn a_hundred_identical_creates_make_one_volume() {
    let (standin, driver, sidecar) = ready().await;
    standin.cloud(|cloud| cloud.paces.create = Pace::millis(200));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..100 {
        // A connection each, as from a hundred callers.
        let sidecar = Sidecar::new(&driver);
        calls.spawn(async move { sidecar.create("pvc", 1).await });
    }
    let (mut answered, mut aborted) = (BTreeSet::new(), 0);
    while let Some(done) = calls.join_next().await {
        match done.unwrap() {
            Ok(volume) => {
                answered.insert(volume.volume_id);
            }
            Err(status) => {
                assert_eq!(status.code(), Code::Aborted, "{status:?}");
                aborted += 1;
            }
        }
    }
    assert_eq!(answered.len(), 1, "{aborted} were aborted");
    assert_eq!(standin.cloud(|cloud| cloud.items.len()), 1);
    assert_eq!(sidecar.create("pvc", 1).await.unwrap().volume_id, *answered.first().unwrap());
}

#[tokio::test]
async fn a_hundred_identical_snapshots_backups_and_attachments_make_one_each() {
    let (standin, driver, sidecar) = ready().await;
    let node = standin.cloud(|cloud| cloud.first_server());
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    for backup in [false, true] {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let (sidecar, volume) = (Sidecar::new(&driver), volume.clone());
            calls.spawn(async move { sidecar.snapshot(&format!("snapshot-{backup}"), &volume, backup).await });
        }
        while let Some(done) = calls.join_next().await {
            if let Err(status) = done.unwrap() {
                assert_eq!(status.code(), Code::Aborted, "{status:?}");
            }
        }
        sidecar.ready_snapshot(&format!("snapshot-{backup}"), &volume, backup).await.unwrap();
    }
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (sidecar, volume, node) = (Sidecar::new(&driver), volume.clone(), node.clone());
        calls.spawn(async move { sidecar.publish(&volume, &node).await });
    }
    while let Some(done) = calls.join_next().await {
        if let Err(status) = done.unwrap() {
            assert_eq!(status.code(), Code::Aborted, "{status:?}");
        }
    }
    let counts = standin.cloud(|cloud| {
        let of = |kind| cloud.items.iter().filter(|item| item.kind == kind).count();
        (of(Kind::Snapshot), of(Kind::Backup), cloud.disks.len())
    });
    assert_eq!(counts, (1, 1, 1), "{:#?}", standin.cloud(|cloud| cloud.inventory()));
}

#[tokio::test]
async fn the_second_of_two_calls_for_one_object_is_aborted_at_once() {
    let (standin, _driver, sidecar) = ready().await;
    let node = standin.cloud(|cloud| cloud.first_server());
    let volume = sidecar.create("volume", 1).await.unwrap().volume_id;
    for (what, line) in [
        ("create", "POST cinder /volumes"),
        ("snapshot", "POST cinder /snapshots"),
        ("expand", "POST cinder /volumes/{}/action os-extend"),
        ("publish", "POST nova *"),
        ("unpublish", "DELETE nova *"),
        ("delete", "DELETE cinder /volumes/{}"),
    ] {
        let call = {
            let (sidecar, volume, node) = (sidecar.clone(), volume.clone(), node.clone());
            move || {
                let (sidecar, volume, node) = (sidecar.clone(), volume.clone(), node.clone());
                async move {
                    match what {
                        "create" => sidecar.create("pvc", 1).await.map(drop),
                        "snapshot" => sidecar.snapshot("snapshot", &volume, false).await.map(drop),
                        "expand" => sidecar.expand(&volume, 2).await.map(drop),
                        "publish" => sidecar.publish(&volume, &node).await.map(drop),
                        "unpublish" => sidecar.unpublish(&volume, &node).await,
                        _ => {
                            sidecar.delete_snapshot(&volume).await.ok();
                            sidecar.delete(&volume).await
                        }
                    }
                }
            }
        };
        if what == "delete" {
            standin.cloud(|cloud| cloud.items.retain(|item| item.kind != Kind::Snapshot));
        }
        let gate = Gate::default();
        let strikes = standin.inject(Rule::on(line, Action::Hold(gate.clone())));
        let first = tokio::spawn(call());
        let begun = Instant::now();
        while strikes.count() == 0 {
            assert!(begun.elapsed() < Duration::from_secs(5), "{what} never made its call: {:#?}", standin.calls());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let begun = Instant::now();
        let status = call().await.expect_err(what);
        assert_eq!(status.code(), Code::Aborted, "{what}: {status:?}");
        assert!(begun.elapsed() < Duration::from_secs(1), "{what}: refused only after {:?}", begun.elapsed());
        gate.open();
        first.await.unwrap().unwrap_or_else(|status| panic!("{what}: {status:?}"));
    }
}

#[tokio::test]
async fn a_volume_that_hangs_delays_no_other() {
    let (standin, _driver, sidecar) = ready().await;
    sidecar.create("warm", 1).await.unwrap();
    standin.cloud(|cloud| cloud.plan(Step::CreateVolume, Outcome::Stuck));
    let hung = {
        let sidecar = sidecar.with_deadline(Duration::from_secs(8));
        tokio::spawn(async move { sidecar.create("hung", 1).await })
    };
    while standin.cloud(|cloud| cloud.named(Kind::Volume, "hung").is_empty()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let begun = Instant::now();
    let mut others = tokio::task::JoinSet::new();
    for number in 0..20 {
        let sidecar = sidecar.clone();
        others.spawn(async move { sidecar.create(&format!("pvc-{number}"), 1).await });
    }
    while let Some(done) = others.join_next().await {
        done.unwrap().unwrap();
    }
    let all = begun.elapsed();
    assert!(all < Duration::from_secs(2), "20 others took {all:?}");
    assert!(!hung.is_finished(), "the hung one must hang for this test to say anything");
    let status = hung.await.unwrap().unwrap_err();
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Aborted | Code::Cancelled), "{status:?}");
}

#[tokio::test]
async fn a_request_that_hangs_delays_no_other_volume() {
    let (standin, _driver, sidecar) = ready().await;
    let node = standin.cloud(|cloud| cloud.first_server());
    let lives = async |name: &str| {
        let begun = Instant::now();
        for number in 0..3 {
            let volume = sidecar.create(&format!("{name}-{number}"), 1).await.unwrap().volume_id;
            sidecar.publish(&volume, &node).await.unwrap();
            sidecar.unpublish(&volume, &node).await.unwrap();
            sidecar.delete(&volume).await.unwrap();
        }
        begun.elapsed()
    };
    lives("warm").await;
    let usual = lives("before").await;
    let hung = sidecar.create("hung", 1).await.unwrap().volume_id;
    let gate = Gate::default();
    standin.inject(Rule::on("POST nova *", Action::Hold(gate.clone())).of(&hung));
    let hanging = {
        let (sidecar, node) = (sidecar.with_deadline(Duration::from_secs(60)), node.clone());
        tokio::spawn(async move { sidecar.publish(&hung, &node).await })
    };
    let meanwhile = lives("meanwhile").await;
    assert!(!hanging.is_finished());
    let bound = usual * 2 + Duration::from_secs(1);
    assert!(meanwhile < bound, "the lives of three others took {meanwhile:?}, and {usual:?} without the hung one");
    gate.open();
    hanging.await.unwrap().unwrap();
}

#[tokio::test]
async fn two_replicas_that_race_for_one_name_end_with_one_volume() {
    let standin = Standin::start();
    let mut first = Driver::start(&standin).await;
    let mut second = Driver::start(&standin).await;
    for round in 0..5 {
        let name = format!("pvc-{round}");
        let (one, two) = (Sidecar::new(&first), Sidecar::new(&second));
        let _ = tokio::join!(one.create(&name, 1), two.create(&name, 1));
        // Whoever is asked again: the same volume, and only one.
        let patience = Duration::from_secs(10);
        let (one, _) = until_done(&standin, &mut first, patience, async |it| it.create(&name, 1).await).await.unwrap();
        let (two, _) = until_done(&standin, &mut second, patience, async |it| it.create(&name, 1).await).await.unwrap();
        assert_eq!(one.volume_id, two.volume_id);
        let left = standin.cloud(|cloud| cloud.named(Kind::Volume, &name).len());
        assert_eq!(left, 1, "{:#?}", standin.cloud(|cloud| cloud.inventory()));
    }
}

#[tokio::test]
async fn a_deletion_makes_way_for_a_crowd_of_attachments() {
    let (standin, _driver, sidecar) = ready().await;
    let node = standin.cloud(|cloud| cloud.first_server());
    let mut wanted = Vec::new();
    for number in 0..4 {
        wanted.push(sidecar.create(&format!("wanted-{number}"), 1).await.unwrap().volume_id);
    }
    for (line, publishes) in [("POST nova *", true), ("DELETE nova *", false)] {
        let unwanted = sidecar.create("unwanted", 1).await.unwrap().volume_id;
        let gate = Gate::default();
        let strikes = standin.inject(Rule::on(line, Action::Hold(gate.clone())).times(4));
        let mut calls = tokio::task::JoinSet::new();
        for volume in wanted.clone() {
            let (sidecar, node) = (sidecar.clone(), node.clone());
            calls.spawn(async move {
                if publishes {
                    sidecar.publish(&volume, &node).await.map(drop)
                } else {
                    sidecar.unpublish(&volume, &node).await
                }
            });
        }
        let begun = Instant::now();
        while strikes.count() < 4 {
            assert!(begun.elapsed() < Duration::from_secs(5), "{line} was not called: {:#?}", standin.calls());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let deletions = standin.count("DELETE cinder /volumes/{}");
        let deleting = {
            let sidecar = sidecar.clone();
            tokio::spawn(async move { sidecar.delete(&unwanted).await })
        };
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(standin.count("DELETE cinder /volumes/{}"), deletions, "{line}: no way was made");
        gate.open();
        while let Some(done) = calls.join_next().await {
            done.unwrap().unwrap();
        }
        deleting.await.unwrap().unwrap();
        assert_eq!(standin.count("DELETE cinder /volumes/{}"), deletions + 1);
    }
}
