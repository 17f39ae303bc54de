//! The paths to a subsystem: a controller each, made, looked at again, and dropped.

use super::subsystem::Controller;
use super::target::{Nqn, Path, Target, Transport};
use super::{FABRICS, HostIdentity, NvmeOverFabrics};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::exec::Command;
use crate::node::blocking;
use crate::node::connector::kernel::{tell, tell_if_there, unreadable};
use crate::node::connector::lock::Held;
use crate::node::connector::watch;
use crate::node::device::attribute;
use nix::errno::Errno;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

impl NvmeOverFabrics {
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
    pub(super) async fn open_paths(
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
            let opening = self.opening(call, held, &target.subsystem, identity, way);
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
            let opening = self.opening(call, held, &target.subsystem, identity, way);
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
        call: &Call,
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
        let (call, patience) = (call.clone(), self.times.portal);
        async move {
            if transport == Transport::Tcp {
                // The kernel would try for minutes, and nobody could stop it.
                match tokio::time::timeout(patience, TcpStream::connect((portal.address, portal.port))).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return Err(error.to_string()),
                    Err(_) => return Err(format!("no answer within {patience:?}")),
                }
            }
            call.step(&format!("connect {way}"));
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

    pub(super) async fn rescan_controller(&self, call: &Call, held: &Held, controller: &Controller) -> Result<()> {
        let doing = format!("rescan NVMe controller {}", controller.name);
        let file = controller.directory.join("rescan_controller");
        match tell(&self.kernel, call, held, &doing, file, "1").await? {
            Ok(()) => {}
            // It lost its target at this moment; it scans by itself when it has it again.
            Err(error) => tracing::debug!(controller = controller.name, %error, "cannot be rescanned"),
        }
        Ok(())
    }

    pub(super) async fn drop_controllers(&self, call: &Call, held: &Held, dropped: &[Controller]) -> Result<()> {
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
}

/// The number of the controller that the kernel made.
pub(super) fn instance(answer: &str) -> Option<u32> {
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
