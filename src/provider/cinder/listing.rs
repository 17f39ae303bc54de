//! Looking at volumes, snapshots and backups, one or page by page.
//!
//! Lists go through the clouds by name, and within a cloud through snapshots and then backups. A page token says where
//! to go on: what, in which cloud, after which object. Cinder refuses a marker that was deleted meanwhile; the list
//! then starts again.

use super::attachment::attached_nodes;
use super::parameters::VolumeParameters;
use super::volume::{gib, needs_sharing};
use super::{CinderProvider, Cloud};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::model::{
    Capability, Health, Page, PageRequest, Severity, Snapshot, SnapshotFilter, StringMap, Volume, VolumeId,
    VolumeStatus,
};
use crate::openstack::cinder::{self, BackupStatus, LARGEST_PAGE, Listing, SnapshotStatus};
use crate::provider::Snapshots;
use crate::provider::handle::{Uuid, VolumeHandle};
use std::num::NonZeroU32;

/// What is listed in one go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Volumes,
    Snapshots,
    Backups,
}

impl What {
    const fn letter(self) -> &'static str {
        match self {
            Self::Volumes => "v",
            Self::Snapshots => "s",
            Self::Backups => "b",
        }
    }
}

/// Where a list goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    what: What,
    cloud: String,
    /// After this object; none for the first.
    after: Option<Uuid>,
}

impl Place {
    fn write(&self) -> String {
        let after = self.after.as_ref().map_or("", Uuid::as_str);
        format!("{}:{after}:{}", self.what.letter(), self.cloud)
    }

    fn parse(token: &str) -> Option<Self> {
        let (letter, rest) = token.split_once(':')?;
        let (after, cloud) = rest.split_once(':')?;
        let what = [What::Volumes, What::Snapshots, What::Backups].into_iter().find(|what| what.letter() == letter)?;
        let after = if after.is_empty() { None } else { Some(Uuid::parse(after)?) };
        Some(Self { what, cloud: cloud.to_owned(), after })
    }
}

/// The way of one page through the lists.
struct Walk {
    here: Option<Place>,
    next: std::vec::IntoIter<Place>,
    most: Option<NonZeroU32>,
}

impl Walk {
    /// Begins where the token says, or with the first of these lists.
    fn begin(page: &PageRequest, places: Vec<Place>) -> Result<Self> {
        let mut next = places.into_iter();
        let here = match &page.token {
            None => next.next(),
            Some(token) => {
                let begun = Place::parse(token).ok_or_else(|| stale(token))?;
                if !next.any(|place| place.what == begun.what && place.cloud == begun.cloud) {
                    return Err(stale(token));
                }
                Some(begun)
            }
        };
        Ok(Self { here, next, most: page.most })
    }

    /// Where to look now, and for how many; none when the page is full or everything was seen.
    fn step(&self, have: usize) -> Option<(Place, u32)> {
        Some((self.here.clone()?, room_left(self.most, have)?))
    }

    /// Goes on after what was seen, and gives it.
    fn pass<T>(&mut self, seen: Result<Chunk<T>>) -> Result<Vec<T>> {
        let here = self.here.take();
        let chunk = match (seen, &here) {
            // Not the list is missing but the object that it should go on after.
            (Err(error), Some(place))
                if place.after.is_some() && matches!(error.kind(), Kind::NotFound | Kind::InvalidArgument) =>
            {
                return Err(stale(&place.write()).because(error));
            }
            (seen, _) => seen?,
        };
        self.here = match (chunk.last.as_deref().and_then(Uuid::parse), here) {
            (Some(last), Some(here)) => Some(Place { after: Some(last), ..here }),
            _ => self.next.next(),
        };
        Ok(chunk.items)
    }

    /// The token of the next page; none after everything.
    fn token(&self) -> Option<String> {
        self.here.as_ref().map(Place::write)
    }
}

/// What one request for a part of a list brought.
struct Chunk<T> {
    items: Vec<T>,
    /// The last object that was looked at, where there are more after it.
    last: Option<String>,
}

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
            let cloud = self.cloud(&place.cloud)?;
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
                let cloud = self.cloud(&handle.cloud)?.name.clone();
                places.retain(|place| place.cloud == cloud);
                Some(handle.id)
            }
        };
        let mut walk = Walk::begin(page, places)?;
        let mut items = Vec::new();
        while let Some((place, most)) = walk.step(items.len()) {
            let cloud = self.cloud(&place.cloud)?;
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
        let last = part.items.last().filter(|_| part.more).map(|volume| volume.id.clone());
        let items = part.items.iter().map(|volume| self.status(cloud, volume)).collect::<Result<_>>()?;
        Ok(Chunk { items, last })
    }

    async fn chunk_of_snapshots(&self, call: &Call, cloud: &Cloud, listing: Listing) -> Result<Chunk<Snapshot>> {
        let part = cloud.cinder.snapshots(call, listing).await?;
        let last = part.items.last().filter(|_| part.more).map(|snapshot| snapshot.id.clone());
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
        let last = part.items.last().filter(|_| part.more).map(|backup| backup.id.clone());
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
        Ok(VolumeStatus {
            volume: Volume {
                id: VolumeHandle::write(&cloud.name, &volume.id)?,
                size: gib(volume.size)?,
                source: None,
                topology: self.zones.reachable_from(&volume.availability_zone, None),
                context: StringMap::new(),
            },
            published: attached_nodes(volume),
            health: health(volume),
        })
    }
}

/// How many more entries a page takes; none when it is full.
fn room_left(most: Option<NonZeroU32>, have: usize) -> Option<u32> {
    let Some(most) = most else { return Some(LARGEST_PAGE) };
    let left = most.get().saturating_sub(u32::try_from(have).unwrap_or(u32::MAX));
    (left > 0).then(|| left.min(LARGEST_PAGE))
}

fn part_of(place: &Place, most: u32) -> Listing {
    Listing::all().at_most(most).after(place.after.as_ref().map(Uuid::as_str))
}

fn stale(token: &str) -> Error {
    Error::new(Kind::StaleToken, format!("the page token {token:?} is not valid (any more); start the list again"))
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
    use super::{Chunk, Place, Walk, What, health, room_left};
    use crate::error::{Error, Kind};
    use crate::model::{PageRequest, Severity};
    use crate::openstack::cinder::Volume;
    use crate::provider::handle::Uuid;
    use proptest::prelude::{any, proptest};
    use serde_json::json;
    use std::num::NonZeroU32;

    #[test]
    fn page_tokens_are_read_back() {
        let id = Uuid::parse("6c1b7a0e-0f5b-4b07-9f3a-5f6a0a3f9a11").unwrap();
        for (what, cloud, after) in
            [(What::Volumes, "", None), (What::Snapshots, "east", Some(id.clone())), (What::Backups, "a:b", Some(id))]
        {
            let place = Place { what, cloud: cloud.to_owned(), after };
            assert_eq!(Place::parse(&place.write()), Some(place));
        }
        for token in ["", "v", "v:", "x::", "v:1:", "invalid-token"] {
            assert_eq!(Place::parse(token), None, "{token}");
        }
    }

    #[test]
    fn a_page_is_full_when_it_has_what_was_asked_for() {
        let most = NonZeroU32::new;
        assert_eq!(room_left(None, 5000), Some(1000));
        assert_eq!(room_left(most(5), 0), Some(5));
        assert_eq!(room_left(most(5), 4), Some(1));
        assert_eq!(room_left(most(5), 5), None);
        assert_eq!(room_left(most(5), 9), None);
        assert_eq!(room_left(most(5000), 0), Some(1000));
    }

    #[test]
    fn a_list_goes_through_all_its_places_and_stops_when_the_page_is_full() {
        let places = || {
            [(What::Snapshots, "a"), (What::Backups, "a"), (What::Snapshots, "b")]
                .map(|(what, cloud)| Place { what, cloud: cloud.to_owned(), after: None })
                .to_vec()
        };
        let last = "6c1b7a0e-0f5b-4b07-9f3a-5f6a0a3f9a11";
        let mut page = PageRequest { most: NonZeroU32::new(2), token: None };
        let mut walk = Walk::begin(&page, places()).unwrap();
        assert_eq!(walk.step(0).unwrap().1, 2);
        walk.pass(Ok(Chunk { items: vec![1, 2], last: Some(last.to_owned()) })).unwrap();
        assert!(walk.step(2).is_none());

        page.token = walk.token();
        let mut walk = Walk::begin(&page, places()).unwrap();
        assert_eq!(walk.step(0).unwrap().0.after.unwrap().as_str(), last);
        walk.pass(Ok(Chunk { items: vec![3], last: None })).unwrap();
        let (place, most) = walk.step(1).unwrap();
        assert_eq!((place.what, place.cloud.as_str(), most), (What::Backups, "a", 1));
        walk.pass(Ok(Chunk::<u8> { items: Vec::new(), last: None })).unwrap();
        walk.pass(Ok(Chunk { items: vec![4], last: None })).unwrap();
        assert_eq!(walk.token(), None);
        assert!(walk.step(0).is_none());

        for token in ["nonsense", "v::a", "s::c"] {
            page.token = Some(token.to_owned());
            assert_eq!(Walk::begin(&page, places()).err().unwrap().kind(), Kind::StaleToken);
        }
    }

    #[test]
    fn a_marker_that_is_gone_makes_the_token_stale() {
        let page = PageRequest { most: None, token: Some("v:6c1b7a0e-0f5b-4b07-9f3a-5f6a0a3f9a11:".to_owned()) };
        let places = vec![Place { what: What::Volumes, cloud: String::new(), after: None }];
        let gone = || Err::<Chunk<u8>, _>(Error::not_found("no such marker"));
        assert_eq!(Walk::begin(&page, places.clone()).unwrap().pass(gone()).unwrap_err().kind(), Kind::StaleToken);
        let page = PageRequest::default();
        assert_eq!(Walk::begin(&page, places).unwrap().pass(gone()).unwrap_err().kind(), Kind::NotFound);
    }

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

    proptest! {
        #[test]
        fn any_text_is_a_token_or_not(token in any::<String>()) {
            let _ = Place::parse(&token);
        }
    }
}
