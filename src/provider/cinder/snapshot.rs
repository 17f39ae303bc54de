//! Snapshots of volumes. Backups, which the orchestrator takes for snapshots as well, are in [`super::backup`].
//!
//! As with volumes, name and metadata are the way back to what an earlier call began.

use super::failure::{creation_refused, ended_in_error};
use super::parameters::{SnapshotParameters, SnapshotType};
use super::{CinderProvider, Cloud};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::model::{
    Page, PageRequest, Snapshot, SnapshotFilter, SnapshotId, SnapshotSpec, Topology, TopologyRequirement,
};
use crate::openstack::cinder::{self, Listing, NewSnapshot, SNAPSHOT_IN_USE, SnapshotStatus};
use crate::openstack::client::found;
use crate::openstack::objects::Metadata;
use crate::provider::failure::{is_refused_with, is_unclear, says, with_remains};
use crate::provider::handle::{SnapshotHandle, SnapshotKind, VolumeHandle};
use crate::provider::names::check_name;
use crate::provider::size::gib;
use crate::provider::{SNAPSHOT_PATIENCE, Snapshots};
use async_trait::async_trait;
use std::time::Duration;

/// What a snapshot is to be called and marked with.
pub(super) struct Label<'a> {
    pub(super) name: &'a str,
    pub(super) metadata: Metadata,
    pub(super) force: Option<bool>,
}

#[async_trait]
impl Snapshots for CinderProvider {
    async fn create_snapshot(&self, call: &Call, spec: &SnapshotSpec) -> Result<Snapshot> {
        Box::pin(self.take_snapshot(call, spec))
            .await
            .map_err(|error| error.during(format!("take snapshot {} of volume {}", spec.name, spec.source)))
    }

    async fn delete_snapshot(&self, call: &Call, id: &SnapshotId) -> Result<()> {
        Box::pin(self.drop_snapshot(call, id)).await.map_err(|error| error.during(format!("delete snapshot {id}")))
    }

    async fn snapshots(&self, call: &Call, filter: &SnapshotFilter, page: &PageRequest) -> Result<Page<Snapshot>> {
        self.list_snapshots(call, filter, page).await.map_err(|error| error.during("list snapshots"))
    }

    async fn snapshot(&self, call: &Call, id: &SnapshotId) -> Result<Snapshot> {
        self.show_snapshot(call, id).await.map_err(|error| error.during(format!("look at snapshot {id}")))
    }
}

impl CinderProvider {
    /// The story of CreateSnapshot.
    async fn take_snapshot(&self, call: &Call, spec: &SnapshotSpec) -> Result<Snapshot> {
        let parameters = SnapshotParameters::parse(&self.names, &spec.parameters)?;
        check_name(&spec.name)?;
        let (volume, cloud) = self.existing(&spec.source)?;
        let volume = volume.id.as_str();
        // The secret of the class may name the cloud as well; the volume's own cloud is the only one possible.
        if !spec.secrets.is_empty() && self.clouds.of_class(&spec.secrets)?.name != cloud.name {
            return Err(Error::invalid("the secret of the class names another cloud than that of the volume"));
        }
        let topology = self.snapshot_topology(call, cloud, volume, spec.topology.as_ref()).await?;
        if parameters.snapshot_type == SnapshotType::Backup {
            return self.take_backup(call, cloud, volume, spec, &parameters).await;
        }
        let label =
            Label { name: &spec.name, metadata: self.names.metadata(&spec.parameters), force: parameters.force };
        let snapshot = self.find_or_take(call, cloud, volume, &label).await?;
        let snapshot = await_ready(call, cloud, snapshot, Some(SNAPSHOT_PATIENCE)).await?;
        self.describe_snapshot(cloud, &snapshot, topology)
    }

    /// The snapshot of this label, taken now if need be; it may still be in the making.
    pub(super) async fn find_or_take(
        &self,
        call: &Call,
        cloud: &Cloud,
        volume: &str,
        label: &Label<'_>,
    ) -> Result<cinder::Snapshot> {
        let mut unconfirmed = true;
        loop {
            call.check("look for the snapshot")?;
            match self.lookup_snapshot(call, cloud, label.name).await? {
                Some(snapshot) if snapshot.volume_id != volume => {
                    return Err(Error::new(
                        Kind::Conflict,
                        format!(
                            "snapshot {} has the name {} already, and is of volume {}",
                            snapshot.id, label.name, snapshot.volume_id
                        ),
                    ));
                }
                Some(snapshot) if snapshot.status == SnapshotStatus::Deleting => {
                    await_snapshot_gone(call, cloud, &snapshot.id).await?;
                }
                Some(snapshot) => return Ok(snapshot),
                None => {
                    if unconfirmed && let Some(time) = cloud.doubts.take(label.name) {
                        unconfirmed = false;
                        if let Err(error) = call.sleep("wait for a request whose answer was lost", time).await {
                            cloud.doubts.note(label.name);
                            return Err(error);
                        }
                        continue;
                    }
                    return self.ask_for_snapshot(call, cloud, volume, label).await;
                }
            }
        }
    }

    async fn ask_for_snapshot(
        &self,
        call: &Call,
        cloud: &Cloud,
        volume: &str,
        label: &Label<'_>,
    ) -> Result<cinder::Snapshot> {
        // Since this version every volume in use may be snapshot, and `force` is refused.
        let needs_force = !cloud.cinder.has(call, SNAPSHOT_IN_USE).await?;
        let new = NewSnapshot {
            name: label.name.to_owned(),
            description: self.names.description(),
            volume_id: volume.to_owned(),
            force: needs_force.then_some(label.force.unwrap_or(true)),
            metadata: label.metadata.clone(),
        };
        call.check("ask Cinder for the snapshot")?;
        cloud.cinder.create_snapshot(call, &new).await.map_err(|error| {
            if is_unclear(&error) {
                cloud.doubts.note(label.name);
            }
            creation_refused(error, "the volume")
        })
    }

    /// The snapshot of this name that is ours; the earliest if there are several, and then later ones are removed.
    async fn lookup_snapshot(&self, call: &Call, cloud: &Cloud, name: &str) -> Result<Option<cinder::Snapshot>> {
        let named = cloud.cinder.snapshots(call, Listing::all().named(name)).await?.items;
        let mut ours: Vec<_> = named
            .into_iter()
            .filter(|snapshot| snapshot.name == name && self.names.is_ours(&snapshot.metadata))
            .collect();
        ours.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        let mut ours = ours.into_iter();
        let first = ours.next();
        for twin in ours {
            tracing::info!(snapshot = %twin.id, %name, "removing a second snapshot of this name");
            remove_snapshot(call, cloud, &twin.id).await?;
        }
        Ok(first)
    }

    /// The story of DeleteSnapshot.
    async fn drop_snapshot(&self, call: &Call, id: &SnapshotId) -> Result<()> {
        // What cannot exist is not there.
        let Some(handle) = SnapshotHandle::parse(id) else { return Ok(()) };
        let cloud = self.clouds.of_handle(&handle.cloud)?;
        let id = handle.id.as_str();
        if handle.kind == SnapshotKind::Backup {
            return self.remove_backup(call, cloud, id).await;
        }
        let was_there = remove_snapshot(call, cloud, id).await?;
        if !was_there && self.names.is_drop_in() {
            // cinder-csi's handles do not say what they are of.
            return self.remove_backup(call, cloud, id).await;
        }
        Ok(())
    }

    async fn show_snapshot(&self, call: &Call, id: &SnapshotId) -> Result<Snapshot> {
        let handle = SnapshotHandle::parse(id).ok_or_else(|| Error::not_found(format!("there is no snapshot {id}")))?;
        let cloud = self.clouds.of_handle(&handle.cloud)?;
        if handle.kind == SnapshotKind::Bare {
            match cloud.cinder.snapshot(call, handle.id.as_str()).await {
                Ok(snapshot) => return self.describe_snapshot(cloud, &snapshot, Vec::new()),
                Err(error) if error.is(Kind::NotFound) && self.names.is_drop_in() => {}
                Err(error) => return Err(error),
            }
        }
        let backup = cloud.cinder.backup(call, handle.id.as_str()).await?;
        self.tidy_after(call, cloud, &backup).await?;
        let mut shown = self.describe_backup(cloud, &backup)?;
        // By the handle that the orchestrator knows.
        shown.id = id.clone();
        Ok(shown)
    }

    /// From where volumes made of a snapshot can be reached: where its volume is. Asked only where somebody cares.
    async fn snapshot_topology(
        &self,
        call: &Call,
        cloud: &Cloud,
        volume: &str,
        requirement: Option<&TopologyRequirement>,
    ) -> Result<Vec<Topology>> {
        if requirement.is_none() {
            return Ok(Vec::new());
        }
        let zone = cloud.cinder.volume(call, volume).await?.availability_zone;
        if !self.zones.allows(&zone, requirement) {
            return Err(Error::new(
                Kind::Exhausted,
                format!("volume {volume} is in zone {zone}, and so would be volumes made of its snapshot"),
            ));
        }
        Ok(self.zones.reachable_from(&zone, requirement))
    }

    /// A snapshot as the orchestrator should know it.
    pub(super) fn describe_snapshot(
        &self,
        cloud: &Cloud,
        snapshot: &cinder::Snapshot,
        topology: Vec<Topology>,
    ) -> Result<Snapshot> {
        Ok(Snapshot {
            id: SnapshotHandle::write_snapshot(&cloud.name, &snapshot.id)?,
            source: VolumeHandle::write(&cloud.name, &snapshot.volume_id)?,
            size: gib(snapshot.size)?,
            created: snapshot.created_at.unwrap_or(jiff::Timestamp::UNIX_EPOCH),
            ready: is_usable(&snapshot.status),
            topology,
        })
    }
}

/// Whether a volume can be made of a snapshot in this status, now or when a backup of it has ended.
fn is_usable(status: &SnapshotStatus) -> bool {
    matches!(status, SnapshotStatus::Available | SnapshotStatus::BackingUp | SnapshotStatus::Restoring)
}

/// Waits until a snapshot is usable, so long at most; then it is shown as it is. One that failed is removed.
pub(super) async fn await_ready(
    call: &Call,
    cloud: &Cloud,
    snapshot: cinder::Snapshot,
    patience: Option<Duration>,
) -> Result<cinder::Snapshot> {
    let snapshot = match ready(Some(&snapshot))? {
        Some(Ok(snapshot)) => snapshot,
        Some(Err(failed)) => return Err(give_up(call, cloud, failed).await),
        None => {
            let wait = cloud.snapshots.until(call, "take snapshot", &snapshot.id, ready);
            let ended = match patience {
                Some(time) => tokio::time::timeout(time, wait).await,
                None => Ok(wait.await),
            };
            match ended {
                Err(_out_of_patience) => snapshot,
                Ok(ended) => match ended? {
                    Ok(snapshot) => snapshot,
                    Err(failed) => return Err(give_up(call, cloud, failed).await),
                },
            }
        }
    };
    Ok(snapshot)
}

/// What a snapshot's status means: usable, failed, or to be waited for.
#[allow(clippy::type_complexity, reason = "said once, here")]
fn ready(seen: Option<&cinder::Snapshot>) -> Result<Option<Result<cinder::Snapshot, cinder::Snapshot>>> {
    let Some(snapshot) = seen else { return Err(Error::busy("the snapshot was removed while it was taken")) };
    Ok(match &snapshot.status {
        status if is_usable(status) => Some(Ok(snapshot.clone())),
        SnapshotStatus::Error => Some(Err(snapshot.clone())),
        SnapshotStatus::Creating => None,
        SnapshotStatus::Deleting => return Err(Error::busy(format!("snapshot {} is being deleted", snapshot.id))),
        status => {
            return Err(Error::wrong_state(format!(
                "snapshot {} is {status}; when its cause is gone, an administrator can set it with `openstack volume \
                 snapshot set --state`",
                snapshot.id
            )));
        }
    })
}

/// Removes a snapshot that failed and says why it did.
async fn give_up(call: &Call, cloud: &Cloud, snapshot: cinder::Snapshot) -> Error {
    let error = ended_in_error(call, cloud, "snapshot", &snapshot.id, snapshot.status.as_str()).await;
    match remove_snapshot(call, cloud, &snapshot.id).await {
        Ok(_was_there) => error,
        Err(later) => with_remains(error, &later),
    }
}

/// Deletes a snapshot and waits until it is gone. Whether there was one.
pub(super) async fn remove_snapshot(call: &Call, cloud: &Cloud, id: &str) -> Result<bool> {
    loop {
        call.check("delete the snapshot")?;
        match cloud.cinder.delete_snapshot(call, id).await {
            Ok(()) => return await_snapshot_gone(call, cloud, id).await.map(|()| true),
            Err(error) if error.is(Kind::NotFound) => return Ok(false),
            Err(error) if is_refused_with(&error, 400) || is_refused_with(&error, 409) => {
                let Some(snapshot) = found(cloud.cinder.snapshot(call, id).await)? else { return Ok(true) };
                match snapshot.status {
                    SnapshotStatus::Deleting => return await_snapshot_gone(call, cloud, id).await.map(|()| true),
                    SnapshotStatus::Creating | SnapshotStatus::BackingUp | SnapshotStatus::Restoring => {
                        let was = snapshot.status;
                        let left = move |seen: Option<&cinder::Snapshot>| {
                            Ok(seen.is_none_or(|seen| seen.status != was).then_some(()))
                        };
                        cloud.snapshots.until(call, "settle snapshot", id, left).await?;
                    }
                    SnapshotStatus::Available | SnapshotStatus::Error if says(&error, &["status must be"]) => {
                        // Cinder names the status in every refusal; part of a group is what remains.
                        return Err(error.as_kind(Kind::WrongState));
                    }
                    status => {
                        return Err(Error::wrong_state(format!("snapshot {id} is {status}")).because(error));
                    }
                }
            }
            Err(error) => return Err(error),
        }
    }
}

async fn await_snapshot_gone(call: &Call, cloud: &Cloud, id: &str) -> Result<()> {
    let back = cloud
        .snapshots
        .until(call, "delete snapshot", id, |seen| match seen {
            None => Ok(Some(None)),
            Some(snapshot) if snapshot.status == SnapshotStatus::Deleting => Ok(None),
            Some(snapshot) => Ok(Some(Some(snapshot.clone()))),
        })
        .await?;
    match back {
        None => Ok(()),
        Some(snapshot) => {
            let why = ended_in_error(call, cloud, "snapshot", id, snapshot.status.as_str()).await;
            let kind = if snapshot.status == SnapshotStatus::Available { Kind::WrongState } else { why.kind() };
            Err(why.as_kind(kind).during("the storage refuses to delete it: something may depend on it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ready;
    use crate::error::Kind;
    use crate::openstack::cinder::Snapshot;
    use serde_json::json;

    #[test]
    fn what_the_status_of_a_snapshot_means() {
        for (status, expected) in [
            ("creating", "wait"),
            ("available", "ready"),
            ("backing-up", "ready"),
            ("error", "failed"),
            ("error_deleting", "wrong"),
            ("deleting", "busy"),
        ] {
            let snapshot: Snapshot =
                serde_json::from_value(json!({"id": "s", "volume_id": "v", "status": status})).unwrap();
            let meaning = match ready(Some(&snapshot)) {
                Ok(None) => "wait",
                Ok(Some(Ok(_))) => "ready",
                Ok(Some(Err(_))) => "failed",
                Err(error) if error.is(Kind::Busy) => "busy",
                Err(_) => "wrong",
            };
            assert_eq!(meaning, expected, "{status}");
        }
        assert_eq!(ready(None).unwrap_err().kind(), Kind::Busy);
    }
}
