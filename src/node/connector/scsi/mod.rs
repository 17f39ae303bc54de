//! SCSI disks that come by one or more paths, whatever carries them: iSCSI sessions and Fibre Channel ports end here.
//!
//! LUN numbers are reused, so what sits at an address says nothing. Before a volume is used: what sat there before is
//! taken away (unless it is proven to be the volume), the address is scanned anew, all paths must have one WWID, the one
//! of the record if that has any, and the size that was promised.

pub(super) mod address;

use super::kernel::{Kernel, names_in, tell_if_there, unreadable};
use super::lock::Held;
use super::multipath::{Map, Multipath};
use super::release::{refuse_if_used, release};
use super::{Link, watch};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::model::Bytes;
use crate::node::blocking;
use crate::node::device::{Device, Host};
use address::{Address, PathDisk, at};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// How long waits last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// Until the first path appears, and until what was taken away is gone.
    pub(super) appearance: Duration,
    /// Until the other paths are there, after the first one is.
    pub(super) other_paths: Duration,
    /// Until a disk that is too small becomes larger.
    pub(super) growth: Duration,
}

pub(super) const TIMES: Times = Times {
    appearance: Duration::from_secs(30),
    other_paths: Duration::from_secs(10),
    growth: Duration::from_secs(20),
};

/// The SCSI layer of this machine.
#[derive(Debug, Clone)]
pub(super) struct Scsi {
    pub(super) host: Host,
    pub(super) kernel: Arc<dyn Kernel>,
    pub(super) multipath: Multipath,
    pub(super) times: Times,
}

impl Scsi {
    /// Brings the disk at these addresses, and proves that it is the volume. Several addresses are paths to one disk.
    /// `is_multipath` says that a map is wanted even if only one path answers now. `scanned` gets the addresses where the
    /// volume was not before: what this brings there nobody uses yet, so it is to be discarded if anything fails.
    pub(super) async fn bring(
        &self,
        call: &Call,
        held: &Held,
        link: &Link,
        addresses: &[Address],
        is_multipath: bool,
        scanned: &mut Vec<Address>,
    ) -> Result<Device> {
        for address in addresses {
            if !self.is_proven(call, held, link, *address).await? {
                self.clear(call, held, link, *address).await?;
                scanned.push(*address);
                self.scan(call, held, *address).await?;
            }
        }
        let disks = self.wait_for_paths(call, held, link, addresses).await?;
        let wwid = one_identity(link, &disks)?;
        let promised = link.connection.size.unwrap_or(Bytes::new(1));
        let mut device = self.device(call, held, &disks, is_multipath).await?;
        if device.size < promised {
            device = self.grown(call, held, &disks, device, promised).await?;
        }
        if device.size < promised {
            return Err(Error::wrong_state(format!(
                "{} is at the place of volume {}, but has only {} where {promised} were promised: it is not used; look \
                 at the volume in Cinder and on its back end",
                device.path.display(),
                link.volume,
                device.size
            )));
        }
        Ok(Device { wwid: Some(wwid), ..device })
    }

    /// The disk at these addresses, or its map; nothing is changed.
    pub(super) async fn locate(&self, call: &Call, link: &Link, addresses: &[Address]) -> Result<Option<Device>> {
        let disks = self.disks(call, addresses).await?;
        let disks: Vec<_> = disks.into_iter().filter(|disk| disk.name.is_some()).collect();
        if disks.is_empty() {
            return Ok(None);
        }
        let wwid = one_identity(link, &disks)?;
        let device = match self.multipath.map_of(call, &disks).await? {
            Some(map) => self.by_name(call, &map.device).await?,
            None => self.plain(call, &disks).await?,
        };
        Ok(device.map(|device| Device { wwid: Some(wwid), ..device }))
    }

    /// Makes all paths and the map show that the disk grew.
    pub(super) async fn rescan(
        &self,
        call: &Call,
        held: &Held,
        link: &Link,
        addresses: &[Address],
        size: Bytes,
    ) -> Result<Option<Device>> {
        let Some(device) = self.locate(call, link, addresses).await? else { return Ok(None) };
        if device.size >= size {
            return Ok(Some(device));
        }
        let disks = self.disks(call, addresses).await?;
        let wwid = device.wwid.clone();
        let grown = self.grown(call, held, &disks, device, size).await?;
        Ok(Some(Device { wwid, ..grown }))
    }

    /// Takes the volume's disks away: flushed, if nobody uses them.
    pub(super) async fn take_away(&self, call: &Call, held: &Held, link: &Link, addresses: &[Address]) -> Result<()> {
        let known = known(link);
        let is_ours = |disk: &PathDisk| known.is_none() || disk.wwid.is_none() || disk.wwid.as_deref() == known;
        let (disks, others): (Vec<_>, Vec<_>) = self.disks(call, addresses).await?.into_iter().partition(is_ours);
        for other in others {
            tracing::warn!(volume = %link.volume, address = %other.address, wwid = ?other.wwid, "another volume's by now");
        }
        self.remove(call, held, &disks).await
    }

    /// Takes away what was scanned at these addresses before a failure. The disk that sits elsewhere is left alone, with its
    /// map and all paths of that: it was here before, and who has it open as raw block cannot be seen.
    pub(super) async fn discard(&self, call: &Call, held: &Held, scanned: &[Address]) -> Result<()> {
        let mut disks = self.disks(call, scanned).await?;
        if let Some(map) = self.multipath.map_of(call, &disks).await? {
            let paths: Vec<_> =
                self.multipath.paths_of(call, &map).await?.into_iter().map(|path| path.address).collect();
            if paths.iter().any(|path| !scanned.contains(path)) {
                disks.retain(|disk| !paths.contains(&disk.address));
            }
        }
        self.remove(call, held, &disks).await
    }

    /// Flushes and removes these paths of one disk, and the map of them.
    async fn remove(&self, call: &Call, held: &Held, disks: &[PathDisk]) -> Result<()> {
        if let Some(map) = self.multipath.map_of(call, disks).await? {
            if let Some(device) = self.by_name(call, &map.device).await? {
                refuse_if_used(call, held, &device).await?;
                // Without paths a flush would wait for one forever; what was unmounted has been written.
                self.multipath.stop_queueing(call, &map).await?;
                release(call, held, &device).await?;
            }
            self.multipath.remove(call, &map).await?;
        }
        for disk in disks {
            if let Some(name) = &disk.name
                && let Some(device) = self.by_name(call, name).await?
            {
                release(call, held, &device).await?;
            }
        }
        for disk in disks {
            let doing = format!("remove SCSI device {}", disk.address);
            tell_if_there(&self.kernel, call, held, &doing, disk.directory.join("delete"), "1").await?;
        }
        let directories: Vec<_> = disks.iter().map(|disk| disk.directory.clone()).collect();
        let gone = watch::until(call, "wait until the SCSI devices are gone", self.times.appearance, move || {
            Ok((!directories.iter().any(|directory| directory.exists())).then_some(()))
        });
        gone.await?.ok_or_else(|| Error::new(Kind::Unavailable, "SCSI devices are still being removed"))
    }

    async fn disks(&self, call: &Call, addresses: &[Address]) -> Result<Vec<PathDisk>> {
        let (host, addresses) = (self.host.clone(), addresses.to_vec());
        blocking::run(call, "look at the SCSI devices", move || {
            let mut found = Vec::new();
            for address in addresses {
                found.extend(at(&host, address).map_err(unreadable)?);
            }
            Ok(found)
        })
        .await
    }

    async fn by_name(&self, call: &Call, name: &str) -> Result<Option<Device>> {
        let (host, name) = (self.host.clone(), name.to_owned());
        blocking::run(call, "look at the disk", move || {
            Ok(host.device(&name).map_err(unreadable)?.filter(|device| device.path.exists()))
        })
        .await
    }

    /// Whether the disk that sits there is the one that the record knows, asked anew.
    async fn is_proven(&self, call: &Call, held: &Held, link: &Link, address: Address) -> Result<bool> {
        let Some(known) = known(link) else { return Ok(false) };
        let Some(disk) = self.disks(call, &[address]).await?.into_iter().next() else { return Ok(false) };
        self.ask_again(call, held, &disk).await?;
        let now = self.disks(call, &[address]).await?;
        Ok(now.iter().any(|disk| disk.name.is_some() && disk.wwid.as_deref() == Some(known)))
    }

    /// Takes away what sat at our address before us: the LUN may have been another volume's.
    async fn clear(&self, call: &Call, held: &Held, link: &Link, address: Address) -> Result<()> {
        let disks = self.disks(call, &[address]).await?;
        if disks.is_empty() {
            return Ok(());
        }
        let mut disks = disks;
        // A map goes only as a whole: with the other paths of whatever disk that was.
        if let Some(map) = self.multipath.map_of(call, &disks).await? {
            disks = self.multipath.paths_of(call, &map).await?;
        }
        tracing::info!(%address, wwid = ?disks.first().and_then(|disk| disk.wwid.as_ref()), "removing a stale disk");
        self.remove(call, held, &disks).await.map_err(|error| {
            if error.is(Kind::Busy) {
                let why = format!("a disk sits at the place of volume {} already ({address})", link.volume);
                error.as_kind(Kind::WrongState).during(why)
            } else {
                error
            }
        })
    }

    async fn scan(&self, call: &Call, held: &Held, address: Address) -> Result<()> {
        let doing = format!("scan {address}");
        let file = self.host.path("/sys/class/scsi_host").join(format!("host{}", address.host)).join("scan");
        let command = format!("{} {} {}", address.channel, address.target, address.lun);
        tell_if_there(&self.kernel, call, held, &doing, file, command).await
    }

    async fn ask_again(&self, call: &Call, held: &Held, disk: &PathDisk) -> Result<()> {
        let doing = format!("rescan SCSI device {}", disk.address);
        match super::kernel::tell(&self.kernel, call, held, &doing, disk.directory.join("rescan"), "1").await? {
            Ok(()) => {}
            // A path that is down; its disk is judged by what it shows.
            Err(error) => tracing::debug!(address = %disk.address, %error, "cannot be rescanned"),
        }
        Ok(())
    }

    /// Waits until the disk is there by every path, or by some and for a while; scans again meanwhile.
    async fn wait_for_paths(
        &self,
        call: &Call,
        held: &Held,
        link: &Link,
        addresses: &[Address],
    ) -> Result<Vec<PathDisk>> {
        let mut found = Vec::new();
        // os-brick's rhythm: a target may take a moment to show a LUN that was just mapped.
        for pause in [0, 4, 9, 16].map(Duration::from_secs) {
            if !found.is_empty() && pause > self.times.other_paths {
                break;
            }
            if !pause.is_zero() {
                for address in addresses {
                    self.scan(call, held, *address).await?;
                }
            }
            let next = self.times.other_paths.min(Duration::from_secs(4));
            let (host, wanted) = (self.host.clone(), addresses.to_vec());
            let all = watch::until(call, "wait for the SCSI disks", next, move || {
                let mut disks = Vec::new();
                for address in &wanted {
                    disks.extend(at(&host, *address).map_err(unreadable)?.filter(|disk| disk.name.is_some()));
                }
                Ok((disks.len() == wanted.len()).then_some(disks))
            });
            if let Some(all) = all.await? {
                return Ok(all);
            }
            found = self.disks(call, addresses).await?;
            found.retain(|disk| disk.name.is_some());
            if call.remaining() < next {
                break;
            }
        }
        if found.is_empty() {
            return Err(self.missing(link, addresses));
        }
        tracing::warn!(volume = %link.volume, there = found.len(), of = addresses.len(), "paths are missing");
        Ok(found)
    }

    fn missing(&self, link: &Link, addresses: &[Address]) -> Error {
        let mut places = String::new();
        for address in addresses {
            let _ = write!(places, "{}{address}", if places.is_empty() { "" } else { ", " });
        }
        Error::new(
            Kind::Unavailable,
            format!(
                "volume {}: the target is there, but no disk appeared at {places} (host:channel:target:LUN). See whether \
                 the back end maps the volume to this node's initiator",
                link.volume
            ),
        )
    }

    /// What is to be used: the map of these paths, or the only path.
    async fn device(&self, call: &Call, held: &Held, disks: &[PathDisk], is_multipath: bool) -> Result<Device> {
        let map = self.multipath.assemble(call, held, disks, is_multipath).await?;
        let name = match map {
            Some(Map { device, .. }) => Some(device),
            None => disks.iter().find_map(|disk| disk.name.clone()),
        };
        let name = name.ok_or_else(|| Error::new(Kind::Unavailable, "the disk is gone again"))?;
        self.opened(call, &name).await
    }

    /// The disk of that name, once it has its node in /dev: sysfs shows a new disk a moment before.
    async fn opened(&self, call: &Call, name: &str) -> Result<Device> {
        let (host, disk) = (self.host.clone(), name.to_owned());
        let there = watch::until(call, "wait for the node of the disk", self.times.appearance, move || {
            Ok(host.device(&disk).map_err(unreadable)?.filter(|device| device.path.exists()))
        });
        there.await?.ok_or_else(|| {
            Error::new(
                Kind::Unavailable,
                format!("disk {name} is in sysfs and not in /dev: it went again, or this is not the host's /dev"),
            )
        })
    }

    async fn plain(&self, call: &Call, disks: &[PathDisk]) -> Result<Option<Device>> {
        match disks.iter().find_map(|disk| disk.name.as_ref()) {
            Some(name) => self.by_name(call, name).await,
            None => Ok(None),
        }
    }

    /// Rescans until what is used is as large as wanted; gives it as it is at last.
    async fn grown(&self, call: &Call, held: &Held, disks: &[PathDisk], device: Device, size: Bytes) -> Result<Device> {
        for disk in disks {
            self.ask_again(call, held, disk).await?;
        }
        let names: Vec<String> = disks.iter().filter_map(|disk| disk.name.clone()).collect();
        let host = self.host.clone();
        // A map of paths of unlike sizes would break.
        watch::until(call, "wait for the paths to grow", self.times.growth, move || {
            for name in &names {
                if host.device(name).map_err(unreadable)?.is_some_and(|path| path.size < size) {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
        .await?;
        if let Some(map) = self.multipath.map_of(call, disks).await? {
            self.multipath.resize(call, &map).await?;
        }
        let (host, name) = (self.host.clone(), device.name.clone());
        let grown = watch::until(call, "wait for the disk to grow", self.times.growth, move || {
            Ok(host.device(&name).map_err(unreadable)?.filter(|device| device.size >= size))
        });
        match grown.await? {
            Some(device) => Ok(device),
            None => Ok(self.by_name(call, &device.name).await?.unwrap_or(device)),
        }
    }
}

/// The identity that the record has.
fn known(link: &Link) -> Option<&str> {
    link.device.as_ref().and_then(|device| device.wwid.as_deref())
}

/// The one identity of all paths.
fn one_identity(link: &Link, disks: &[PathDisk]) -> Result<String> {
    let all: BTreeSet<_> = disks.iter().filter_map(|disk| disk.wwid.as_deref()).collect();
    let shown =
        || disks.iter().map(|disk| format!("{} is {}", disk.address, disk.wwid.as_deref().unwrap_or("nameless")));
    let mut found = all.into_iter();
    match (found.next(), found.next()) {
        (Some(wwid), None) if disks.iter().all(|disk| disk.wwid.is_some()) => match known(link) {
            Some(known) if known != wwid => Err(Error::wrong_state(format!(
                "the disk at the place of volume {} is {wwid} and was {known} when it was staged: another volume has its \
                 place, so it is not used; detach and attach the volume",
                link.volume
            ))),
            _ => Ok(wwid.to_owned()),
        },
        (None, _) => Err(Error::wrong_state(format!(
            "the disk of volume {} has no identity (no WWID in sysfs), so nothing would tell it from another one: it is \
             not used",
            link.volume
        ))),
        _ => Err(Error::wrong_state(format!(
            "the paths of volume {} lead to unlike disks ({}): none is used; detach and attach the volume",
            link.volume,
            shown().collect::<Vec<_>>().join(", ")
        ))),
    }
}

/// The devices that are made of this one.
pub(super) fn holders(host: &Host, name: &str) -> std::io::Result<Vec<String>> {
    names_in(&host.sysfs(name).join("holders"))
}
