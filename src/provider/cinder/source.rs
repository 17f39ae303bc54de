//! What a new volume is made of: nothing, a snapshot, a backup, or another volume.

use super::{CinderProvider, Cloud};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::model::{ContentSource, VolumeSpec};
use crate::openstack::cinder;
use crate::openstack::client::found;
use crate::provider::handle::{SnapshotHandle, SnapshotKind, VolumeHandle};

/// What a new volume is filled with, as Cinder sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) kind: SourceKind,
    pub(super) id: String,
    pub(super) gib: u64,
    /// The zone where it is, if a volume made of it belongs there too; empty if that is not worth asking.
    pub(super) zone: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SourceKind {
    Snapshot,
    Backup,
    Volume,
}

impl CinderProvider {
    /// What the volume is to be made of.
    pub(super) async fn source(&self, call: &Call, cloud: &Cloud, spec: &VolumeSpec) -> Result<Option<Source>> {
        match &spec.source {
            None => Ok(None),
            Some(ContentSource::Volume(id)) => {
                let handle =
                    VolumeHandle::parse(id).ok_or_else(|| Error::not_found(format!("there is no volume {id}")))?;
                self.same_cloud(cloud, &handle.cloud, id)?;
                let volume = cloud.cinder.volume(call, handle.id.as_str()).await?;
                Ok(Some(Source {
                    kind: SourceKind::Volume,
                    id: volume.id,
                    gib: volume.size,
                    zone: Some(volume.availability_zone),
                }))
            }
            Some(ContentSource::Snapshot(id)) => {
                let handle =
                    SnapshotHandle::parse(id).ok_or_else(|| Error::not_found(format!("there is no snapshot {id}")))?;
                self.same_cloud(cloud, &handle.cloud, id)?;
                self.snapshot_source(call, cloud, spec, &handle).await.map(Some)
            }
        }
    }

    async fn snapshot_source(
        &self,
        call: &Call,
        cloud: &Cloud,
        spec: &VolumeSpec,
        handle: &SnapshotHandle,
    ) -> Result<Source> {
        let id = handle.id.as_str();
        if handle.kind == SnapshotKind::Bare {
            match cloud.cinder.snapshot(call, id).await {
                Ok(snapshot) => {
                    let zone = match &spec.topology {
                        // Only where the zone could be the wrong one is it worth a call.
                        Some(requirement) if !self.zones.allowed(Some(requirement)).is_empty() => {
                            found(cloud.cinder.volume(call, &snapshot.volume_id).await)?
                                .map(|volume| volume.availability_zone)
                        }
                        _ => Some(String::new()),
                    };
                    return Ok(Source { kind: SourceKind::Snapshot, id: snapshot.id, gib: snapshot.size, zone });
                }
                Err(error) if error.is(Kind::NotFound) && self.names.is_drop_in() => {}
                Err(error) => return Err(error),
            }
        }
        let backup = cloud.cinder.backup(call, id).await?;
        Ok(Source { kind: SourceKind::Backup, id: backup.id, gib: backup.size, zone: None })
    }

    fn same_cloud(&self, cloud: &Cloud, name: &str, id: &impl std::fmt::Display) -> Result<()> {
        if self.clouds.of_handle(name)?.name == cloud.name {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "the source {id} is in another cloud than the class ({:?}): data does not travel between clouds",
            cloud.name
        )))
    }

    /// Whether a volume is made of this.
    pub(super) fn is_made_of(&self, source: Option<&ContentSource>, volume: &cinder::Volume) -> bool {
        let from_backup = volume.metadata.get(self.names.source_key()).map(String::as_str);
        let (snapshot, origin) = (volume.snapshot_id.as_deref(), volume.source_volid.as_deref());
        match source {
            None => snapshot.is_none() && origin.is_none() && from_backup.is_none(),
            Some(ContentSource::Volume(id)) => {
                VolumeHandle::parse(id).is_some_and(|handle| origin == Some(handle.id.as_str()))
            }
            Some(ContentSource::Snapshot(id)) => SnapshotHandle::parse(id).is_some_and(|handle| {
                let id = Some(handle.id.as_str());
                match handle.kind {
                    SnapshotKind::Backup => from_backup == id,
                    SnapshotKind::Bare if snapshot == id => true,
                    // cinder-csi does not write down of which backup a volume was made.
                    SnapshotKind::Bare => {
                        self.names.is_drop_in()
                            && snapshot.is_none()
                            && origin.is_none()
                            && (from_backup.is_none() || from_backup == id)
                    }
                }
            }),
        }
    }
}
