//! The parameters of StorageClasses and VolumeSnapshotClasses.
//! Unknown ones are treated as `crate::provider::parameters` says.

use crate::error::Result;
use crate::model::StringMap;
use crate::provider::names::Names;
use crate::provider::parameters::{refuse_unknown, value_of, wrong_value};

/// The volume type.
pub const TYPE: &str = "type";
/// The zone.
pub const AVAILABILITY: &str = "availability";
/// Options for `mkfs`, passed on to the node.
pub const MKFS_OPTIONS: &str = "mkfsOptions";
/// The file system, as very old provisioners write it; the capability of the request says the same.
pub const FSTYPE: &str = "fstype";
/// Whether a volume in use may be snapshot; matters for old services only.
pub const FORCE_CREATE: &str = "force-create";
/// How long a backup may take; nothing waits for it here, so it is only checked.
pub const BACKUP_MAX_DURATION: &str = "backup-max-duration-seconds-per-gb";

/// All that a StorageClass may say.
pub const OF_VOLUMES: [&str; 4] = [TYPE, AVAILABILITY, MKFS_OPTIONS, FSTYPE];
/// All that a VolumeSnapshotClass may say.
pub const OF_SNAPSHOTS: [&str; 4] = [TYPE, AVAILABILITY, FORCE_CREATE, BACKUP_MAX_DURATION];

/// The word of the `volume_context` key under which the node finds the options for `mkfs`.
pub const MKFS_OPTIONS_CONTEXT: &str = "mkfs-options";
/// The word of the `volume_context` key by which cinder-csi's node side knows that a file system must be grown.
pub const RESIZE_REQUIRED_CONTEXT: &str = "resizeRequired";

/// What a StorageClass says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeParameters {
    /// The volume type, by name or id.
    pub volume_type: Option<String>,
    /// The zone.
    pub availability: Option<String>,
    /// What the node should be told.
    pub context: StringMap,
}

impl VolumeParameters {
    /// Reads them.
    ///
    /// # Errors
    /// `InvalidArgument`: one is unknown.
    pub fn parse(names: &Names, parameters: &StringMap) -> Result<Self> {
        refuse_unknown(names, parameters, &OF_VOLUMES)?;
        let mut context = StringMap::new();
        if let Some(options) = value_of(parameters, MKFS_OPTIONS) {
            context.insert(names.key(MKFS_OPTIONS_CONTEXT), options);
        }
        Ok(Self { volume_type: value_of(parameters, TYPE), availability: value_of(parameters, AVAILABILITY), context })
    }
}

/// As what a snapshot is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SnapshotType {
    /// A snapshot beside the volume.
    #[default]
    Snapshot,
    /// A backup in another place.
    Backup,
}

/// What a VolumeSnapshotClass says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotParameters {
    /// As what.
    pub snapshot_type: SnapshotType,
    /// Whether a volume in use may be snapshot, where the service is old enough to ask.
    pub force: Option<bool>,
    /// The zone of a backup.
    pub availability: Option<String>,
}

impl SnapshotParameters {
    /// Reads them.
    ///
    /// # Errors
    /// `InvalidArgument`: one is unknown, or has a value that it cannot have.
    pub fn parse(names: &Names, parameters: &StringMap) -> Result<Self> {
        refuse_unknown(names, parameters, &OF_SNAPSHOTS)?;
        let snapshot_type = match value_of(parameters, TYPE).as_deref() {
            None | Some("snapshot") => SnapshotType::Snapshot,
            Some("backup") => SnapshotType::Backup,
            Some(other) => return Err(wrong_value(TYPE, other, "`snapshot` or `backup`")),
        };
        let force = match value_of(parameters, FORCE_CREATE).as_deref() {
            None => None,
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(other) => return Err(wrong_value(FORCE_CREATE, other, "`true` or `false`")),
        };
        if let Some(seconds) = value_of(parameters, BACKUP_MAX_DURATION)
            && seconds.parse::<u32>().is_err()
        {
            return Err(wrong_value(BACKUP_MAX_DURATION, &seconds, "a number of seconds"));
        }
        Ok(Self { snapshot_type, force, availability: value_of(parameters, AVAILABILITY) })
    }
}

#[cfg(test)]
mod tests {
    use super::{MKFS_OPTIONS, SnapshotParameters, SnapshotType, VolumeParameters};
    use crate::error::Kind;
    use crate::model::StringMap;
    use crate::provider::names::{CINDER_CSI, Names};

    fn map(pairs: &[(&str, &str)]) -> StringMap {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn names() -> Names {
        Names::new("cinder.fuxi.openstack.org", "c")
    }

    #[test]
    fn storage_class_parameters_are_read() {
        let parameters = map(&[
            ("type", "fast"),
            ("availability", ""),
            (MKFS_OPTIONS, "-E nodiscard"),
            ("fstype", "xfs"),
            ("csi.storage.k8s.io/pvc/name", "data"),
            ("csi.storage.k8s.io/fstype", "xfs"),
        ]);
        let read = VolumeParameters::parse(&names(), &parameters).unwrap();
        assert_eq!(read.volume_type.as_deref(), Some("fast"));
        assert_eq!(read.availability, None);
        assert_eq!(read.context, map(&[("cinder.fuxi.openstack.org/mkfs-options", "-E nodiscard")]));
    }

    #[test]
    fn an_unknown_parameter_is_refused_with_the_nearest_known_one() {
        for (key, hint) in [
            ("Type", "did you mean \"type\"?"),
            ("availabilty", "did you mean \"availability\"?"),
            ("mkfs-options", "did you mean \"mkfsOptions\"?"),
            ("colour", "the known ones are"),
        ] {
            let error = VolumeParameters::parse(&names(), &map(&[(key, "x")])).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidArgument);
            assert!(error.to_string().contains(hint), "{key}: {error}");
        }
    }

    #[test]
    fn as_drop_in_an_unknown_parameter_is_let_pass() {
        let names = Names::new(CINDER_CSI, "c");
        assert!(VolumeParameters::parse(&names, &map(&[("colour", "red")])).is_ok());
    }

    #[test]
    fn snapshot_class_parameters_are_read() {
        let read = SnapshotParameters::parse(
            &names(),
            &map(&[("type", "backup"), ("force-create", "true"), ("backup-max-duration-seconds-per-gb", "30")]),
        )
        .unwrap();
        assert_eq!(read.snapshot_type, SnapshotType::Backup);
        assert_eq!(read.force, Some(true));
        for (key, value) in
            [("type", "tape"), ("force-create", "perhaps"), ("backup-max-duration-seconds-per-gb", "-1")]
        {
            let error = SnapshotParameters::parse(&names(), &map(&[(key, value)])).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidArgument);
            assert!(error.to_string().contains(key) && error.to_string().contains(value), "{error}");
        }
    }
}
