//! The namespace that is the volume: found, waited for, proven.

use super::subsystem::{Namespace, controllers, disks_of};
use super::target::{NamespaceId, Nqn, Target};
use super::{HostIdentity, NvmeOverFabrics};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::model::Bytes;
use crate::node::blocking;
use crate::node::connector::kernel::unreadable;
use crate::node::connector::lock::Held;
use crate::node::connector::{Link, watch};
use crate::node::device::{Device, Host};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

impl NvmeOverFabrics {
    /// The namespace's disk, if it is there and ready; proven to be the one of the record.
    pub(super) async fn find(
        &self,
        call: &Call,
        link: &Link,
        target: &Target,
        identity: &HostIdentity,
    ) -> Result<Option<Device>> {
        let (host, target, own) = (self.host.clone(), target.clone(), identity.nqn.clone());
        let link = link.clone();
        blocking::run(call, "look for the volume's NVMe namespace", move || find(&host, &link, &target, &own)).await
    }

    pub(super) async fn wait_for(
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
    pub(super) async fn prove(
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

    pub(super) async fn ask_for_size(
        &self,
        call: &Call,
        held: &Held,
        target: &Target,
        identity: &HostIdentity,
    ) -> Result<()> {
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
