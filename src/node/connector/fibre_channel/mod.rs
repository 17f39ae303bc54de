//! Fibre Channel: the fabric is there before we are; a volume is a LUN of remote ports that the kernel knows already.
//!
//! Nothing is logged in to. Only exact addresses are scanned, on this node's ports that the zones (`initiator_target_map`)
//! name. **Never seen with hardware:** tested on recorded trees of sysfs; from the SCSI disk on it is what iSCSI does too.

mod port;
mod target;
#[cfg(test)]
mod tests;

use super::kernel::{SystemKernel, unreadable};
use super::lock::{Held, Locks};
use super::multipath::Multipath;
use super::scsi::address::Address;
use super::scsi::{Scsi, TIMES};
use super::{Connector, Link, Source, watch};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::exec::Exec;
use crate::model::Bytes;
use crate::node::blocking;
use crate::node::device::{Device, Host};
use async_trait::async_trait;
use port::{addresses, all_addresses, ports};
use std::sync::Arc;
use target::{Target, digits};

/// The kind of connection that Cinder's drivers name.
pub const KIND: &str = "fibre_channel";

/// Brings LUNs of a Fibre Channel fabric.
#[derive(Debug, Clone)]
pub struct FibreChannel {
    host: Host,
    scsi: Scsi,
    locks: Locks,
}

impl FibreChannel {
    /// On this machine. `exec` is for multipath and multipathd.
    #[must_use]
    pub fn new(host: Host, exec: Arc<dyn Exec>) -> Self {
        let multipath = Multipath::new(host.clone(), exec);
        let scsi = Scsi { host: host.clone(), kernel: Arc::new(SystemKernel), multipath, times: TIMES };
        Self { host, scsi, locks: Locks::default() }
    }

    async fn hold(&self, call: &Call, target: &Target) -> Result<Held> {
        self.locks.hold(call, target.ports.keys().map(ToString::to_string)).await
    }

    async fn addresses(&self, call: &Call, target: &Target) -> Result<Vec<Address>> {
        let (host, target) = (self.host.clone(), target.clone());
        blocking::run(call, "look at the remote ports", move || addresses(&host, &target).map_err(unreadable)).await
    }

    /// The addresses of the volume, once this node's ports see its targets.
    async fn wait_for_addresses(&self, call: &Call, link: &Link, target: &Target) -> Result<Vec<Address>> {
        let (host, wanted) = (self.host.clone(), target.clone());
        let look = move || Ok(Some(addresses(&host, &wanted).map_err(unreadable)?).filter(|found| !found.is_empty()));
        if let Some(found) = watch::until(call, "wait for the remote ports", self.scsi.times.appearance, look).await? {
            return Ok(found);
        }
        let host = self.host.clone();
        let own = blocking::run(call, "look at the FC ports", move || ports(&host).map_err(unreadable)).await?;
        if own.is_empty() {
            return Err(Error::wrong_state(format!(
                "volume {} comes over Fibre Channel, and this node has no port for that (/sys/class/fc_host)",
                link.volume
            )));
        }
        let shown: Vec<_> =
            own.iter().map(|port| format!("{}{}", port.name, if port.is_online { "" } else { " (offline)" })).collect();
        let wanted: Vec<_> = target.ports.keys().map(ToString::to_string).collect();
        Err(Error::new(
            Kind::Unavailable,
            format!(
                "volume {}: none of this node's ports ({}) sees a target port {}: look at cables and zones",
                link.volume,
                shown.join(", "),
                wanted.join(", ")
            ),
        ))
    }
}

#[async_trait]
impl Connector for FibreChannel {
    fn kinds(&self) -> &[&str] {
        &[KIND]
    }

    async fn connect(&self, call: &Call, link: &Link) -> Result<Source> {
        let target = Target::of(link)?;
        let held = self.hold(call, &target).await?;
        let addresses = self.wait_for_addresses(call, link, &target).await?;
        let mut scanned = Vec::new();
        let brought = self.scsi.bring(call, &held, link, &addresses, addresses.len() > 1, &mut scanned).await;
        let proven = brought.and_then(|device| prove_told(link, &target, device));
        match proven {
            Ok(device) => Ok(Source::Block(device)),
            Err(error) => {
                if let Err(left) = self.scsi.discard(call, &held, &scanned).await {
                    tracing::warn!(volume = %link.volume, error = %left, "a disk is left behind");
                }
                Err(error)
            }
        }
    }

    async fn locate(&self, call: &Call, link: &Link) -> Result<Option<Source>> {
        let addresses = self.addresses(call, &Target::of(link)?).await?;
        Ok(self.scsi.locate(call, link, &addresses).await?.map(Source::Block))
    }

    async fn rescan(&self, call: &Call, link: &Link, size: Bytes) -> Result<Source> {
        let target = Target::of(link)?;
        let held = self.hold(call, &target).await?;
        let addresses = self.addresses(call, &target).await?;
        let device = self.scsi.rescan(call, &held, link, &addresses, size).await?;
        device
            .map(Source::Block)
            .ok_or_else(|| Error::not_found(format!("the disk of volume {} is not on this node", link.volume)))
    }

    async fn disconnect(&self, call: &Call, link: &Link) -> Result<()> {
        let target = Target::of(link)?;
        let held = self.hold(call, &target).await?;
        // A stale path by a port that is offline would be there when the LUN is another volume's.
        let host = self.host.clone();
        let look = move || all_addresses(&host, &target).map_err(unreadable);
        let addresses = blocking::run(call, "look at all remote ports", look).await?;
        self.scsi.take_away(call, &held, link, &addresses).await
    }
}

/// Compares the disk with what the back end says that it is, where it does.
fn prove_told(link: &Link, target: &Target, device: Device) -> Result<Device> {
    match (&target.wwn, &device.wwid) {
        (Some(told), Some(shown)) if *told != digits(shown) => Err(Error::wrong_state(format!(
            "the disk at the place of volume {} is {shown}, and its back end calls it {told}: it is not used; detach and \
             attach the volume",
            link.volume
        ))),
        _ => Ok(device),
    }
}
