//! The parameters of StorageClasses and VolumeSnapshotClasses. Unknown ones are treated as
//! `crate::provider::parameters` says.

use crate::error::{Error, Result};
use crate::model::StringMap;
use crate::openstack::manila::{Protocol, SchedulerHints};
use crate::openstack::objects::Metadata;
use crate::provider::names::Names;
use crate::provider::parameters::{refuse_unknown, value_of, wrong_value};

/// The share type.
pub const TYPE: &str = "type";
/// By what protocol shares are mounted.
pub const PROTOCOL: &str = "protocol";
/// The zone.
pub const AVAILABILITY: &str = "availability";
/// Whether the zone is taken from the topology, where Manila's zones are those of the nodes.
pub const AUTO_TOPOLOGY: &str = "autoTopology";
/// The share network.
pub const SHARE_NETWORK: &str = "shareNetworkID";
/// The share group that shares become members of.
pub const GROUP: &str = "groupID";
/// Ids of shares beside which new ones are put.
pub const AFFINITY: &str = "affinity";
/// Ids of shares away from which new ones are put.
pub const ANTI_AFFINITY: &str = "antiAffinity";
/// More metadata of shares, as a JSON object.
pub const APPEND_METADATA: &str = "appendShareMetadata";
/// One access rule for all nodes, for this address or network, instead of one per node.
pub const NFS_CLIENT: &str = "nfs-shareClient";
/// Who mounts CephFS: the kernel, or ceph-fuse.
pub const CEPHFS_MOUNTER: &str = "cephfs-mounter";
/// More mount options for the kernel's CephFS.
pub const CEPHFS_OPTIONS: &str = "cephfs-kernelMountOptions";
/// The cephx id in manila-csi; here each node has its own.
pub const CEPHFS_CLIENT: &str = "cephfs-clientID";
/// Mount options for ceph-fuse.
pub const CEPHFS_FUSE_OPTIONS: &str = "cephfs-fuseMountOptions";

/// The share type of manila-csi's classes that name none.
const DEFAULT_TYPE: &str = "default";

/// Every parameter of a StorageClass.
pub const OF_SHARES: [&str; 14] = [
    TYPE,
    PROTOCOL,
    AVAILABILITY,
    AUTO_TOPOLOGY,
    SHARE_NETWORK,
    GROUP,
    AFFINITY,
    ANTI_AFFINITY,
    APPEND_METADATA,
    NFS_CLIENT,
    CEPHFS_MOUNTER,
    CEPHFS_OPTIONS,
    CEPHFS_CLIENT,
    CEPHFS_FUSE_OPTIONS,
];

/// Every parameter of a VolumeSnapshotClass.
pub const OF_SNAPSHOTS: [&str; 1] = [TYPE];

/// What a StorageClass says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareParameters {
    /// The share type, by name or id; none for the default one.
    pub share_type: Option<String>,
    /// By what protocol it is mounted.
    pub protocol: Protocol,
    /// The zone.
    pub availability: Option<String>,
    /// Whether the zone is taken from the topology.
    pub auto_topology: bool,
    /// The share network.
    pub share_network: Option<String>,
    /// The share group.
    pub group: Option<String>,
    /// Beside or away from which shares.
    pub hints: SchedulerHints,
    /// More metadata.
    pub metadata: Metadata,
    /// The address or network of the one rule for all nodes; none for a rule per node.
    pub shared_client: Option<String>,
    /// What the node should be told.
    pub context: StringMap,
}

impl ShareParameters {
    /// Reads them. `protocol` is that of classes that name none.
    ///
    /// # Errors
    /// `InvalidArgument`: one is unknown, or has a value that it cannot have.
    pub fn parse(names: &Names, protocol: &Protocol, parameters: &StringMap) -> Result<Self> {
        refuse_unknown(names, parameters, &OF_SHARES)?;
        let protocol = match value_of(parameters, PROTOCOL) {
            None => protocol.clone(),
            Some(word) => match Protocol::from(word.to_ascii_uppercase()) {
                Protocol::Unknown(_) => return Err(wrong_value(PROTOCOL, &word, "`NFS` or `CEPHFS`")),
                protocol => protocol,
            },
        };
        let metadata = match value_of(parameters, APPEND_METADATA) {
            None => Metadata::new(),
            Some(text) => serde_json::from_str(&text)
                .map_err(|error| wrong_value(APPEND_METADATA, &text, "a JSON object of strings").because(error))?,
        };
        let auto_topology = match value_of(parameters, AUTO_TOPOLOGY).map(|word| word.to_ascii_lowercase()).as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => return Err(wrong_value(AUTO_TOPOLOGY, other, "`true` or `false`")),
        };
        check_mounter(parameters)?;
        let for_nodes = [CEPHFS_OPTIONS, CEPHFS_MOUNTER, CEPHFS_FUSE_OPTIONS];
        let context =
            for_nodes.into_iter().filter_map(|key| Some((key.to_owned(), value_of(parameters, key)?))).collect();
        Ok(Self {
            // manila-csi has a default of its own.
            share_type: value_of(parameters, TYPE).or_else(|| names.is_drop_in().then(|| DEFAULT_TYPE.to_owned())),
            availability: value_of(parameters, AVAILABILITY),
            auto_topology,
            share_network: value_of(parameters, SHARE_NETWORK),
            group: value_of(parameters, GROUP),
            hints: SchedulerHints {
                same_host: value_of(parameters, AFFINITY),
                different_host: value_of(parameters, ANTI_AFFINITY),
            },
            shared_client: shared_client(names, &protocol, parameters)?,
            protocol,
            metadata,
            context,
        })
    }
}

/// Where a class says nothing, the kernel mounts, other than with manila-csi.
fn check_mounter(parameters: &StringMap) -> Result<()> {
    match value_of(parameters, CEPHFS_MOUNTER).as_deref() {
        None | Some("kernel" | "fuse") => Ok(()),
        Some(other) => Err(wrong_value(CEPHFS_MOUNTER, other, "`kernel` or `fuse`")),
    }
}

/// manila-csi opens every share to `0.0.0.0/0` unless told otherwise; only what is said counts here.
fn shared_client(names: &Names, protocol: &Protocol, parameters: &StringMap) -> Result<Option<String>> {
    let Some(client) = value_of(parameters, NFS_CLIENT) else { return Ok(None) };
    if *protocol != Protocol::Nfs {
        if names.is_drop_in() {
            return Ok(None);
        }
        return Err(Error::invalid(format!(
            "parameters: {NFS_CLIENT} is for NFS shares, and the class says {protocol}"
        )));
    }
    if client.split(',').any(|one| super::client::Network::parse(one.trim()).is_none()) {
        return Err(wrong_value(
            NFS_CLIENT,
            &client,
            "an address or network such as `10.0.0.0/24`, or several with commas",
        ));
    }
    Ok(Some(client))
}

/// What a VolumeSnapshotClass makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotType {
    /// Snapshots.
    Snapshot,
    /// Backups.
    Backup,
}

impl SnapshotType {
    /// Reads what a class says.
    ///
    /// # Errors
    /// `InvalidArgument`: a parameter is unknown, or has a value that it cannot have.
    pub fn parse(names: &Names, parameters: &StringMap) -> Result<Self> {
        refuse_unknown(names, parameters, &OF_SNAPSHOTS)?;
        match value_of(parameters, TYPE).as_deref() {
            None | Some("snapshot") => Ok(Self::Snapshot),
            Some("backup") => Ok(Self::Backup),
            // manila-csi looks at no parameter.
            Some(other) if names.is_drop_in() => {
                tracing::warn!(parameter = TYPE, value = other, "unknown value ignored: a snapshot is taken");
                Ok(Self::Snapshot)
            }
            Some(other) => Err(wrong_value(TYPE, other, "`snapshot` or `backup`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ShareParameters, SnapshotType};
    use crate::error::Kind;
    use crate::model::StringMap;
    use crate::openstack::manila::Protocol;
    use crate::provider::names::Names;

    fn map(pairs: &[(&str, &str)]) -> StringMap {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn read(driver: &str, pairs: &[(&str, &str)]) -> crate::error::Result<ShareParameters> {
        ShareParameters::parse(&Names::new(driver, "c"), &Protocol::Nfs, &map(pairs))
    }

    #[test]
    fn storage_class_parameters_are_read() {
        let read = read(
            "manila.fuxi.openstack.org",
            &[
                ("type", "gold"),
                ("protocol", "cephfs"),
                ("appendShareMetadata", r#"{"team": "blue"}"#),
                ("antiAffinity", "a,b"),
                ("cephfs-kernelMountOptions", "noatime"),
                ("csi.storage.k8s.io/pvc/name", "data"),
            ],
        )
        .unwrap();
        assert_eq!(read.protocol, Protocol::Cephfs);
        assert_eq!(read.share_type.as_deref(), Some("gold"));
        assert_eq!(read.metadata, map(&[("team", "blue")]));
        assert_eq!(read.hints.different_host.as_deref(), Some("a,b"));
        assert_eq!(read.context, map(&[("cephfs-kernelMountOptions", "noatime")]));
    }

    #[test]
    fn wrong_values_are_named() {
        for (key, value) in [
            ("protocol", "CIFS"),
            ("appendShareMetadata", "{\"a\": 1}"),
            ("nfs-shareClient", "everybody"),
            ("nfs-shareClient", "10.0.0.0/33"),
            ("cephfs-mounter", "nfs"),
            ("shareNetwork", "x"),
        ] {
            let error = read("manila.fuxi.openstack.org", &[(key, value)]).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidArgument);
            assert!(error.to_string().contains(key), "{error}");
        }
        assert_eq!(
            read("m", &[("protocol", "CEPHFS"), ("nfs-shareClient", "10.0.0.1")]).unwrap_err().kind(),
            Kind::InvalidArgument
        );
    }

    #[test]
    fn classes_of_manila_csi_are_taken_as_they_are() {
        let pairs =
            [("type", "default"), ("cephfs-mounter", "fuse"), ("nfs-shareClient", "10.0.0.0/8"), ("colour", "red")];
        let read = read("nfs.manila.csi.openstack.org", &pairs).unwrap();
        assert_eq!(read.shared_client.as_deref(), Some("10.0.0.0/8"));
        let read = self::read(
            "nfs.manila.csi.openstack.org",
            &[("autoTopology", "True"), ("nfs-shareClient", "10.0.0.1,fd00::/8")],
        );
        let read = read.unwrap();
        assert_eq!((read.share_type.as_deref(), read.auto_topology), (Some("default"), true));
        assert_eq!(read.shared_client.as_deref(), Some("10.0.0.1,fd00::/8"));
    }

    #[test]
    fn a_snapshot_class_makes_snapshots_or_backups() {
        let read = |driver: &str, word: &str| SnapshotType::parse(&Names::new(driver, "c"), &map(&[("type", word)]));
        assert_eq!(read("d", "snapshot").unwrap(), SnapshotType::Snapshot);
        assert_eq!(read("d", "backup").unwrap(), SnapshotType::Backup);
        assert_eq!(read("d", "tape").unwrap_err().kind(), Kind::InvalidArgument);
        assert_eq!(read("nfs.manila.csi.openstack.org", "tape").unwrap(), SnapshotType::Snapshot);
    }
}
