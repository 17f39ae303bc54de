//! The Block Storage API (Cinder): one method per call, and no policy.
//!
//! Each call asks for the lowest microversion that has what it needs, and never for more than the server has; what a
//! server lacks, the caller sees from [`Cinder::has`].

mod objects;
mod sources;

pub use objects::{
    AbsoluteLimits, AttachedTo, Attachment, AttachmentStatus, AttachmentWithInfo, Backup, BackupStatus, Made, Message,
    Pool, PoolCapabilities, Snapshot, SnapshotStatus, Volume, VolumeStatus, VolumeType,
};
pub use sources::{BackupSource, SeenVolume, SnapshotSource, VolumeSource};

use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::openstack::client::{Client, Microversion, Route, found};
use crate::openstack::crowd::LARGEST_PAGE;
use crate::openstack::objects::{Metadata, Part, Quota};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Messages for users can be filtered by resource (3.5; they exist since 3.3).
pub const MESSAGES: Microversion = Microversion(3, 5);
/// A volume in use can be extended.
pub const EXTEND_IN_USE: Microversion = Microversion(3, 42);
/// Backups have metadata.
pub const BACKUP_METADATA: Microversion = Microversion(3, 43);
/// A volume can be made of a backup.
pub const VOLUME_FROM_BACKUP: Microversion = Microversion(3, 47);
/// A backup can be put into a zone (and has metadata).
pub const BACKUP_ZONE: Microversion = Microversion(3, 51);
/// Attachments are objects of their own.
pub const ATTACHMENTS: Microversion = Microversion(3, 27);
/// An attachment can be completed without Nova.
pub const COMPLETE_ATTACHMENT: Microversion = Microversion(3, 44);
/// An attachment can be for reading only.
pub const ATTACHMENT_MODE: Microversion = Microversion(3, 54);
/// Lists of volumes can be filtered by time.
pub const TIME_FILTER: Microversion = Microversion(3, 60);
/// A snapshot of a volume in use needs no `force`, and must not have it.
pub const SNAPSHOT_IN_USE: Microversion = Microversion(3, 66);

/// What a new volume should be.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NewVolume {
    /// Its name.
    pub name: String,
    /// A word for people.
    pub description: String,
    /// GiB.
    pub size: u64,
    /// Its type, by name or id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_type: Option<String>,
    /// Its zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    /// Made of this snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
    /// Made of this volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_volid: Option<String>,
    /// Made of this backup; needs [`VOLUME_FROM_BACKUP`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_id: Option<String>,
    /// Its metadata.
    pub metadata: Metadata,
}

/// What a new snapshot should be.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NewSnapshot {
    /// Its name.
    pub name: String,
    /// A word for people.
    pub description: String,
    /// Of which volume.
    pub volume_id: String,
    /// Whether the volume may be in use; must be absent since [`SNAPSHOT_IN_USE`], where it always may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
    /// Its metadata.
    pub metadata: Metadata,
}

/// What a new backup should be.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NewBackup {
    /// Its name.
    pub name: String,
    /// A word for people.
    pub description: String,
    /// Of which volume.
    pub volume_id: String,
    /// From this snapshot of it.
    pub snapshot_id: String,
    /// Whether the volume may be in use.
    pub force: bool,
    /// Into which zone; needs [`BACKUP_ZONE`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    /// Its metadata; needs [`BACKUP_METADATA`].
    pub metadata: Metadata,
}

/// What a new attachment to a host should be. It has no server, so that Nova is never asked about it.
#[derive(Debug, Clone)]
pub struct NewAttachment<'a> {
    /// Of which volume.
    pub volume: &'a str,
    /// What back ends need to know of the host.
    pub connector: serde_json::Value,
    /// Whether the host only reads; older Cinders are not told.
    pub read_only: bool,
}

/// Which part of which list.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    filters: Vec<(&'static str, String)>,
}

impl Listing {
    /// All, from the start.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Those of this name. Some databases ignore case and trailing blanks here: compare again.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        self.with("name", name)
    }

    /// Those in this status.
    #[must_use]
    pub fn in_status(self, status: &str) -> Self {
        self.with("status", status)
    }

    /// Snapshots or backups of this volume.
    #[must_use]
    pub fn of_volume(self, volume: &str) -> Self {
        self.with("volume_id", volume)
    }

    /// Those that changed at or after this time; needs [`TIME_FILTER`].
    #[must_use]
    pub fn changed_since(self, time: jiff::Timestamp) -> Self {
        let civil = time.to_zoned(jiff::tz::TimeZone::UTC).datetime();
        self.with("updated_at", format!("gte:{}", civil.strftime("%Y-%m-%dT%H:%M:%S")))
    }

    /// Those that changed last come first.
    #[must_use]
    pub fn latest_change_first(self) -> Self {
        self.with("sort", "updated_at:desc")
    }

    /// At most so many.
    #[must_use]
    pub fn at_most(self, limit: u32) -> Self {
        self.with("limit", limit)
    }

    /// Those after this one.
    #[must_use]
    pub fn after(self, marker: Option<&str>) -> Self {
        match marker {
            Some(marker) => self.with("marker", marker),
            None => self,
        }
    }

    fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.filters.push((key, value.to_string()));
        self
    }

    fn onto(self, route: Route) -> Route {
        self.filters.into_iter().fold(route, |route, (key, value)| route.query(key, value))
    }
}

/// The calls. Cheap to clone.
///
/// Errors of every method: see [`Client`]. Ids are not looked at here.
#[derive(Debug, Clone)]
pub struct Cinder {
    client: Client,
}

macro_rules! envelope {
    ($($name:ident { $field:ident: $object:ty })*) => {
        $(#[derive(Serialize, Deserialize)] struct $name<T = $object> { $field: T })*
    };
}

envelope! {
    VolumeBody { volume: Volume }
    SnapshotBody { snapshot: Snapshot }
    BackupBody { backup: Backup }
    LimitsBody { limits: AbsoluteBody }
    QuotaBody { quota_set: HashMap<String, serde_json::Value> }
    PoolsBody { pools: Vec<Pool> }
    AttachmentsBody { attachments: Vec<Attachment> }
    AttachmentBody { attachment: AttachmentWithInfo }
    MessagesBody { messages: Vec<Message> }
    TypeBody { volume_type: VolumeType }
    TypesBody { volume_types: Vec<VolumeType> }
}

#[derive(Serialize, Deserialize)]
struct AbsoluteBody<T = AbsoluteLimits> {
    absolute: T,
}

#[derive(Deserialize)]
struct VolumesBody {
    volumes: Vec<Volume>,
    #[serde(default)]
    volumes_links: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct SnapshotsBody {
    snapshots: Vec<Snapshot>,
    #[serde(default)]
    snapshots_links: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct BackupsBody {
    backups: Vec<Backup>,
    #[serde(default)]
    backups_links: Vec<serde::de::IgnoredAny>,
}

#[allow(missing_docs, reason = "the names of the methods say what the calls do")]
#[allow(clippy::missing_errors_doc, reason = "see the type")]
impl Cinder {
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The client below.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the service has this microversion.
    pub async fn has(&self, call: &Call, version: Microversion) -> Result<bool> {
        Ok(self.client.highest(call).await? >= version)
    }

    /// This microversion, or the highest that the service has.
    async fn up_to(&self, call: &Call, version: Microversion) -> Result<Microversion> {
        Ok(self.client.highest(call).await?.min(version))
    }

    /// Fails with a sentence where the service is too old for something.
    async fn require(&self, call: &Call, version: Microversion, what: &str) -> Result<()> {
        let highest = self.client.highest(call).await?;
        if highest >= version {
            return Ok(());
        }
        Err(Error::unsupported(format!("{what} needs Cinder with microversion {version}, and this one has {highest}")))
    }

    pub async fn create_volume(&self, call: &Call, new: &NewVolume) -> Result<Volume> {
        let mut route = Route::new("/volumes");
        if new.backup_id.is_some() {
            self.require(call, VOLUME_FROM_BACKUP, "a volume made of a backup").await?;
            route = route.microversion(VOLUME_FROM_BACKUP);
        }
        Ok(self.client.post::<VolumeBody>(call, route, &VolumeBody { volume: new }).await?.volume)
    }

    pub async fn volume(&self, call: &Call, id: &str) -> Result<Volume> {
        Ok(self.client.get::<VolumeBody>(call, Route::new("/volumes/{}").id(id)).await?.volume)
    }

    pub async fn volumes(&self, call: &Call, listing: Listing) -> Result<Part<Volume>> {
        let version = self.up_to(call, TIME_FILTER).await?;
        let route = listing.onto(Route::new("/volumes/detail").microversion(version));
        let body: VolumesBody = self.client.get(call, route).await?;
        Ok(Part { items: body.volumes, more: !body.volumes_links.is_empty() })
    }

    /// Every page of a list of volumes.
    pub async fn all_volumes(&self, call: &Call, listing: Listing) -> Result<Vec<Volume>> {
        let mut all: Vec<Volume> = Vec::new();
        loop {
            let page = listing.clone().at_most(LARGEST_PAGE).after(all.last().map(|volume| volume.id.as_str()));
            let part = self.volumes(call, page).await?;
            let is_last = !part.more || part.items.is_empty();
            all.extend(part.items);
            if is_last {
                return Ok(all);
            }
        }
    }

    pub async fn delete_volume(&self, call: &Call, id: &str) -> Result<()> {
        self.client.delete(call, Route::new("/volumes/{}").id(id)).await
    }

    pub async fn extend_volume(&self, call: &Call, id: &str, gib: u64) -> Result<()> {
        let version = self.up_to(call, EXTEND_IN_USE).await?;
        let route = Route::new("/volumes/{}/action").id(id).microversion(version);
        self.client.act(call, route, &serde_json::json!({"os-extend": {"new_size": gib}})).await
    }

    /// Takes a volume that is `detaching` back to `in-use`, where whoever was detaching it is gone.
    pub async fn stop_detaching(&self, call: &Call, id: &str) -> Result<()> {
        let route = Route::new("/volumes/{}/action").id(id);
        self.client.act(call, route, &serde_json::json!({"os-roll_detaching": {}})).await
    }

    /// A volume type, by its name or id; without either, the default one. None if there is no such type.
    pub async fn volume_type(&self, call: &Call, name: Option<&str>) -> Result<Option<VolumeType>> {
        let Some(name) = name else {
            return found(
                self.client.get::<TypeBody>(call, Route::new("/types/default")).await.map(|body| body.volume_type),
            );
        };
        // Only the list can be asked for names, and only as a whole.
        let types = self.client.get::<TypesBody>(call, Route::new("/types")).await?.volume_types;
        Ok(types.into_iter().find(|one| one.name == name || one.id == name))
    }

    pub async fn create_snapshot(&self, call: &Call, new: &NewSnapshot) -> Result<Snapshot> {
        let version = self.up_to(call, SNAPSHOT_IN_USE).await?;
        let route = Route::new("/snapshots").microversion(version);
        Ok(self.client.post::<SnapshotBody>(call, route, &SnapshotBody { snapshot: new }).await?.snapshot)
    }

    pub async fn snapshot(&self, call: &Call, id: &str) -> Result<Snapshot> {
        Ok(self.client.get::<SnapshotBody>(call, Route::new("/snapshots/{}").id(id)).await?.snapshot)
    }

    pub async fn snapshots(&self, call: &Call, listing: Listing) -> Result<Part<Snapshot>> {
        let body: SnapshotsBody = self.client.get(call, listing.onto(Route::new("/snapshots/detail"))).await?;
        Ok(Part { items: body.snapshots, more: !body.snapshots_links.is_empty() })
    }

    pub async fn delete_snapshot(&self, call: &Call, id: &str) -> Result<()> {
        self.client.delete(call, Route::new("/snapshots/{}").id(id)).await
    }

    pub async fn create_backup(&self, call: &Call, new: &NewBackup) -> Result<Made> {
        // Without metadata a backup could not be told from somebody else's.
        self.require(call, BACKUP_METADATA, "a backup").await?;
        if new.availability_zone.is_some() {
            self.require(call, BACKUP_ZONE, "a backup in a zone of its own").await?;
        }
        let version = if new.availability_zone.is_some() { BACKUP_ZONE } else { BACKUP_METADATA };
        let route = Route::new("/backups").microversion(version);
        Ok(self.client.post::<BackupBody<Made>>(call, route, &BackupBody { backup: new }).await?.backup)
    }

    pub async fn backup(&self, call: &Call, id: &str) -> Result<Backup> {
        let version = self.up_to(call, BACKUP_METADATA).await?;
        let route = Route::new("/backups/{}").id(id).microversion(version);
        Ok(self.client.get::<BackupBody>(call, route).await?.backup)
    }

    pub async fn backups(&self, call: &Call, listing: Listing) -> Result<Part<Backup>> {
        let version = self.up_to(call, BACKUP_METADATA).await?;
        let route = listing.onto(Route::new("/backups/detail").microversion(version));
        let body: BackupsBody = self.client.get(call, route).await?;
        Ok(Part { items: body.backups, more: !body.backups_links.is_empty() })
    }

    pub async fn delete_backup(&self, call: &Call, id: &str) -> Result<()> {
        self.client.delete(call, Route::new("/backups/{}").id(id)).await
    }

    /// The attachments of a volume, in whatever state.
    pub async fn attachments(&self, call: &Call, volume: &str) -> Result<Vec<Attachment>> {
        let route = Route::new("/attachments").query("volume_id", volume).microversion(ATTACHMENTS);
        Ok(self.client.get::<AttachmentsBody>(call, route).await?.attachments)
    }

    /// One attachment, with what is needed to use it.
    pub async fn attachment(&self, call: &Call, id: &str) -> Result<AttachmentWithInfo> {
        let version = self.up_to(call, ATTACHMENT_MODE).await?;
        let route = Route::new("/attachments/{}").id(id).microversion(version);
        Ok(self.client.get::<AttachmentBody>(call, route).await?.attachment)
    }

    /// Makes a volume reachable from a host. The volume stays `attaching` until the attachment is completed.
    pub async fn create_attachment(&self, call: &Call, new: &NewAttachment<'_>) -> Result<AttachmentWithInfo> {
        self.require(call, COMPLETE_ATTACHMENT, "a volume at a host that is no server of Nova").await?;
        let version = self.up_to(call, ATTACHMENT_MODE).await?;
        let mut attachment = serde_json::json!({"volume_uuid": new.volume, "connector": new.connector});
        if version >= ATTACHMENT_MODE
            && let Some(attachment) = attachment.as_object_mut()
        {
            attachment.insert("mode".to_owned(), if new.read_only { "ro" } else { "rw" }.into());
        }
        let route = Route::new("/attachments").microversion(version);
        let body = serde_json::json!({ "attachment": attachment });
        Ok(self.client.post::<AttachmentBody>(call, route, &body).await?.attachment)
    }

    /// Says that the host uses the volume: it is in use from then on.
    pub async fn complete_attachment(&self, call: &Call, id: &str) -> Result<()> {
        let route = Route::new("/attachments/{}/action").id(id).microversion(COMPLETE_ATTACHMENT);
        self.client.act(call, route, &serde_json::json!({"os-complete": {}})).await
    }

    /// Removes an attachment. Cinder refuses (409) where Nova still has it.
    pub async fn delete_attachment(&self, call: &Call, id: &str) -> Result<()> {
        self.client.delete(call, Route::new("/attachments/{}").id(id).microversion(ATTACHMENTS)).await
    }

    /// What Cinder says to users about an object, the newest first; nothing where it is too old to say anything.
    pub async fn messages(&self, call: &Call, resource: &str) -> Result<Vec<Message>> {
        if !self.has(call, MESSAGES).await? {
            return Ok(Vec::new());
        }
        let route = Route::new("/messages").query("resource_uuid", resource).microversion(MESSAGES);
        let mut messages = self.client.get::<MessagesBody>(call, route).await?.messages;
        messages.sort_by_key(|message| std::cmp::Reverse(message.created_at));
        Ok(messages)
    }

    pub async fn limits(&self, call: &Call) -> Result<AbsoluteLimits> {
        Ok(self.client.get::<LimitsBody>(call, Route::new("/limits")).await?.limits.absolute)
    }

    /// The quotas of a project and what is used of them: `gigabytes`, `gigabytes_<type>`, `per_volume_gigabytes`, …
    pub async fn quotas(&self, call: &Call, project: &str) -> Result<HashMap<String, Quota>> {
        let route = Route::new("/os-quota-sets/{}").id(project).query("usage", "True");
        let set = self.client.get::<QuotaBody>(call, route).await?.quota_set;
        // The set also holds the project's id, which is no quota.
        Ok(set.into_iter().filter_map(|(key, value)| Some((key, serde_json::from_value(value).ok()?))).collect())
    }

    /// The storage pools; none where the credential may not see them.
    pub async fn pools(&self, call: &Call) -> Result<Option<Vec<Pool>>> {
        let route = Route::new("/scheduler-stats/get_pools").query("detail", "True");
        match self.client.get::<PoolsBody>(call, route).await {
            Ok(body) => Ok(Some(body.pools)),
            Err(error) if error.is(Kind::Denied) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Listing, NewSnapshot, NewVolume};
    use crate::openstack::client::Route;
    use serde_json::json;

    #[test]
    fn what_was_not_asked_for_is_not_sent() {
        let new = NewVolume { name: "n".to_owned(), size: 1, ..NewVolume::default() };
        assert_eq!(
            serde_json::to_value(new).unwrap(),
            json!({"name": "n", "description": "", "size": 1, "metadata": {}})
        );
        let new = NewSnapshot { volume_id: "v".to_owned(), ..NewSnapshot::default() };
        assert!(serde_json::to_value(new).unwrap().get("force").is_none());
    }

    #[test]
    fn time_filters_are_utc_without_fraction() {
        let listing = Listing::all().changed_since("2026-11-21T08:54:16.75Z".parse().unwrap());
        assert_eq!(listing.filters, [("updated_at", "gte:2026-11-21T08:54:16".to_owned())]);
        assert_eq!(listing.onto(Route::new("/volumes/detail")).path(), "/volumes/detail");
    }
}
