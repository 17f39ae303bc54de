//! Ceph's block devices, mapped by the kernel through `/sys/bus/rbd`: no program, no link of udev.
//!
//! - **Identity.** A mapping is the volume's if cluster, pool, namespace and image match. Names may come again; cluster,
//!   pool and image ids do not, and they are what the record keeps ([`Device::wwid`]).
//! - **One writer.** Ceph does not keep a second node off an image by itself: a detach in Cinder does nothing to it. With
//!   `exclusive` in the connection (the operator's choice) a volume for one node is mapped so that Ceph refuses every other
//!   writer, where the image has the feature for it. It is no default, since Cinder is such a writer: it can then neither
//!   extend the volume (which ends as `error_extending`) nor make a snapshot of it while it is mapped.
//! - **The key** comes from the controller, sealed, or from the class. It goes to the kernel in the one write that needs it;
//!   the kernel shows it in `config_info` of the mapping, to root only.

mod image;
mod mapping;
#[cfg(test)]
mod tests;

use super::kernel::{Kernel, SystemKernel, tell, tell_if_there, unreadable};
use super::lock::{Held, Locks};
use super::release::release;
use super::{Connector, Link, Source, watch};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::exec::{Command, Exec, Output};
use crate::model::Bytes;
use crate::node::blocking;
use crate::node::device::{Device, Host};
use async_trait::async_trait;
use image::{Image, key};
use mapping::{Mapping, Use, mappings, options};
use nix::errno::Errno;
use secrecy::ExposeSecret;
use secrecy::zeroize::Zeroizing;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The kind of connection that Cinder's driver names.
pub const KIND: &str = "rbd";

/// Where the kernel's block devices of Ceph are.
const BUS: &str = "/sys/bus/rbd";

/// How long waits last.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// Until a mapped image has its device, and an unmapped one is gone.
    appearance: Duration,
    /// Until an image that is too small becomes larger.
    growth: Duration,
    /// Until those that merely look at a device that changed have closed it.
    peeking: Duration,
}

const TIMES: Times =
    Times { appearance: Duration::from_secs(30), growth: Duration::from_secs(10), peeking: Duration::from_secs(10) };

/// Maps images.
#[derive(Debug, Clone)]
pub struct Rbd {
    host: Host,
    exec: Arc<dyn Exec>,
    kernel: Arc<dyn Kernel>,
    times: Times,
    locks: Locks,
}

impl Rbd {
    /// On this machine. `exec` is for modprobe, if the kernel's module is not loaded.
    #[must_use]
    pub fn new(host: Host, exec: Arc<dyn Exec>) -> Self {
        Self { host, exec, kernel: Arc::new(SystemKernel), times: TIMES, locks: Locks::default() }
    }

    async fn hold(&self, call: &Call, image: &Image) -> Result<Held> {
        self.locks.hold(call, [image.location.to_string()]).await
    }

    async fn mappings(&self, call: &Call, link: &Link, image: &Image) -> Result<Vec<Mapping>> {
        let (host, image) = (self.host.clone(), image.clone());
        let known = known(link).map(ToOwned::to_owned);
        let look = move || mappings(&host, &image, known.as_deref()).map_err(unreadable);
        blocking::run(call, "look at the mapped images", look).await
    }

    /// The one mapping of the image, proven to be the one of the record.
    async fn mapping(&self, call: &Call, link: &Link, image: &Image) -> Result<Option<Mapping>> {
        let mut all = self.mappings(call, link, image).await?.into_iter();
        let Some(mapping) = all.next() else { return Ok(None) };
        if let Some(other) = all.next() {
            return Err(Error::wrong_state(format!(
                "image {} of volume {} is mapped twice on this node, as {} and {}: neither is used; unmap one of them",
                image.location,
                link.volume,
                mapping.device(),
                other.device()
            )));
        }
        if let (Some(known), Some(shown)) = (known(link), mapping.wwid.as_deref())
            && known != shown
        {
            return Err(Error::wrong_state(format!(
                "{} is image {} with identity {shown}, and volume {} had {known} when it was staged: another image has \
                 its name, so it is not used; detach and attach the volume",
                mapping.device(),
                image.location,
                link.volume
            )));
        }
        Ok(Some(mapping))
    }

    /// The device of a mapping, if it is ready.
    async fn device(&self, call: &Call, mapping: &Mapping) -> Result<Option<Device>> {
        let (host, mapping) = (self.host.clone(), mapping.clone());
        blocking::run(call, "look at the mapped image", move || device(&host, &mapping)).await
    }

    async fn wait_for(
        &self,
        call: &Call,
        mapping: &Mapping,
        time: Duration,
        serves: impl Fn(&Device) -> bool + Clone + Send + 'static,
    ) -> Result<Option<Device>> {
        let (host, of) = (self.host.clone(), mapping.clone());
        let found =
            watch::until(call, "wait for the mapped image", time, move || Ok(device(&host, &of)?.filter(&serves)));
        match found.await? {
            Some(device) => Ok(Some(device)),
            None => self.device(call, mapping).await,
        }
    }

    async fn load_module(&self, call: &Call) -> Result<()> {
        if self.host.path(BUS).exists() {
            return Ok(());
        }
        let loaded = self.exec.run(call, Command::new("modprobe").arg("rbd")).await.and_then(Output::success);
        if self.host.path(BUS).exists() {
            return Ok(());
        }
        let missing =
            Error::wrong_state("this node's kernel has no Ceph block devices: load its module rbd on the host");
        Err(match loaded {
            Ok(_) => missing,
            Err(error) => missing.because(error),
        })
    }

    /// The control file that is there: with one major number for all devices, or the older one.
    fn control(&self, command: &str) -> PathBuf {
        let single = self.host.path(BUS).join(format!("{command}_single_major"));
        if single.exists() { single } else { self.host.path(BUS).join(command) }
    }

    /// Maps an image that is not mapped.
    async fn map(&self, call: &Call, held: &Held, link: &Link, image: &Image) -> Result<()> {
        let usage = match (link.is_read_only(), image.exclusive && !link.is_shared()) {
            (true, _) => Use::Reading,
            (false, true) => Use::WritingAlone,
            (false, false) => Use::Writing,
        };
        let mut answer = self.ask_to_map(call, held, link, image, usage).await?;
        if usage == Use::WritingAlone && code(&answer) == Some(Errno::EINVAL) {
            // Images for many nodes, and some old ones, have no lock that could be held.
            tracing::info!(image = %image.location, "the image has no exclusive lock: Ceph cannot keep other nodes off");
            answer = self.ask_to_map(call, held, link, image, Use::Writing).await?;
        }
        answer.map_err(|error| explain(&error, link, image, usage))
    }

    async fn ask_to_map(
        &self,
        call: &Call,
        held: &Held,
        link: &Link,
        image: &Image,
        usage: Use,
    ) -> Result<io::Result<()>> {
        let monitors: Vec<_> = image.monitors.iter().map(ToString::to_string).collect();
        let mut command = Zeroizing::new(format!("{} {}", monitors.join(","), options(image, usage)));
        if let Some(user) = &image.user {
            command.push_str(",secret=");
            command.push_str(key(link, user)?.expose_secret());
        }
        command.push_str(&format!(" {} {} -", image.location.pool, image.location.image));
        let doing = format!("map image {}", image.location);
        tell(&self.kernel, call, held, &doing, self.control("add"), command.as_bytes()).await
    }

    async fn unmap(&self, call: &Call, held: &Held, mapping: &Mapping) -> Result<()> {
        if let Some(device) = self.device(call, mapping).await? {
            release(call, held, &device).await?;
        }
        let doing = format!("unmap {}", mapping.device());
        let end = Instant::now() + self.times.peeking;
        loop {
            match tell(&self.kernel, call, held, &doing, self.control("remove"), mapping.number.as_bytes()).await? {
                Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => {
                    // Nobody has claimed it, so it is udev or the like that looks at it for a moment.
                    if Instant::now() >= end {
                        return Err(Error::busy(format!("{doing}: it is in use on this node (see lsblk and `fuser`)")));
                    }
                    call.sleep(&doing, Duration::from_millis(100)).await?;
                }
                Err(error) if super::kernel::is_gone(&error) => break,
                answer => break answer.map_err(|error| Error::internal(doing.clone()).because(error))?,
            }
        }
        let directory = mapping.directory.clone();
        watch::until(call, "wait until the image is unmapped", self.times.appearance, move || {
            Ok((!directory.exists()).then_some(()))
        })
        .await?
        .ok_or_else(|| Error::new(Kind::Unavailable, format!("{} is still being unmapped", mapping.device())))
    }

    /// The mapping that serves, made if need be; whether this call made it.
    async fn mapped(&self, call: &Call, held: &Held, link: &Link, image: &Image) -> Result<(Mapping, bool)> {
        if let Some(mapping) = self.mapping(call, link, image).await? {
            if mapping.is_read_only == link.is_read_only() {
                return Ok((mapping, false));
            }
            // It was mapped for another use before this node was restarted.
            self.unmap(call, held, &mapping).await?;
        }
        self.load_module(call).await?;
        self.map(call, held, link, image).await?;
        let mapping = self.mapping(call, link, image).await?.ok_or_else(|| {
            Error::new(Kind::Unavailable, format!("image {} was mapped and is gone again", image.location))
        })?;
        Ok((mapping, true))
    }

    /// Waits for the device and proves its size.
    async fn prove(&self, call: &Call, held: &Held, link: &Link, image: &Image, mapping: &Mapping) -> Result<Device> {
        let missing = || {
            let name = mapping.device();
            let what = format!("image {} is mapped, but there is no /dev/{name} with a size", image.location);
            Error::new(Kind::Unavailable, format!("{what}: is the host's /dev mounted into the driver's container?"))
        };
        let time = self.times.appearance;
        let mut device = self.wait_for(call, mapping, time, |d| d.size > Bytes::ZERO).await?.ok_or_else(missing)?;
        let promised = link.connection.size.unwrap_or(Bytes::new(1));
        if device.size < promised {
            self.refresh(call, held, mapping).await?;
            let grown = self.wait_for(call, mapping, self.times.growth, move |device| device.size >= promised);
            device = grown.await?.ok_or_else(missing)?;
        }
        if device.size == Bytes::ZERO {
            return Err(missing());
        }
        if device.size < promised {
            return Err(Error::wrong_state(format!(
                "image {} of volume {} has only {} where {promised} were promised: it is not used; look at the volume \
                 in Cinder, and at the image with `rbd info`",
                image.location, link.volume, device.size
            )));
        }
        Ok(device)
    }

    /// Makes the kernel look at the image's size. It is told of changes by itself, unless it was away at that moment.
    async fn refresh(&self, call: &Call, held: &Held, mapping: &Mapping) -> Result<()> {
        let doing = format!("refresh {}", mapping.device());
        tell_if_there(&self.kernel, call, held, &doing, mapping.directory.join("refresh"), "1").await
    }
}

#[async_trait]
impl Connector for Rbd {
    fn kinds(&self) -> &[&str] {
        &[KIND]
    }

    async fn connect(&self, call: &Call, link: &Link) -> Result<Source> {
        let image = Image::of(link)?;
        let held = self.hold(call, &image).await?;
        let (mapping, is_new) = self.mapped(call, &held, link, &image).await?;
        match self.prove(call, &held, link, &image, &mapping).await {
            Ok(device) => Ok(Source::Block(device)),
            Err(error) => {
                if is_new && let Err(left) = self.unmap(call, &held, &mapping).await {
                    tracing::warn!(volume = %link.volume, error = %left, "a mapping is left behind");
                }
                Err(error)
            }
        }
    }

    async fn locate(&self, call: &Call, link: &Link) -> Result<Option<Source>> {
        let image = Image::of(link)?;
        match self.mapping(call, link, &image).await? {
            Some(mapping) => Ok(self.device(call, &mapping).await?.map(Source::Block)),
            None => Ok(None),
        }
    }

    async fn rescan(&self, call: &Call, link: &Link, size: Bytes) -> Result<Source> {
        let image = Image::of(link)?;
        let gone =
            || Error::not_found(format!("image {} of volume {} is not mapped here", image.location, link.volume));
        let held = self.hold(call, &image).await?;
        let mapping = self.mapping(call, link, &image).await?.ok_or_else(gone)?;
        let device = self.device(call, &mapping).await?.ok_or_else(gone)?;
        if device.size >= size {
            return Ok(Source::Block(device));
        }
        self.refresh(call, &held, &mapping).await?;
        let grown = self.wait_for(call, &mapping, self.times.growth, move |device| device.size >= size).await?;
        grown.map(Source::Block).ok_or_else(gone)
    }

    async fn disconnect(&self, call: &Call, link: &Link) -> Result<()> {
        let image = Image::of(link)?;
        let held = self.hold(call, &image).await?;
        // All of them: by whomever it was mapped, Cinder is about to take the volume from this node.
        for mapping in self.mappings(call, link, &image).await? {
            self.unmap(call, &held, &mapping).await?;
        }
        Ok(())
    }
}

/// The identity that the record has.
fn known(link: &Link) -> Option<&str> {
    link.device.as_ref().and_then(|device| device.wwid.as_deref())
}

fn device(host: &Host, mapping: &Mapping) -> Result<Option<Device>> {
    // Its node comes a moment after its directory in sysfs; until then it is not there.
    let device = host.device(&mapping.device()).map_err(unreadable)?.filter(|device| device.path.exists());
    Ok(device.map(|device| Device { wwid: mapping.wwid.clone(), ..device }))
}

fn code(answer: &io::Result<()>) -> Option<Errno> {
    answer.as_ref().err()?.raw_os_error().map(Errno::from_raw)
}

/// What the kernel's answer means here.
fn explain(error: &io::Error, link: &Link, image: &Image, usage: Use) -> Error {
    let (volume, location) = (&link.volume, &image.location);
    let user = image.user.as_ref().map_or("nobody in particular".to_owned(), |user| format!("client.{user}"));
    let (kind, why) = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => (Kind::WrongState, "there is no such pool or image: was the volume deleted?".to_owned()),
        Some(Errno::EPERM | Errno::EACCES) => {
            (Kind::Denied, format!("Ceph refuses {user}: is the key right, and may it use this pool?"))
        }
        Some(Errno::EROFS) if usage == Use::WritingAlone => (
            Kind::WrongState,
            "another node has it and does not let go (exclusive lock): see `rbd status` for the watcher; a node that is \
             gone is forgotten after half a minute, one that lives has to unmap the image"
                .to_owned(),
        ),
        Some(Errno::EINVAL) => {
            (Kind::WrongState, "the kernel does not take it (image features?); its log says more".to_owned())
        }
        _ => {
            let monitors: Vec<_> = image.monitors.iter().map(ToString::to_string).collect();
            (Kind::Unavailable, format!("Ceph does not answer at {}, or not in this protocol", monitors.join(", ")))
        }
    };
    Error::new(kind, format!("map image {location} of volume {volume}: {why} ({error})"))
}
