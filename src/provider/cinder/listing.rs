//! Looking at volumes, snapshots and backups, one or page by page.
//!
//! Cinder refuses a marker that was deleted meanwhile; the list then starts again.

use super::attachment::attached_nodes;
use super::parameters::VolumeParameters;
use super::volume::needs_sharing;
use super::{CinderProvider, Cloud};
use crate::call::Call;
use crate::error::{Kind, Result};
use crate::model::{
    Capability, Health, Page, PageRequest, Severity, Snapshot, SnapshotFilter, StringMap, Volume, VolumeId,
    VolumeStatus,
};
use crate::openstack::cinder::{self, BackupStatus, Listing, SnapshotStatus};
use crate::provider::Snapshots;
use crate::provider::handle::VolumeHandle;
use crate::provider::size::gib;
use crate::provider::walk::{Chunk, Marker, Place, Walk, What};

impl CinderProvider {
    pub(super) async fn show(&self, call: &Call, id: &VolumeId) -> Result<VolumeStatus> {
        let (handle, cloud) = self.existing(id)?;
        let volume = cloud.cinder.volume(call, handle.id.as_str()).await?;
        self.status(cloud, &volume)
    }

    pub(super) async fn judge(
        &self,
        call: &Call,
        id: &VolumeId,
        capabilities: &[Capability],
        parameters: &StringMap,
    ) -> Result<Result<(), String>> {
        let (handle, cloud) = self.existing(id)?;
        let volume = cloud.cinder.volume(call, handle.id.as_str()).await?;
        if let Err(error) = VolumeParameters::parse(&self.names, parameters) {
            return Ok(Err(error.to_string()));
        }
        for capability in capabilities {
            match needs_sharing(capability) {
                Err(error) => return Ok(Err(error.to_string())),
                Ok(true) if !volume.multiattach => {
                    return Ok(Err(format!(
                        "volume {id} is not of a multi-attach type: one node at a time can use it"
                    )));
                }
                Ok(_) => {}
            }
        }
        Ok(Ok(()))
    }

    pub(super) async fn list_volumes(&self, call: &Call, page: &PageRequest) -> Result<Page<VolumeStatus>> {
        let mut walk = Walk::begin(page, self.places(&[What::Volumes]))?;
        let mut items = Vec::new();
        while let Some((place, most)) = walk.step(items.len()) {
            let cloud = self.clouds.of_handle(&place.cloud)?;
            items.extend(walk.pass(self.chunk_of_volumes(call, cloud, part_of(&place, most)).await)?);
        }
        Ok(Page { items, next: walk.token() })
    }

    pub(super) async fn list_snapshots(
        &self,
        call: &Call,
        filter: &SnapshotFilter,
        page: &PageRequest,
    ) -> Result<Page<Snapshot>> {
        let nothing = Page { items: Vec::new(), next: None };
        if let Some(id) = &filter.id {
            let snapshot = match self.snapshot(call, id).await {
                Ok(snapshot) => snapshot,
                Err(error) if error.is(Kind::NotFound) => return Ok(nothing),
                Err(error) => return Err(error),
            };
            let matches = filter.source.as_ref().is_none_or(|source| *source == snapshot.source);
            return Ok(if matches { Page { items: vec![snapshot], next: None } } else { nothing });
        }
        let mut places = self.places(&[What::Snapshots, What::Backups]);
        let source = match &filter.source {
            None => None,
            Some(id) => {
                let Some(handle) = VolumeHandle::parse(id) else { return Ok(nothing) };
                let cloud = self.clouds.of_handle(&handle.cloud)?.name.clone();
                places.retain(|place| place.cloud == cloud);
                Some(handle.id)
            }
        };
        let mut walk = Walk::begin(page, places)?;
        let mut items = Vec::new();
        while let Some((place, most)) = walk.step(items.len()) {
            let cloud = self.clouds.of_handle(&place.cloud)?;
            let mut listing = part_of(&place, most);
            if let Some(volume) = &source {
                listing = listing.of_volume(volume.as_str());
            }
            let chunk = match place.what {
                What::Backups => self.chunk_of_backups(call, cloud, listing).await,
                _ => self.chunk_of_snapshots(call, cloud, listing).await,
            };
            items.extend(walk.pass(chunk)?);
        }
        Ok(Page { items, next: walk.token() })
    }

    async fn chunk_of_volumes(&self, call: &Call, cloud: &Cloud, listing: Listing) -> Result<Chunk<VolumeStatus>> {
        let part = cloud.cinder.volumes(call, listing).await?;
        let last = part.items.last().filter(|_| part.more).and_then(|volume| Marker::at(&volume.id, None));
        let items = part.items.iter().map(|volume| self.status(cloud, volume)).collect::<Result<_>>()?;
        Ok(Chunk { items, last })
    }

    async fn chunk_of_snapshots(&self, call: &Call, cloud: &Cloud, listing: Listing) -> Result<Chunk<Snapshot>> {
        let part = cloud.cinder.snapshots(call, listing).await?;
        let last = part.items.last().filter(|_| part.more).and_then(|snapshot| Marker::at(&snapshot.id, None));
        let items = part
            .items
            .iter()
            .filter(|snapshot| snapshot.status != SnapshotStatus::Deleting)
            // A step of a backup is nothing that the orchestrator knows.
            .filter(|snapshot| self.names.backup_of(&snapshot.metadata).is_none())
            .map(|snapshot| self.describe_snapshot(cloud, snapshot, Vec::new()))
            .collect::<Result<_>>()?;
        Ok(Chunk { items, last })
    }

    async fn chunk_of_backups(&self, call: &Call, cloud: &Cloud, listing: Listing) -> Result<Chunk<Snapshot>> {
        let part = cloud.cinder.backups(call, listing).await?;
        let last = part.items.last().filter(|_| part.more).and_then(|backup| Marker::at(&backup.id, None));
        let items = part
            .items
            .iter()
            .filter(|backup| backup.status != BackupStatus::Deleting)
            .map(|backup| self.describe_backup(cloud, backup))
            .collect::<Result<_>>()?;
        Ok(Chunk { items, last })
    }

    /// The starts of the lists of these things, in order.
    fn places(&self, whats: &[What]) -> Vec<Place> {
        let clouds = self.clouds.keys();
        clouds
            .flat_map(|cloud| whats.iter().map(|what| Place { what: *what, cloud: cloud.clone(), after: None }))
            .collect()
    }

    fn status(&self, cloud: &Cloud, volume: &cinder::Volume) -> Result<VolumeStatus> {
        cloud.shapes.note(volume);
        Ok(VolumeStatus {
            volume: Volume {
                id: VolumeHandle::write(&cloud.name, &volume.id)?,
                size: gib(volume.size)?,
                source: None,
                topology: self.zones.reachable_from(&volume.availability_zone, None),
                context: StringMap::new(),
            },
            published: attached_nodes(volume, self.names.cluster()),
            health: health(volume),
        })
    }
}

fn part_of(place: &Place, most: u32) -> Listing {
    Listing::all().at_most(most).after(place.after.as_ref().map(|marker| marker.id.as_str()))
}

/// What is wrong with a volume.
fn health(volume: &cinder::Volume) -> Vec<Health> {
    use cinder::VolumeStatus::{
        Available, Error, ErrorBackingUp, ErrorDeleting, ErrorExtending, ErrorRestoring, InUse, Maintenance,
    };
    let problem = |severity, reason, what: &str| {
        vec![Health { severity, reason, message: format!("volume {} is {}: {what}", volume.id, volume.status) }]
    };
    match &volume.status {
        Error => problem(Severity::Inaccessible, "VolumeError", "see `openstack volume message list`"),
        ErrorDeleting => problem(Severity::Inaccessible, "DeletionFailed", "an administrator has to remove it"),
        ErrorRestoring => problem(Severity::DataLoss, "RestoreFailed", "a backup was restored into it only in part"),
        ErrorExtending => problem(Severity::Degraded, "ExpansionFailed", "its size is not what was asked for"),
        ErrorBackingUp => problem(Severity::Degraded, "BackupFailed", "it cannot be changed until its status is reset"),
        Maintenance => problem(Severity::Inaccessible, "Maintenance", "its owner is changing it"),
        InUse if volume.attachments.is_empty() => {
            problem(Severity::Degraded, "AttachmentMissing", "and no attachment is known")
        }
        Available if !volume.attachments.is_empty() => {
            problem(Severity::Degraded, "AttachmentLeft", "and still shows an attachment")
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::health;
    use crate::model::Severity;
    use crate::openstack::cinder::Volume;
    use serde_json::json;

    #[test]
    fn what_is_wrong_with_a_volume() {
        for (status, servers, expected) in [
            ("available", &[][..], None),
            ("in-use", &["s1"], None),
            ("creating", &[], None),
            ("in-use", &[], Some((Severity::Degraded, "AttachmentMissing"))),
            ("available", &["s1"], Some((Severity::Degraded, "AttachmentLeft"))),
            ("error", &[], Some((Severity::Inaccessible, "VolumeError"))),
            ("error_restoring", &[], Some((Severity::DataLoss, "RestoreFailed"))),
            ("error_extending", &["s1"], Some((Severity::Degraded, "ExpansionFailed"))),
        ] {
            let attachments: Vec<_> =
                servers.iter().map(|server| json!({"attachment_id": "a", "server_id": server})).collect();
            let volume: Volume =
                serde_json::from_value(json!({"id": "v", "status": status, "attachments": attachments})).unwrap();
            let found = health(&volume).first().map(|problem| (problem.severity, problem.reason));
            assert_eq!(found, expected, "{status} {servers:?}");
        }
    }
}
