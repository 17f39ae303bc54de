//! Services that are older than the driver's newest wishes.

use crate::driver::Driver;
use crate::sidecar::Sidecar;
use crate::standin::Standin;
use tonic::Code;

async fn ready(cinder: u16, nova: u16) -> (Standin, Driver, Sidecar, String) {
    let standin = Standin::start();
    standin.cloud(|cloud| (cloud.cinder_highest, cloud.nova_highest) = ((3, cinder), (2, nova)));
    let driver = Driver::start(&standin).await;
    let sidecar = Sidecar::new(&driver);
    let node = standin.cloud(|cloud| cloud.first_server());
    (standin, driver, sidecar, node)
}

#[tokio::test]
async fn a_volumes_whole_life_works_with_every_age_of_the_services() {
    for (cinder, nova) in [
        (27, 1),
        (34, 17),
        (40, 18),
        (41, 30),
        (42, 59),
        (46, 60),
        (47, 79),
        (50, 87),
        (59, 89),
        (60, 95),
        (65, 96),
        (66, 104),
    ] {
        let (standin, _driver, sidecar, node) = ready(cinder, nova).await;
        let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
        sidecar.expand(&volume, 2).await.unwrap();
        sidecar.publish(&volume, &node).await.unwrap();
        let snapshot = sidecar.ready_snapshot("snapshot", &volume, false).await.unwrap().snapshot_id;
        let grown = sidecar.expand(&volume, 3).await;
        if cinder >= 42 {
            grown.unwrap();
        } else {
            let status = grown.unwrap_err();
            let codes = [Code::FailedPrecondition, Code::Unimplemented];
            assert!(codes.contains(&status.code()), "3.{cinder}: {status:?}");
            assert!(status.message().contains("grows detached volumes only"), "says not why: {status:?}");
        }
        let mut request = crate::sidecar::create_request("restored", 2);
        request.volume_content_source = crate::sidecar::from_snapshot(&snapshot);
        let restored = sidecar.create_as(request).await.unwrap().volume_id;
        sidecar.unpublish(&volume, &node).await.unwrap();
        sidecar.list(0, "").await.unwrap();
        sidecar.delete(&restored).await.unwrap();
        sidecar.delete_snapshot(&snapshot).await.unwrap();
        sidecar.delete(&volume).await.unwrap();
        assert_eq!(standin.cloud(|cloud| cloud.inventory()), Vec::<String>::new(), "3.{cinder}, 2.{nova}");
        for logged in standin.log() {
            let highest = if logged.line.contains(" cinder ") { (3, cinder) } else { (2, nova) };
            assert!(logged.microversion.is_none_or(|version| version <= highest), "{logged:?}");
            assert_ne!(logged.status, Some(406), "{logged:?}");
        }
    }
}

#[tokio::test]
async fn a_service_that_is_downgraded_while_the_driver_runs_is_an_error_that_says_so() {
    let (standin, _driver, sidecar, _) = ready(71, 104).await;
    sidecar.create("pvc", 1).await.unwrap();
    standin.cloud(|cloud| cloud.cinder_highest = (3, 2));
    let status = sidecar.create("other", 1).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
    assert!(status.message().contains("3.2"), "{status:?}");
}
