use super::Programs;
use crate::call::Call;
use crate::error::{Error, Kind};
use crate::exec::SystemExec;
use crate::model::{AccessMode, Bytes, Connection, Secrets};
use crate::node::connector::{Connector, Link, Source};
use crate::node::device::{Host, fake};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const GIB: u64 = Bytes::GIB;

/// A machine with a directory of programs.
struct Bench {
    root: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("programs")).unwrap();
        fake::add_disk(root.path(), "scinia", 4, GIB, None);
        Self { root }
    }

    fn write(&self, name: &str, script: &str, mode: u32) -> PathBuf {
        let path = self.root.path().join("programs").join(name);
        let script = script.replace("ROOT", &self.root.path().display().to_string());
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn programs(&self) -> Programs {
        let host = Host::below(self.root.path());
        Programs::new(self.root.path().join("programs"), host, Arc::new(SystemExec::default()))
    }

    /// A program that answers with this, and keeps what it was asked.
    fn answering(&self, answer: &str) -> Arc<dyn Connector> {
        let script = format!("cat > ROOT/asked\necho \"$1\" >> ROOT/steps\nprintf '%s' '{answer}'");
        self.write("scaleio", &script, 0o755);
        self.programs().find("scaleio").unwrap().unwrap()
    }

    fn asked(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.root.path().join("asked")).unwrap()).unwrap()
    }
}

fn link() -> Link {
    Link {
        volume: "v".parse().unwrap(),
        connection: Connection {
            kind: "scaleio".to_owned(),
            data: json!({"scaleIO_volume_id": "1", "nodes": [{"ip": "1"}]}),
            size: Some(Bytes::new(GIB)),
            read_only: false,
            sealed: None,
        },
        secrets: Secrets::from([
            ("serverPassword".to_owned(), "geheim".into()),
            ("nodes/0/token".to_owned(), "tief".into()),
        ]),
        mode: AccessMode::SingleNodeWriter,
        device: None,
    }
}

fn call() -> Call {
    Call::lasting(Duration::from_secs(20))
}

#[tokio::test]
async fn a_program_gets_everything_and_its_device_is_measured() {
    let bench = Bench::new();
    let program = bench.answering(r#"{"device": "/dev/scinia", "wwid": "w1"}"#);
    let Source::Block(device) = program.connect(&call(), &link()).await.unwrap() else { panic!("a share") };
    assert_eq!((device.name.as_str(), device.size.get(), device.wwid.as_deref()), ("scinia", GIB, Some("w1")));
    assert_eq!(
        bench.asked(),
        json!({"protocol": 1, "step": "connect", "volume": "v", "driver_volume_type": "scaleio",
               "data": {"scaleIO_volume_id": "1", "serverPassword": "geheim", "nodes": [{"ip": "1", "token": "tief"}]},
               "secrets": {}, "size": GIB, "read_only": false, "shared": false, "device": null})
    );
    let known = Link { device: Some(device), ..link() };
    program.disconnect(&call(), &known).await.unwrap();
    assert_eq!(bench.asked()["device"]["wwid"], "w1");
    assert_eq!(fs::read_to_string(bench.root.path().join("steps")).unwrap(), "connect\ndisconnect\n");
}

#[tokio::test]
async fn the_schema_says_what_is_asked_and_what_is_understood() {
    let schema: Value = serde_json::from_str(include_str!("../../../../connectors/schema.json")).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let bench = Bench::new();
    bench.answering(r#"{"device": "/dev/scinia"}"#).connect(&call(), &link()).await.unwrap();
    assert_eq!(keys(&schema["$defs"]["question"]["properties"]), keys(&bench.asked()));
    let answers = &schema["$defs"]["answer"]["properties"];
    assert_eq!(keys(answers), BTreeSet::from(["device", "error", "wwid"].map(str::to_owned)));
    for kind in answers["error"]["properties"]["kind"]["enum"].as_array().unwrap() {
        let answer = json!({"device": null, "wwid": null, "error": {"kind": kind, "message": "x"}});
        serde_json::from_value::<super::Answer>(answer).unwrap();
    }
}

#[tokio::test]
async fn another_identity_or_a_smaller_device_is_not_used() {
    let bench = Bench::new();
    let program = bench.answering(r#"{"device": "/dev/scinia", "wwid": "w2"}"#);
    let mut known = link();
    let Source::Block(device) = program.connect(&call(), &known).await.unwrap() else { panic!("a share") };
    known.device = Some(crate::node::device::Device { wwid: Some("w1".to_owned()), ..device });
    assert_eq!(program.locate(&call(), &known).await.unwrap_err().kind(), Kind::WrongState);
    let mut larger = link();
    larger.connection.size = Some(Bytes::new(2 * GIB));
    assert_eq!(program.connect(&call(), &larger).await.unwrap_err().kind(), Kind::WrongState);
}

#[tokio::test]
async fn what_a_program_says_wrongly_is_an_error_of_its_kind() {
    let bench = Bench::new();
    fs::create_dir(bench.root.path().join("etc")).unwrap();
    fs::write(bench.root.path().join("etc/passwd"), "root").unwrap();
    for (answer, kind) in [
        (r#"{"error": {"kind": "busy", "message": "in use"}}"#, Kind::Busy),
        (r#"{"error": {"kind": "wrong_state", "message": "geheim is wrong"}}"#, Kind::WrongState),
        (r#"{"error": {"kind": "unheard", "message": ""}}"#, Kind::Internal),
        (r#"{"device": "/etc/passwd"}"#, Kind::InvalidArgument),
        (r#"{"device": "/dev/none"}"#, Kind::Internal),
        (r#"{"device": null}"#, Kind::Internal),
        ("", Kind::Internal),
        ("nonsense", Kind::Internal),
        (r#"{"device": {"geheim": 1}}"#, Kind::Internal),
        (r#"{"geheim": "x"}"#, Kind::Internal),
    ] {
        let error: Error = bench.answering(answer).connect(&call(), &link()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{answer}: {error}");
        assert!(!error.to_string().contains("geheim"), "{error}");
    }
    bench.write("scaleio", "echo 'serverPassword geheim refused' >&2; exit 3", 0o755);
    let program = bench.programs().find("scaleio").unwrap().unwrap();
    let error = program.connect(&call(), &link()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("[redacted] refused"), "{error}");
}

#[tokio::test]
async fn a_program_that_does_not_end_is_killed_and_the_step_can_be_repeated() {
    let bench = Bench::new();
    // The first time it hangs half-way, with what it did already; then it finds that.
    let script = "if test -e ROOT/half; then echo '{\"device\": \"/dev/scinia\"}'; exit; fi
        touch ROOT/half; sleep 300";
    bench.write("scaleio", script, 0o755);
    let program = bench.programs().limited(Duration::from_secs(1)).find("scaleio").unwrap().unwrap();
    let error = program.connect(&call(), &link()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Deadline);
    assert!(error.to_string().contains("killed") && !error.to_string().contains("geheim"), "{error}");
    assert!(bench.root.path().join("half").exists());
    for _ in 0..2 {
        assert!(matches!(program.connect(&call(), &link()).await.unwrap(), Source::Block(_)));
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_a_look_but_not_a_change() {
    let bench = Bench::new();
    bench.write("scaleio", "sleep 1; touch ROOT/$1; echo '{\"device\": \"/dev/scinia\"}'", 0o755);
    let program = bench.programs().find("scaleio").unwrap().unwrap();
    let short = || Call::lasting(Duration::from_millis(300));
    assert_eq!(program.locate(&short(), &link()).await.unwrap_err().kind(), Kind::Deadline);
    // What it did is found out afterwards, and that is too late for this caller.
    assert_eq!(program.connect(&short(), &link()).await.unwrap_err().kind(), Kind::Deadline);
    assert!(bench.root.path().join("connect").exists(), "it was cut off");
    assert!(!bench.root.path().join("locate").exists(), "it went on");
}

#[tokio::test]
async fn what_is_not_here_is_no_error_but_where_it_must_be() {
    let bench = Bench::new();
    let program = bench.answering("{}");
    assert_eq!(program.locate(&call(), &link()).await.unwrap(), None);
    program.disconnect(&call(), &link()).await.unwrap();
    assert_eq!(program.rescan(&call(), &link(), Bytes::new(1)).await.unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn only_executables_of_that_name_are_found() {
    let bench = Bench::new();
    bench.write("lightos", "", 0o755);
    bench.write("open", "", 0o777);
    bench.write("text", "", 0o644);
    let programs = bench.programs();
    assert!(programs.find("LightOS").unwrap().is_some());
    for none in ["storpool", "", "../programs/lightos", "a/b", ".."] {
        assert!(programs.find(none).unwrap().is_none(), "{none}");
    }
    let directory = bench.root.path().join("programs");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(programs.find("lightos").unwrap_err().kind(), Kind::WrongState);
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    for untrusted in ["open", "text"] {
        assert_eq!(programs.find(untrusted).unwrap_err().kind(), Kind::WrongState);
    }
}
