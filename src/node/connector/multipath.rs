//! dm-multipath: one disk made of several paths. multipathd makes, watches and resizes the maps; which map a path is in is
//! read from sysfs.

use super::kernel::{names_in, unreadable};
use super::lock::Held;
use super::scsi::address::{Address, Lun, PathDisk, at};
use super::scsi::holders;
use super::watch;
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::exec::{Command, Exec, Output};
use crate::node::blocking;
use crate::node::device::{Host, attribute};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What the kernel's name of a map begins with, if it is multipathd's.
const PREFIX: &str = "mpath-";

/// Where multipathd says that it runs.
const PID_FILES: [&str; 2] = ["/run/multipathd.pid", "/run/multipathd/multipathd.pid"];

/// How long multipathd gets for one thing.
const LIMIT: Duration = Duration::from_secs(60);

/// A map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Map {
    /// Its device, such as `dm-0`.
    pub(super) device: String,
    /// Its name for programs, such as `36001405…`.
    name: String,
}

/// multipathd and its maps.
#[derive(Debug, Clone)]
pub(super) struct Multipath {
    pub(super) host: Host,
    pub(super) exec: Arc<dyn Exec>,
    /// How long a map may take to appear.
    pub(super) appearance: Duration,
}

impl Multipath {
    pub(super) fn new(host: Host, exec: Arc<dyn Exec>) -> Self {
        Self { host, exec, appearance: Duration::from_secs(30) }
    }

    fn runs(&self) -> bool {
        PID_FILES.iter().any(|file| self.host.path(file).exists())
    }

    /// The map of which these are paths.
    pub(super) async fn map_of(&self, call: &Call, disks: &[PathDisk]) -> Result<Option<Map>> {
        let (host, disks) = (self.host.clone(), disks.to_vec());
        blocking::run(call, "look for the multipath map", move || map_of(&host, &disks)).await
    }

    /// The paths of a map.
    pub(super) async fn paths_of(&self, call: &Call, map: &Map) -> Result<Vec<PathDisk>> {
        let (host, map) = (self.host.clone(), map.clone());
        blocking::run(call, "look at the paths of a map", move || {
            let mut found = Vec::new();
            for name in names_in(&host.sysfs(&map.device).join("slaves")).map_err(unreadable)? {
                let device = host.sysfs(&name).join("device");
                for place in names_in(&device.join("scsi_device")).map_err(unreadable)? {
                    if let Some(address) = parse(&place) {
                        found.extend(at(&host, address).map_err(unreadable)?);
                    }
                }
            }
            Ok(found)
        })
        .await
    }

    /// The map of these paths, made if they are to have one. A single path has one only if multipathd wants it.
    pub(super) async fn assemble(
        &self,
        call: &Call,
        _held: &Held,
        disks: &[PathDisk],
        is_wanted: bool,
    ) -> Result<Option<Map>> {
        if let Some(map) = self.map_of(call, disks).await? {
            return self.complete(call, map, disks).await.map(Some);
        }
        if !self.runs() {
            return if is_wanted {
                Err(Error::wrong_state(
                    "the volume comes by several paths and multipathd does not run on this node: start it on the host, \
                     and mount the host's /run and /etc/multipath into the driver's container",
                ))
            } else {
                Ok(None)
            };
        }
        if !is_wanted && !self.claims(call, disks).await? {
            return Ok(None);
        }
        if let Some(map) = self.wait_for_map(call, disks, self.appearance.min(Duration::from_secs(5))).await? {
            return self.complete(call, map, disks).await.map(Some);
        }
        // find_multipaths may want to see a second path first, or an event was lost.
        if let Some(name) = disks.iter().find_map(|disk| disk.name.as_ref()) {
            self.run(call, Command::new("multipath").arg("-a").arg(format!("/dev/{name}"))).await?;
        }
        self.add_paths(call, disks).await?;
        match self.wait_for_map(call, disks, self.appearance).await? {
            Some(map) => self.complete(call, map, disks).await.map(Some),
            None => Err(Error::new(
                Kind::Unavailable,
                format!(
                    "multipathd made no map of {}: see `multipathd show paths` and whether /etc/multipath.conf \
                     blacklists them",
                    shown(disks)
                ),
            )),
        }
    }

    /// Sees to it that a map has all these paths.
    async fn complete(&self, call: &Call, map: Map, disks: &[PathDisk]) -> Result<Map> {
        let wanted: Vec<String> = disks.iter().filter_map(|disk| disk.name.clone()).collect();
        let (host, device) = (self.host.clone(), map.device.clone());
        let look = move || {
            let slaves = names_in(&host.sysfs(&device).join("slaves")).map_err(unreadable)?;
            Ok(wanted.iter().all(|name| slaves.contains(name)).then_some(()))
        };
        let time = self.appearance.min(Duration::from_secs(5));
        if watch::until(call, "wait for the paths of the map", time, look.clone()).await?.is_none() {
            self.add_paths(call, disks).await?;
            if watch::until(call, "wait for the paths of the map", time, look).await?.is_none() {
                tracing::warn!(map = map.name, paths = shown(disks), "the map has not all paths");
            }
        }
        Ok(map)
    }

    async fn add_paths(&self, call: &Call, disks: &[PathDisk]) -> Result<()> {
        for name in disks.iter().filter_map(|disk| disk.name.as_ref()) {
            self.run(call, Command::new("multipathd").args(["add", "path", name])).await?;
        }
        Ok(())
    }

    /// Whether multipathd takes a single path.
    async fn claims(&self, call: &Call, disks: &[PathDisk]) -> Result<bool> {
        let Some(name) = disks.iter().find_map(|disk| disk.name.as_ref()) else { return Ok(false) };
        Ok(self.run(call, Command::new("multipath").arg("-c").arg(format!("/dev/{name}"))).await?.code == 0)
    }

    async fn wait_for_map(&self, call: &Call, disks: &[PathDisk], time: Duration) -> Result<Option<Map>> {
        let (host, disks) = (self.host.clone(), disks.to_vec());
        watch::until(call, "wait for the multipath map", time, move || map_of(&host, &disks)).await
    }

    /// Makes what waits for a path fail instead.
    pub(super) async fn stop_queueing(&self, call: &Call, map: &Map) -> Result<()> {
        let output = self.run(call, Command::new("multipathd").args(["disablequeueing", "map", &map.name])).await?;
        if output.code != 0 {
            tracing::warn!(map = map.name, said = output.last_words(), "queueing cannot be made off");
        }
        Ok(())
    }

    /// Removes a map that nobody uses.
    pub(super) async fn remove(&self, call: &Call, map: &Map) -> Result<()> {
        let gone = self.host.sysfs(&map.device);
        let end = Instant::now() + self.appearance;
        loop {
            let output = self.run(call, Command::new("multipath").args(["-f", &map.name])).await?;
            let place = gone.clone();
            let look = move || Ok((!place.exists()).then_some(()));
            if watch::until(call, "wait until the map is gone", Duration::from_secs(2), look).await?.is_some() {
                return Ok(());
            }
            // udev may look at it at this moment.
            if Instant::now() >= end {
                let failed = output.failure(Kind::Unavailable);
                return Err(failed.during(format!("remove multipath map {}", map.name)));
            }
            call.sleep("remove the multipath map", Duration::from_millis(300)).await?;
        }
    }

    /// Makes a map as large as its paths.
    pub(super) async fn resize(&self, call: &Call, map: &Map) -> Result<()> {
        let end = Instant::now() + self.appearance;
        loop {
            let output = self.run(call, Command::new("multipathd").args(["resize", "map", &map.name])).await?;
            // multipathd says `ok` or `fail`, whatever its exit code is.
            if output.code == 0 && !output.stdout.contains("fail") && !output.stdout.contains("timeout") {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(output.failure(Kind::Unavailable).during(format!("resize multipath map {}", map.name)));
            }
            call.sleep("resize the multipath map", Duration::from_millis(500)).await?;
        }
    }

    async fn run(&self, call: &Call, command: Command) -> Result<Output> {
        self.exec.run(call, command.limit(LIMIT).to_the_end()).await
    }
}

fn shown(disks: &[PathDisk]) -> String {
    disks.iter().filter_map(|disk| disk.name.as_deref()).collect::<Vec<_>>().join(", ")
}

fn map_of(host: &Host, disks: &[PathDisk]) -> Result<Option<Map>> {
    for disk in disks.iter().filter_map(|disk| disk.name.as_ref()) {
        for holder in holders(host, disk).map_err(unreadable)? {
            let directory = host.sysfs(&holder).join("dm");
            let uuid = attribute(&directory.join("uuid")).map_err(unreadable)?;
            if uuid.is_some_and(|uuid| uuid.starts_with(PREFIX)) {
                let name = attribute(&directory.join("name")).map_err(unreadable)?.unwrap_or_default();
                return Ok(Some(Map { device: holder, name }));
            }
        }
    }
    Ok(None)
}

/// `H:C:T:L`, as the kernel names what sits there.
fn parse(place: &str) -> Option<Address> {
    let mut parts = place.split(':');
    let mut number = || parts.next()?.parse().ok();
    let (host, channel, target) = (number()?, number()?, number()?);
    Some(Address { host, channel, target, lun: Lun::shown(parts.next()?.parse().ok()?) })
}
