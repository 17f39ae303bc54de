//! What Manila answers: only the fields that are used.

use crate::openstack::objects::{Metadata, null_is_default, status, timestamp, unlimited};
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};

status! {
    /// How a share is.
    ShareStatus {
        Creating = "creating",
        CreatingFromSnapshot = "creating_from_snapshot",
        Available = "available",
        Extending = "extending",
        Shrinking = "shrinking",
        Reverting = "reverting",
        Ensuring = "ensuring",
        Migrating = "migrating",
        MigratingTo = "migrating_to",
        ServerMigrating = "server_migrating",
        ServerMigratingTo = "server_migrating_to",
        ReplicationChange = "replication_change",
        NetworkChange = "network_change",
        BackupCreating = "backup_creating",
        BackupRestoring = "backup_restoring",
        Managing = "manage_starting",
        Unmanaging = "unmanage_starting",
        Deleting = "deleting",
        DeferredDeleting = "deferred_deleting",
        AwaitingTransfer = "awaiting_transfer",
        Inactive = "inactive",
        Error = "error",
        ErrorDeleting = "error_deleting",
        ErrorDeferredDeleting = "error_deferred_deleting",
        ExtendingError = "extending_error",
        ShrinkingError = "shrinking_error",
        ShrinkingPossibleDataLoss = "shrinking_possible_data_loss_error",
        RevertingError = "reverting_error",
        BackupRestoringError = "backup_restoring_error",
    }
}

impl ShareStatus {
    /// Whether Manila is at work and the status will change by itself.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Creating
                | Self::CreatingFromSnapshot
                | Self::Extending
                | Self::Shrinking
                | Self::Reverting
                | Self::Ensuring
                | Self::Migrating
                | Self::MigratingTo
                | Self::ServerMigrating
                | Self::ServerMigratingTo
                | Self::ReplicationChange
                | Self::NetworkChange
                | Self::BackupCreating
                | Self::BackupRestoring
                | Self::Managing
                | Self::Unmanaging
                | Self::Deleting
        )
    }

    /// Whether it is on its way out, or as good as gone: what is left is Manila's alone.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        matches!(self, Self::Deleting | Self::DeferredDeleting)
    }
}

status! {
    /// By what protocol a share is mounted.
    Protocol {
        Nfs = "NFS",
        Cephfs = "CEPHFS",
    }
}

status! {
    /// How a snapshot is.
    SnapshotStatus {
        Creating = "creating",
        Available = "available",
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
    /// Whether an access rule is in force.
    RuleState {
        QueuedToApply = "queued_to_apply",
        Applying = "applying",
        QueuedToUpdate = "queued_to_update",
        Updating = "updating",
        Active = "active",
        QueuedToDeny = "queued_to_deny",
        Denying = "denying",
        Error = "error",
    }
}

status! {
    /// Who is meant by an access rule.
    AccessType {
        Ip = "ip",
        Cephx = "cephx",
        User = "user",
        Cert = "cert",
    }
}

status! {
    /// What an access rule allows.
    AccessLevel {
        ReadWrite = "rw",
        ReadOnly = "ro",
    }
}

/// A share.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Share {
    /// Its id.
    pub id: String,
    /// Its name; not unique.
    #[serde(default, deserialize_with = "null_is_default")]
    pub name: String,
    /// How it is.
    pub status: ShareStatus,
    /// GiB.
    #[serde(default, deserialize_with = "null_is_default")]
    pub size: u64,
    /// By what protocol it is mounted.
    #[serde(default = "unknown_protocol")]
    pub share_proto: Protocol,
    /// When it was made.
    #[serde(default, deserialize_with = "timestamp")]
    pub created_at: Option<jiff::Timestamp>,
    /// Its zone.
    #[serde(default, deserialize_with = "null_is_default")]
    pub availability_zone: String,
    /// The id of its type.
    #[serde(default)]
    pub share_type: Option<String>,
    /// The name of its type.
    #[serde(default)]
    pub share_type_name: Option<String>,
    /// The share network that it is in.
    #[serde(default)]
    pub share_network_id: Option<String>,
    /// The share group that it is a member of.
    #[serde(default)]
    pub share_group_id: Option<String>,
    /// The snapshot that it was made of.
    #[serde(default)]
    pub snapshot_id: Option<String>,
    /// The backup that was last restored into it, since 2.80.
    #[serde(default)]
    pub source_backup_id: Option<String>,
    /// Whether its access rules are in force: `active`, `syncing`, `error`.
    #[serde(default, deserialize_with = "null_is_default")]
    pub access_rules_status: String,
    /// Its metadata.
    #[serde(default, deserialize_with = "null_is_default")]
    pub metadata: Metadata,
}

fn unknown_protocol() -> Protocol {
    String::new().into()
}

impl Share {
    /// The options that the driver of the share says clients must mount it with: `fs=cephfs`.
    #[must_use]
    pub fn mount_option(&self, name: &str) -> Option<&str> {
        let options = self.metadata.get("__mount_options")?;
        options.split(',').find_map(|option| option.trim().strip_prefix(name)?.strip_prefix('='))
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
    /// A word for people.
    #[serde(default, deserialize_with = "null_is_default")]
    pub description: String,
    /// How it is.
    pub status: SnapshotStatus,
    /// GiB of the share when it was taken.
    #[serde(default, deserialize_with = "null_is_default")]
    pub share_size: u64,
    /// Of which share.
    #[serde(default, deserialize_with = "null_is_default")]
    pub share_id: String,
    /// When it was taken.
    #[serde(default, deserialize_with = "timestamp")]
    pub created_at: Option<jiff::Timestamp>,
    /// Its metadata; none before 2.73.
    #[serde(default)]
    pub metadata: Option<Metadata>,
}

/// A backup.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Backup {
    /// Its id.
    pub id: String,
    /// Its name; not unique.
    #[serde(default, deserialize_with = "null_is_default")]
    pub name: String,
    /// A word for people: backups have no metadata.
    #[serde(default, deserialize_with = "null_is_default")]
    pub description: String,
    /// How it is.
    pub status: BackupStatus,
    /// GiB of the share when it was taken.
    #[serde(default, deserialize_with = "null_is_default")]
    pub size: u64,
    /// Of which share.
    #[serde(default, deserialize_with = "null_is_default")]
    pub share_id: String,
    /// When it was made.
    #[serde(default, deserialize_with = "timestamp")]
    pub created_at: Option<jiff::Timestamp>,
}

/// An access rule.
#[derive(Debug, Clone, Deserialize)]
pub struct AccessRule {
    /// Its id.
    pub id: String,
    /// Who is meant.
    pub access_type: AccessType,
    /// Who exactly: an address, a network, a cephx id.
    #[serde(default, deserialize_with = "null_is_default")]
    pub access_to: String,
    /// What is allowed.
    pub access_level: AccessLevel,
    /// Whether it is in force.
    pub state: RuleState,
    /// The key of a cephx id, once there is one.
    #[serde(default, deserialize_with = "secret")]
    pub access_key: Option<SecretString>,
    /// Its metadata.
    #[serde(default, deserialize_with = "null_is_default")]
    pub metadata: Metadata,
}

impl AccessRule {
    /// Whether it is being revoked.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        matches!(self.state, RuleState::QueuedToDeny | RuleState::Denying)
    }
}

/// A place from which a share is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ExportLocation {
    /// `address:/path`.
    #[serde(default, deserialize_with = "null_is_default")]
    pub path: String,
    /// Whether the service recommends it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub preferred: bool,
    /// Whether it is for administrators only.
    #[serde(default, deserialize_with = "null_is_default")]
    pub is_admin_only: bool,
}

/// What Manila says to users about a failure (`/messages`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Message {
    /// What happened.
    #[serde(default, deserialize_with = "null_is_default")]
    pub user_message: String,
    /// A stable code for why: `009` for "no back end has room", for example.
    #[serde(default, deserialize_with = "null_is_default")]
    pub detail_id: String,
    /// When.
    #[serde(default, deserialize_with = "timestamp")]
    pub created_at: Option<jiff::Timestamp>,
}

/// The project's limits and what is used of them (`/limits`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AbsoluteLimits {
    /// GiB of all shares; negative for no limit.
    #[serde(default = "unlimited")]
    pub max_total_share_gigabytes: i64,
    /// GiB in use.
    #[serde(default)]
    pub total_share_gigabytes_used: i64,
    /// Number of shares; negative for no limit.
    #[serde(default = "unlimited")]
    pub max_total_shares: i64,
    /// Shares in use.
    #[serde(default)]
    pub total_shares_used: i64,
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()).map(SecretString::from))
}

#[cfg(test)]
mod tests {
    use super::{AccessRule, AccessType, Backup, Protocol, RuleState, Share, ShareStatus, Snapshot};
    use serde_json::json;

    #[test]
    fn a_share_of_the_real_service_is_read() {
        let share: Share = serde_json::from_value(json!({
            "id": "6c1b7a0e-0f5b-4b07-9f3a-5f6a0a3f9a11", "size": 1, "availability_zone": "nova",
            "created_at": "2026-11-21T08:54:16.123456", "status": "available", "name": "pvc-1", "description": null,
            "project_id": "p", "snapshot_id": null, "share_network_id": null, "share_proto": "CEPHFS",
            "metadata": {"a": "b", "__mount_options": "noatime, fs=cephfs"}, "share_type": "t", "share_type_name": "cephfs",
            "is_public": false, "access_rules_status": "active", "share_group_id": null, "progress": "100%",
        }))
        .unwrap();
        assert_eq!(share.status, ShareStatus::Available);
        assert_eq!(share.share_proto, Protocol::Cephfs);
        assert_eq!(share.mount_option("fs"), Some("cephfs"));
        assert_eq!(share.mount_option("f"), None);
        assert_eq!(share.created_at.unwrap().to_string(), "2026-11-21T08:54:16.123456Z");
    }

    #[test]
    fn a_rule_is_read_and_its_key_does_not_show() {
        let rule: AccessRule = serde_json::from_value(json!({
            "id": "r", "access_level": "rw", "access_to": "alice", "access_type": "cephx", "state": "active",
            "access_key": "AQBgeheim==", "created_at": "2026-11-21T08:54:16", "updated_at": null, "metadata": {"k": "v"},
        }))
        .unwrap();
        assert_eq!((&rule.access_type, &rule.state), (&AccessType::Cephx, &RuleState::Active));
        assert!(rule.access_key.is_some());
        assert!(!format!("{rule:?}").contains("geheim"));
    }

    #[test]
    fn nulls_and_unknown_words_are_no_parse_errors() {
        let share: Share = serde_json::from_value(json!({
            "id": "s", "name": null, "status": "frobnicating", "size": null, "metadata": null, "share_proto": null,
            "availability_zone": null, "access_rules_status": null,
        }))
        .unwrap();
        assert_eq!(share.status, ShareStatus::Unknown("frobnicating".to_owned()));
        assert!(!share.status.is_passing());
        let backup: Backup = serde_json::from_value(json!({"id": "b", "status": null, "share_id": null})).unwrap();
        assert_eq!(backup.status.as_str(), "");
        let snapshot: Snapshot = serde_json::from_value(json!({"id": "s", "status": "available"})).unwrap();
        assert_eq!(snapshot.metadata, None);
    }
}
