//! NVMe over fabrics (TCP, RDMA): straight through `/dev/nvme-fabrics` and sysfs, without programs.
//!
//! - **Several paths** are the kernel's business (native multipath): one disk, a controller per path. Without native
//!   multipath every controller would have a disk of its own, so one path is connected then.
//! - **Which namespace it is** is told by UUID, else NGUID, else its number; never by what appeared last. A number is a
//!   place that another volume may get, so what was proven once is compared with (`Device::wwid`).
//! - **A subsystem may hold several volumes.** A host cannot give one back; it goes when the storage unmaps it. So a
//!   controller is dropped only when nothing else that is in use comes through it, and connecting always makes the kernel
//!   look again.
//! - The kernel wants host NQN and host id to belong together: both always come from the host's files.

mod giving_back;
mod namespace;
mod opening;
mod subsystem;
mod target;
#[cfg(test)]
mod tests;

use super::kernel::{Kernel, SystemKernel, unreadable};
use super::lock::Locks;
use super::release::{Left, refuse_if_used, release};
use super::{Connector, Link, Source, watch};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::exec::Exec;
use crate::model::Bytes;
use crate::node::blocking;
use crate::node::device::{Host, attribute};
use async_trait::async_trait;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use subsystem::{Controller, controllers};
use target::{Nqn, Target};

/// The kind of connection that Cinder's drivers name.
pub const KINDS: [&str; 2] = ["nvmeof", "nvme"];

/// Where controllers are made.
const FABRICS: &str = "/dev/nvme-fabrics";

/// How long waits last.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// Until a portal answers at all.
    portal: Duration,
    /// Until the other paths are there too, after the first one is.
    other_paths: Duration,
    /// Until the namespace appears, or a controller that lost its target has it again.
    appearance: Duration,
    /// Until a namespace that is too small becomes larger.
    growth: Duration,
    /// During which a namespace that is known by its number alone must stay the same after a scan.
    settling: Duration,
}

const TIMES: Times = Times {
    portal: Duration::from_secs(5),
    other_paths: Duration::from_secs(5),
    appearance: Duration::from_secs(30),
    growth: Duration::from_secs(10),
    settling: Duration::from_secs(1),
};

/// Connects namespaces of NVMe subsystems.
#[derive(Debug, Clone)]
pub struct NvmeOverFabrics {
    host: Host,
    exec: Arc<dyn Exec>,
    kernel: Arc<dyn Kernel>,
    times: Times,
    locks: Locks,
    /// Namespaces that were given back and are still shown until the storage unmaps them.
    released: Arc<Mutex<HashMap<Nqn, HashSet<String>>>>,
}

/// Who this host is to targets.
#[derive(Debug, Clone)]
struct HostIdentity {
    nqn: Nqn,
    id: String,
}

impl NvmeOverFabrics {
    /// On this machine. `exec` is for modprobe, if the kernel's modules are not loaded.
    #[must_use]
    pub fn new(host: Host, exec: Arc<dyn Exec>) -> Self {
        let kernel = Arc::new(SystemKernel);
        Self { host, exec, kernel, times: TIMES, locks: Locks::default(), released: Arc::default() }
    }

    /// The host's NQN and id.
    async fn identity(&self, call: &Call) -> Result<HostIdentity> {
        let host = self.host.clone();
        blocking::run(call, "read /etc/nvme", move || {
            let read = |path: &str| {
                attribute(&host.path(path)).map_err(unreadable)?.filter(|text| !text.is_empty()).ok_or_else(|| {
                    Error::wrong_state(format!(
                        "this node has no {path}, so it has no name that an NVMe target could let in: is the host's \
                         /etc/nvme mounted into the driver's container?"
                    ))
                })
            };
            let wrong = |path: &str, why: &str| Error::wrong_state(format!("{path} of this node {why}"));
            let (nqn, id) = (read("/etc/nvme/hostnqn")?, read("/etc/nvme/hostid")?);
            let nqn = nqn.parse().map_err(|why: String| wrong("/etc/nvme/hostnqn", &why))?;
            if id.parse::<target::WideId>().is_err() || !id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
            {
                return Err(wrong("/etc/nvme/hostid", "holds no UUID"));
            }
            Ok(HostIdentity { nqn, id })
        })
        .await
    }

    async fn controllers(&self, call: &Call, subsystem: &Nqn, identity: &HostIdentity) -> Result<Vec<Controller>> {
        let (host, subsystem, identity) = (self.host.clone(), subsystem.clone(), identity.nqn.clone());
        let look = move || controllers(&host, &subsystem, &identity).map_err(unreadable);
        blocking::run(call, "look at the NVMe controllers", look).await
    }

    /// Looks until the subsystem's controllers are as wanted; gives them as they are at last.
    async fn wait_for_controllers(
        &self,
        call: &Call,
        (subsystem, identity): (&Nqn, &HostIdentity),
        time: Duration,
        are_as_wanted: impl Fn(&[Controller]) -> bool + Clone + Send + 'static,
    ) -> Result<Vec<Controller>> {
        let (host, nqn, own) = (self.host.clone(), subsystem.clone(), identity.nqn.clone());
        let found = watch::until(call, "wait for the NVMe controllers", time, move || {
            let found = controllers(&host, &nqn, &own).map_err(unreadable)?;
            Ok(are_as_wanted(&found).then_some(found))
        });
        match found.await? {
            Some(found) => Ok(found),
            None => self.controllers(call, subsystem, identity).await,
        }
    }
}

#[async_trait]
impl Connector for NvmeOverFabrics {
    fn kinds(&self) -> &[&str] {
        &KINDS
    }

    async fn connect(&self, call: &Call, link: &Link) -> Result<Source> {
        let target = Target::of(link)?;
        let identity = self.identity(call).await?;
        if let Some(host) = target.host.as_ref().filter(|host| **host != identity.nqn) {
            return Err(Error::wrong_state(format!(
                "volume {} was exported to NVMe host {host}, and this node is {}: /etc/nvme/hostnqn was changed since \
                 this node registered; detach and attach the volume",
                link.volume, identity.nqn
            )));
        }
        let held = self.locks.hold(call, [target.subsystem.to_string()]).await?;
        let made = self.open_paths(call, &held, &target, &identity).await?;
        match self.prove(call, &held, link, &target, &identity).await {
            Ok(device) => {
                self.note_used(&target.subsystem, device.wwid.as_ref());
                Ok(Source::Block(device))
            }
            Err(error) => {
                let ours = self.undoable(call, &held, &target, &identity, &made).await?;
                if let Err(left) = self.drop_controllers(call, &held, &ours).await {
                    tracing::warn!(volume = %link.volume, error = %left, "a connection is left behind");
                }
                Err(error)
            }
        }
    }

    async fn locate(&self, call: &Call, link: &Link) -> Result<Option<Source>> {
        let (target, identity) = (Target::of(link)?, self.identity(call).await?);
        Ok(self.find(call, link, &target, &identity).await?.map(Source::Block))
    }

    async fn rescan(&self, call: &Call, link: &Link, size: Bytes) -> Result<Source> {
        let (target, identity) = (Target::of(link)?, self.identity(call).await?);
        let gone = || Error::not_found(format!("the NVMe namespace of volume {} is not on this node", link.volume));
        let held = self.locks.hold(call, [target.subsystem.to_string()]).await?;
        let device = self.find(call, link, &target, &identity).await?.ok_or_else(gone)?;
        if device.size >= size {
            return Ok(Source::Block(device));
        }
        self.ask_for_size(call, &held, &target, &identity).await?;
        let wanted = (link, &target, &identity);
        let grown = self.wait_for(call, wanted, self.times.growth, move |device| device.size >= size).await?;
        grown.map(Source::Block).ok_or_else(gone)
    }

    async fn disconnect(&self, call: &Call, link: &Link) -> Result<()> {
        let (target, identity) = (Target::of(link)?, self.identity(call).await?);
        let held = self.locks.hold(call, [target.subsystem.to_string()]).await?;
        let all = self.controllers(call, &target.subsystem, &identity).await?;
        let device = match self.find(call, link, &target, &identity).await {
            // Another volume has its place by now: that one is not ours to take away.
            Err(error) if error.is(Kind::WrongState) => {
                tracing::warn!(volume = %link.volume, %error, "the volume is not here any more");
                None
            }
            found => found?,
        };
        if let Some(device) = &device {
            let left = if all.iter().any(Controller::is_live) {
                release(call, &held, device).await?
            } else {
                // What was unmounted has been written, and nothing can be now.
                refuse_if_used(call, &held, device).await?
            };
            tracing::debug!(volume = %link.volume, device = device.name, ?left, "given back");
            if left != Left::Gone {
                self.note_released(&target.subsystem, device.wwid.as_ref());
            }
        }
        let disk = device.as_ref().map(|device| device.name.as_str());
        let dropped = self.droppable(call, &held, &target.subsystem, all, disk).await?;
        self.drop_controllers(call, &held, &dropped).await
    }
}
