//! Lists, page by page.

use crate::driver::{Driver, publish};
use fuxi_csi::csi::proto;
use std::collections::BTreeSet;

async fn page(driver: &Driver, max_entries: i32, starting_token: String) -> proto::ListVolumesResponse {
    let request = proto::ListVolumesRequest { max_entries, starting_token };
    driver.controller().list_volumes(request).await.unwrap().into_inner()
}

fn ids(page: &proto::ListVolumesResponse) -> Vec<String> {
    page.entries.iter().map(|entry| entry.volume.as_ref().unwrap().volume_id.clone()).collect()
}

#[tokio::test]
async fn every_volume_is_on_one_page() {
    let driver = Driver::in_memory().await;
    let mut made = BTreeSet::new();
    for index in 0..7 {
        made.insert(driver.volume(&format!("v{index}")).await);
    }
    for size in [1, 2, 3, 7, 100, 0] {
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let page = page(&driver, size, token).await;
            if size > 0 {
                assert!(page.entries.len() <= usize::try_from(size).unwrap());
            }
            seen.extend(ids(&page));
            token = page.next_token;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen.len(), 7, "pages of {size}");
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), made, "pages of {size}");
    }
}

#[tokio::test]
async fn a_list_without_a_size_comes_in_pages_that_fit_a_message() {
    let driver = Driver::in_memory().await;
    for index in 0..1001 {
        driver.volume(&format!("v{index}")).await;
    }
    let first = page(&driver, 0, String::new()).await;
    assert_eq!(first.entries.len(), 1000);
    let second = page(&driver, i32::MAX, first.next_token).await;
    assert_eq!((second.entries.len(), second.next_token.as_str()), (1, ""));
}

#[tokio::test]
async fn published_nodes_are_listed() {
    let driver = Driver::in_memory().await;
    let id = driver.volume("v").await;
    driver.volume("w").await;
    driver.controller().controller_publish_volume(publish(&id)).await.unwrap();
    let nodes: Vec<_> = page(&driver, 0, String::new())
        .await
        .entries
        .into_iter()
        .map(|e| e.status.unwrap().published_node_ids)
        .collect();
    assert_eq!(nodes, [vec!["n".to_owned()], vec![]]);
}

#[tokio::test]
async fn snapshots_are_filtered_and_paged() {
    let driver = Driver::in_memory().await;
    let mut client = driver.controller();
    let (v, w) = (driver.volume("v").await, driver.volume("w").await);
    for (index, source) in [&v, &w, &v, &v].into_iter().enumerate() {
        let request = proto::CreateSnapshotRequest {
            source_volume_id: source.clone(),
            name: format!("s{index}"),
            ..Default::default()
        };
        client.create_snapshot(request).await.unwrap();
    }
    let ask = |starting_token| proto::ListSnapshotsRequest {
        max_entries: 2,
        source_volume_id: v.clone(),
        starting_token,
        ..Default::default()
    };
    let first = client.list_snapshots(ask(String::new())).await.unwrap().into_inner();
    let second = client.list_snapshots(ask(first.next_token.clone())).await.unwrap().into_inner();
    assert_eq!((first.entries.len(), second.entries.len(), second.next_token.as_str()), (2, 1, ""));
    for entry in first.entries.iter().chain(&second.entries) {
        assert_eq!(entry.snapshot.as_ref().unwrap().source_volume_id, v);
    }
}
