//! Quotas, rate limits, outages and refusals.

use crate::driver::{Driver, Setup};
use crate::sidecar::{Sidecar, create_request, from_snapshot, from_volume};
use crate::standin::Standin;
use crate::standin::fault::{Action, Rule};
use std::time::Duration;
use tonic::{Code, Status};

async fn ready() -> (Standin, Driver, Sidecar) {
    let standin = Standin::start();
    let driver = Driver::start(&standin).await;
    let sidecar = Sidecar::new(&driver);
    (standin, driver, sidecar)
}

fn expect_exhausted(what: &str, result: Result<String, Status>, words: &str) {
    let status = result.expect_err(what);
    assert_eq!(status.code(), Code::ResourceExhausted, "{what}: {status:?}");
    assert!(status.message().contains(words), "{what} says not why: {status:?}");
    assert!(status.message().contains("req-"), "{what} has no request id: {status:?}");
}

#[tokio::test]
async fn a_used_up_quota_is_resource_exhausted_on_every_kind_of_create_and_is_not_retried() {
    let (standin, _driver, sidecar) = ready().await;
    let source = sidecar.create("source", 1).await.unwrap().volume_id;
    let snapshot = sidecar.ready_snapshot("snapshot", &source, false).await.unwrap().snapshot_id;
    let backup = sidecar.ready_snapshot("backup", &source, true).await.unwrap().snapshot_id;
    let before = standin.cloud(|cloud| cloud.inventory());
    let volume = async |name: &str, content| {
        let request = crate::proto::CreateVolumeRequest { volume_content_source: content, ..create_request(name, 1) };
        sidecar.create_as(request).await.map(|volume| volume.volume_id)
    };

    standin.cloud(|cloud| cloud.quotas.volumes = 1);
    standin.clear_log();
    expect_exhausted("an empty volume", volume("a", None).await, "VolumeLimitExceeded");
    assert_eq!(standin.count("POST cinder /volumes"), 1, "Retry-After: 0 was believed: {:#?}", standin.calls());
    expect_exhausted("a restored volume", volume("b", from_snapshot(&snapshot)).await, "VolumeLimitExceeded");
    expect_exhausted("a volume from a backup", volume("c", from_snapshot(&backup)).await, "VolumeLimitExceeded");
    expect_exhausted("a clone", volume("d", from_volume(&source)).await, "VolumeLimitExceeded");

    standin.cloud(|cloud| (cloud.quotas.volumes, cloud.quotas.gigabytes) = (5000, 2));
    expect_exhausted("too many gigabytes", volume("e", None).await, "VolumeSizeExceedsAvailableQuota");
    expect_exhausted(
        "an expansion",
        sidecar.expand(&source, 9).await.map(|size| size.to_string()),
        "VolumeSizeExceedsAvailableQuota",
    );

    standin.cloud(|cloud| {
        (cloud.quotas.gigabytes, cloud.quotas.per_volume_gigabytes, cloud.quotas.snapshots) = (100_000, 5, 1);
    });
    let big = sidecar.create("f", 9).await.map(|volume| volume.volume_id);
    expect_exhausted("a volume too large", big, "VolumeSizeExceedsLimit");
    let of = async |name: &str, backup| sidecar.snapshot(name, &source, backup).await.map(|it| it.snapshot_id);
    expect_exhausted("a snapshot", of("g", false).await, "SnapshotLimitExceeded");

    standin.cloud(|cloud| (cloud.quotas.snapshots, cloud.quotas.backups) = (5000, 1));
    expect_exhausted("a backup", of("h", true).await, "BackupLimitExceeded");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(standin.cloud(|cloud| cloud.inventory()), before, "something was left over");
}

#[tokio::test]
async fn an_attach_limit_is_resource_exhausted() {
    let (standin, _driver, sidecar) = ready().await;
    let node = standin.cloud(|cloud| {
        cloud.servers[0].room = 0;
        cloud.first_server()
    });
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    let status = sidecar.publish(&volume, &node).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().contains("maximum allowed number of disk devices"), "{status:?}");
}

#[tokio::test]
async fn a_rate_limited_service_is_left_alone_until_its_retry_after() {
    let (standin, _driver, sidecar) = ready().await;
    sidecar.create("warm", 1).await.unwrap();
    for nth in 1..=3 {
        standin.clear_log();
        let limited = Action::Status { status: 429, retry_after: Some(2) };
        let strikes = standin.inject(Rule::on("* cinder *", limited).nth(nth));
        // A POST that was refused by a rate limit surely was not done, so the driver may repeat it by itself; if it
        // answers Unavailable instead, the sidecar does.
        let name = format!("pvc-{nth}");
        while let Err(status) = sidecar.create(&name, 1).await {
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        }
        assert_eq!(strikes.count(), 1, "there was no call {nth}: {:#?}", standin.calls());
        let log = standin.log();
        let limited = log.iter().position(|logged| logged.status == Some(429)).unwrap();
        let pause = log[limited + 1].at - log[limited].at;
        assert!(pause >= Duration::from_millis(1950), "call {nth}: the next request came after {pause:?}");
        assert!(pause < Duration::from_secs(4), "call {nth}: the next request came only after {pause:?}");
        assert_eq!(standin.cloud(|cloud| cloud.named(crate::standin::cloud::Kind::Volume, &name).len()), 1);
    }
}

#[tokio::test]
async fn an_outage_of_a_moment_is_not_noticed() {
    let (standin, _driver, sidecar) = ready().await;
    for (number, action) in [Action::status(503), Action::status(502), Action::Reset].into_iter().enumerate() {
        let strikes = standin.inject(Rule::on("GET cinder *", action).times(3));
        sidecar.create(&format!("pvc-{number}"), 1).await.unwrap();
        assert_eq!(strikes.count(), 3);
    }
}

#[tokio::test]
async fn an_outage_that_lasts_is_unavailable_and_ends_with_the_outage() {
    let (standin, _driver, sidecar) = ready().await;
    sidecar.create("warm", 1).await.unwrap();
    standin.inject(Rule::on("* cinder *", Action::status(503)).always());
    let status = sidecar.with_deadline(Duration::from_secs(4)).create("pvc", 1).await.unwrap_err();
    assert!(matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
    standin.clear_faults();
    sidecar.create("pvc", 1).await.unwrap();
}

#[tokio::test]
async fn what_policy_forbids_is_permission_denied_in_the_services_words() {
    let (standin, _driver, sidecar) = ready().await;
    standin.inject(Rule::on("POST cinder /volumes", Action::status(403)).always());
    let status = sidecar.create("pvc", 1).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    assert!(status.message().contains("Policy doesn't allow"), "{status:?}");
    assert!(status.message().contains("req-"), "no request id: {status:?}");
}

#[tokio::test]
async fn a_server_error_on_a_post_is_reported_and_the_post_is_not_repeated() {
    let (standin, _driver, sidecar) = ready().await;
    standin.inject(Rule::on("POST cinder /volumes", Action::status(500)));
    standin.clear_log();
    let status = sidecar.create("pvc", 1).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal, "{status:?}");
    assert_eq!(standin.count("POST cinder /volumes"), 1, "{:#?}", standin.calls());
    sidecar.create("pvc", 1).await.unwrap();
}

#[tokio::test]
async fn an_error_is_never_taken_for_an_answer_when_a_backup_is_looked_for() {
    // Only cinder-csi gave bare ids, of which one cannot see whether they are a snapshot's or a backup's.
    let standin = Standin::start();
    let arguments = ["--driver-name", "cinder.csi.openstack.org"].map(str::to_owned).to_vec();
    let driver = Driver::start_with(&standin, Setup { arguments, ..Setup::default() }).await;
    let sidecar = Sidecar::new(&driver);
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    let backup = sidecar.ready_snapshot("backup", &volume, true).await.unwrap().snapshot_id;
    let bare = backup.rsplit('/').next().unwrap().to_owned();
    for action in [Action::status(500), Action::status(403)] {
        let strikes = standin.inject(Rule::on("* cinder /backups*", action).always());
        let status = sidecar.with_deadline(Duration::from_secs(3)).delete_snapshot(&bare).await;
        assert!(strikes.count() > 0, "the backups were not asked: {:#?}", standin.calls());
        assert!(status.is_err(), "a backup that could not be looked at was reported as deleted");
        standin.clear_faults();
    }
    sidecar.delete_snapshot(&bare).await.unwrap();
    sidecar.delete(&volume).await.unwrap();
    assert_eq!(standin.cloud(|cloud| cloud.inventory()), Vec::<String>::new());
}

#[tokio::test]
async fn bad_wishes_are_invalid_in_the_services_words() {
    let (standin, _driver, sidecar) = ready().await;
    let with_type = |name: &str, key: &str, value: &str| {
        let mut request = create_request(name, 1);
        request.parameters.insert(key.to_owned(), value.to_owned());
        request
    };
    for (key, value) in [("type", "nowhere"), ("availability", "nowhere")] {
        let status = sidecar.create_as(with_type("pvc", key, value)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{key}: {status:?}");
        assert!(status.message().contains("nowhere"), "{key}: {status:?}");
    }
    let missing = "11111111-1111-1111-1111-111111111111";
    for content in [from_snapshot(missing), from_volume(missing)] {
        let request = crate::proto::CreateVolumeRequest { volume_content_source: content, ..create_request("pvc", 1) };
        let status = sidecar.create_as(request).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{status:?}");
    }
    assert_eq!(standin.cloud(|cloud| cloud.inventory()), Vec::<String>::new());
}
