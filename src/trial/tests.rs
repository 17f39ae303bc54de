//! `try` against a driver of its own in memory, on a real socket, that fails, hangs or is interrupted at every RPC.

mod driver;

use super::undo::REPEATED_REFUSALS;
use super::{Outside, PASSED, STOPPED, Signals, with};
use crate::cli::{Cli, Command, Try};
use clap::Parser;
use driver::{FakeDriver, Fault, When};
use proptest::prelude::{Strategy, any, prop, proptest};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tonic::Code;

/// What was written for the user.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One run of the command against a fake driver.
struct Run {
    driver: FakeDriver,
    signals: Signals,
    more: &'static str,
}

struct Outcome {
    code: u8,
    text: String,
}

impl Run {
    fn new(driver: FakeDriver) -> Self {
        Self { driver, signals: Signals::default(), more: "" }
    }

    async fn go(&self) -> Outcome {
        let directory = tempfile::tempdir().unwrap();
        let sockets = self.driver.serve(directory.path());
        let line = format!(
            "fuxi-csi try --endpoint {} {} --work-dir {} --timeout 2s --patience 5s {}",
            sockets.controller.display(),
            sockets
                .nodes
                .iter()
                .map(|node| format!("--node-endpoint {}", node.display()))
                .collect::<Vec<_>>()
                .join(" "),
            directory.path().display(),
            self.more
        );
        let Command::Try(options) = Cli::try_parse_from(line.split_whitespace()).unwrap().command else {
            panic!("not a try")
        };
        let options: Try = options;
        let lines = Lines::default();
        let outside = Outside {
            out: Box::new(lines.clone()),
            terminal: false,
            workload: Box::new(self.driver.workload()),
            pauses: vec![Duration::from_millis(1)],
        };
        let code = with(&options, outside, &self.signals).await;
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(self.driver.violations(), Vec::<String>::new(), "{text}");
        let named: Vec<_> = text.lines().filter(|line| line.starts_with("left behind: ")).collect();
        for left in self.driver.left() {
            assert!(named.iter().any(|line| line.contains(&left)), "{left} is left and not named: {text}");
        }
        if !self.signals.abandon.is_cancelled() && !self.driver.is_broken() {
            assert_eq!(self.driver.left(), Vec::<String>::new(), "{text}");
            let directories: Vec<_> = std::fs::read_dir(directory.path())
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.is_dir())
                .collect();
            assert!(directories.is_empty(), "{directories:?} {text}");
        }
        Outcome { code, text }
    }
}

#[tokio::test]
async fn a_whole_life_passes_and_leaves_nothing() {
    let run = Run::new(FakeDriver::new(2));
    let outcome = run.go().await;
    assert_eq!(outcome.code, PASSED, "{}", outcome.text);
    for step in [
        "create volume",
        "create from snapshot",
        "create from backup",
        "create from volume",
        "controller publish",
        "node stage",
        "node publish",
        "write data",
        "read and compare",
        "node stats",
        "create snapshot",
        "create backup",
        "controller expand",
        "node expand",
        "check size",
        "node unpublish",
        "node unstage",
        "controller unpublish",
        "delete snapshot",
        "delete backup",
        "delete volume",
        "(whole life)",
    ] {
        assert!(outcome.text.contains(step), "{step}: {}", outcome.text);
    }
    assert!(outcome.text.ends_with("1 passed, 0 failed\n"), "{}", outcome.text);
    assert!(!outcome.text.contains("left out") && !outcome.text.contains("undone"), "{}", outcome.text);
    // The volume began on one node and ended on the other.
    assert_eq!(run.driver.nodes_seen(), ["node-0", "node-1"]);
}

#[tokio::test]
async fn many_lives_pass_side_by_side() {
    let outcome = Run { more: "--volumes 7 --parallel 3 --block", ..Run::new(FakeDriver::new(1)) }.go().await;
    assert_eq!(outcome.code, PASSED, "{}", outcome.text);
    assert!(
        outcome.text.ends_with("7 passed, 0 failed\n") && outcome.text.contains("[  7] passed"),
        "{}",
        outcome.text
    );
}

#[tokio::test]
async fn whatever_rpc_fails_before_or_after_its_work_nothing_is_left() {
    let rpcs = FakeDriver::new(2);
    Run::new(rpcs.clone()).go().await;
    let count = rpcs.rpcs();
    assert!(count > 40, "{count} RPCs");
    for at in 0..count {
        for when in [When::Before, When::After] {
            let driver = FakeDriver::new(2).with_fault(Fault { at, when, code: Code::Internal, times: 1 });
            let outcome = Run::new(driver).go().await;
            assert_ne!(outcome.code, PASSED, "RPC {at}, {when:?}: {}", outcome.text);
        }
    }
}

#[tokio::test]
async fn whatever_rpc_is_told_not_now_the_life_goes_on() {
    let rpcs = FakeDriver::new(1);
    Run::new(rpcs.clone()).go().await;
    for at in 0..rpcs.rpcs() {
        for (when, code) in [(When::Before, Code::Aborted), (When::After, Code::Unavailable)] {
            let driver = FakeDriver::new(1).with_fault(Fault { at, when, code, times: 2 });
            let outcome = Run::new(driver).go().await;
            assert_eq!(outcome.code, PASSED, "RPC {at}, {when:?}: {}", outcome.text);
        }
    }
}

#[tokio::test]
async fn at_whatever_rpc_a_signal_comes_everything_is_undone() {
    let rpcs = FakeDriver::new(1);
    Run::new(rpcs.clone()).go().await;
    for at in 0..rpcs.rpcs() {
        let signals = Signals::default();
        let driver = FakeDriver::new(1).with_signal(at, signals.stop.clone());
        let outcome = Run { signals, ..Run::new(driver) }.go().await;
        assert!(matches!(outcome.code, STOPPED | super::UNAVAILABLE | PASSED), "RPC {at}: {}", outcome.text);
    }
}

#[tokio::test]
async fn a_second_signal_ends_at_once_and_names_what_is_left() {
    let signals = Signals::default();
    // The node hangs in NodeStageVolume, and so does undoing it.
    let driver = FakeDriver::new(1).hanging("NodeStageVolume").hanging("NodeUnstageVolume");
    let (stop, abandon) = (signals.stop.clone(), signals.abandon.clone());
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        stop.cancel();
        tokio::time::sleep(Duration::from_millis(300)).await;
        abandon.cancel();
    });
    let outcome = Run { signals, ..Run::new(driver) }.go().await;
    assert_eq!(outcome.code, STOPPED);
    for left in ["left behind: volume vol-", "staged at /", "published to node 1", "left behind: directory /"] {
        assert!(outcome.text.contains(left), "{left}: {}", outcome.text);
    }
    assert!(outcome.text.ends_with("0 passed, 0 failed, 1 not finished\n"), "{}", outcome.text);
}

#[tokio::test]
async fn what_cannot_be_undone_at_all_is_named() {
    let rpcs = FakeDriver::new(2);
    Run::new(rpcs.clone()).go().await;
    for at in 0..rpcs.rpcs() {
        let outcome = Run::new(FakeDriver::new(2).broken_from(at)).go().await;
        assert_ne!(outcome.code, PASSED, "RPC {at}: {}", outcome.text);
        assert!(outcome.text.contains("left behind: "), "RPC {at}: {}", outcome.text);
    }
}

#[tokio::test]
async fn damage_is_found() {
    let driver = FakeDriver::new(1).that_restores_the_present();
    let outcome = Run::new(driver).go().await;
    assert!(outcome.text.contains("read and compare") && outcome.text.contains("FAILED"), "{}", outcome.text);
    assert!(outcome.text.contains("0 passed, 1 failed"), "{}", outcome.text);
}

#[tokio::test]
async fn a_driver_without_backups_passes_unless_a_backup_was_asked_for() {
    let outcome = Run::new(FakeDriver::new(1).without_backups()).go().await;
    assert_eq!(outcome.code, PASSED, "{}", outcome.text);
    assert!(outcome.text.contains("left out: backup"), "{}", outcome.text);
    let outcome = Run { more: "--backup", ..Run::new(FakeDriver::new(1).without_backups()) }.go().await;
    assert_ne!(outcome.code, PASSED, "{}", outcome.text);
}

#[tokio::test]
async fn a_driver_with_the_least_of_capabilities_has_a_short_life() {
    let driver = FakeDriver::new(1).bare();
    let run = Run::new(driver);
    let outcome = run.go().await;
    assert_eq!(outcome.code, PASSED, "{}", outcome.text);
    assert!(outcome.text.contains("left out: snapshot") && outcome.text.contains("left out: stage"));
}

#[tokio::test]
async fn a_volume_that_grows_offline_only_is_grown_between_nodes() {
    let outcome = Run::new(FakeDriver::new(2).offline()).go().await;
    assert_eq!(outcome.code, PASSED, "{}", outcome.text);
    let place = |step: &str| outcome.text.find(step).unwrap();
    assert!(place("controller unpublish") < place("controller expand"), "{}", outcome.text);
}

#[tokio::test]
async fn a_socket_that_nobody_serves_is_named() {
    let line = "fuxi-csi try --endpoint /nowhere/csi.sock";
    let Command::Try(options) = Cli::try_parse_from(line.split(' ')).unwrap().command else { panic!("not a try") };
    let lines = Lines::default();
    let outside = Outside {
        out: Box::new(lines.clone()),
        terminal: false,
        workload: Box::new(FakeDriver::new(1).workload()),
        pauses: vec![Duration::ZERO],
    };
    assert_eq!(with(&options, outside, &Signals::default()).await, super::UNAVAILABLE);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("/nowhere/csi.sock") && text.contains("is the driver running"), "{text}");
}

#[test]
fn secrets_are_read_from_lines_and_never_shown() {
    let secrets = super::parse_secrets("# a comment\ncloud=east\n\npassword=a=b \n").unwrap();
    assert_eq!(secrets.len(), 2);
    assert_eq!((secrets["cloud"].as_str(), secrets["password"].as_str()), ("east", "a=b "));
    let error = super::parse_secrets("cloud=east\nhunter2").unwrap_err().to_string();
    assert!(error.contains("line 2") && !error.contains("hunter2"), "{error}");
}

/// Faults of which no more sound final than undoing is stubborn enough for: one RPC may meet them all.
fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let codes = [Code::Internal, Code::Aborted, Code::Unavailable, Code::FailedPrecondition, Code::DeadlineExceeded];
    let fault = (0_u32..60, any::<bool>(), prop::sample::select(codes.to_vec()), 1_u32..4);
    prop::collection::vec(fault, 0..6).prop_map(|faults| {
        let mut final_ones = 0;
        let fault = |(at, before, code, times)| {
            let when = if before { When::Before } else { When::After };
            Fault { at, when, code, times }
        };
        let bearable = |fault: &Fault| {
            let sounds_final = matches!(fault.code, Code::Internal | Code::FailedPrecondition);
            let bearable = !sounds_final || final_ones + fault.times <= REPEATED_REFUSALS;
            final_ones += if sounds_final && bearable { fault.times } else { 0 };
            bearable
        };
        faults.into_iter().map(fault).filter(bearable).collect()
    })
}

proptest! {
    #![proptest_config(prop::test_runner::Config { cases: 48, ..prop::test_runner::Config::default() })]

    #[test]
    fn with_several_faults_at_random_undoing_still_leaves_nothing(faults in faults()) {
        let driver = faults.into_iter().fold(FakeDriver::new(2), FakeDriver::with_fault);
        tokio::runtime::Runtime::new().unwrap().block_on(async { Run::new(driver).go().await });
    }
}
