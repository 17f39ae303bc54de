//! Lists, page by page, also while objects come and go.

use crate::driver::Driver;
use crate::manila;
use crate::proto;
use crate::sidecar::Sidecar;
use crate::standin::Standin;
use std::collections::BTreeSet;
use tonic::Code;

async fn ready() -> (Standin, Driver, Sidecar) {
    let standin = Standin::start();
    let driver = Driver::start(&standin).await;
    let sidecar = Sidecar::new(&driver);
    (standin, driver, sidecar)
}

fn ids(response: &proto::ListVolumesResponse) -> Vec<String> {
    response.entries.iter().map(|entry| entry.volume.as_ref().unwrap().volume_id.clone()).collect()
}

/// All pages of at most so many.
async fn all_volumes(sidecar: &Sidecar, most: i32) -> (Vec<String>, usize) {
    let (mut all, mut token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = sidecar.list(most, &token).await.unwrap();
        assert!(most == 0 || page.entries.len() <= usize::try_from(most).unwrap());
        all.extend(ids(&page));
        pages += 1;
        token = page.next_token;
        if token.is_empty() {
            return (all, pages);
        }
        assert!(pages < 100, "the list has no end");
    }
}

async fn all_snapshots(sidecar: &Sidecar, most: i32, filter: &proto::ListSnapshotsRequest) -> Vec<String> {
    let (mut all, mut token) = (Vec::new(), String::new());
    for _ in 0..100 {
        let request =
            proto::ListSnapshotsRequest { max_entries: most, starting_token: token.clone(), ..filter.clone() };
        let page = sidecar.list_snapshots(request).await.unwrap();
        assert!(most == 0 || page.entries.len() <= usize::try_from(most).unwrap());
        all.extend(page.entries.iter().map(|entry| entry.snapshot.as_ref().unwrap().snapshot_id.clone()));
        token = page.next_token;
        if token.is_empty() {
            return all;
        }
    }
    panic!("the list has no end");
}

fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list
}

#[tokio::test]
async fn every_volume_is_listed_once_whatever_the_size_of_the_pages() {
    let (standin, _driver, sidecar) = ready().await;
    let node = standin.cloud(|cloud| {
        cloud.page = 2;
        cloud.first_server()
    });
    assert_eq!(all_volumes(&sidecar, 0).await.0, Vec::<String>::new());
    let mut made = Vec::new();
    for number in 0..6 {
        made.push(sidecar.create(&format!("pvc-{number}"), 1).await.unwrap().volume_id);
    }
    made.push(standin.cloud(|cloud| cloud.add_volume("somebody else's")));
    sidecar.publish(&made[3], &node).await.unwrap();
    let made = sorted(made);
    for most in [0, 1, 2, 3, 4, 7, 8, 100] {
        let (listed, pages) = all_volumes(&sidecar, most).await;
        assert_eq!(sorted(listed), made, "with at most {most} per page");
        if most > 0 {
            assert!(pages <= made.len().div_ceil(usize::try_from(most).unwrap().min(2)) + 1, "{pages} pages");
        }
    }
    let all = sidecar.list(0, "").await.unwrap();
    let published: Vec<_> = all
        .entries
        .iter()
        .filter_map(|entry| {
            let nodes = &entry.status.as_ref()?.published_node_ids;
            Some((entry.volume.as_ref()?.volume_id.clone(), nodes.first()?.clone()))
        })
        .collect();
    assert_eq!(published.len(), 1);
    assert_eq!(published[0].1, node);
}

#[tokio::test]
async fn a_token_that_is_not_ours_or_no_longer_valid_is_aborted() {
    let (standin, _driver, sidecar) = ready().await;
    for number in 0..4 {
        sidecar.create(&format!("pvc-{number}"), 1).await.unwrap();
    }
    for (most, token) in [(0, "nonsense"), (2, "nonsense"), (0, "11111111-1111-1111-1111-111111111111")] {
        let status = sidecar.list(most, token).await.unwrap_err();
        assert_eq!(status.code(), Code::Aborted, "{token}: {status:?}");
        let request =
            proto::ListSnapshotsRequest { max_entries: most, starting_token: token.to_owned(), ..Default::default() };
        let status = sidecar.list_snapshots(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Aborted, "{token}: {status:?}");
    }
    let page = sidecar.list(2, "").await.unwrap();
    standin.cloud(|cloud| cloud.items.clear());
    let status = sidecar.list(2, &page.next_token).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "the page's last volume is gone: {status:?}");
}

#[tokio::test]
async fn snapshots_and_backups_are_one_list() {
    let (standin, _driver, sidecar) = ready().await;
    standin.cloud(|cloud| cloud.page = 2);
    let first = sidecar.create("first", 1).await.unwrap().volume_id;
    let second = sidecar.create("second", 1).await.unwrap().volume_id;
    let (mut made, mut of_second) = (Vec::new(), Vec::new());
    for number in 0..3 {
        for backup in [false, true] {
            let volume = if number == 2 { &second } else { &first };
            let name = format!("{number}-{backup}");
            let id = sidecar.ready_snapshot(&name, volume, backup).await.unwrap().snapshot_id;
            if number == 2 {
                of_second.push(id.clone());
            }
            made.push(id);
        }
    }
    let made = sorted(made);
    assert_eq!(made.iter().collect::<BTreeSet<_>>().len(), 6);
    let everything = proto::ListSnapshotsRequest::default();
    for most in [0, 1, 2, 3, 4, 5, 6, 7] {
        assert_eq!(sorted(all_snapshots(&sidecar, most, &everything).await), made, "at most {most} per page");
        let of = proto::ListSnapshotsRequest { source_volume_id: second.clone(), ..Default::default() };
        assert_eq!(sorted(all_snapshots(&sidecar, most, &of).await), sorted(of_second.clone()), "at most {most}");
    }
    for id in &made {
        let one = proto::ListSnapshotsRequest { snapshot_id: id.clone(), ..Default::default() };
        assert_eq!(all_snapshots(&sidecar, 0, &one).await, std::slice::from_ref(id));
    }
    let nobody = "11111111-1111-1111-1111-111111111111".to_owned();
    for filter in [
        proto::ListSnapshotsRequest { snapshot_id: nobody.clone(), ..Default::default() },
        proto::ListSnapshotsRequest { source_volume_id: nobody, ..Default::default() },
    ] {
        assert_eq!(all_snapshots(&sidecar, 0, &filter).await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_volume_of_ours_is_found_by_name_behind_pages_of_others() {
    let (standin, _driver, sidecar) = ready().await;
    let ours = sidecar.create("pvc", 1).await.unwrap().volume_id;
    standin.cloud(|cloud| {
        cloud.page = 2;
        let metadata = cloud.volume(&ours).unwrap().metadata.clone();
        for _ in 0..7 {
            let id = cloud.add_volume("pvc");
            // The same keys, another cluster's values.
            let foreign = metadata.keys().map(|key| (key.clone(), "other".to_owned())).collect();
            cloud.item_mut(crate::standin::cloud::Kind::Volume, &id).unwrap().metadata = foreign;
        }
    });
    assert_eq!(sidecar.create("pvc", 1).await.unwrap().volume_id, ours);
    assert_eq!(standin.cloud(|cloud| cloud.items.len()), 8);
}

#[tokio::test]
async fn shares_that_go_between_two_pages_neither_hide_others_nor_stop_the_list() {
    const SHARES: usize = 9;
    let standin = Standin::start();
    let driver = Driver::start_with(&standin, manila::setup()).await;
    let sidecar = Sidecar::new(&driver);
    let before = standin.cloud(|cloud| {
        let now = cloud.stamp();
        (0..SHARES).for_each(|number| drop(cloud.manila.add_share(&format!("share-{number}"), now)));
        cloud.manila.shares.clone()
    });
    let all = sorted(before.iter().map(|share| share.id.clone()).collect());
    // So many per page; before which page how many of those go that were seen last; and what Manila shows at once.
    for (most, page, gone, cap) in [1, 2, 3].into_iter().flat_map(|most| {
        let pages = [1, 2, 3].into_iter().flat_map(move |page| [1, 2, page * most].map(|gone| (page, gone)));
        pages.flat_map(move |(page, gone)| [1000, 2, 1].map(|cap| (most, page, gone, cap)))
    }) {
        let case = format!("pages of {most}, {gone} gone before page {page}, at most {cap} from Manila");
        standin.cloud(|cloud| (cloud.manila.shares, cloud.page) = (before.clone(), cap));
        let (mut seen, mut token) = (Vec::new(), String::new());
        for number in 0.. {
            if number == page {
                let going = &seen[usize::saturating_sub(seen.len(), gone)..];
                standin.cloud(|cloud| cloud.manila.shares.retain(|share| !going.contains(&share.id)));
            }
            standin.clear_log();
            let listed = sidecar.list(i32::try_from(most).unwrap(), &token).await.expect(&case);
            assert!(listed.entries.len() <= most, "{case}: {} entries", listed.entries.len());
            let cost = standin.count("*manila*");
            assert!(cost <= 4 * SHARES, "{case}: {cost} requests");
            seen.extend(ids(&listed));
            token = listed.next_token;
            if token.is_empty() {
                break;
            }
            assert!(number <= 2 * SHARES, "{case}: the list has no end");
        }
        assert_eq!(seen, all, "{case}");
    }
}
