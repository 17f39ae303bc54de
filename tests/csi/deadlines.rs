//! Operations that take long: others on the same object, callers that leave, deadlines.

use crate::driver::{Driver, create};
use crate::gated::{Gated, Wait};
use fuxi_csi::csi::proto;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Code, Request};

const GRACE: Duration = Duration::from_secs(5);

/// A request with a deadline, as gRPC clients send it.
fn within<T>(time: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let text = format!("{}m", time.as_millis());
    request.metadata_mut().insert("grpc-timeout", text.parse().unwrap());
    request
}

#[tokio::test]
async fn a_second_call_for_the_same_name_is_aborted_and_another_name_goes_on() {
    let provider = Gated::new(Wait::UntilTheCallEnds);
    let driver = Driver::start(Arc::clone(&provider) as _, GRACE).await;
    let mut client = driver.controller();
    let first = tokio::spawn(async move { client.create_volume(create("a")).await });
    provider.has_begun(1).await;
    let status = driver.controller().create_volume(create("a")).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);
    assert!(status.message().contains("the volume named \"a\": create volume"), "{status}");
    provider.open_for(2);
    driver.controller().create_volume(create("b")).await.unwrap();
    let made = first.await.unwrap().unwrap().into_inner();
    let again = {
        provider.open_for(1);
        driver.controller().create_volume(create("a")).await.unwrap().into_inner()
    };
    assert_eq!(made, again);
}

#[tokio::test]
async fn reading_is_never_aborted() {
    let provider = Gated::new(Wait::UntilTheCallEnds);
    let driver = Driver::start(Arc::clone(&provider) as _, GRACE).await;
    provider.open_for(1);
    let id = driver.volume("v").await;
    let mut client = driver.controller();
    let volume_id = id.clone();
    let delete = proto::DeleteVolumeRequest { volume_id: id.clone(), ..Default::default() };
    let deleting = tokio::spawn(async move { client.delete_volume(delete).await });
    provider.has_begun(2).await;
    driver.controller().controller_get_volume(proto::ControllerGetVolumeRequest { volume_id }).await.unwrap();
    let publish = driver.controller().controller_publish_volume(crate::driver::publish(&id)).await.unwrap_err();
    assert_eq!(publish.code(), Code::Aborted, "{publish}");
    provider.open_for(1);
    deleting.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_caller_that_leaves_ends_the_wait() {
    let provider = Gated::new(Wait::UntilTheCallEnds);
    let driver = Driver::start(Arc::clone(&provider) as _, GRACE).await;
    let mut client = driver.controller();
    let leaving = tokio::time::timeout(Duration::from_millis(200), client.create_volume(create("a"))).await;
    assert!(leaving.is_err());
    provider.has_ended(1).await;
    provider.open_for(1);
    driver.controller().create_volume(create("a")).await.unwrap();
    assert_eq!(provider.count().await, 1);
}

#[tokio::test]
async fn a_caller_that_leaves_cuts_no_change_off_and_the_object_stays_claimed_until_it_is_done() {
    let provider = Gated::new(Wait::ToTheEnd);
    let driver = Driver::start(Arc::clone(&provider) as _, GRACE).await;
    let mut client = driver.controller();
    let leaving = tokio::time::timeout(Duration::from_millis(200), client.create_volume(create("a"))).await;
    assert!(leaving.is_err());
    let status = driver.controller().create_volume(create("a")).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status}");
    provider.open_for(1);
    provider.has_ended(1).await;
    assert!(driver.operations.ended(Duration::from_secs(5)).await);
    assert_eq!(provider.count().await, 1, "the change was seen through");
    provider.open_for(1);
    driver.controller().create_volume(create("a")).await.unwrap();
    assert_eq!(provider.count().await, 1);
}

#[tokio::test]
async fn the_callers_deadline_is_kept_and_the_answer_comes_before_it() {
    for wait in [Wait::UntilTheCallEnds, Wait::ToTheEnd] {
        let provider = Gated::new(wait);
        let driver = Driver::start(Arc::clone(&provider) as _, GRACE).await;
        // The margin of a busy machine: a twentieth of this.
        let time = Duration::from_secs(4);
        let status = driver.controller().create_volume(within(time, create("a"))).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        let words = if wait == Wait::ToTheEnd { "seen through" } else { "wait at the gate" };
        assert!(status.message().contains(words), "{wait:?}: the driver's own words, not a client's: {status}");
        provider.open_for(1);
    }
}

#[tokio::test]
async fn a_deadline_that_has_passed_is_answered() {
    let driver = Driver::in_memory().await;
    let mut request = Request::new(create("a"));
    request.metadata_mut().insert("grpc-timeout", "1n".parse().unwrap());
    let status = driver.controller().create_volume(request).await.unwrap_err();
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status}");
    let mut endless = Request::new(create("a"));
    endless.metadata_mut().insert("grpc-timeout", "99999999H".parse().unwrap());
    driver.controller().create_volume(endless).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_operations_at_once_are_served_and_counted() {
    const MANY: usize = 5_000;
    let provider = Gated::new(Wait::UntilTheCallEnds);
    let driver = Driver::start(Arc::clone(&provider) as _, GRACE).await;
    let calls: Vec<_> = (0..MANY)
        .map(|index| {
            let mut client = driver.controller();
            tokio::spawn(async move { client.create_volume(create(&format!("v{index}"))).await.map(drop) })
        })
        .collect();
    provider.has_begun(MANY).await;
    let mut identity = driver.identity();
    let probe = identity.probe(proto::ProbeRequest {});
    tokio::time::timeout(Duration::from_secs(5), probe).await.unwrap().unwrap();
    provider.open_for(MANY);
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let text = driver.metrics.text().unwrap();
    assert!(text.contains(&format!("fuxi_csi_rpc_total{{method=\"CreateVolume\",code=\"OK\"}} {MANY}")), "{text}");
    assert!(text.contains("fuxi_csi_rpc_in_flight{method=\"CreateVolume\"} 0"), "{text}");
}
