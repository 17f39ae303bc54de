use super::{Command, Exec, Output, SystemExec, beginning};
use crate::call::Call;
use crate::error::Kind;
use std::time::{Duration, Instant};

fn call() -> Call {
    Call::lasting(Duration::from_secs(20))
}

fn shell(script: &str) -> Command {
    Command::new("sh").arg("-c").arg(script)
}

#[tokio::test]
async fn an_exit_code_is_an_answer_and_its_error_has_the_last_words() {
    let exec = SystemExec::default();
    let output = exec.run(&call(), shell("echo out; echo bad news >&2; exit 3")).await.unwrap();
    assert_eq!((output.code, output.stdout.as_str()), (3, "out\n"));
    let error = output.success().unwrap_err().to_string();
    assert!(error.contains("exit code 3: bad news") && error.contains("sh -c"), "{error}");
}

#[test]
fn one_endless_line_does_not_hide_the_others() {
    let endless = "ä".repeat(10_000);
    let said = format!("first\n{endless}\nlast");
    let words = Output::of(&Command::new("x"), 1, "", said).last_words();
    assert!(words.starts_with("first / ääää") && words.ends_with("ä… / last") && words.len() < 400, "{words}");
    for (text, longest, cut) in [("abc", 3, "abc"), ("abc", 2, "ab…"), ("aä", 2, "a…"), ("", 0, ""), ("ä", 0, "…")]
    {
        assert_eq!(beginning(text, longest), cut);
    }
}

#[tokio::test]
async fn a_secret_is_read_from_stdin_and_shows_nowhere() {
    let exec = SystemExec::default();
    let command = shell("read secret; echo \"I got $secret\" >&2; exit 1").stdin(b"swordfish\n".to_vec().into());
    assert!(!format!("{command:?}").contains("swordfish"));
    let output = exec.run(&call(), command).await.unwrap();
    assert_eq!(output.stderr, "I got [redacted]\n");
}

#[tokio::test]
async fn a_missing_program_is_named_with_the_places_looked_at() {
    let error = SystemExec::new(["/nowhere"]).run(&call(), Command::new("mkfs.ext9")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState);
    assert!(error.to_string().contains("mkfs.ext9") && error.to_string().contains("/nowhere"), "{error}");
}

#[tokio::test]
async fn a_program_is_killed_at_its_limit() {
    let started = Instant::now();
    let command = Command::new("sleep").arg("30").limit(Duration::from_millis(50)).to_the_end();
    let error = SystemExec::default().run(&call(), command).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Deadline);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn what_a_killed_script_had_begun_ends_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let noted = directory.path().join("pid");
    let script = format!("sleep 300 & echo $! > {}; wait", noted.display());
    let command = shell(&script).limit(Duration::from_millis(500)).to_the_end();
    assert_eq!(SystemExec::default().run(&call(), command).await.unwrap_err().kind(), Kind::Deadline);
    let child = std::fs::read_to_string(noted).unwrap();
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", child.trim()));
    for _ in 0..100 {
        // Nobody may have taken note of its end yet.
        if state().map_or(true, |state| state.contains(") Z ")) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it goes on: {}", state().unwrap());
}

#[tokio::test]
async fn parts_of_the_input_that_are_secret_do_not_show_either() {
    let command = shell("cat >&2; exit 1").stdin(b"user=me password=swordfish".to_vec().into());
    let output = SystemExec::default().run(&call(), command.hiding(["swordfish".into()])).await.unwrap();
    assert!(!output.stderr.contains("swordfish"), "{}", output.stderr);
    let command = shell("echo no swordfish here >&2").hiding(["swordfish".into(), "".into()]);
    assert_eq!(SystemExec::default().run(&call(), command).await.unwrap().stderr, "no [redacted] here\n");
}

#[tokio::test]
async fn a_program_that_looks_ends_with_the_call_and_one_that_changes_does_not() {
    let exec = SystemExec::default();
    let short = || Call::lasting(Duration::from_millis(100));
    let error = exec.run(&short(), Command::new("sleep").arg("30")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Deadline);
    let output = exec.run(&short(), Command::new("sleep").arg("0.3").to_the_end()).await.unwrap();
    assert_eq!(output.code, 0);
}

#[tokio::test]
async fn huge_output_neither_blocks_the_program_nor_fills_the_memory() {
    let exec = SystemExec::default();
    let error = exec.run(&call(), shell("head -c 9000000 /dev/zero")).await.unwrap_err();
    assert!(error.to_string().contains("wrote more than"), "{error}");
    let output = exec.run(&call(), shell("head -c 900000 /dev/zero >&2; echo last words >&2")).await.unwrap();
    assert!(output.stderr.len() <= super::KEPT_STDERR && output.stderr.ends_with("last words\n"));
}

#[tokio::test]
async fn a_killed_program_is_an_error() {
    let error = SystemExec::default().run(&call(), shell("kill -9 $$")).await.unwrap_err();
    assert!(error.to_string().contains("signal 9"), "{error}");
}

#[tokio::test]
async fn programs_speak_english_and_see_no_environment_path() {
    let output = SystemExec::default().run(&call(), shell("echo $LC_ALL $PATH")).await.unwrap();
    assert_eq!(output.stdout.trim(), format!("C {}", super::PROGRAM_DIRECTORIES.join(":")));
}
