//! Starts that cannot succeed say why; starts that only have to wait, wait.

use crate::driver::{Driver, Setup, cloud_conf};
use crate::sidecar::{Sidecar, until_done};
use crate::standin::Standin;
use crate::standin::fault::{Action, Rule};
use std::time::Duration;

/// The exit code for a configuration that is wrong (sysexits.h).
const BAD_CONFIGURATION: i32 = 78;

/// Starts the driver, expects it to end by itself as wrongly configured, and gives its log.
async fn refused(standin: &Standin, setup: Setup) -> String {
    let mut driver = Driver::new(standin, setup);
    driver.spawn(standin);
    let status = driver.ends_within(Duration::from_secs(10)).await;
    let log = driver.log();
    let status = status.unwrap_or_else(|| panic!("the driver goes on; its log:\n{log}"));
    assert_eq!(status.code(), Some(BAD_CONFIGURATION), "{log}");
    log
}

fn assert_says(log: &str, words: &[&str]) {
    for word in words {
        assert!(log.contains(word), "{word:?} is not in:\n{log}");
    }
}

fn with(standin: &Standin, from: &str, to: &str) -> Setup {
    let text = cloud_conf(standin);
    assert!(text.contains(from));
    Setup { cloud_conf: Some(text.replace(from, to)), ..Setup::default() }
}

#[tokio::test]
async fn a_wrong_password_is_a_configuration_error_that_says_where_it_is_from() {
    let standin = Standin::start();
    let log = refused(&standin, with(&standin, "correct horse", "wrong pony")).await;
    assert_says(&log, &["cloud.conf", "401"]);
    assert!(!log.contains("wrong pony"), "the password is in the log");
    assert!(standin.count("POST keystone /auth/tokens") <= 2, "a locked account is a few wrong logins away");
}

#[tokio::test]
async fn an_unknown_region_is_a_configuration_error_that_names_the_known_ones() {
    let standin = Standin::start();
    let log = refused(&standin, with(&standin, "RegionOne", "Atlantis")).await;
    assert_says(&log, &["Atlantis", "RegionOne", "cloud.conf"]);
}

#[tokio::test]
async fn a_missing_service_is_a_configuration_error_that_names_it() {
    for (hidden, words) in
        [(["volumev3", "block-storage"].as_slice(), "block-storage"), (["compute"].as_slice(), "compute")]
    {
        let standin = Standin::start();
        standin.cloud(|cloud| cloud.hidden_services.extend(hidden.iter().map(|it| (*it).to_owned())));
        let log = refused(&standin, Setup::default()).await;
        assert_says(&log.to_lowercase(), &[words]);
    }
}

#[tokio::test]
async fn a_service_that_is_too_old_is_a_configuration_error_that_names_both_versions() {
    let standin = Standin::start();
    standin.cloud(|cloud| cloud.cinder_highest = (3, 10));
    let log = refused(&standin, Setup::default()).await;
    assert_says(&log, &["Cinder", "3.10"]);
}

#[tokio::test]
async fn a_broken_or_missing_cloud_conf_is_a_configuration_error_that_names_it() {
    let standin = Standin::start();
    for text in ["[Global\nauth-url", "[Global]\nusername=x\n", ""] {
        let setup = Setup { cloud_conf: Some(text.to_owned()), ..Setup::default() };
        let log = refused(&standin, setup).await;
        assert_says(&log, &["cloud.conf"]);
    }
    assert_eq!(standin.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn a_url_without_keystone_is_a_configuration_error() {
    let standin = Standin::start();
    let log = refused(&standin, with(&standin, "/identity/v3", "/nothing/v3")).await;
    assert_says(&log, &["auth-url", "cloud.conf"]);
}

#[tokio::test]
async fn a_cloud_that_is_away_at_the_start_is_waited_for() {
    let standin = Standin::start();
    standin.inject(Rule::on("* keystone *", Action::Reset).always());
    let mut driver = Driver::new(&standin, Setup::default());
    driver.spawn(&standin);
    let ended = driver.ends_within(Duration::from_secs(2)).await;
    assert!(ended.is_none(), "ended with {ended:?}; its log:\n{}", driver.log());
    assert!(standin.count("* keystone *") >= 1, "never tried");
    assert!(standin.count("* keystone *") <= 20, "tried {} times in 2 s", standin.count("* keystone *"));
    standin.clear_faults();
    driver.until_ready().await;
    let create = until_done(&standin, &mut driver, Duration::from_secs(20), async |it| it.create("pvc", 1).await);
    create.await.unwrap();
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_a_cloud_that_is_away() {
    let standin = Standin::start();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = cloud_conf(&standin).replace(&standin.url(), &format!("http://{free}"));
    let mut driver = Driver::new(&standin, Setup { cloud_conf: Some(text), ..Setup::default() });
    driver.spawn(&standin);
    let ended = driver.ends_within(Duration::from_secs(2)).await;
    assert!(ended.is_none(), "ended with {ended:?}; its log:\n{}", driver.log());
    assert_says(&driver.log(), &[&free.to_string()]);
    // The address is corrected in the file: no restart is needed.
    driver.write_cloud_conf(&cloud_conf(&standin));
    driver.until_ready().await;
    let create = until_done(&standin, &mut driver, Duration::from_secs(30), async |it| it.create("pvc", 1).await);
    create.await.unwrap();
}

#[tokio::test]
async fn a_fault_at_any_call_of_the_start_only_delays_it() {
    let standin = Standin::start();
    let driver = Driver::start(&standin).await;
    Sidecar::new(&driver).create("pvc", 1).await.unwrap();
    let calls = standin.calls();
    let first = calls.iter().position(|line| line.starts_with("GET cinder /volumes")).unwrap();
    assert!(first >= 1, "the start makes no call: {calls:#?}");
    drop(driver);
    let actions = [
        Action::status(503),
        Action::status(500),
        Action::Reset,
        Action::LoseAnswer,
        Action::Status { status: 429, retry_after: Some(1) },
    ];
    for (nth, line) in (1..).zip(&calls[..first]) {
        for action in &actions {
            let strikes = standin.inject(Rule::on("*", action.clone()).nth(nth));
            let mut driver = Driver::start(&standin).await;
            let patience = Duration::from_secs(20);
            let create = until_done(&standin, &mut driver, patience, async |it| it.create("pvc", 1).await).await;
            create.unwrap_or_else(|error| panic!("{action:?} at {line}: {error}\n{}", driver.log()));
            assert_eq!(strikes.count(), 1, "{action:?} at {line} never struck");
            standin.clear_faults();
        }
    }
}

#[tokio::test]
async fn the_socket_of_a_dead_process_is_replaced_and_that_of_a_living_one_is_refused() {
    let standin = Standin::start();
    let mut driver = Driver::start(&standin).await;
    driver.kill();
    assert!(driver.path("csi.sock").exists(), "kill -9 leaves the socket behind");
    driver.restart(&standin).await;
    Sidecar::new(&driver).create("pvc", 1).await.unwrap();

    let endpoint = format!("unix://{}", driver.path("csi.sock").display());
    let setup = Setup { arguments: vec!["--endpoint".to_owned(), endpoint], ..Setup::default() };
    let mut second = Driver::new_at(&standin, setup);
    second.spawn(&standin);
    let status = second.ends_within(Duration::from_secs(10)).await.expect("a second process on one socket");
    assert!(!status.success());
    assert_says(&second.log(), &["csi.sock"]);
    Sidecar::new(&driver).create("other", 1).await.unwrap();
}

#[tokio::test]
async fn sigterm_lets_running_calls_end_and_then_the_process_ends_well() {
    let standin = Standin::start();
    let driver = Driver::start(&standin).await;
    standin.cloud(|cloud| cloud.paces.create = crate::standin::cloud::Pace::millis(800));
    let running = {
        let sidecar = Sidecar::new(&driver);
        tokio::spawn(async move { sidecar.create("pvc", 1).await })
    };
    while standin.count("POST cinder /volumes") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(driver.pid()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    running.await.unwrap().expect("the running call ends well");
    let status = driver.ends_within(Duration::from_secs(5)).await.expect("the process ends");
    assert_eq!(status.code(), Some(0), "{}", driver.log());
    assert!(!driver.path("csi.sock").exists(), "the socket is left behind");
}
