//! OpenStack allows equal names; the driver has to live with them.

use crate::driver::Driver;
use crate::sidecar::{Sidecar, create_request};
use crate::standin::Standin;
use crate::standin::cloud::{Cloud, Item, Kind, new_id};
use tonic::Code;

async fn ready() -> (Standin, Driver, Sidecar) {
    let standin = Standin::start();
    let driver = Driver::start(&standin).await;
    let sidecar = Sidecar::new(&driver);
    (standin, driver, sidecar)
}

/// One more volume like that one, as a lost race leaves it; later or earlier than the original.
fn twin(cloud: &mut Cloud, of: &Item, later: bool) -> Item {
    let stamp = cloud.stamp();
    let mut twin = of.clone();
    twin.id = new_id();
    twin.created = if later { stamp } else { of.created - jiff::SignedDuration::from_secs(5) };
    cloud.items.push(twin.clone());
    twin
}

#[tokio::test]
async fn of_two_volumes_from_a_lost_race_the_earliest_stays_and_the_other_goes() {
    let (standin, _driver, sidecar) = ready().await;
    for later in [true, false] {
        let name = format!("pvc-{later}");
        let made = sidecar.create(&name, 1).await.unwrap().volume_id;
        let other = standin.cloud(|cloud| {
            let original = cloud.volume(&made).unwrap().clone();
            twin(cloud, &original, later).id
        });
        let (earliest, latest) = if later { (made, other) } else { (other, made) };
        let answered = sidecar.create(&name, 1).await.unwrap().volume_id;
        assert_eq!(answered, earliest);
        assert!(standin.cloud(|cloud| cloud.volume(&latest).is_none()), "the later one is still there");
        assert!(standin.cloud(|cloud| cloud.volume(&earliest).is_some()), "the earliest is gone");
    }
}

#[tokio::test]
async fn a_twin_that_is_in_use_or_not_ours_is_never_removed() {
    let (standin, _driver, sidecar) = ready().await;
    let node = standin.cloud(|cloud| cloud.first_server());
    let made = sidecar.create("pvc", 1).await.unwrap().volume_id;
    let twins = standin.cloud(|cloud| {
        let original = cloud.volume(&made).unwrap().clone();
        let used = twin(cloud, &original, true).id;
        let bare = twin(cloud, &original, true).id;
        cloud.item_mut(Kind::Volume, &bare).unwrap().metadata.clear();
        let foreign = twin(cloud, &original, true).id;
        for value in cloud.item_mut(Kind::Volume, &foreign).unwrap().metadata.values_mut() {
            "another cluster".clone_into(value);
        }
        [used, bare, foreign]
    });
    sidecar.publish(&twins[0], &node).await.unwrap();
    // Whatever is answered: no data is lost.
    let _ = sidecar.create("pvc", 1).await;
    for twin in &twins {
        assert!(standin.cloud(|cloud| cloud.volume(twin).is_some()), "a volume that was not ours to remove is gone");
    }
    assert!(standin.cloud(|cloud| cloud.volume(&made).is_some()));
}

#[tokio::test]
async fn a_volume_of_that_name_that_somebody_else_made_is_never_adopted() {
    let (standin, _driver, sidecar) = ready().await;
    let foreign = standin.cloud(|cloud| cloud.add_volume("pvc"));
    match sidecar.create("pvc", 1).await {
        Ok(volume) => assert_ne!(volume.volume_id, foreign),
        Err(status) => assert_eq!(status.code(), Code::AlreadyExists, "{status:?}"),
    }
    assert!(standin.cloud(|cloud| cloud.volume(&foreign).is_some()));
}

#[tokio::test]
async fn names_that_differ_in_case_only_are_two_volumes() {
    let (standin, _driver, sidecar) = ready().await;
    standin.cloud(|cloud| cloud.loose_names = true);
    let upper = sidecar.create("PVC-a", 1).await.unwrap().volume_id;
    let lower = sidecar.create("pvc-A", 1).await.unwrap().volume_id;
    assert_ne!(upper, lower);
    assert_eq!(sidecar.create("PVC-a", 1).await.unwrap().volume_id, upper);
}

#[tokio::test]
async fn the_same_name_with_other_wishes_already_exists() {
    let (standin, _driver, sidecar) = ready().await;
    sidecar.create("pvc", 1).await.unwrap();
    let status = sidecar.create("pvc", 2).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists, "{status:?}");
    let mut other_type = create_request("pvc", 1);
    other_type.parameters.insert("type".to_owned(), "multi".to_owned());
    let status = sidecar.create_as(other_type).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists, "{status:?}");
    assert_eq!(standin.cloud(|cloud| cloud.items.len()), 1);

    let first = sidecar.create("first", 1).await.unwrap().volume_id;
    let second = sidecar.create("second", 1).await.unwrap().volume_id;
    sidecar.ready_snapshot("snapshot", &first, false).await.unwrap();
    let status = sidecar.snapshot("snapshot", &second, false).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists, "{status:?}");
}

#[tokio::test]
async fn of_two_snapshots_or_backups_from_a_lost_race_the_earliest_stays() {
    let (standin, _driver, sidecar) = ready().await;
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    for (kind, backup) in [(Kind::Snapshot, false), (Kind::Backup, true)] {
        let name = kind.singular();
        let made = sidecar.ready_snapshot(name, &volume, backup).await.unwrap().snapshot_id;
        standin.cloud(|cloud| {
            let original = cloud.named(kind, name).first().cloned().unwrap();
            twin(cloud, &original, true);
        });
        assert_eq!(sidecar.ready_snapshot(name, &volume, backup).await.unwrap().snapshot_id, made);
        let left = standin.cloud(|cloud| cloud.named(kind, name).len());
        assert_eq!(left, 1, "the later {name} is still there");
    }
}
