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
mod tests;
