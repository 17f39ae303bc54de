//! What Cinder answers: only the fields that are used.

use crate::openstack::objects::{Metadata, null_is_default, status, timestamp, unlimited};
use serde::Deserialize;
use std::fmt;

status! {
    /// How a volume is.
    VolumeStatus {
        Creating = "creating",
        Downloading = "downloading",
        Available = "available",
        Reserved = "reserved",
        Attaching = "attaching",
        InUse = "in-use",
        Detaching = "detaching",
        Deleting = "deleting",
        Error = "error",
        ErrorDeleting = "error_deleting",
        ErrorExtending = "error_extending",
        ErrorRestoring = "error_restoring",
        ErrorBackingUp = "error_backing-up",
        BackingUp = "backing-up",
        RestoringBackup = "restoring-backup",
        Extending = "extending",
        Retyping = "retyping",
        Uploading = "uploading",
        Reverting = "reverting",
        Maintenance = "maintenance",
        AwaitingTransfer = "awaiting-transfer",
    }
}

impl VolumeStatus {
    /// Whether Cinder is at work and the status will change by itself.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Creating
                | Self::Downloading
                | Self::Attaching
                | Self::Detaching
                | Self::Deleting
                | Self::BackingUp
                | Self::RestoringBackup
                | Self::Extending
                | Self::Retyping
                | Self::Uploading
                | Self::Reverting
        )
    }

    /// Whether an operation has failed and somebody has to see to it.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.as_str().starts_with("error")
    }
}

status! {
    /// How a snapshot is.
    SnapshotStatus {
        Creating = "creating",
        Available = "available",
        BackingUp = "backing-up",
        Restoring = "restoring",
        Deleting = "deleting",
        Error = "error",
        ErrorDeleting = "error_deleting",
    }
}

status! {
    /// How a backup is.
    BackupStatus {
        Creating = "creating",
        Available = "available",
        Restoring = "restoring",
        Deleting = "deleting",
        Error = "error",
        ErrorDeleting = "error_deleting",
    }
}

status! {
    /// How an attachment is.
    AttachmentStatus {
        Reserved = "reserved",
        Attaching = "attaching",
        Attached = "attached",
        Detaching = "detaching",
        Detached = "detached",
        ErrorAttaching = "error_attaching",
        ErrorDetaching = "error_detaching",
    }
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Volume {
    /// Its id.
    pub id: String,
    /// Its name; not unique.
    #[serde(default, deserialize_with = "null_is_default")]
    pub name: String,
    /// How it is.
    pub status: VolumeStatus,
    /// GiB.
    #[serde(default, deserialize_with = "null_is_default")]
    pub size: u64,
    /// When it was made.
    #[serde(default, deserialize_with = "timestamp")]
    pub created_at: Option<jiff::Timestamp>,
    /// When it changed last; none until the first change.
    #[serde(default, deserialize_with = "timestamp")]
    pub updated_at: Option<jiff::Timestamp>,
    /// Its zone.
    #[serde(default, deserialize_with = "null_is_default")]
    pub availability_zone: String,
    /// The name of its type.
    #[serde(default)]
    pub volume_type: Option<String>,
    /// Whether several servers may use it at once.
    #[serde(default, deserialize_with = "null_is_default")]
    pub multiattach: bool,
    /// The snapshot that it was made of.
    #[serde(default)]
    pub snapshot_id: Option<String>,
    /// The volume that it was made of.
    #[serde(default)]
    pub source_volid: Option<String>,
    /// Its metadata.
    #[serde(default, deserialize_with = "null_is_default")]
    pub metadata: Metadata,
    /// Where it is attached. Only attachments that are complete are shown here.
    #[serde(default, deserialize_with = "null_is_default")]
    pub attachments: Vec<AttachedTo>,
}

impl Volume {
    /// Whether it is attached to this server, as far as Cinder knows.
    #[must_use]
    pub fn is_attached_to(&self, server: &str) -> bool {
        self.attached_servers().any(|id| id == server)
    }

    /// The servers that it is attached to.
    pub fn attached_servers(&self) -> impl Iterator<Item = &str> {
        self.attachments.iter().filter_map(|attachment| attachment.server_id.as_deref())
    }
}

/// One complete attachment as a volume shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AttachedTo {
    /// The attachment.
    pub attachment_id: String,
    /// The server; none where no Nova is involved.
    #[serde(default)]
    pub server_id: Option<String>,
    /// Nova's device name, or the `mountpoint` of the connector where no Nova is involved.
    #[serde(default)]
    pub device: Option<String>,
}

/// One attachment in any state.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Attachment {
    /// Its id.
    pub id: String,
    /// How it is.
    pub status: AttachmentStatus,
    /// The server; none where no Nova is involved.
    #[serde(default)]
    pub instance: Option<String>,
}

/// One attachment and the way to the volume. Does not show in `Debug`: there may be passwords in it.
#[derive(Clone, Deserialize)]
pub struct AttachmentWithInfo {
    /// Its id.
    pub id: String,
    /// `ro` or `rw`, since 3.54.
    #[serde(default)]
    pub attach_mode: Option<String>,
    /// `driver_volume_type` and what belongs to it; empty if there is none (yet).
    #[serde(default, deserialize_with = "null_is_default")]
    pub connection_info: serde_json::Map<String, serde_json::Value>,
}

impl fmt::Debug for AttachmentWithInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttachmentWithInfo").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Snapshot {
    /// Its id.
    pub id: String,
    /// Its name; not unique.
    #[serde(default, deserialize_with = "null_is_default")]
    pub name: String,
    /// How it is.
    pub status: SnapshotStatus,
    /// GiB of the volume when it was taken.
    #[serde(default, deserialize_with = "null_is_default")]
    pub size: u64,
    /// Of which volume.
    pub volume_id: String,
    /// When it was taken.
    #[serde(default, deserialize_with = "timestamp")]
    pub created_at: Option<jiff::Timestamp>,
    /// Its metadata.
    #[serde(default, deserialize_with = "null_is_default")]
    pub metadata: Metadata,
}

/// A backup.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Backup {
    /// Its id.
    pub id: String,
    /// Its name; not unique.
    #[serde(default, deserialize_with = "null_is_default")]
    pub name: String,
    /// How it is.
    pub status: BackupStatus,
    /// GiB of the volume when it was taken.
    #[serde(default, deserialize_with = "null_is_default")]
    pub size: u64,
    /// Of which volume.
    #[serde(default, deserialize_with = "null_is_default")]
    pub volume_id: String,
    /// The snapshot that it was made from, also after that is gone.
    #[serde(default)]
    pub snapshot_id: Option<String>,
    /// When it was made.
    #[serde(default, deserialize_with = "timestamp")]
    pub created_at: Option<jiff::Timestamp>,
    /// The moment whose data it holds.
    #[serde(default, deserialize_with = "timestamp")]
    pub data_timestamp: Option<jiff::Timestamp>,
    /// Why it failed.
    #[serde(default)]
    pub fail_reason: Option<String>,
    /// Its metadata, since 3.43.
    #[serde(default, deserialize_with = "null_is_default")]
    pub metadata: Metadata,
}

/// The id of something that was just made: all that the answer to a backup's POST holds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Made {
    /// The id.
    pub id: String,
}

/// A volume type.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct VolumeType {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it promises; users of older clouds see none of it.
    #[serde(default)]
    pub extra_specs: Option<Metadata>,
}

impl VolumeType {
    /// Whether several servers may use its volumes at once; none where that is not shown.
    #[must_use]
    pub fn allows_sharing(&self) -> Option<bool> {
        let specs = self.extra_specs.as_ref()?;
        Some(specs.get("multiattach").is_some_and(|value| value.to_lowercase().replace(' ', "") == "<is>true"))
    }
}

/// What Cinder says to users about a failure (`/messages`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Message {
    /// What happened.
    #[serde(default, deserialize_with = "null_is_default")]
    pub user_message: String,
    /// A stable code: `VOLUME_VOLUME_001_002` for "no back end has room", for example.
    #[serde(default, deserialize_with = "null_is_default")]
    pub event_id: String,
    /// When.
    #[serde(default, deserialize_with = "timestamp")]
    pub created_at: Option<jiff::Timestamp>,
}

/// The project's limits and what is used of them (`/limits`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AbsoluteLimits {
    /// GiB of all volumes (and, in most clouds, snapshots); negative for no limit.
    #[serde(default = "unlimited")]
    pub max_total_volume_gigabytes: i64,
    /// GiB in use.
    #[serde(default)]
    pub total_gigabytes_used: i64,
    /// Number of volumes; negative for no limit.
    #[serde(default = "unlimited")]
    pub max_total_volumes: i64,
    /// Volumes in use.
    #[serde(default)]
    pub total_volumes_used: i64,
}

/// A storage pool as the scheduler sees it; for administrators.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Pool {
    /// `host@backend#pool`.
    pub name: String,
    /// What it can do and how full it is.
    #[serde(default)]
    pub capabilities: PoolCapabilities,
}

/// What a pool can do and how full it is.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct PoolCapabilities {
    /// Free GiB: a number, or a string such as `infinite` or `unknown`.
    #[serde(default)]
    pub free_capacity_gb: serde_json::Value,
}

impl PoolCapabilities {
    /// Free GiB, rounded down; none where the pool does not say (`infinite`, `unknown`).
    #[must_use]
    pub fn free_gib(&self) -> Option<u64> {
        let text = match &self.free_capacity_gb {
            serde_json::Value::Number(number) => number.to_string(),
            serde_json::Value::String(text) => text.clone(),
            _ => return None,
        };
        // The whole part is enough, and taking it as text needs no lossy conversion of a float.
        let whole = text.split('.').next().unwrap_or_default();
        if whole.starts_with('-') { Some(0) } else { whole.parse().ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::{Backup, PoolCapabilities, Volume, VolumeStatus, VolumeType};
    use proptest::prelude::proptest;
    use serde_json::json;

    #[test]
    fn a_volume_of_the_real_service_is_read() {
        let volume: Volume = serde_json::from_value(json!({
            "id": "6c1b7a0e-0f5b-4b07-9f3a-5f6a0a3f9a11", "status": "in-use", "size": 1,
            "availability_zone": "nova", "created_at": "2026-11-21T08:54:16.123456", "updated_at": null,
            "name": "pvc-1", "description": null, "volume_type": "loop", "snapshot_id": null, "source_volid": null,
            "metadata": {"a": "b"}, "bootable": "false", "encrypted": false, "multiattach": false,
            "attachments": [{"id": "6c1b7a0e-0f5b-4b07-9f3a-5f6a0a3f9a11", "attachment_id": "a1",
                "volume_id": "6c1b7a0e-0f5b-4b07-9f3a-5f6a0a3f9a11", "server_id": "s1", "host_name": null,
                "device": "/dev/vdb", "attached_at": "2026-11-21T08:54:17.000000"}]
        }))
        .unwrap();
        assert_eq!(volume.status, VolumeStatus::InUse);
        assert!(volume.is_attached_to("s1"));
        assert!(!volume.is_attached_to("s2"));
        assert_eq!(volume.created_at.unwrap().to_string(), "2026-11-21T08:54:16.123456Z");
        assert_eq!(volume.updated_at, None);
    }

    #[test]
    fn nulls_and_unknown_words_are_no_parse_errors() {
        let volume: Volume = serde_json::from_value(json!({
            "id": "v", "name": null, "status": "frobnicating", "size": null, "metadata": null, "attachments": null,
            "availability_zone": null, "multiattach": null,
        }))
        .unwrap();
        assert_eq!(volume.status, VolumeStatus::Unknown("frobnicating".to_owned()));
        assert!(!volume.status.is_passing());
        let backup: Backup = serde_json::from_value(json!({"id": "b", "status": null, "volume_id": null})).unwrap();
        assert_eq!(backup.status.as_str(), "");
    }

    #[test]
    fn whether_a_type_allows_sharing_is_told_where_its_specs_are_shown() {
        let allows = |value| serde_json::from_value::<VolumeType>(value).unwrap().allows_sharing();
        assert_eq!(
            allows(json!({"id": "t", "name": "multi", "extra_specs": {"multiattach": "<is> True"}})),
            Some(true)
        );
        assert_eq!(
            allows(json!({"id": "t", "name": "multi", "extra_specs": {"multiattach": "<is> False"}})),
            Some(false)
        );
        assert_eq!(allows(json!({"id": "t", "name": "loop", "extra_specs": {}})), Some(false));
        assert_eq!(allows(json!({"id": "t", "name": "loop"})), None);
    }

    #[test]
    fn free_space_of_a_pool_is_read_in_all_its_spellings() {
        let free = |value| PoolCapabilities { free_capacity_gb: value }.free_gib();
        assert_eq!(free(json!(12.9)), Some(12));
        assert_eq!(free(json!(7)), Some(7));
        assert_eq!(free(json!("3.5")), Some(3));
        assert_eq!(free(json!(-1.0)), Some(0));
        assert_eq!(free(json!("infinite")), None);
        assert_eq!(free(json!(null)), None);
    }

    proptest! {
        #[test]
        fn statuses_keep_their_word(word in "[a-z_-]{0,20}") {
            assert_eq!(VolumeStatus::from(word.clone()).as_str(), word);
        }
    }
}
