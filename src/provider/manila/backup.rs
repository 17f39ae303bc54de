//! Share backups, which the orchestrator takes for snapshots.
//!
//! Manila calls its API for them experimental (2.80), and a backup goes into another share than its own since 2.91. They
//! have no metadata: whose they are is said by their description. A share is filled in two steps, made empty and then
//! restored into; which backup it is made of stands in its metadata, and Manila itself says which was restored into it.
//! So whoever comes next finds what is left to do.

use super::failure::{creation_refused, ended_in_error, wrong_state};
use super::{Cloud, ManilaProvider};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::model::SnapshotSpec;
use crate::openstack::client::found;
use crate::openstack::manila::{self, Backup, BackupStatus, Listing, NewBackup, Seen, Share, ShareStatus};
use crate::provider::SNAPSHOT_PATIENCE;
use crate::provider::failure::{is_refused_with, is_unclear, says, with_remains};
use crate::provider::handle::{SnapshotHandle, VolumeHandle};
use crate::provider::size::gib;

/// How the wait for a restored share ended.
enum Filled {
    Done(Box<Share>),
    Failed(Box<Share>),
    /// The restoration was not begun, or is not known to have been.
    Empty,
}

impl ManilaProvider {
    /// The story of a backup: looked up, made, waited for a moment.
    pub(super) async fn take_backup(
        &self,
        call: &Call,
        cloud: &Cloud,
        share: &str,
        spec: &SnapshotSpec,
    ) -> Result<crate::model::Snapshot> {
        cloud.manila.require(call, manila::BACKUPS, "a share backup").await?;
        let mut unconfirmed = true;
        let backup = loop {
            call.check("look for the backup")?;
            match self.lookup_backup(call, cloud, &spec.name).await? {
                Some(backup) if backup.share_id != share => {
                    return Err(Error::new(
                        Kind::Conflict,
                        format!(
                            "backup {} has the name {} already, and is of share {}",
                            backup.id, spec.name, backup.share_id
                        ),
                    ));
                }
                Some(backup) if backup.status == BackupStatus::Deleting => {
                    await_backup_gone(call, cloud, &backup.id).await?;
                }
                Some(backup) => break backup,
                None if unconfirmed && self.wait_for_lost(call, cloud, &doubt(&spec.name)).await? => {
                    unconfirmed = false;
                }
                None => break self.ask_for_backup(call, cloud, share, spec).await?,
            }
        };
        let backup = await_backup(call, cloud, backup).await?;
        describe_backup(cloud, &backup)
    }

    async fn ask_for_backup(&self, call: &Call, cloud: &Cloud, share: &str, spec: &SnapshotSpec) -> Result<Backup> {
        let new =
            NewBackup { name: spec.name.clone(), description: self.names.description(), share_id: share.to_owned() };
        call.check("ask Manila for the backup")?;
        let asked = cloud.manila.create_backup(call, &new).await;
        asked.map_err(|error| {
            if is_unclear(&error) {
                cloud.doubts.note(&doubt(&spec.name));
            }
            if is_refused_with(&error, 400) && says(&error, &["no share exists"]) {
                return error.as_kind(Kind::NotFound);
            }
            if is_refused_with(&error, 400) && says(&error, &["has snapshots", "has replicas"]) {
                return error
                    .as_kind(Kind::WrongState)
                    .during("Manila backs up shares without snapshots and replicas only");
            }
            if is_refused_with(&error, 400) && says(&error, &["'available' state"]) {
                return error.as_kind(Kind::Busy).during("the share is not ready for a backup");
            }
            creation_refused(error, "the share", "the share")
        })
    }

    /// The backup of this name that is ours; the earliest if there are several, and then later ones are removed.
    async fn lookup_backup(&self, call: &Call, cloud: &Cloud, name: &str) -> Result<Option<Backup>> {
        let named = cloud.manila.all::<Backup>(call, Listing::all().named(name)).await?;
        let is_ours = |backup: &Backup| backup.name == name && backup.description == self.names.description();
        let mut ours: Vec<_> = named.into_iter().filter(is_ours).collect();
        ours.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        let mut ours = ours.into_iter();
        let first = ours.next();
        for twin in ours {
            tracing::info!(backup = %twin.id, %name, "removing a second backup of this name");
            remove_backup(call, cloud, &twin.id).await?;
        }
        Ok(first)
    }

    /// Fills a share with the backup that it is to be made of. None: it is gone; look again.
    pub(super) async fn fill(&self, call: &Call, cloud: &Cloud, share: Share, backup: &str) -> Result<Option<Share>> {
        let id = share.id.clone();
        let mut filled = filled(&share, backup)?;
        loop {
            call.check("restore the backup")?;
            match filled {
                Some(Filled::Done(share)) => return Ok(Some(*share)),
                Some(Filled::Failed(share)) => {
                    let error = ended_in_error(call, cloud, "share", &id, share.status.as_str()).await;
                    let error = error.during(format!("restore backup {backup} into it"));
                    return match self.withdraw(call, cloud, &share).await {
                        Ok(()) => Err(error),
                        Err(later) => Err(with_remains(error, &later)),
                    };
                }
                Some(Filled::Empty) => match cloud.manila.restore_backup(call, backup, &id).await {
                    Ok(()) => {}
                    Err(error) if is_refused_with(&error, 400) => {
                        let now: Backup = cloud.manila.one(call, backup).await?;
                        match &now.status {
                            // Into this share by an earlier request, or into another one.
                            BackupStatus::Restoring => await_restored(call, cloud, backup).await?,
                            _ if found(cloud.manila.one::<Share>(call, &id).await)?
                                .is_some_and(|share| share.status == ShareStatus::Available) =>
                            {
                                return Err(error.as_kind(Kind::WrongState));
                            }
                            _ => {}
                        }
                    }
                    Err(error) => return Err(error),
                },
                None => {}
            }
            let wanted = backup.to_owned();
            let seen = cloud
                .shares
                .until(call, "restore share backup", &id, move |seen| match seen {
                    None => Ok(Some(None)),
                    Some(seen) => Ok(self::filled(&seen.object, &wanted)?.map(Some)),
                })
                .await?;
            match seen {
                None => return Ok(None),
                some => filled = some,
            }
        }
    }
}

/// What a share's state means while a backup is restored into it; none: wait.
fn filled(share: &Share, backup: &str) -> Result<Option<Filled>> {
    let is_from_it = share.source_backup_id.as_deref() == Some(backup);
    Ok(match &share.status {
        ShareStatus::Available if is_from_it => Some(Filled::Done(Box::new(share.clone()))),
        ShareStatus::Available => Some(Filled::Empty),
        ShareStatus::BackupRestoringError | ShareStatus::Error => Some(Filled::Failed(Box::new(share.clone()))),
        ShareStatus::BackupRestoring => None,
        // Restored long ago, and something is done with it since.
        status if status.is_passing() && is_from_it => Some(Filled::Done(Box::new(share.clone()))),
        status if status.is_passing() => None,
        _ => return Err(wrong_state(share)),
    })
}

/// Waits a little until a backup is usable; then it is shown as it is. One that failed is removed.
async fn await_backup(call: &Call, cloud: &Cloud, backup: Backup) -> Result<Backup> {
    let id = backup.id.clone();
    let backup = match backup.status {
        BackupStatus::Creating => {
            let wait = cloud.backups.until(call, "take share backup", &id, |seen| match seen {
                None => Err(Error::busy("the backup was removed while it was made")),
                Some(seen) if seen.object.status == BackupStatus::Creating => Ok(None),
                Some(seen) => Ok(Some(seen.object.clone())),
            });
            match tokio::time::timeout(SNAPSHOT_PATIENCE, wait).await {
                Err(_out_of_patience) => backup,
                Ok(seen) => seen?,
            }
        }
        _ => backup,
    };
    match &backup.status {
        BackupStatus::Error => {
            let error = ended_in_error(call, cloud, "backup", &id, backup.status.as_str()).await;
            match remove_backup(call, cloud, &id).await {
                Ok(()) => Err(error),
                Err(later) => Err(with_remains(error, &later)),
            }
        }
        BackupStatus::Creating | BackupStatus::Available | BackupStatus::Restoring => Ok(backup),
        status => Err(Error::wrong_state(format!(
            "backup {id} is {status}; when its cause is gone, an administrator can set it with `openstack share backup set \
             --status`"
        ))),
    }
}

/// Waits until a backup is not being restored.
async fn await_restored(call: &Call, cloud: &Cloud, backup: &str) -> Result<()> {
    let restored = |seen: Option<&Seen<Backup>>| {
        Ok(seen.is_none_or(|seen| seen.object.status != BackupStatus::Restoring).then_some(()))
    };
    cloud.backups.until(call, "settle share backup", backup, restored).await
}

/// Deletes a backup and waits until it is gone; success if there is none.
pub(super) async fn remove_backup(call: &Call, cloud: &Cloud, id: &str) -> Result<()> {
    loop {
        call.check("delete the backup")?;
        match cloud.manila.delete_backup(call, id).await {
            Ok(()) => return await_backup_gone(call, cloud, id).await,
            Err(error) if error.is(Kind::NotFound) => return Ok(()),
            Err(error) if is_refused_with(&error, 400) || is_refused_with(&error, 409) => {
                let Some(backup) = found(cloud.manila.one::<Backup>(call, id).await)? else { return Ok(()) };
                match backup.status {
                    BackupStatus::Deleting => return await_backup_gone(call, cloud, id).await,
                    BackupStatus::Restoring => await_restored(call, cloud, id).await?,
                    BackupStatus::Creating => {
                        let made = |seen: Option<&Seen<Backup>>| {
                            Ok(seen.is_none_or(|seen| seen.object.status != BackupStatus::Creating).then_some(()))
                        };
                        cloud.backups.until(call, "settle share backup", id, made).await?;
                    }
                    status => return Err(Error::wrong_state(format!("backup {id} is {status}")).because(error)),
                }
            }
            Err(error) => return Err(error),
        }
    }
}

async fn await_backup_gone(call: &Call, cloud: &Cloud, id: &str) -> Result<()> {
    let _noted = cloud.notes.leaving(id);
    let back = cloud
        .backups
        .until(call, "delete share backup", id, |seen| match seen.map(|seen| &seen.object) {
            None => Ok(Some(None)),
            Some(backup) if backup.status == BackupStatus::Deleting => Ok(None),
            Some(backup) => Ok(Some(Some(backup.status.clone()))),
        })
        .await?;
    match back {
        None => Ok(()),
        Some(status) => Err(ended_in_error(call, cloud, "backup", id, status.as_str()).await),
    }
}

/// Under what a backup whose answer was lost is noted: shares and snapshots have names too.
fn doubt(name: &str) -> String {
    format!("backup {name}")
}

/// A backup as the orchestrator should know it.
pub(super) fn describe_backup(cloud: &Cloud, backup: &Backup) -> Result<crate::model::Snapshot> {
    Ok(crate::model::Snapshot {
        id: SnapshotHandle::write_backup(&cloud.name, &backup.id)?,
        source: VolumeHandle::write(&cloud.name, &backup.share_id)?,
        size: gib(backup.size)?,
        created: backup.created_at.unwrap_or(jiff::Timestamp::UNIX_EPOCH),
        ready: matches!(backup.status, BackupStatus::Available | BackupStatus::Restoring),
        topology: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::{Filled, filled};
    use crate::openstack::manila::Share;
    use serde_json::json;

    #[test]
    fn what_the_states_of_a_share_mean_that_is_made_of_a_backup() {
        for (status, source, expected) in [
            ("available", None, "empty"),
            ("available", Some("other"), "empty"),
            ("backup_restoring", Some("b"), "wait"),
            ("available", Some("b"), "done"),
            ("extending", Some("b"), "done"),
            ("creating", None, "wait"),
            ("backup_restoring_error", Some("b"), "failed"),
            ("error", None, "failed"),
            ("inactive", None, "wrong"),
        ] {
            let share: Share =
                serde_json::from_value(json!({"id": "s", "status": status, "source_backup_id": source})).unwrap();
            let meaning = match filled(&share, "b") {
                Ok(None) => "wait",
                Ok(Some(Filled::Done(_))) => "done",
                Ok(Some(Filled::Failed(_))) => "failed",
                Ok(Some(Filled::Empty)) => "empty",
                Err(_) => "wrong",
            };
            assert_eq!(meaning, expected, "{status} {source:?}");
        }
    }
}
