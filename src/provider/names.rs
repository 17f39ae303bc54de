//! The names that the driver writes into OpenStack and Kubernetes, all made from the driver's own name.
//!
//! They follow the pattern of cinder-csi and manila-csi: with their driver names they are their names, so what they made
//! is found and they find what we make.

use crate::error::{Error, Result};
use crate::model::{MANILA_CSI, StringMap, key_prefix, zone_key};
use crate::openstack::objects::Metadata;

/// The driver name of cinder-csi. With it, the driver behaves as a drop-in.
pub const CINDER_CSI: &str = "cinder.csi.openstack.org";

/// What provisioner and snapshotter say about the objects behind a request (`--extra-create-metadata`), and what is kept
/// as metadata in OpenStack.
pub const KUBERNETES_NAMES: [&str; 6] = [
    "csi.storage.k8s.io/pvc/name",
    "csi.storage.k8s.io/pvc/namespace",
    "csi.storage.k8s.io/pv/name",
    "csi.storage.k8s.io/volumesnapshot/name",
    "csi.storage.k8s.io/volumesnapshot/namespace",
    "csi.storage.k8s.io/volumesnapshotcontent/name",
];

/// What stands before the name of the temporary snapshot of a backup.
const TEMPORARY: &str = "for-backup-";

/// The longest value that Cinder takes as metadata; Manila takes longer ones.
const LONGEST_VALUE: usize = 255;

/// The names of one driver in one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    driver: String,
    prefix: String,
    cluster: String,
    cluster_key: String,
    topology_key: String,
    temporary_key: String,
    source_key: String,
}

impl Names {
    /// Of this driver in this cluster.
    #[must_use]
    pub fn new(driver: &str, cluster: &str) -> Self {
        let prefix = key_prefix(driver);
        Self {
            driver: driver.to_owned(),
            prefix: prefix.to_owned(),
            cluster: cluster.to_owned(),
            cluster_key: format!("{prefix}/cluster"),
            topology_key: zone_key(driver),
            temporary_key: format!("{prefix}/for-backup"),
            source_key: format!("{prefix}/from-backup"),
        }
    }

    /// The driver's own name.
    #[must_use]
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// The name of the cluster.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Whether the driver stands in for cinder-csi or manila-csi.
    #[must_use]
    pub fn is_drop_in(&self) -> bool {
        self.driver == CINDER_CSI || self.prefix == MANILA_CSI
    }

    /// The key of the zone in topologies.
    #[must_use]
    pub fn topology_key(&self) -> &str {
        &self.topology_key
    }

    /// A key of the driver's own, in a `volume_context` or in metadata.
    #[must_use]
    pub fn key(&self, word: &str) -> String {
        format!("{}/{word}", self.prefix)
    }

    /// What people read as description in OpenStack.
    #[must_use]
    pub fn description(&self) -> String {
        format!("Made by the CSI driver {} for the cluster {}", self.driver, self.cluster)
    }

    /// The metadata of something that we make: ours, and the Kubernetes names among these parameters.
    #[must_use]
    pub fn metadata(&self, parameters: &StringMap) -> Metadata {
        let mut metadata = Metadata::from([(self.cluster_key.clone(), self.cluster.clone())]);
        for key in KUBERNETES_NAMES {
            // Names of Kubernetes fit; should one not, it is worth less than the volume.
            if let Some(value) = parameters.get(key).filter(|value| value.len() <= LONGEST_VALUE) {
                metadata.insert(key.to_owned(), value.clone());
            }
        }
        metadata
    }

    /// Whether something was made by this driver for this cluster.
    #[must_use]
    pub fn is_ours(&self, metadata: &Metadata) -> bool {
        metadata.get(&self.cluster_key) == Some(&self.cluster)
    }

    /// The key that says of which backup a volume was made: OpenStack does not show that.
    #[must_use]
    pub fn source_key(&self) -> &str {
        &self.source_key
    }

    /// The name of the temporary snapshot for the backup of this name.
    #[must_use]
    pub fn temporary_name(&self, backup: &str) -> String {
        format!("{TEMPORARY}{backup}")
    }

    /// The metadata of the temporary snapshot for the backup of this name.
    #[must_use]
    pub fn temporary_metadata(&self, backup: &str, parameters: &StringMap) -> Metadata {
        let mut metadata = self.metadata(parameters);
        metadata.insert(self.temporary_key.clone(), backup.to_owned());
        metadata
    }

    /// The name of the backup that a temporary snapshot of ours is for; none for all other snapshots.
    #[must_use]
    pub fn backup_of<'a>(&self, metadata: &'a Metadata) -> Option<&'a str> {
        self.is_ours(metadata).then(|| metadata.get(&self.temporary_key)).flatten().map(String::as_str)
    }
}

/// The services cut white space off the ends of names: such an object would never be found again.
///
/// # Errors
/// `InvalidArgument`.
pub fn check_name(name: &str) -> Result<()> {
    if name.trim() != name || name.len() > 255 {
        return Err(Error::invalid(format!(
            "name {name:?}: OpenStack takes at most 255 bytes without white space at either end"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{CINDER_CSI, Names, check_name};
    use crate::error::Kind;
    use crate::model::StringMap;

    #[test]
    fn as_drop_in_the_names_are_those_of_cinder_csi() {
        let names = Names::new(CINDER_CSI, "kubernetes");
        assert!(names.is_drop_in());
        assert_eq!(names.topology_key(), "topology.cinder.csi.openstack.org/zone");
        let parameters = StringMap::from([
            ("csi.storage.k8s.io/pvc/name".to_owned(), "data".to_owned()),
            ("type".to_owned(), "fast".to_owned()),
        ]);
        let metadata = names.metadata(&parameters);
        assert_eq!(metadata.get("cinder.csi.openstack.org/cluster").map(String::as_str), Some("kubernetes"));
        assert_eq!(metadata.get("csi.storage.k8s.io/pvc/name").map(String::as_str), Some("data"));
        assert_eq!(metadata.len(), 2);
        assert_eq!(names.key("resizeRequired"), "cinder.csi.openstack.org/resizeRequired");
    }

    #[test]
    fn as_drop_in_for_manila_csi_the_protocol_is_in_no_key() {
        for driver in ["nfs.manila.csi.openstack.org", "cephfs.manila.csi.openstack.org", "manila.csi.openstack.org"] {
            let names = Names::new(driver, "kubernetes");
            assert!(names.is_drop_in());
            assert_eq!(names.topology_key(), "topology.manila.csi.openstack.org/zone");
            assert!(names.metadata(&StringMap::new()).contains_key("manila.csi.openstack.org/cluster"));
        }
        let names = Names::new("notmanila.csi.openstack.org", "kubernetes");
        assert!(!names.is_drop_in());
        assert_eq!(names.topology_key(), "topology.notmanila.csi.openstack.org/zone");
    }

    #[test]
    fn only_what_this_cluster_made_is_ours() {
        let names = Names::new("cinder.fuxi.openstack.org", "a");
        assert!(names.is_ours(&names.metadata(&StringMap::new())));
        assert!(!names.is_ours(&Names::new("cinder.fuxi.openstack.org", "b").metadata(&StringMap::new())));
        assert!(!names.is_ours(&Names::new(CINDER_CSI, "a").metadata(&StringMap::new())));
        assert!(!names.is_ours(&StringMap::new()));
    }

    #[test]
    fn temporary_snapshots_are_known_by_their_metadata() {
        let names = Names::new("d", "c");
        let metadata = names.temporary_metadata("snapshot-1", &StringMap::new());
        assert_eq!(names.backup_of(&metadata), Some("snapshot-1"));
        assert_eq!(names.backup_of(&names.metadata(&StringMap::new())), None);
        assert_eq!(Names::new("d", "other").backup_of(&metadata), None);
    }

    #[test]
    fn names_that_openstack_would_change_are_refused() {
        assert!(check_name("pvc-1").is_ok());
        for name in [" a", "a ", "\ta", &"x".repeat(256)] {
            assert_eq!(check_name(name).unwrap_err().kind(), Kind::InvalidArgument);
        }
    }
}
