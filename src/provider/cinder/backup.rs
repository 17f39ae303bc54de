//! Backups, which the orchestrator takes for snapshots.
//!
//! A backup is made of a temporary snapshot, so that the volume may be in use and goes on changing. The steps are kept
//! in OpenStack and nowhere else: the temporary snapshot by its name and its mark in the metadata, the backup by its
//! name; a finished backup still names its snapshot. So whoever comes next (a repeated call, a status query, the
//! deletion of the backup or of the volume) finds what is left to do:
//!
//! | there is | to do |
//! | --- | --- |
//! | nothing | take the temporary snapshot |
//! | the snapshot | wait for it, ask for the backup |
//! | a backup that is not finished | nothing: answer that it is not ready |
//! | a finished backup | remove the snapshot |
//! | a failed backup | remove both, say why |

use super::failure::{creation_refused, ended_in_error};
use super::parameters::SnapshotParameters;
use super::snapshot::{Label, await_ready, remove_snapshot};
use super::{CinderProvider, Cloud};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::model::{Snapshot, SnapshotSpec};
use crate::openstack::cinder::{Backup, BackupStatus, Listing, NewBackup};
use crate::openstack::client::found;
use crate::provider::SNAPSHOT_PATIENCE;
use crate::provider::failure::{is_refused_with, is_unclear, says, with_remains};
use crate::provider::handle::{SnapshotHandle, VolumeHandle};
use crate::provider::size::gib;

impl CinderProvider {
    /// The story of a backup, from wherever it has got to.
    pub(super) async fn take_backup(
        &self,
        call: &Call,
        cloud: &Cloud,
        volume: &str,
        spec: &SnapshotSpec,
        parameters: &SnapshotParameters,
    ) -> Result<Snapshot> {
        let backup = match self.lookup_backup(call, cloud, &spec.name).await? {
            Some(backup) if backup.volume_id != volume => {
                return Err(Error::new(
                    Kind::Conflict,
                    format!(
                        "backup {} has the name {} already, and is of volume {}",
                        backup.id, spec.name, backup.volume_id
                    ),
                ));
            }
            Some(backup) if backup.status == BackupStatus::Deleting => {
                await_backup_gone(call, cloud, &backup.id).await?;
                self.begin_backup(call, cloud, volume, spec, parameters).await?
            }
            Some(backup) => backup.id,
            None => self.begin_backup(call, cloud, volume, spec, parameters).await?,
        };
        let backup = self.await_backup(call, cloud, &backup).await?;
        self.tidy_after(call, cloud, &backup).await?;
        self.describe_backup(cloud, &backup)
    }

    /// Takes the temporary snapshot and asks for the backup of it.
    async fn begin_backup(
        &self,
        call: &Call,
        cloud: &Cloud,
        volume: &str,
        spec: &SnapshotSpec,
        parameters: &SnapshotParameters,
    ) -> Result<String> {
        if let Some(time) = cloud.doubts.take(&backup_doubt(&spec.name)) {
            call.sleep("wait for a request whose answer was lost", time).await.inspect_err(|_| {
                cloud.doubts.note(&backup_doubt(&spec.name));
            })?;
            if let Some(backup) = self.lookup_backup(call, cloud, &spec.name).await? {
                return Ok(backup.id);
            }
        }
        let label = Label {
            name: &self.names.temporary_name(&spec.name),
            metadata: self.names.temporary_metadata(&spec.name, &spec.parameters),
            force: parameters.force.or(Some(true)),
        };
        let snapshot = self.find_or_take(call, cloud, volume, &label).await?;
        // There is no backup to name before the snapshot is there, so this wait may take as long as the call.
        let snapshot = await_ready(call, cloud, snapshot, None).await?;
        let new = NewBackup {
            name: spec.name.clone(),
            description: self.names.description(),
            volume_id: volume.to_owned(),
            snapshot_id: snapshot.id,
            force: true,
            availability_zone: parameters.availability.clone(),
            metadata: self.names.metadata(&spec.parameters),
        };
        call.check("ask Cinder for the backup")?;
        match cloud.cinder.create_backup(call, &new).await {
            Ok(made) => Ok(made.id),
            Err(error) => {
                if is_unclear(&error) {
                    cloud.doubts.note(&backup_doubt(&spec.name));
                } else if matches!(error.kind(), Kind::Exhausted | Kind::Unsupported | Kind::Denied)
                    || (is_refused_with(&error, 400) && !says(&error, &["status"]))
                {
                    // Nothing will come of it: the snapshot would only take room.
                    remove_snapshot(call, cloud, &new.snapshot_id).await?;
                }
                Err(creation_refused(error, "the temporary snapshot"))
            }
        }
    }

    /// The backup of this name that is ours; the earliest if there are several, and then later ones are removed.
    async fn lookup_backup(&self, call: &Call, cloud: &Cloud, name: &str) -> Result<Option<Backup>> {
        let named = cloud.cinder.backups(call, Listing::all().named(name)).await?.items;
        let mut ours: Vec<_> =
            named.into_iter().filter(|backup| backup.name == name && self.is_our_backup(backup)).collect();
        ours.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        let mut ours = ours.into_iter();
        let first = ours.next();
        for twin in ours {
            tracing::info!(backup = %twin.id, %name, "removing a second backup of this name");
            self.remove_backup(call, cloud, &twin.id).await?;
        }
        Ok(first)
    }

    fn is_our_backup(&self, backup: &Backup) -> bool {
        self.names.is_ours(&backup.metadata)
    }

    /// Waits for a backup, a moment only; then it is shown as it is. One that failed is removed.
    async fn await_backup(&self, call: &Call, cloud: &Cloud, id: &str) -> Result<Backup> {
        let wait = cloud.backups.until(call, "take backup", id, |seen| match seen {
            None => Err(Error::busy("the backup was removed while it was made")),
            Some(backup) if backup.status == BackupStatus::Creating => Ok(None),
            Some(backup) => Ok(Some(backup.clone())),
        });
        let backup = match tokio::time::timeout(SNAPSHOT_PATIENCE, wait).await {
            Ok(backup) => backup?,
            Err(_out_of_patience) => cloud.cinder.backup(call, id).await?,
        };
        match &backup.status {
            BackupStatus::Error => {
                let error = self.backup_failed(call, cloud, &backup).await;
                match self.remove_backup(call, cloud, id).await {
                    Ok(()) => Err(error),
                    Err(later) => Err(with_remains(error, &later)),
                }
            }
            BackupStatus::ErrorDeleting | BackupStatus::Unknown(_) => Err(Error::wrong_state(format!(
                "backup {id} is {}; when its cause is gone, an administrator can set it with `openstack volume backup set \
                 --state`",
                backup.status
            ))),
            _ => Ok(backup),
        }
    }

    async fn backup_failed(&self, call: &Call, cloud: &Cloud, backup: &Backup) -> Error {
        let error = ended_in_error(call, cloud, "backup", &backup.id, backup.status.as_str()).await;
        match &backup.fail_reason {
            Some(reason) if !reason.is_empty() => error.during(reason),
            _ => error,
        }
    }

    /// Removes the temporary snapshot of a backup that needs it no longer.
    pub(super) async fn tidy_after(&self, call: &Call, cloud: &Cloud, backup: &Backup) -> Result<()> {
        if matches!(backup.status, BackupStatus::Creating | BackupStatus::Unknown(_)) || !self.is_our_backup(backup) {
            return Ok(());
        }
        let Some(id) = &backup.snapshot_id else { return Ok(()) };
        let Some(snapshot) = found(cloud.cinder.snapshot(call, id).await)? else { return Ok(()) };
        if self.names.backup_of(&snapshot.metadata) == Some(backup.name.as_str()) {
            remove_snapshot(call, cloud, id).await?;
        }
        Ok(())
    }

    /// Deletes a backup and what is left of its making, and waits until it is gone.
    pub(super) async fn remove_backup(&self, call: &Call, cloud: &Cloud, id: &str) -> Result<()> {
        let Some(backup) = found(cloud.cinder.backup(call, id).await)? else { return Ok(()) };
        loop {
            call.check("delete the backup")?;
            match cloud.cinder.delete_backup(call, id).await {
                Ok(()) => {
                    await_backup_gone(call, cloud, id).await?;
                    break;
                }
                Err(error) if error.is(Kind::NotFound) => break,
                Err(error) if is_refused_with(&error, 400) || is_refused_with(&error, 409) => {
                    let Some(now) = found(cloud.cinder.backup(call, id).await)? else { break };
                    match now.status {
                        BackupStatus::Deleting => {
                            await_backup_gone(call, cloud, id).await?;
                            break;
                        }
                        BackupStatus::Creating | BackupStatus::Restoring => {
                            let was = now.status;
                            let left = move |seen: Option<&Backup>| {
                                Ok(seen.is_none_or(|seen| seen.status != was).then_some(()))
                            };
                            cloud.backups.until(call, "settle backup", id, left).await?;
                        }
                        status => {
                            let hint = "incremental backups may depend on it";
                            return Err(Error::wrong_state(format!("backup {id} is {status}: {hint}")).because(error));
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
        self.tidy_after(call, cloud, &Backup { status: BackupStatus::Deleting, ..backup }).await
    }

    /// Removes temporary snapshots of ours that stand in the way of a volume's deletion: of backups that have ended, or
    /// were never begun. Whether there were any. Other snapshots are somebody's, and named in the error.
    pub(super) async fn clear_temporary_snapshots(
        &self,
        call: &Call,
        cloud: &Cloud,
        volume: &str,
        refused: &Error,
    ) -> Result<bool> {
        let snapshots = cloud.cinder.snapshots(call, Listing::all().of_volume(volume)).await?.items;
        let mut cleared = false;
        let mut others = Vec::new();
        for snapshot in snapshots {
            let Some(name) = self.names.backup_of(&snapshot.metadata) else {
                others.push(format!("{} ({})", snapshot.name, snapshot.id));
                continue;
            };
            let backup = self.lookup_backup(call, cloud, name).await?;
            if backup.is_some_and(|backup| backup.status == BackupStatus::Creating) {
                return Err(Error::busy(format!("backup {name} of the volume is being made")));
            }
            remove_snapshot(call, cloud, &snapshot.id).await?;
            cleared = true;
        }
        if !others.is_empty() {
            return Err(Error::wrong_state(format!(
                "volume {volume} has snapshots, which have to be deleted first: {} [{refused}]",
                others.join(", ")
            )));
        }
        Ok(cleared)
    }

    /// A backup as the orchestrator should know it.
    pub(super) fn describe_backup(&self, cloud: &Cloud, backup: &Backup) -> Result<Snapshot> {
        Ok(Snapshot {
            id: SnapshotHandle::write_backup(&cloud.name, &backup.id)?,
            source: VolumeHandle::write(&cloud.name, &backup.volume_id)?,
            size: gib(backup.size)?,
            created: backup.data_timestamp.or(backup.created_at).unwrap_or(jiff::Timestamp::UNIX_EPOCH),
            ready: matches!(backup.status, BackupStatus::Available | BackupStatus::Restoring),
            topology: Vec::new(),
        })
    }
}

/// Under which name doubts about a backup are kept: a snapshot of the same name is another matter.
fn backup_doubt(name: &str) -> String {
    format!("backup/{name}")
}

async fn await_backup_gone(call: &Call, cloud: &Cloud, id: &str) -> Result<()> {
    let back = cloud
        .backups
        .until(call, "delete backup", id, |seen| match seen {
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
