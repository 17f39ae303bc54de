//! Connections that this driver does not know itself: handed to an external program.
//!
//! A directory holds executables named after Cinder's `driver_volume_type`, such as `scaleio`. One is run for each step, gets a JSON
//! object on standard input and answers with one on standard output; `docs/plugins.md` has the schema. Secrets are in the
//! input only. What a program says about a device is not believed: the device is looked up in sysfs, and its size is measured.

use super::{Connector, Link, Source};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::exec::{Command, Exec, beginning};
use crate::model::Bytes;
use crate::node::blocking;
use crate::node::device::{Device, Host};
use async_trait::async_trait;
use secrecy::ExposeSecret;
use secrecy::SecretSlice;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The version of the protocol.
const PROTOCOL: u32 = 1;

/// How long one step may take, whatever the caller's time is: it may be in the midst of something that must not be cut.
const LIMIT: Duration = Duration::from_secs(120);

/// How much is taken of what a program says about a failure, in bytes.
const LONGEST_MESSAGE: usize = 1000;

/// The bit of a file's mode by which it is not to be trusted.
const EVERYBODY_WRITES: u32 = 0o002;

/// How long a device may take to show a size that the program has asked the kernel for.
const GROWTH: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);

/// What programs are asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Connect,
    Locate,
    Rescan,
    Disconnect,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Locate => "locate",
            Self::Rescan => "rescan",
            Self::Disconnect => "disconnect",
        }
    }
}

/// What programs answer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    /// The device's path; none if the volume is not here.
    #[serde(default)]
    device: Option<PathBuf>,
    /// The identity that the storage gave the volume, where it has one.
    #[serde(default)]
    wwid: Option<String>,
    /// Why it could not be done.
    #[serde(default)]
    error: Option<Failure>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Failure {
    kind: FailureKind,
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FailureKind {
    /// Repeat later.
    Unavailable,
    /// Somebody uses it.
    Busy,
    /// Somebody has to change something first.
    WrongState,
    /// The connection's data make no sense.
    Invalid,
}

/// The programs of a directory.
#[derive(Debug, Clone)]
pub struct Programs {
    directory: PathBuf,
    host: Host,
    exec: Arc<dyn Exec>,
    limit: Duration,
}

impl Programs {
    /// Those in this directory.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>, host: Host, exec: Arc<dyn Exec>) -> Self {
        Self { directory: directory.into(), host, exec, limit: LIMIT }
    }

    /// How long one step may take.
    #[must_use]
    pub fn limited(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// The program for connections of a kind, if there is one.
    ///
    /// # Errors
    /// `WrongState`: there is one that is not to be trusted.
    pub fn find(&self, kind: &str) -> Result<Option<Arc<dyn Connector>>> {
        // The kind comes from OpenStack: it names a file, never a path.
        let is_name =
            !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        if !is_name {
            return Ok(None);
        }
        let path = self.directory.join(kind.to_ascii_lowercase());
        match std::fs::metadata(&path) {
            Ok(found) if found.is_file() && found.mode() & 0o111 != 0 => {
                let directory = std::fs::metadata(&self.directory)
                    .map_err(|error| Error::internal(format!("look at {}", self.directory.display())).because(error))?;
                for (place, mode) in [(&path, found.mode()), (&self.directory, directory.mode())] {
                    if mode & EVERYBODY_WRITES != 0 {
                        return Err(Error::wrong_state(format!(
                            "{} can be changed by everybody, so {} is not run: make it 0755",
                            place.display(),
                            path.display()
                        )));
                    }
                }
                Ok(Some(Arc::new(Program {
                    path,
                    kind: kind.to_ascii_lowercase(),
                    host: self.host.clone(),
                    exec: Arc::clone(&self.exec),
                    limit: self.limit,
                })))
            }
            Ok(_) => Err(Error::wrong_state(format!("{} is not an executable file", path.display()))),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(Error::internal(format!("look for {}", path.display())).because(error)),
        }
    }

    /// Where they are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// One of them.
#[derive(Debug)]
struct Program {
    path: PathBuf,
    kind: String,
    host: Host,
    exec: Arc<dyn Exec>,
    limit: Duration,
}

impl Program {
    /// One step; the device, if the volume is here. A program may say again what it was told: no error has secrets.
    async fn run(&self, call: &Call, link: &Link, step: Step, size: Option<Bytes>) -> Result<Option<Device>> {
        self.step(call, link, step, size).await.map_err(|error| without_secrets(error, link))
    }

    async fn step(&self, call: &Call, link: &Link, step: Step, size: Option<Bytes>) -> Result<Option<Device>> {
        let question = question(&self.kind, link, step, size).to_string().into_bytes();
        let mut command = Command::new(self.path.to_string_lossy())
            .arg(step.name())
            .limit(self.limit)
            .stdin(SecretSlice::from(question))
            .hiding(link.secrets.values().cloned());
        if step != Step::Locate {
            command = command.to_the_end();
        }
        let doing = format!("{} {}", self.path.display(), step.name());
        let output = self.exec.run(call, command).await?;
        let answer: Answer = match serde_json::from_str(&output.stdout) {
            Ok(answer) => answer,
            Err(_) if output.code != 0 => return Err(output.failure(Kind::Unavailable)),
            Err(error) => {
                return Err(
                    Error::internal(format!("{doing}: its answer is not as docs/plugins.md says")).because(error)
                );
            }
        };
        if let Some(failure) = answer.error {
            let kind = match failure.kind {
                FailureKind::Unavailable => Kind::Unavailable,
                FailureKind::Busy => Kind::Busy,
                FailureKind::WrongState => Kind::WrongState,
                FailureKind::Invalid => Kind::InvalidArgument,
            };
            return Err(Error::new(kind, format!("{doing}: {}", beginning(&failure.message, LONGEST_MESSAGE))));
        }
        if output.code != 0 {
            return Err(output.failure(Kind::Unavailable));
        }
        let Some(path) = answer.device else { return Ok(None) };
        let device = self.measure(call, path, answer.wwid).await.map_err(|error| error.during(doing))?;
        if let (Some(known), Some(now)) = (link.device.as_ref().and_then(|known| known.wwid.as_ref()), &device.wwid)
            && known != now
        {
            return Err(Error::wrong_state(format!(
                "{} was volume {} with identity {known}, and has identity {now} now: it is not used",
                device.path.display(),
                link.volume
            )));
        }
        Ok(Some(device))
    }

    /// The device that a path means, as the kernel shows it.
    async fn measure(&self, call: &Call, path: PathBuf, wwid: Option<String>) -> Result<Device> {
        let host = self.host.clone();
        let device = blocking::run(call, "look at the volume's device", move || {
            super::local::device_at(&host, &path)?.ok_or_else(|| {
                Error::internal(format!("it says that the volume is {}, which is not there", path.display()))
            })
        })
        .await?;
        Ok(Device { wwid, ..device })
    }
}

/// What a program reads.
fn question(kind: &str, link: &Link, step: Step, size: Option<Bytes>) -> Value {
    let mut data = match &link.connection.data {
        Value::Object(data) => data.clone(),
        _ => Map::new(),
    };
    let mut secrets = Map::new();
    for (name, value) in &link.secrets {
        // Back to where Cinder had it: `auth_password`, or `nodes/0/password`.
        if !put_back(&mut data, name, value.expose_secret()) {
            secrets.insert(name.clone(), value.expose_secret().into());
        }
    }
    json!({
        "protocol": PROTOCOL,
        "step": step.name(),
        "volume": link.volume,
        "driver_volume_type": kind,
        "data": data,
        "secrets": secrets,
        "size": size.or(link.connection.size),
        "read_only": link.is_read_only(),
        "shared": link.is_shared(),
        "device": link.device.as_ref().map(|device| json!({ "path": device.path, "wwid": device.wwid })),
    })
}

/// Puts a secret to its place; false if there is none of that path.
fn put_back(data: &mut Map<String, Value>, path: &str, secret: &str) -> bool {
    let (place, name) = match path.rsplit_once('/') {
        None => (Some(data), path),
        Some((to, name)) => {
            let mut steps = to.split('/');
            let first = steps.next().unwrap_or_default();
            let mut place = data.get_mut(first);
            for step in steps {
                place = place.and_then(|value| match value {
                    Value::Object(object) => object.get_mut(step),
                    Value::Array(values) => step.parse().ok().and_then(|at: usize| values.get_mut(at)),
                    _ => None,
                });
            }
            (place.and_then(Value::as_object_mut), name)
        }
    };
    place.is_some_and(|place| {
        place.insert(name.to_owned(), secret.into());
        true
    })
}

/// The same error; where its words have a secret, it is replaced, and the cause, which has it too, is left out.
fn without_secrets(error: Error, link: &Link) -> Error {
    let text = error.to_string();
    let secrets = || link.secrets.values().map(|secret| secret.expose_secret()).filter(|secret| !secret.is_empty());
    if !secrets().any(|secret| text.contains(secret)) {
        return error;
    }
    Error::new(error.kind(), secrets().fold(text, |text, secret| text.replace(secret, "[redacted]")))
}

#[async_trait]
impl Connector for Program {
    fn kinds(&self) -> &[&str] {
        &[]
    }

    async fn connect(&self, call: &Call, link: &Link) -> Result<Source> {
        let device = self.run(call, link, Step::Connect, None).await?.ok_or_else(|| {
            Error::internal(format!("{} connect: it names no device and no error", self.path.display()))
        })?;
        let promised = link.connection.size.unwrap_or(Bytes::new(1));
        if device.size < promised {
            return Err(Error::wrong_state(format!(
                "{} is to be volume {}, but has only {} where {promised} were promised: it is not used",
                device.path.display(),
                link.volume,
                device.size
            )));
        }
        Ok(Source::Block(device))
    }

    async fn locate(&self, call: &Call, link: &Link) -> Result<Option<Source>> {
        Ok(self.run(call, link, Step::Locate, None).await?.map(Source::Block))
    }

    async fn rescan(&self, call: &Call, link: &Link, size: Bytes) -> Result<Source> {
        let gone = || Error::not_found(format!("the device of volume {} is not on this node", link.volume));
        let mut device = self.run(call, link, Step::Rescan, Some(size)).await?.ok_or_else(gone)?;
        let end = tokio::time::Instant::now() + GROWTH;
        while device.size < size && tokio::time::Instant::now() < end && call.remaining() > PAUSE * 2 {
            call.sleep("wait for the device to grow", PAUSE).await?;
            device = self.measure(call, device.path, device.wwid).await?;
        }
        Ok(Source::Block(device))
    }

    async fn disconnect(&self, call: &Call, link: &Link) -> Result<()> {
        self.run(call, link, Step::Disconnect, None).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
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
        let schema: Value = serde_json::from_str(include_str!("../../../connectors/schema.json")).unwrap();
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
}
