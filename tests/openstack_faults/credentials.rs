//! Tokens that are revoked and credentials that change.

use crate::driver::{Driver, Setup, cloud_conf};
use crate::sidecar::Sidecar;
use crate::standin::Standin;
use crate::standin::fault::{Action, Rule};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tonic::Code;

const LOGIN: &str = "POST keystone /auth/tokens";

#[tokio::test]
async fn a_revoked_token_is_renewed_once_and_the_rpc_succeeds() {
    let standin = Standin::start();
    let driver = Driver::start(&standin).await;
    let sidecar = Sidecar::new(&driver);
    sidecar.create("warm", 1).await.unwrap();
    for nth in 1..=3 {
        standin.clear_log();
        let strikes = standin.inject(Rule::on("* cinder *", Action::RevokeToken).nth(nth));
        let volume = sidecar.create(&format!("pvc-{nth}"), 1).await.unwrap();
        assert_eq!(strikes.count(), 1, "there was no call {nth}: {:#?}", standin.calls());
        assert_eq!(standin.count(LOGIN), 1, "call {nth}: {:#?}", standin.calls());
        assert_eq!(
            standin.cloud(|cloud| cloud.volume(&volume.volume_id).map(|it| it.status.clone())).unwrap(),
            "available"
        );
    }
}

#[tokio::test]
async fn twenty_concurrent_calls_with_a_revoked_token_renew_it_once() {
    let standin = Standin::start();
    let driver = Driver::start(&standin).await;
    let sidecar = Sidecar::new(&driver);
    sidecar.create("warm", 1).await.unwrap();
    standin.clear_log();
    standin.cloud(|cloud| cloud.tokens.clear());
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..20 {
        let sidecar = sidecar.clone();
        calls.spawn(async move { sidecar.create(&format!("pvc-{number}"), 1).await });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap().unwrap();
    }
    assert_eq!(standin.count(LOGIN), 1, "{:#?}", standin.calls());
}

#[tokio::test]
async fn refused_credentials_are_unauthenticated_and_are_not_tried_again_and_again() {
    let standin = Standin::start();
    let driver = Driver::start(&standin).await;
    let sidecar = Sidecar::new(&driver);
    let right = standin.cloud(|cloud| {
        cloud.tokens.clear();
        std::mem::replace(&mut cloud.account.password, "changed".to_owned())
    });
    standin.clear_log();
    for number in 0..5 {
        let status = sidecar.create(&format!("pvc-{number}"), 1).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        assert!(status.message().contains("cloud.conf"), "says not where the credentials are from: {status:?}");
    }
    assert!(standin.count(LOGIN) <= 3, "a locked account is only a few wrong logins away: {:#?}", standin.calls());

    standin.cloud(|cloud| cloud.account.password = right);
    let begun = Instant::now();
    while let Err(status) = sidecar.create("later", 1).await {
        assert!(begun.elapsed() < Duration::from_secs(40), "the right password is not tried again: {status:?}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

#[tokio::test]
async fn a_new_password_in_cloud_conf_is_taken_up_under_load_without_a_failed_rpc() {
    let standin = Standin::start();
    let driver = Driver::start(&standin).await;
    let stop = Arc::new(AtomicBool::new(false));
    let rounds = Arc::new(AtomicU32::new(0));
    let mut load = tokio::task::JoinSet::new();
    for worker in 0..8 {
        let (sidecar, stop, rounds) = (Sidecar::new(&driver), stop.clone(), rounds.clone());
        load.spawn(async move {
            for round in 0.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let volume = sidecar.create(&format!("pvc-{worker}-{round}"), 1).await?;
                sidecar.delete(&volume.volume_id).await?;
                rounds.fetch_add(1, Ordering::SeqCst);
            }
            Ok::<(), tonic::Status>(())
        });
    }
    for change in 0..4 {
        let before = rounds.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(500)).await;
        // As an operator does it: the new password is set, the secret is rewritten, the old tokens end.
        standin.cloud(|cloud| cloud.account.password = format!("password number {change}"));
        driver.write_cloud_conf(&cloud_conf(&standin));
        standin.cloud(|cloud| cloud.tokens.clear());
        let begun = Instant::now();
        while rounds.load(Ordering::SeqCst) < before + 16 && load.len() == 8 {
            assert!(begun.elapsed() < Duration::from_secs(20), "the load has come to a halt");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    stop.store(true, Ordering::SeqCst);
    while let Some(done) = load.join_next().await {
        done.unwrap().expect("no RPC fails while the credentials change");
    }
    assert_eq!(standin.cloud(|cloud| cloud.inventory()), Vec::<String>::new());
}

#[tokio::test]
async fn an_application_credential_logs_in() {
    let standin = Standin::start();
    let (id, secret) = standin.cloud(|cloud| cloud.account.application_credential.clone());
    let text = format!(
        "[Global]\nauth-url={}\napplication-credential-id={id}\napplication-credential-secret=\"{secret}\"\n",
        standin.auth_url()
    );
    let driver = Driver::start_with(&standin, Setup { cloud_conf: Some(text), ..Setup::default() }).await;
    Sidecar::new(&driver).create("pvc", 1).await.unwrap();
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires() {
    let standin = Standin::start();
    standin.cloud(|cloud| cloud.token_lifetime = Duration::from_secs(4));
    let driver = Driver::start(&standin).await;
    let sidecar = Sidecar::new(&driver);
    sidecar.create("first", 1).await.unwrap();
    standin.clear_log();
    tokio::time::sleep(Duration::from_secs(4)).await;
    sidecar.create("second", 1).await.unwrap();
    let refused = standin.log().iter().filter(|logged| logged.status == Some(401)).count();
    assert_eq!((standin.count(LOGIN), refused), (1, 0), "{:#?}", standin.calls());
}

#[tokio::test]
async fn endpoints_without_a_project_in_the_url_work() {
    let standin = Standin::start();
    standin.cloud(|cloud| cloud.project_in_url = false);
    let driver = Driver::start(&standin).await;
    let sidecar = Sidecar::new(&driver);
    let node = standin.cloud(|cloud| cloud.first_server());
    let volume = sidecar.create("pvc", 1).await.unwrap().volume_id;
    sidecar.publish(&volume, &node).await.unwrap();
    sidecar.unpublish(&volume, &node).await.unwrap();
    sidecar.delete(&volume).await.unwrap();
    assert_eq!(standin.cloud(|cloud| cloud.inventory()), Vec::<String>::new());
}

#[tokio::test]
async fn a_corrected_endpoint_is_taken_up_while_the_first_token_is_good() {
    let standin = Standin::start();
    let service = standin.cloud(|cloud| format!("/volume/v3/{}", cloud.project));
    let moved = Forwarder::to(&standin).await;
    let conf = |root: &str| format!("{}block-storage-endpoint-override = {root}{service}\n", cloud_conf(&standin));
    let text = conf(&moved.url);
    let driver = Driver::start_with(&standin, Setup { cloud_conf: Some(text), ..Setup::default() }).await;
    let sidecar = Sidecar::new(&driver);
    sidecar.create("before", 1).await.unwrap();
    moved.close().await;
    driver.write_cloud_conf(&conf(&standin.url()));
    standin.clear_log();
    assert_eq!(sidecar.list(0, "").await.unwrap().entries.len(), 1);
    assert_eq!(standin.count(LOGIN), 1, "the settings have changed once: {:#?}", standin.calls());
}

/// The stand-in at another address, until it is closed.
struct Forwarder {
    url: String,
    forwarding: tokio::task::JoinHandle<()>,
}

impl Forwarder {
    async fn to(standin: &Standin) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let target = standin.url().replace("http://", "");
        let forwarding = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let target = target.clone();
                connections.spawn(async move {
                    let mut far = tokio::net::TcpStream::connect(target).await.unwrap();
                    // It ends when either side does, or when all is closed.
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Self { url, forwarding }
    }

    /// Nobody listens there afterwards, and no connection is left.
    async fn close(self) {
        self.forwarding.abort();
        assert!(self.forwarding.await.unwrap_err().is_cancelled());
    }
}
