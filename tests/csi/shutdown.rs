//! The end of the server: what is in flight is finished, in the time that is given.

use crate::driver::{Driver, create};
use crate::gated::{Gated, Wait};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::Code;

#[tokio::test]
async fn an_rpc_in_flight_is_finished_and_no_new_one_begins() {
    let provider = Gated::new(Wait::UntilTheCallEnds);
    let driver = Driver::start(Arc::clone(&provider) as _, Duration::from_secs(30)).await;
    let mut client = driver.controller();
    let running = tokio::spawn(async move { client.create_volume(create("a")).await });
    provider.has_begun(1).await;
    driver.shutdown.begin.cancel();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!driver.serving.is_finished(), "it waits for the RPC");
    assert!(std::os::unix::net::UnixStream::connect(driver.socket()).is_err(), "nobody new is let in");
    provider.open_for(1);
    running.await.unwrap().unwrap();
    let socket = driver.socket().to_owned();
    driver.serving.await.unwrap().unwrap();
    assert!(!socket.exists(), "the socket is removed at the end");
}

#[tokio::test]
async fn what_waits_longer_than_the_grace_is_cancelled_and_its_caller_told() {
    let provider = Gated::new(Wait::UntilTheCallEnds);
    let driver = Driver::start(Arc::clone(&provider) as _, Duration::from_millis(300)).await;
    let mut client = driver.controller();
    let running = tokio::spawn(async move { client.create_volume(create("a")).await });
    provider.has_begun(1).await;
    let started = Instant::now();
    driver.shutdown.begin.cancel();
    let status = running.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("the driver is stopping"), "{status}");
    driver.serving.await.unwrap().unwrap();
    assert!(started.elapsed() < Duration::from_secs(3));
    provider.has_ended(1).await;
}

#[tokio::test]
async fn a_change_whose_caller_is_gone_is_seen_through_before_the_end() {
    let provider = Gated::new(Wait::ToTheEnd);
    let driver = Driver::start(Arc::clone(&provider) as _, Duration::from_secs(30)).await;
    let mut client = driver.controller();
    let left = tokio::time::timeout(Duration::from_millis(200), client.create_volume(create("a"))).await;
    assert!(left.is_err());
    driver.shutdown.begin.cancel();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!driver.serving.is_finished(), "it waits for the change");
    provider.open_for(1);
    driver.serving.await.unwrap().unwrap();
    assert_eq!(provider.count().await, 1);
}
