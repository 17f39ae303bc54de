//! How a volume gets to a node: its file becomes a loop device.

use crate::shelf;
use crate::store::Store;
use async_trait::async_trait;
use fuxi_csi::app::ConnectorSetup;
use fuxi_csi::call::Call;
use fuxi_csi::error::{Error, Kind, Result};
use fuxi_csi::exec::{Command, Exec};
use fuxi_csi::model::Bytes;
use fuxi_csi::node::blocking;
use fuxi_csi::node::connector::{Connector, Link, Source};
use fuxi_csi::node::device::{Device, Host};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;

/// What the controller calls our connections.
pub(crate) const KIND: &str = "loop-file";

/// Makes loop devices of files.
#[derive(Debug)]
pub(crate) struct LoopDevice {
    store: Store,
    host: Host,
    exec: Arc<dyn Exec>,
}

/// What `losetup --json` says.
#[derive(Debug, Deserialize)]
struct Loops {
    loopdevices: Vec<Loop>,
}

#[derive(Debug, Deserialize)]
struct Loop {
    name: PathBuf,
    #[serde(rename = "back-file")]
    file: Option<PathBuf>,
}

impl LoopDevice {
    pub(crate) fn new(store: Store, setup: &ConnectorSetup) -> Self {
        Self { store, host: setup.host.clone(), exec: Arc::clone(&setup.exec) }
    }

    /// A volume's file. The id comes from the orchestrator: nothing but an id of ours becomes part of a path.
    fn file(&self, link: &Link) -> Result<PathBuf> {
        let id = link.volume.as_str();
        if shelf::is_id(id) {
            Ok(self.store.volumes.image(id))
        } else {
            Err(Error::invalid(format!("volume {id:?} is none of this driver")))
        }
    }

    /// The loop device of a volume, if there is one.
    async fn find(&self, call: &Call, link: &Link) -> Result<Option<Device>> {
        let file = self.file(link)?;
        let command = Command::new("losetup").args(["--list", "--json", "--output", "NAME,BACK-FILE"]);
        let output = self.exec.run(call, command).await?.success()?;
        if output.stdout.trim().is_empty() {
            return Ok(None);
        }
        let loops: Loops = serde_json::from_str(&output.stdout)
            .map_err(|error| Error::internal("read the list of loop devices").because(error))?;
        let mut names = loops.loopdevices.into_iter().filter(|one| one.file.as_ref() == Some(&file));
        let Some(found) = names.next() else { return Ok(None) };
        if let Some(other) = names.next() {
            let (one, other, file) = (found.name.display(), other.name.display(), file.display());
            return Err(Error::wrong_state(format!("both {one} and {other} show {file}: detach one of them")));
        }
        let (host, identity) = (self.host.clone(), link.volume.to_string());
        blocking::run(call, "look at a loop device", move || {
            let name = found.name.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let device =
                host.device(&name).map_err(|error| Error::internal(format!("read {name} in sysfs")).because(error))?;
            // The file's name is the volume's id: that is what proves the device to be the volume.
            Ok(device.map(|device| Device { wwid: Some(identity), ..device }))
        })
        .await
    }

    async fn attach(&self, call: &Call, link: &Link) -> Result<()> {
        let file = self.file(link)?;
        let looked_at = file.clone();
        let is_there = blocking::run(call, "look for the volume's file", move || Ok(looked_at.is_file())).await?;
        if !is_there {
            let message = format!("{} is not there: is the directory of the volumes mounted here?", file.display());
            return Err(Error::new(Kind::Unavailable, message));
        }
        // With --nooverlap it is the same device even if two of us come here at once.
        let mut command = Command::new("losetup").args(["--find", "--nooverlap"]).to_the_end();
        if link.is_read_only() {
            command = command.arg("--read-only");
        }
        self.exec.run(call, command.arg(file)).await?.success().map(drop)
    }
}

#[async_trait]
impl Connector for LoopDevice {
    fn kinds(&self) -> &[&str] {
        &[KIND]
    }

    async fn connect(&self, call: &Call, link: &Link) -> Result<Source> {
        if self.find(call, link).await?.is_none() {
            self.attach(call, link).await?;
        }
        let promised = link.connection.size.unwrap_or(Bytes::ZERO);
        match self.rescan(call, link, promised).await? {
            Source::Block(device) if device.size < promised => Err(Error::wrong_state(format!(
                "{} has {} where {promised} were promised for volume {}: it is not used",
                device.path.display(),
                device.size,
                link.volume
            ))),
            source => Ok(source),
        }
    }

    async fn locate(&self, call: &Call, link: &Link) -> Result<Option<Source>> {
        Ok(self.find(call, link).await?.map(Source::Block))
    }

    async fn rescan(&self, call: &Call, link: &Link, size: Bytes) -> Result<Source> {
        let gone = || Error::not_found(format!("volume {} is no loop device of this node", link.volume));
        let device = self.find(call, link).await?.ok_or_else(gone)?;
        if device.size >= size {
            return Ok(Source::Block(device));
        }
        let command = Command::new("losetup").arg("--set-capacity").arg(&device.path);
        self.exec.run(call, command).await?.success()?;
        self.find(call, link).await?.map(Source::Block).ok_or_else(gone)
    }

    async fn disconnect(&self, call: &Call, link: &Link) -> Result<()> {
        let Some(device) = self.find(call, link).await? else { return Ok(()) };
        let flush = Command::new("blockdev").arg("--flushbufs").arg(&device.path);
        self.exec.run(call, flush).await?.success()?;
        let detach = Command::new("losetup").arg("--detach").arg(&device.path).to_the_end();
        self.exec.run(call, detach).await?.success()?;
        match self.find(call, link).await? {
            None => Ok(()),
            // The kernel keeps a device that somebody has open until it is closed.
            Some(_) => Err(Error::busy(format!("{} is still in use", device.path.display()))),
        }
    }
}
