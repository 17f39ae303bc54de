//! The handles of volumes, snapshots and backups: what the orchestrator keeps, and all that it keeps.
//!
//! | handle | is |
//! | --- | --- |
//! | `<uuid>` | a volume or snapshot in the default cloud |
//! | `<cloud>/<uuid>` | the same in another cloud |
//! | `backup/<uuid>`, `<cloud>/backup/<uuid>` | a backup, where a snapshot is expected |
//!
//! The default cloud's name is empty. An id that is no UUID cannot exist in OpenStack, so no call is made for it.

use crate::error::{Error, Result};
use crate::model::{NodeId, SnapshotId, VolumeId};
use std::fmt;

/// What stands before the id of a backup.
const BACKUP: &str = "backup";

/// An OpenStack id, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(String);

impl Uuid {
    /// Reads an id; none if it is not a UUID in the usual form with hyphens.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_uuid = text.len() == 36
            && text.bytes().enumerate().all(|(position, byte)| match position {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            });
        is_uuid.then(|| Self(text.to_ascii_lowercase()))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The server that a node is; none if the node's id is not that of a server.
#[must_use]
pub fn server_of(node: &NodeId) -> Option<Uuid> {
    Uuid::parse(node.as_str())
}

/// A volume: its cloud and its id there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VolumeHandle {
    /// The cloud; empty for the default one.
    pub cloud: String,
    /// The volume.
    pub id: Uuid,
}

impl VolumeHandle {
    /// Reads a handle; none if nothing of that name can exist.
    #[must_use]
    pub fn parse(id: &VolumeId) -> Option<Self> {
        let (cloud, id) = id.as_str().rsplit_once('/').unwrap_or(("", id.as_str()));
        Some(Self { cloud: cloud.to_owned(), id: Uuid::parse(id)? })
    }

    /// The handle of a volume of this cloud.
    ///
    /// # Errors
    /// `InvalidArgument`: the name of the cloud makes it too long.
    pub fn write(cloud: &str, id: &str) -> Result<VolumeId> {
        in_cloud(cloud, id).parse().map_err(|error: Error| error.during("the handle of a volume"))
    }
}

/// What a snapshot handle says about the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SnapshotKind {
    /// No kind was written: a snapshot, or a backup that cinder-csi made.
    Bare,
    /// A backup.
    Backup,
}

/// A snapshot or backup: its cloud, its kind and its id there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SnapshotHandle {
    /// The cloud; empty for the default one.
    pub cloud: String,
    /// What it is.
    pub kind: SnapshotKind,
    /// The snapshot or backup.
    pub id: Uuid,
}

impl SnapshotHandle {
    /// Reads a handle; none if nothing of that name can exist.
    #[must_use]
    pub fn parse(id: &SnapshotId) -> Option<Self> {
        let (before, id) = id.as_str().rsplit_once('/').unwrap_or(("", id.as_str()));
        let id = Uuid::parse(id)?;
        let (cloud, kind) = match before.strip_suffix(BACKUP) {
            Some("") => ("", SnapshotKind::Backup),
            Some(rest) if rest.ends_with('/') => (rest.trim_end_matches('/'), SnapshotKind::Backup),
            _ => (before, SnapshotKind::Bare),
        };
        Some(Self { cloud: cloud.to_owned(), kind, id })
    }

    /// The handle of a snapshot of this cloud.
    ///
    /// # Errors
    /// `InvalidArgument`: the name of the cloud makes it too long.
    pub fn write_snapshot(cloud: &str, id: &str) -> Result<SnapshotId> {
        in_cloud(cloud, id).parse().map_err(|error: Error| error.during("the handle of a snapshot"))
    }

    /// The handle of a backup of this cloud.
    ///
    /// # Errors
    /// `InvalidArgument`: the name of the cloud makes it too long.
    pub fn write_backup(cloud: &str, id: &str) -> Result<SnapshotId> {
        in_cloud(cloud, &format!("{BACKUP}/{id}"))
            .parse()
            .map_err(|error: Error| error.during("the handle of a backup"))
    }
}

/// Checks that handles can hold the name of a cloud.
///
/// # Errors
/// `InvalidArgument`: it could be taken for something else.
pub fn check_cloud_name(name: &str) -> Result<()> {
    if name == BACKUP || name.ends_with("/backup") || name.starts_with('/') || name.ends_with('/') || name.len() > 120 {
        return Err(Error::invalid(format!(
            "a cloud cannot be called {name:?}: handles could not tell it from their own parts; rename its section"
        )));
    }
    Ok(())
}

fn in_cloud(cloud: &str, id: &str) -> String {
    if cloud.is_empty() { id.to_owned() } else { format!("{cloud}/{id}") }
}

#[cfg(test)]
mod tests {
    use super::{SnapshotHandle, SnapshotKind, Uuid, VolumeHandle, check_cloud_name};
    use crate::model::{SnapshotId, VolumeId};
    use proptest::prelude::{any, proptest};

    const ID: &str = "6c1b7a0e-0f5b-4b07-9f3a-5f6a0a3f9a11";

    #[test]
    fn volume_handles_name_the_cloud_unless_it_is_the_default_one() {
        for (cloud, handle) in [("", ID.to_owned()), ("east", format!("east/{ID}")), ("a/b", format!("a/b/{ID}"))] {
            let written = VolumeHandle::write(cloud, ID).unwrap();
            assert_eq!(written.as_str(), handle);
            let read = VolumeHandle::parse(&written).unwrap();
            assert_eq!((read.cloud.as_str(), read.id.as_str()), (cloud, ID));
        }
    }

    #[test]
    fn snapshot_handles_name_the_cloud_and_the_kind() {
        let id = |text: &str| text.parse::<SnapshotId>().unwrap();
        for (text, cloud, kind) in [
            (ID.to_owned(), "", SnapshotKind::Bare),
            (format!("east/{ID}"), "east", SnapshotKind::Bare),
            (format!("backup/{ID}"), "", SnapshotKind::Backup),
            (format!("east/backup/{ID}"), "east", SnapshotKind::Backup),
            (format!("mybackup/{ID}"), "mybackup", SnapshotKind::Bare),
        ] {
            let read = SnapshotHandle::parse(&id(&text)).unwrap();
            assert_eq!((read.cloud.as_str(), read.kind, read.id.as_str()), (cloud, kind, ID), "{text}");
        }
        assert_eq!(SnapshotHandle::write_backup("", ID).unwrap(), id(&format!("backup/{ID}")));
        assert_eq!(SnapshotHandle::write_snapshot("east", ID).unwrap(), id(&format!("east/{ID}")));
    }

    #[test]
    fn what_is_no_uuid_cannot_exist() {
        for text in
            ["x", "6c1b7a0e0f5b4b079f3a5f6a0a3f9a11", "6c1b7a0e-0f5b-4b07-9f3a-5f6a0a3f9a1g", "../../etc/passwd"]
        {
            assert!(VolumeHandle::parse(&text.parse::<VolumeId>().unwrap()).is_none(), "{text}");
        }
        assert_eq!(Uuid::parse(&ID.to_uppercase()).unwrap().as_str(), ID);
    }

    #[test]
    fn cloud_names_that_would_confuse_are_refused() {
        for name in ["backup", "a/backup", "/a", "a/"] {
            assert!(check_cloud_name(name).is_err(), "{name}");
        }
        assert!(check_cloud_name("").is_ok());
        assert!(check_cloud_name("east").is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_a_handle_or_nothing(text in any::<String>()) {
            if let Ok(id) = text.parse::<VolumeId>() {
                let _ = VolumeHandle::parse(&id);
            }
            if let Ok(id) = text.parse::<SnapshotId>() {
                let _ = SnapshotHandle::parse(&id);
            }
        }

        #[test]
        fn handles_of_any_cloud_are_read_back(cloud in "[a-z0-9._ -]{0,40}") {
            let read = VolumeHandle::parse(&VolumeHandle::write(&cloud, ID).unwrap()).unwrap();
            assert_eq!(read.cloud, cloud);
            if check_cloud_name(&cloud).is_ok() {
                let read = SnapshotHandle::parse(&SnapshotHandle::write_backup(&cloud, ID).unwrap()).unwrap();
                assert_eq!((read.cloud, read.kind), (cloud.clone(), SnapshotKind::Backup));
                let read = SnapshotHandle::parse(&SnapshotHandle::write_snapshot(&cloud, ID).unwrap()).unwrap();
                assert_eq!((read.cloud, read.kind), (cloud, SnapshotKind::Bare));
            }
        }
    }
}
