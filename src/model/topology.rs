//! Where volumes and nodes are, and what their places are called.

use std::collections::BTreeMap;

/// One place: segments such as `topology.cinder.fuxi.openstack.org/zone = nova`.
pub type Topology = BTreeMap<String, String>;

/// The driver name of manila-csi, which puts its protocol before it (`nfs.manila.csi.openstack.org`).
pub const MANILA_CSI: &str = "manila.csi.openstack.org";

/// What stands before a driver's own keys, in topologies, contexts and metadata: its name. manila-csi's keys, which a
/// driver of its name takes over, are the same for all its protocols.
#[must_use]
pub fn key_prefix(driver: &str) -> &str {
    let is_manila_csi =
        driver.strip_suffix(MANILA_CSI).is_some_and(|before| before.is_empty() || before.ends_with('.'));
    if is_manila_csi { MANILA_CSI } else { driver }
}

/// The topology key of a driver's zones.
#[must_use]
pub fn zone_key(driver: &str) -> String {
    format!("topology.{}/zone", key_prefix(driver))
}

/// Where a volume must be reachable from (CSI `TopologyRequirement`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopologyRequirement {
    /// At least one of these; empty for no requirement.
    pub requisite: Vec<Topology>,
    /// The best first.
    pub preferred: Vec<Topology>,
}
