//! Looking at shares and snapshots, one or page by page.
//!
//! Manila counts instead of knowing markers: the place of a page is the last object's id with its position, see
//! [`crate::openstack::manila::Manila::stretch`].

use super::backup::describe_backup;
use super::parameters::ShareParameters;
use super::snapshot;
use super::{Cloud, ManilaProvider};
use crate::call::Call;
use crate::error::{Kind, Result};
use crate::model::{
    AccessKind, Capability, Health, NodeId, Page, PageRequest, Severity, Snapshot, SnapshotFilter, StringMap, Volume,
    VolumeId, VolumeStatus,
};
use crate::openstack::client::found;
use crate::openstack::manila::{self, BackupStatus, Listed, Listing, Share, ShareStatus, SnapshotStatus, Stretch};
use crate::provider::Snapshots;
use crate::provider::handle::VolumeHandle;
use crate::provider::size::gib;
use crate::provider::walk::{Chunk, Marker, Place, Walk, What};

impl ManilaProvider {
    pub(super) async fn show(&self, call: &Call, id: &VolumeId) -> Result<VolumeStatus> {
        let (cloud, share) = self.existing(call, id).await?;
        let share: Share = cloud.manila.one(call, &share).await?;
        let rules = found(cloud.manila.rules(call, &share.id).await)?.unwrap_or_default();
        let published = rules.iter().filter(|rule| !rule.is_leaving()).filter_map(|rule| self.holder(rule));
        let published = published.filter_map(|node| node.parse::<NodeId>().ok()).collect();
        let mut status = self.status(cloud, &share, published)?;
        status.volume.id = id.clone();
        Ok(status)
    }

    pub(super) async fn judge(
        &self,
        call: &Call,
        id: &VolumeId,
        capabilities: &[Capability],
        parameters: &StringMap,
    ) -> Result<Result<(), String>> {
        let (cloud, share) = self.existing(call, id).await?;
        let _exists: Share = cloud.manila.one(call, &share).await?;
        if let Err(error) = ShareParameters::parse(&self.names, &self.protocol, parameters) {
            return Ok(Err(error.to_string()));
        }
        if capabilities.iter().any(|capability| capability.kind == AccessKind::Block) {
            return Ok(Err(format!("{id} is a share, which is no block device")));
        }
        Ok(Ok(()))
    }

    pub(super) async fn list_shares(&self, call: &Call, page: &PageRequest) -> Result<Page<VolumeStatus>> {
        let mut walk = Walk::begin(page, self.places(&[What::Volumes]))?;
        let mut items = Vec::new();
        while let Some((place, most)) = walk.step(items.len()) {
            let cloud = self.clouds.of_handle(&place.cloud)?;
            let stretch = stretch::<Share>(call, cloud, &Listing::all(), &place, most).await;
            let chunk = stretch.and_then(|stretch| {
                let shares = stretch.items.iter().filter(|share| !share.status.is_leaving());
                let items = shares.map(|share| self.status(cloud, share, Vec::new())).collect::<Result<_>>()?;
                Ok(Chunk { items, last: marker(stretch.last) })
            });
            items.extend(walk.pass(chunk)?);
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
        let mut listing = Listing::all();
        if let Some(id) = &filter.source {
            let Some(handle) = VolumeHandle::parse(id) else { return Ok(nothing) };
            let cloud = self.clouds.of_handle(&handle.cloud)?.name.clone();
            places.retain(|place| place.cloud == cloud);
            listing = listing.of_share(handle.id.as_str());
        }
        let mut walk = Walk::begin(page, places)?;
        let mut items = Vec::new();
        while let Some((place, most)) = walk.step(items.len()) {
            let cloud = self.clouds.of_handle(&place.cloud)?;
            let chunk = match place.what {
                What::Backups => self.chunk_of_backups(call, cloud, &listing, &place, most).await,
                _ => chunk_of_snapshots(call, cloud, &listing, &place, most).await,
            };
            items.extend(walk.pass(chunk)?);
        }
        Ok(Page { items, next: walk.token() })
    }

    /// Backups, where the service has them.
    async fn chunk_of_backups(
        &self,
        call: &Call,
        cloud: &Cloud,
        listing: &Listing,
        place: &Place,
        most: u32,
    ) -> Result<Chunk<Snapshot>> {
        if !cloud.manila.has(call, manila::BACKUPS).await? {
            return Ok(Chunk { items: Vec::new(), last: None });
        }
        let stretch = match stretch::<manila::Backup>(call, cloud, listing, place, most).await {
            // A share that is gone has none; and where the policy says so, nobody sees any.
            Err(error) if matches!(error.kind(), Kind::InvalidArgument | Kind::Denied) && place.after.is_none() => {
                return Ok(Chunk { items: Vec::new(), last: None });
            }
            stretch => stretch?,
        };
        let staying = stretch.items.iter().filter(|backup| backup.status != BackupStatus::Deleting);
        let items = staying.map(|one| describe_backup(cloud, one)).collect::<Result<_>>()?;
        Ok(Chunk { items, last: marker(stretch.last) })
    }

    /// The starts of the lists of these things, in order.
    fn places(&self, kinds: &[What]) -> Vec<Place> {
        let places = |cloud: &String| {
            let cloud = cloud.clone();
            kinds.iter().map(move |what| Place { what: *what, cloud: cloud.clone(), after: None }).collect::<Vec<_>>()
        };
        self.clouds.keys().flat_map(places).collect()
    }

    fn status(&self, cloud: &Cloud, share: &Share, published: Vec<NodeId>) -> Result<VolumeStatus> {
        Ok(VolumeStatus {
            volume: Volume {
                id: VolumeHandle::write(&cloud.name, &share.id)?,
                size: gib(share.size)?,
                source: None,
                topology: self.zones.reachable_from(&share.availability_zone, None),
                context: StringMap::new(),
            },
            published,
            health: health(share),
        })
    }
}

async fn chunk_of_snapshots(
    call: &Call,
    cloud: &Cloud,
    listing: &Listing,
    place: &Place,
    most: u32,
) -> Result<Chunk<Snapshot>> {
    let stretch = stretch::<manila::Snapshot>(call, cloud, listing, place, most).await?;
    let staying = stretch.items.iter().filter(|snapshot| snapshot.status != SnapshotStatus::Deleting);
    let items = staying.map(|one| snapshot::describe(cloud, one)).collect::<Result<_>>()?;
    Ok(Chunk { items, last: marker(stretch.last) })
}

async fn stretch<T: Listed>(
    call: &Call,
    cloud: &Cloud,
    listing: &Listing,
    place: &Place,
    most: u32,
) -> Result<Stretch<T>> {
    let after = place.after.as_ref().map(|marker| (marker.id.to_string(), marker.position.unwrap_or(0)));
    cloud.manila.stretch(call, listing, after, most).await
}

fn marker(last: Option<(String, u64)>) -> Option<Marker> {
    last.and_then(|(id, position)| Marker::at(&id, Some(position)))
}

/// What is wrong with a share.
fn health(share: &Share) -> Vec<Health> {
    let problem = |severity, reason, what: &str| {
        vec![Health { severity, reason, message: format!("share {} is {}: {what}", share.id, share.status) }]
    };
    match &share.status {
        ShareStatus::Error => problem(Severity::Inaccessible, "ShareError", "see `openstack share message list`"),
        ShareStatus::ErrorDeleting | ShareStatus::ErrorDeferredDeleting => {
            problem(Severity::Inaccessible, "DeletionFailed", "an administrator has to remove it")
        }
        ShareStatus::ShrinkingPossibleDataLoss => {
            problem(Severity::DataLoss, "ShrinkFailed", "it was shrunk below what is on it")
        }
        ShareStatus::RevertingError => problem(Severity::DataLoss, "RevertFailed", "it was put back in part only"),
        ShareStatus::BackupRestoringError => {
            problem(Severity::DataLoss, "RestoreFailed", "a backup was restored into it only in part")
        }
        ShareStatus::ExtendingError => {
            problem(Severity::Degraded, "ExpansionFailed", "its size is not what was asked for")
        }
        ShareStatus::Inactive => problem(Severity::Inaccessible, "ShareInactive", "its share server is not active"),
        _ if share.access_rules_status == "error" => {
            problem(Severity::Degraded, "AccessRulesFailed", "some of its access rules are not in force")
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::health;
    use crate::model::Severity;
    use crate::openstack::manila::Share;
    use serde_json::json;

    #[test]
    fn what_is_wrong_with_a_share() {
        for (status, rules, expected) in [
            ("available", "active", None),
            ("extending", "syncing", None),
            ("available", "error", Some((Severity::Degraded, "AccessRulesFailed"))),
            ("error", "active", Some((Severity::Inaccessible, "ShareError"))),
            ("extending_error", "active", Some((Severity::Degraded, "ExpansionFailed"))),
            ("reverting_error", "active", Some((Severity::DataLoss, "RevertFailed"))),
        ] {
            let share: Share =
                serde_json::from_value(json!({"id": "s", "status": status, "access_rules_status": rules})).unwrap();
            let found = health(&share).first().map(|problem| (problem.severity, problem.reason));
            assert_eq!(found, expected, "{status} {rules}");
        }
    }
}
