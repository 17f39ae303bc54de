//! What programs in the connector directory do wrong: each the right code and words, and nothing left of the volume.

use crate::machine::{Kernel, Machine};
use crate::plugin::{MIB, Plugin, Volume};
use serde_json::json;
use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;
use tonic::Code;

const SECRET: &str = "correct horse battery staple";

fn volume() -> Volume {
    let secrets = HashMap::from([("token".to_owned(), SECRET.to_owned())]);
    Volume { size: Some(64 * MIB), secrets, ..Volume::of("faulty", json!({"volume": "v1"})) }
}

async fn plugin(arguments: &[&str]) -> Option<Plugin> {
    Some(Plugin::start(Machine::new(Kernel::Host)?, arguments).await)
}

/// A program that does this to connect, and has nothing to disconnect.
fn faulty(connect: &str) -> String {
    format!("#!/bin/sh\nif test \"$1\" != connect; then cat > /dev/null; echo '{{}}'; exit; fi\n{connect}\n")
}

/// The program of a volume that is there.
const GOOD: &str = "#!/bin/sh
cat > /dev/null
device=$(losetup --noheadings --output NAME --associated /srv/image | head -n 1)
case $1 in
connect) test -n \"$device\" || device=$(losetup --find --show /srv/image) ;;
disconnect) test -z \"$device\" || losetup --detach \"$device\"; device= ;;
esac
if test -n \"$device\"; then echo \"{\\\"device\\\": \\\"$device\\\"}\"; else echo '{}'; fi
";

/// The same volume with a good program shows that a fault spoilt nothing.
async fn assert_usable(plugin: &Plugin) {
    plugin.machine.image("/srv/image", 64 * MIB);
    plugin.machine.write("/connectors/faulty", GOOD, 0o755);
    plugin.stage(&volume()).await.unwrap();
    assert_eq!(plugin.mounts().len(), 1);
    plugin.unstage(&volume()).await.unwrap();
    plugin.assert_nothing_left("after the faults");
}

#[tokio::test]
async fn a_program_that_is_not_there_or_not_to_be_run_is_named() {
    let Some(plugin) = plugin(&[]).await else { return };
    let answer = plugin.stage(&volume()).await;
    let words = ["no connector for connections of kind \"faulty\"", "iscsi", "nor a program in /connectors"];
    plugin.assert_refused("missing", answer, Code::Unimplemented, &words);

    let run = "touch /srv/was-run; echo '{}'";
    for (about, mode, words) in [
        ("not executable", 0o644, "/connectors/faulty is not an executable file"),
        ("everybody's", 0o757, "/connectors/faulty can be changed by everybody"),
    ] {
        plugin.machine.write("/connectors/faulty", faulty(run), mode);
        plugin.assert_refused(about, plugin.stage(&volume()).await, Code::FailedPrecondition, &[words]);
    }
    std::fs::remove_file(plugin.machine.path("/connectors/faulty")).unwrap();
    std::fs::create_dir(plugin.machine.path("/connectors/faulty")).unwrap();
    let words = ["/connectors/faulty is not an executable file"];
    plugin.assert_refused("a directory", plugin.stage(&volume()).await, Code::FailedPrecondition, &words);
    std::fs::remove_dir(plugin.machine.path("/connectors/faulty")).unwrap();

    // The name of a kind comes from OpenStack and is never a path.
    plugin.machine.write("/srv/outside", faulty(run), 0o755);
    for kind in ["../srv/outside", "/srv/outside", "..", ".", "", "a b", "faulty\n", "x\u{0}y"] {
        let answer = plugin.stage(&Volume { kind: kind.to_owned(), ..volume() }).await;
        plugin.assert_refused(kind, answer, Code::Unimplemented, &["no connector for connections of kind"]);
    }
    assert!(!plugin.machine.path("/srv/was-run").exists());
    assert_usable(&plugin).await;
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_named_with_what_it_needs() {
    let Some(plugin) = plugin(&[]).await else { return };
    for (about, content, code, words) in [
        ("interpreter", "#!/usr/bin/no-such-python\n", Code::FailedPrecondition, "its first line (`#!`)"),
        ("no program", "\u{7f}NOTELF", Code::Internal, "start /connectors/faulty: Exec format error"),
        ("empty", "", Code::Internal, "start /connectors/faulty: Exec format error"),
    ] {
        plugin.machine.write("/connectors/faulty", content, 0o755);
        let answer = plugin.stage(&volume()).await;
        let refused = answer.expect_err(about);
        assert_eq!(refused.code(), code, "{about}: {refused}");
        assert!(refused.message().contains(words) && refused.message().contains("/connectors/faulty"), "{refused}");
    }
    assert_usable(&plugin).await;
}

#[tokio::test]
async fn what_a_program_says_or_does_wrongly_is_refused_with_its_words_and_leaves_nothing() {
    let Some(plugin) = plugin(&[]).await else { return };
    plugin.machine.image("/srv/small", MIB);
    let small = "device=$(losetup --find --show /srv/small); echo \"{\\\"device\\\": \\\"$device\\\"}\"";
    for (about, connect, code, words) in [
        (
            "a code and words",
            "echo 'the first line' >&2; echo 'the gateway says no' >&2; exit 3",
            Code::Unavailable,
            &["`/connectors/faulty connect` ended with exit code 3", "the first line / the gateway says no"][..],
        ),
        ("a code alone", "exit 1", Code::Unavailable, &["ended with exit code 1: it said nothing"]),
        ("a signal", "kill -KILL $$", Code::Internal, &["was killed by signal 9"]),
        (
            "unavailable",
            "echo '{\"error\": {\"kind\": \"unavailable\", \"message\": \"the gateway sleeps\"}}'",
            Code::Unavailable,
            &["/connectors/faulty connect: the gateway sleeps"],
        ),
        (
            "busy, with a code",
            "echo '{\"error\": {\"kind\": \"busy\", \"message\": \"somebody uses it\"}}'; exit 1",
            Code::Aborted,
            &["somebody uses it"],
        ),
        (
            "wrong_state",
            "echo '{\"error\": {\"kind\": \"wrong_state\", \"message\": \"zone it first\"}}'",
            Code::FailedPrecondition,
            &["zone it first"],
        ),
        (
            "invalid",
            "echo '{\"error\": {\"kind\": \"invalid\", \"message\": \"v1 is no name\"}}'",
            Code::InvalidArgument,
            &["v1 is no name"],
        ),
        ("nothing", "true", Code::Internal, &["its answer is not as docs/plugins.md says"]),
        ("no JSON", "echo connected", Code::Internal, &["its answer is not as docs/plugins.md says"]),
        ("words before JSON", "echo ok; echo '{}'", Code::Internal, &["its answer is not as docs/plugins.md says"]),
        ("an unknown field", "echo '{\"devise\": \"x\"}'", Code::Internal, &["docs/plugins.md", "devise"]),
        ("bytes", "printf '\\377\\376\\000'", Code::Internal, &["docs/plugins.md"]),
        ("no device", "echo '{}'", Code::Internal, &["it names no device and no error"]),
        (
            "outside /dev",
            "echo '{\"device\": \"/etc/ld.so.cache\"}'",
            Code::InvalidArgument,
            &["/etc/ld.so.cache leads out of /dev"],
        ),
        (
            "out of /dev by dots",
            "echo '{\"device\": \"/dev/../etc/ld.so.cache\"}'",
            Code::InvalidArgument,
            &["leads out of /dev"],
        ),
        ("not there", "echo '{\"device\": \"/dev/no-such\"}'", Code::Internal, &["/dev/no-such, which is not there"]),
        ("no disk", "echo '{\"device\": \"/dev/null\"}'", Code::FailedPrecondition, &["/dev/null is no block device"]),
        ("a folder", "echo '{\"device\": \"/dev\"}'", Code::FailedPrecondition, &["is no block device"]),
        (
            "too small",
            small,
            Code::FailedPrecondition,
            &["to be volume", "1048576 bytes where 67108864 bytes were promised", "it is not used"],
        ),
        ("secrets in its words", "cat >&2; exit 1", Code::Unavailable, &["ended with exit code 1", "[redacted]"]),
        (
            "secrets in its answer",
            "token=$(sed 's/.*\"token\":\"//; s/\".*//'); echo \"{\\\"$token\\\": 1}\"",
            Code::Internal,
            &["docs/plugins.md", "[redacted]"],
        ),
    ] {
        let script = faulty(connect).replace(
            "echo '{}'; exit; fi",
            "echo '{}'; losetup -j /srv/small | cut -d: -f1 | xargs -r losetup -d; exit; fi",
        );
        plugin.machine.write("/connectors/faulty", script, 0o755);
        for _ in 0..2 {
            let answer = plugin.stage(&volume()).await;
            assert!(!format!("{answer:?}").contains(SECRET), "{about}");
            plugin.assert_refused(about, answer, code, words);
        }
    }
    assert!(!plugin.log().contains(SECRET));
    assert_usable(&plugin).await;
}

#[tokio::test]
async fn megabytes_are_neither_kept_nor_told() {
    let Some(plugin) = plugin(&[]).await else { return };
    let much = "head -c 6000000 /dev/zero | tr '\\0' x";
    for (about, connect, code, words) in [
        ("answer", much.to_owned(), Code::Internal, "wrote more than 4194304 bytes"),
        ("words", format!("{much} >&2; echo >&2; echo 'out of paper' >&2; exit 1"), Code::Unavailable, "out of paper"),
        (
            "a message",
            "printf '{\"error\": {\"kind\": \"unavailable\", \"message\": \"'; head -c 1000000 /dev/zero | tr '\\0' y; echo '\"}}'"
                .to_owned(),
            Code::Unavailable,
            "/connectors/faulty connect: yyy",
        ),
    ] {
        plugin.machine.write("/connectors/faulty", faulty(&connect), 0o755);
        plugin.assert_refused(about, plugin.stage(&volume()).await, code, &[words]);
    }
    assert_usable(&plugin).await;
}

#[tokio::test]
async fn a_program_that_hangs_is_killed_with_all_that_it_started() {
    let Some(plugin) = plugin(&["--connector-limit", "2s"]).await else { return };
    for (about, connect) in [
        ("waits for what it started", "sleep 1000 & echo $! > /srv/child; wait"),
        ("says its piece and stays", "echo '{\"device\": null}'; sleep 1000 & echo $! > /srv/child; wait"),
        ("went away, and its output is held", "sleep 1000 & echo $! > /srv/child; exit 0"),
        ("does not listen", "trap '' TERM INT HUP; sleep 1000 & echo $! > /srv/child; while :; do wait; sleep 1; done"),
    ] {
        plugin.machine.write("/connectors/faulty", faulty(connect), 0o755);
        let begun = Instant::now();
        let answer = plugin.stage(&volume()).await;
        assert!(begun.elapsed().as_secs() < 60, "{about}: {:?}", begun.elapsed());
        let words = ["run `/connectors/faulty connect`: not done after 2s; it was killed"];
        plugin.assert_refused(about, answer, Code::DeadlineExceeded, &words);
        let child = plugin.machine.read("/srv/child");
        assert!(!Path::new("/proc").join(child.trim()).join("exe").exists(), "{about}: process {child} still runs");
    }
    assert_usable(&plugin).await;
}
