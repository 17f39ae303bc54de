//! NVMe over fabrics (TCP, RDMA): straight through `/dev/nvme-fabrics` and sysfs, without programs.
//!
//! - **Several paths** are the kernel's business (native multipath): one disk, a controller per path. Without native
//!   multipath every controller would have a disk of its own, so one path is connected then.
//! - **Which namespace it is** is told by UUID, else NGUID, else its number; never by what appeared last. A number is a
//!   place that another volume may get, so what was proven once is compared with ([`Device::wwid`]).
//! - **A subsystem may hold several volumes.** A host cannot give one back; it goes when the storage unmaps it. So a
//!   controller is dropped only when nothing else that is in use comes through it, and connecting always makes the kernel
//!   look again.
//! - The kernel wants host NQN and host id to belong together: both always come from the host's files.

mod subsystem;
mod target;
#[cfg(test)]
mod tests;

use super::kernel::{Kernel, SystemKernel, tell_if_there, unreadable};
use super::lock::{Held, Locks};
use super::release::{Left, refuse_if_used, release};
use super::{Connector, Link, Source, watch};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::exec::{Command, Exec};
use crate::model::Bytes;
use crate::node::blocking;
use crate::node::device::{Device, Host, attribute};
use async_trait::async_trait;
use nix::errno::Errno;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use subsystem::{Controller, Namespace, controllers, disks_of};
use target::{NamespaceId, Nqn, Path, Target, Transport};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

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

    /// Whether the kernel joins the paths of a subsystem.
    async fn is_multipath(&self, call: &Call) -> Result<bool> {
        let file = self.host.path("/sys/module/nvme_core/parameters/multipath");
        blocking::run(call, "look whether NVMe has native multipath", move || {
            Ok(attribute(&file).map_err(unreadable)?.as_deref() == Some("Y"))
        })
        .await
    }

    /// Loads what the transport needs, if the kernel cannot make controllers yet.
    async fn load_modules(&self, call: &Call, transports: &BTreeSet<Transport>) -> Result<()> {
        if self.host.path(FABRICS).exists() {
            return Ok(());
        }
        let modules = transports.iter().map(|transport| format!("nvme-{}", transport.word()));
        let command = Command::new("modprobe").args(["-a", "nvme-fabrics"]).args(modules);
        let loaded = self.exec.run(call, command).await.and_then(crate::exec::Output::success);
        if self.host.path(FABRICS).exists() {
            return Ok(());
        }
        let missing = Error::wrong_state(
            "this node has no /dev/nvme-fabrics: load the kernel modules nvme-fabrics and nvme-tcp (or nvme-rdma) on the \
             host, and let the driver's container see the host's /dev",
        );
        Err(match loaded {
            Ok(_) => missing,
            Err(error) => missing.because(error),
        })
    }

    /// Sees to it that there is a live controller, as many as there are paths if they answer. Returns the names of those
    /// that this made.
    async fn open_paths(
        &self,
        call: &Call,
        held: &Held,
        target: &Target,
        identity: &HostIdentity,
    ) -> Result<Vec<String>> {
        let subsystem = (&target.subsystem, identity);
        // A controller that is being deleted has to be gone before there can be another one on its path.
        let present = self
            .wait_for_controllers(call, subsystem, self.times.appearance, |all| !all.iter().any(Controller::is_going))
            .await?;
        for controller in present.iter().filter(|controller| controller.is_live()) {
            // The storage may have mapped the volume meanwhile without telling, or another one to the same number.
            self.rescan_controller(call, held, controller).await?;
        }
        let is_multipath = self.is_multipath(call).await?;
        let missing: Vec<Path> =
            target.paths.iter().filter(|way| !present.iter().any(|controller| controller.goes(way))).copied().collect();
        let (mut made, mut refused) = (Vec::new(), Vec::new());
        if is_multipath || present.is_empty() {
            self.load_modules(call, &missing.iter().map(|way| way.transport).collect()).await?;
            let ways = missing.into_iter();
            (made, refused) = if is_multipath {
                self.open_all(call, held, target, identity, ways.collect()).await?
            } else {
                self.open_first(call, held, target, identity, ways.collect()).await?
            };
        }
        let all = self
            .wait_for_controllers(call, subsystem, self.times.appearance, |all| all.iter().any(Controller::is_live))
            .await?;
        if all.iter().any(Controller::is_live) {
            for reason in refused {
                tracing::warn!(subsystem = %target.subsystem, reason, "a path to the volume is missing");
            }
            return Ok(made);
        }
        self.drop_controllers(call, held, &all.into_iter().filter(|c| made.contains(&c.name)).collect::<Vec<_>>())
            .await?;
        let lost = present.iter().map(|controller| format!("{} is {}", controller.name, controller.state));
        let reasons: Vec<_> = refused.into_iter().chain(lost).collect();
        Err(Error::new(
            Kind::Unavailable,
            format!(
                "no path to NVMe subsystem {}: {}. See whether the target runs, this node's network reaches it, and it \
                 lets host {} in",
                target.subsystem,
                if reasons.is_empty() { "it has none".to_owned() } else { reasons.join("; ") },
                identity.nqn
            ),
        ))
    }

    /// One path after the other until one is there.
    async fn open_first(
        &self,
        call: &Call,
        held: &Held,
        target: &Target,
        identity: &HostIdentity,
        ways: Vec<Path>,
    ) -> Result<(Vec<String>, Vec<String>)> {
        let mut refused = Vec::new();
        for way in ways {
            let opening = self.opening(held, &target.subsystem, identity, way);
            match call.bound("connect an NVMe path", opening).await? {
                Ok(made) => return Ok((made.into_iter().collect(), refused)),
                Err(reason) => refused.push(format!("{way}: {reason}")),
            }
        }
        Ok((Vec::new(), refused))
    }

    /// All paths at once. One that hangs is not waited for once another one is there; it goes on and keeps the lock.
    async fn open_all(
        &self,
        call: &Call,
        held: &Held,
        target: &Target,
        identity: &HostIdentity,
        ways: Vec<Path>,
    ) -> Result<(Vec<String>, Vec<String>)> {
        let mut openings = JoinSet::new();
        for way in ways {
            let opening = self.opening(held, &target.subsystem, identity, way);
            openings.spawn(async move { (way, opening.await) });
        }
        let (mut made, mut refused) = (Vec::new(), Vec::new());
        let mut end = call.deadline();
        while !openings.is_empty() {
            let next = tokio::time::timeout_at(end, openings.join_next());
            match call.bound("connect the NVMe paths", next).await? {
                Ok(Some(Ok((_, Ok(name))))) => {
                    made.extend(name);
                    end = end.min(tokio::time::Instant::now() + self.times.other_paths);
                }
                Ok(Some(Ok((way, Err(reason))))) => refused.push(format!("{way}: {reason}")),
                Ok(Some(Err(error))) => return Err(Error::internal("connect an NVMe path").because(error)),
                Ok(None) => break,
                Err(_) => {
                    refused.push(format!("{} more do not answer yet", openings.len()));
                    // What the kernel began it brings to an end.
                    openings.detach_all();
                }
            }
        }
        Ok((made, refused))
    }

    /// Makes a controller; its name, or none if it is there already. The error says why not, for people.
    fn opening(
        &self,
        held: &Held,
        subsystem: &Nqn,
        identity: &HostIdentity,
        way: Path,
    ) -> impl Future<Output = Result<Option<String>, String>> + Send + use<> {
        let Path { transport, portal } = way;
        let options = format!(
            "transport={},traddr={},trsvcid={},nqn={subsystem},hostnqn={},hostid={},queue_size=128,ctrl_loss_tmo=-1",
            transport.word(),
            portal.address,
            portal.port,
            identity.nqn,
            identity.id
        );
        let (kernel, held, file) = (Arc::clone(&self.kernel), held.clone(), self.host.path(FABRICS));
        let patience = self.times.portal;
        async move {
            if transport == Transport::Tcp {
                // The kernel would try for minutes, and nobody could stop it.
                match tokio::time::timeout(patience, TcpStream::connect((portal.address, portal.port))).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return Err(error.to_string()),
                    Err(_) => return Err(format!("no answer within {patience:?}")),
                }
            }
            let work = tokio::task::spawn_blocking(move || {
                let _held = held;
                kernel.ask(&file, options.as_bytes())
            });
            match work.await.map_err(|error| error.to_string())? {
                Ok(answer) => Ok(instance(&answer).map(|number| format!("nvme{number}"))),
                Err(error) if error.raw_os_error() == Some(Errno::EALREADY as i32) => Ok(None),
                Err(error) => Err(explain(&error)),
            }
        }
    }

    async fn rescan_controller(&self, call: &Call, held: &Held, controller: &Controller) -> Result<()> {
        let doing = format!("rescan NVMe controller {}", controller.name);
        let file = controller.directory.join("rescan_controller");
        match super::kernel::tell(&self.kernel, call, held, &doing, file, "1").await? {
            Ok(()) => {}
            // It lost its target at this moment; it scans by itself when it has it again.
            Err(error) => tracing::debug!(controller = controller.name, %error, "cannot be rescanned"),
        }
        Ok(())
    }

    async fn drop_controllers(&self, call: &Call, held: &Held, dropped: &[Controller]) -> Result<()> {
        for controller in dropped {
            let doing = format!("disconnect NVMe controller {}", controller.name);
            let file = controller.directory.join("delete_controller");
            tell_if_there(&self.kernel, call, held, &doing, file, "1").await?;
        }
        let directories: Vec<_> = dropped.iter().map(|controller| controller.directory.clone()).collect();
        let gone = watch::until(call, "wait until the NVMe controllers are gone", self.times.appearance, move || {
            Ok((!directories.iter().any(|directory| directory.exists())).then_some(()))
        });
        gone.await?.ok_or_else(|| {
            let names: Vec<_> = dropped.iter().map(|controller| controller.name.as_str()).collect();
            Error::new(Kind::Unavailable, format!("NVMe controllers {} are still being disconnected", names.join(", ")))
        })
    }

    /// The namespace's disk, if it is there and ready; proven to be the one of the record.
    async fn find(&self, call: &Call, link: &Link, target: &Target, identity: &HostIdentity) -> Result<Option<Device>> {
        let (host, target, own) = (self.host.clone(), target.clone(), identity.nqn.clone());
        let link = link.clone();
        blocking::run(call, "look for the volume's NVMe namespace", move || find(&host, &link, &target, &own)).await
    }

    async fn wait_for(
        &self,
        call: &Call,
        (link, target, identity): (&Link, &Target, &HostIdentity),
        time: Duration,
        serves: impl Fn(&Device) -> bool + Clone + Send + 'static,
    ) -> Result<Option<Device>> {
        let (host, wanted, own, of) = (self.host.clone(), target.clone(), identity.nqn.clone(), link.clone());
        let found = watch::until(call, "wait for the volume's NVMe namespace", time, move || {
            Ok(find(&host, &of, &wanted, &own)?.filter(&serves))
        });
        match found.await? {
            Some(device) => Ok(Some(device)),
            None => self.find(call, link, target, identity).await,
        }
    }

    /// Waits for the namespace and proves what can be proven.
    async fn prove(
        &self,
        call: &Call,
        held: &Held,
        link: &Link,
        target: &Target,
        own: &HostIdentity,
    ) -> Result<Device> {
        let wanted = (link, target, own);
        let Some(mut device) = self.wait_for(call, wanted, self.times.appearance, |d| d.size > Bytes::ZERO).await?
        else {
            return Err(self.missing(call, link, target, own).await);
        };
        if matches!(target.namespace, NamespaceId::Number(_)) {
            device = self.settled(call, wanted, device).await?;
        }
        let promised = link.connection.size.unwrap_or(Bytes::new(1));
        if device.size < promised {
            self.ask_for_size(call, held, target, own).await?;
            let grown = self.wait_for(call, wanted, self.times.growth, move |device| device.size >= promised).await?;
            device = match grown {
                Some(device) => device,
                None => return Err(self.missing(call, link, target, own).await),
            };
        }
        if device.size < promised {
            return Err(Error::wrong_state(format!(
                "{} is {} of NVMe subsystem {}, as volume {} should be, but has only {} where {promised} were promised: \
                 it is not used; look at the volume in Cinder and on its back end",
                device.path.display(),
                target.namespace,
                target.subsystem,
                link.volume,
                device.size
            )));
        }
        Ok(device)
    }

    /// A namespace that is known by its number only may have been another volume's until the scan that was just asked
    /// for is done; nothing tells when it is.
    async fn settled(&self, call: &Call, wanted: (&Link, &Target, &HostIdentity), first: Device) -> Result<Device> {
        let (link, target, identity) = wanted;
        let mut device = first;
        loop {
            call.sleep("wait for the scan of the NVMe namespaces", self.times.settling).await?;
            match self.find(call, link, target, identity).await? {
                Some(now) if now.is_same_disk(&device) && now.wwid == device.wwid => return Ok(now),
                Some(now) => device = now,
                None => return Err(self.missing(call, link, target, identity).await),
            }
        }
    }

    async fn ask_for_size(&self, call: &Call, held: &Held, target: &Target, identity: &HostIdentity) -> Result<()> {
        for controller in self.controllers(call, &target.subsystem, identity).await?.iter().filter(|c| c.is_live()) {
            self.rescan_controller(call, held, controller).await?;
        }
        Ok(())
    }

    /// Says that the namespace is not there, and what is there instead.
    async fn missing(&self, call: &Call, link: &Link, target: &Target, identity: &HostIdentity) -> Error {
        let seen = match self.controllers(call, &target.subsystem, identity).await {
            Err(error) => return error,
            Ok(controllers) => {
                let all: BTreeSet<String> =
                    controllers.iter().flat_map(|controller| &controller.namespaces).map(Namespace::shown).collect();
                all.into_iter().collect::<Vec<_>>().join(", ")
            }
        };
        Error::new(
            Kind::Unavailable,
            format!(
                "volume {}: NVMe subsystem {} is connected, but {} is not in it; there is {}. See whether the back end \
                 maps the volume to host {}",
                link.volume,
                target.subsystem,
                target.namespace,
                if seen.is_empty() { "none" } else { &seen },
                identity.nqn
            ),
        )
    }

    fn note_released(&self, subsystem: &Nqn, wwid: Option<&String>) {
        if let Some(wwid) = wwid {
            let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
            released.entry(subsystem.clone()).or_default().insert(wwid.clone());
        }
    }

    fn note_used(&self, subsystem: &Nqn, wwid: Option<&String>) {
        let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(of), Some(wwid)) = (released.get_mut(subsystem), wwid) {
            of.remove(wwid);
        }
    }

    fn is_released(&self, subsystem: &Nqn, namespace: &Namespace) -> bool {
        let released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
        released.get(subsystem).zip(namespace.wwid.as_ref()).is_some_and(|(of, wwid)| of.contains(wwid))
    }

    /// Which of these controllers carry nothing but the namespace that is given back (on the disk of that name) and
    /// others that were given back before and that nobody uses.
    async fn droppable(
        &self,
        call: &Call,
        held: &Held,
        subsystem: &Nqn,
        all: Vec<Controller>,
        given_back: Option<&str>,
    ) -> Result<Vec<Controller>> {
        let mut idle = BTreeMap::new();
        let mut droppable = Vec::new();
        for controller in all {
            let mut carries = false;
            for namespace in controller.namespaces.iter().filter(|n| Some(n.disk.as_str()) != given_back) {
                if !idle.contains_key(&namespace.disk) {
                    let is_idle =
                        self.is_released(subsystem, namespace) && self.is_idle(call, held, &namespace.disk).await?;
                    idle.insert(namespace.disk.clone(), is_idle);
                }
                carries |= !idle.get(&namespace.disk).copied().unwrap_or(false);
            }
            if !carries {
                droppable.push(controller);
            }
        }
        Ok(droppable)
    }

    /// Of the controllers that a failed call made: those without which everything that is in use has a path still.
    async fn undoable(
        &self,
        call: &Call,
        held: &Held,
        target: &Target,
        identity: &HostIdentity,
        made: &[String],
    ) -> Result<Vec<Controller>> {
        let all = self.controllers(call, &target.subsystem, identity).await?;
        let (ours, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|controller| made.contains(&controller.name));
        for namespace in ours.iter().flat_map(|controller| &controller.namespaces) {
            let has_another_path = others.iter().any(|other| other.namespaces.iter().any(|n| n.disk == namespace.disk));
            if !has_another_path && !self.is_idle(call, held, &namespace.disk).await? {
                return Ok(Vec::new());
            }
        }
        Ok(ours)
    }

    async fn is_idle(&self, call: &Call, held: &Held, disk: &str) -> Result<bool> {
        match self.host.device(disk).map_err(unreadable)? {
            None => Ok(true),
            Some(device) => match refuse_if_used(call, held, &device).await {
                Ok(_) => Ok(true),
                Err(error) if error.is(Kind::Busy) || error.is(Kind::Unavailable) => Ok(false),
                Err(error) => Err(error),
            },
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

/// The namespace's disk, if it is there and ready.
fn find(host: &Host, link: &Link, target: &Target, identity: &Nqn) -> Result<Option<Device>> {
    let controllers = controllers(host, &target.subsystem, identity).map_err(unreadable)?;
    let mut by_name: BTreeMap<String, Namespace> = BTreeMap::new();
    for namespace in disks_of(&controllers, &target.namespace) {
        by_name.insert(namespace.disk.clone(), namespace);
    }
    let mut found = by_name.into_values();
    let Some(namespace) = found.next() else { return Ok(None) };
    if let Some(other) = found.next() {
        return Err(Error::wrong_state(format!(
            "both {} and {} are {} of NVMe subsystem {}: neither is used; without native multipath \
             (nvme_core.multipath=Y) disconnect all paths but one",
            namespace.shown(),
            other.shown(),
            target.namespace,
            target.subsystem
        )));
    }
    let known = link.device.as_ref().and_then(|device| device.wwid.as_deref());
    if let (Some(known), Some(shown)) = (known, namespace.wwid.as_deref())
        && known != shown
    {
        return Err(Error::wrong_state(format!(
            "{} of NVMe subsystem {} is now {shown} and was {known} when volume {} was staged: another volume has its \
             place, so it is not used; detach and attach the volume",
            target.namespace, target.subsystem, link.volume
        )));
    }
    // Its node comes a moment after its directory in sysfs; until then it is not there.
    let device = host.device(&namespace.disk).map_err(unreadable)?.filter(|device| device.path.exists());
    Ok(device.map(|device| Device { wwid: namespace.wwid, ..device }))
}

/// The number of the controller that the kernel made.
fn instance(answer: &str) -> Option<u32> {
    answer.split(',').find_map(|part| part.strip_prefix("instance=")?.parse().ok())
}

/// What the kernel's error code means here.
fn explain(error: &io::Error) -> String {
    let hint = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EIO) => {
            "the target answers, but refuses: it does not know the subsystem, or does not let this host in"
        }
        Some(Errno::EINVAL) => {
            "the kernel refuses the options: is the host id used with another host NQN already? The kernel's log says more"
        }
        _ => return error.to_string(),
    };
    format!("{hint} ({error})")
}
