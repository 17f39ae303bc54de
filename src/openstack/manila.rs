//! The Shared File Systems API (Manila): one method per call, and no policy.
//!
//! Each call asks for the microversion that has what it needs, and never for more than the server has; what a server
//! lacks, the caller sees from [`Manila::has`].

mod listing;
mod objects;
mod sources;

pub use listing::Listing;
pub use objects::{
    AbsoluteLimits, AccessLevel, AccessRule, AccessType, Backup, BackupStatus, ExportLocation, Message, Protocol,
    RuleState, Share, ShareStatus, Snapshot, SnapshotStatus,
};
pub use sources::{ObjectSource, RuleSource, Seen};

use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::openstack::client::{Client, Microversion, Refusal, Route};
use crate::openstack::crowd::LARGEST_PAGE;
use crate::openstack::objects::{Metadata, Part, Quota};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// What this driver cannot do without: access rules as objects, with metadata.
pub const LOWEST: Microversion = Microversion(2, 45);
/// Shares being made of snapshots say so in their status.
const FROM_SNAPSHOT_STATUS: Microversion = Microversion(2, 54);
/// A share can be put beside others, or away from them.
pub const SCHEDULER_HINTS: Microversion = Microversion(2, 65);
/// Snapshots have metadata.
pub const SNAPSHOT_METADATA: Microversion = Microversion(2, 73);
/// Rules can be made and revoked while others of the share are in error.
const RULES_BESIDE_ERRORS: Microversion = Microversion(2, 74);
/// Share backups, which Manila calls experimental; shares say which one was restored into them.
pub const BACKUPS: Microversion = Microversion(2, 80);
/// The level of an access rule can be changed.
pub const CHANGE_LEVEL: Microversion = Microversion(2, 88);
/// A backup can be restored into another share than its own.
pub const RESTORE_ELSEWHERE: Microversion = Microversion(2, 91);
/// Quotas of a share type.
const TYPE_QUOTAS: Microversion = Microversion(2, 39);
/// Quotas say how large a single share may be.
const SHARE_SIZE_QUOTA: Microversion = Microversion(2, 53);

/// What a new share should be.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NewShare {
    /// Its name.
    pub name: String,
    /// A word for people.
    pub description: String,
    /// GiB.
    pub size: u64,
    /// By what protocol it is mounted.
    pub share_proto: String,
    /// Its type, by name or id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share_type: Option<String>,
    /// Its zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    /// The share network it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share_network_id: Option<String>,
    /// The share group it becomes a member of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share_group_id: Option<String>,
    /// Made of this snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
    /// Beside or away from which shares; needs [`SCHEDULER_HINTS`].
    #[serde(skip_serializing_if = "SchedulerHints::is_empty")]
    pub scheduler_hints: SchedulerHints,
    /// Its metadata.
    pub metadata: Metadata,
}

/// Beside or away from which shares a new one is put: their ids, separated by commas.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SchedulerHints {
    /// On the same host as these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_host: Option<String>,
    /// On other hosts than these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub different_host: Option<String>,
}

impl SchedulerHints {
    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.same_host.is_none() && self.different_host.is_none()
    }
}

/// What a new snapshot should be.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NewSnapshot {
    /// Its name.
    pub name: String,
    /// A word for people.
    pub description: String,
    /// Of which share.
    pub share_id: String,
    /// Its metadata; ignored before [`SNAPSHOT_METADATA`].
    pub metadata: Metadata,
}

/// What a new backup should be.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NewBackup {
    /// Its name.
    pub name: String,
    /// A word for people.
    pub description: String,
    /// Of which share.
    pub share_id: String,
}

/// What a new access rule should be.
#[derive(Debug, Clone, Serialize)]
pub struct NewRule {
    /// Who is meant.
    pub access_type: &'static str,
    /// Who exactly.
    pub access_to: String,
    /// What is allowed.
    pub access_level: &'static str,
    /// Its metadata.
    pub metadata: Metadata,
}

/// What Manila has lists of.
#[async_trait]
pub trait Listed: Clone + Send + Sync + 'static {
    /// The id.
    fn id(&self) -> &str;
    /// The name; not unique.
    fn name(&self) -> &str;
    /// One of them.
    ///
    /// # Errors
    /// See [`Client`].
    async fn one(manila: &Manila, call: &Call, id: &str) -> Result<Self>;
    /// A part of the list, with details.
    ///
    /// # Errors
    /// See [`Client`].
    async fn part(manila: &Manila, call: &Call, listing: Listing) -> Result<Part<Self>>;
}

/// A part of a list in the order of ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch<T> {
    /// The entries.
    pub items: Vec<T>,
    /// The last of them and its position in the list, where there are more after it.
    pub last: Option<(String, u64)>,
}

/// The calls. Cheap to clone.
///
/// Errors of every method: see [`Client`]. Ids are not looked at here.
#[derive(Debug, Clone)]
pub struct Manila {
    client: Client,
}

macro_rules! envelope {
    ($($name:ident { $field:ident: $object:ty })*) => {
        $(#[derive(Serialize, Deserialize)] struct $name<T = $object> { $field: T })*
    };
}

envelope! {
    ShareBody { share: Share }
    SnapshotBody { snapshot: Snapshot }
    BackupBody { share_backup: Backup }
    LimitsBody { limits: AbsoluteBody }
    QuotaBody { quota_set: HashMap<String, serde_json::Value> }
    MessagesBody { messages: Vec<Message> }
    ExportsBody { export_locations: Vec<ExportLocation> }
    RuleBody { access: AccessRule }
    RulesBody { access_list: Vec<AccessRule> }
    MetadataBody { metadata: Metadata }
}

#[derive(Deserialize)]
struct AbsoluteBody {
    absolute: AbsoluteLimits,
}

macro_rules! list_body {
    ($($name:ident { $field:ident: $object:ty, $links:ident })*) => {
        $(#[derive(Deserialize)]
        struct $name {
            $field: Vec<$object>,
            #[serde(default)]
            $links: Vec<serde::de::IgnoredAny>,
        })*
    };
}

list_body! {
    SharesBody { shares: Share, shares_links }
    SnapshotsBody { snapshots: Snapshot, share_snapshots_links }
    BackupsBody { share_backups: Backup, share_backups_links }
}

#[async_trait]
impl Listed for Share {
    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    async fn one(manila: &Manila, call: &Call, id: &str) -> Result<Self> {
        let route = Route::new("/shares/{}").id(id).microversion(manila.up_to(call, BACKUPS).await?);
        Ok(manila.client.get::<ShareBody>(call, route).await?.share)
    }

    async fn part(manila: &Manila, call: &Call, listing: Listing) -> Result<Part<Self>> {
        let route = Route::new("/shares/detail").microversion(manila.up_to(call, BACKUPS).await?);
        let body: SharesBody = manila.client.get(call, listing.onto(route)).await?;
        Ok(Part { items: body.shares, more: !body.shares_links.is_empty() })
    }
}

#[async_trait]
impl Listed for Snapshot {
    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    async fn one(manila: &Manila, call: &Call, id: &str) -> Result<Self> {
        let route = Route::new("/snapshots/{}").id(id).microversion(manila.up_to(call, SNAPSHOT_METADATA).await?);
        Ok(manila.client.get::<SnapshotBody>(call, route).await?.snapshot)
    }

    async fn part(manila: &Manila, call: &Call, listing: Listing) -> Result<Part<Self>> {
        let route = Route::new("/snapshots/detail").microversion(manila.up_to(call, SNAPSHOT_METADATA).await?);
        let body: SnapshotsBody = manila.client.get(call, listing.onto(route)).await?;
        Ok(Part { items: body.snapshots, more: !body.share_snapshots_links.is_empty() })
    }
}

#[async_trait]
impl Listed for Backup {
    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    async fn one(manila: &Manila, call: &Call, id: &str) -> Result<Self> {
        let route = Route::new("/share-backups/{}").id(id).microversion(BACKUPS).experimental();
        Ok(manila.client.get::<BackupBody>(call, route).await?.share_backup)
    }

    async fn part(manila: &Manila, call: &Call, listing: Listing) -> Result<Part<Self>> {
        let route = Route::new("/share-backups/detail").microversion(BACKUPS).experimental();
        let body: BackupsBody = manila.client.get(call, listing.onto(route)).await?;
        Ok(Part { items: body.share_backups, more: !body.share_backups_links.is_empty() })
    }
}

#[allow(missing_docs, reason = "the names of the methods say what the calls do")]
#[allow(clippy::missing_errors_doc, reason = "see the type")]
impl Manila {
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
    pub async fn require(&self, call: &Call, version: Microversion, what: &str) -> Result<()> {
        let highest = self.client.highest(call).await?;
        if highest >= version {
            return Ok(());
        }
        Err(Error::unsupported(format!("{what} needs Manila with microversion {version}, and this one has {highest}")))
    }

    /// One object.
    pub async fn one<T: Listed>(&self, call: &Call, id: &str) -> Result<T> {
        T::one(self, call, id).await
    }

    /// Every object of a list.
    pub async fn all<T: Listed>(&self, call: &Call, listing: Listing) -> Result<Vec<T>> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let Stretch { items, last } = self.stretch(call, &listing, after, LARGEST_PAGE).await?;
            all.extend(items);
            match last {
                Some(last) => after = Some(last),
                None => return Ok(all),
            }
        }
    }

    /// At most so many of a list, in the order of their ids, after an object that was at a position when it was seen.
    ///
    /// Manila counts instead of knowing markers. What was made or removed meanwhile has moved the rest, so the place is
    /// looked for: nothing is shown twice or left out that was there all the time.
    pub async fn stretch<T: Listed>(
        &self,
        call: &Call,
        listing: &Listing,
        after: Option<(String, u64)>,
        most: u32,
    ) -> Result<Stretch<T>> {
        let ordered = listing.clone().by_id();
        let Some((marker, position)) = after else {
            let part = T::part(self, call, ordered.at_most(most)).await?;
            return Ok(Stretch::new(part, 0, 0, most));
        };
        // One more than wanted: the object itself is the proof of the place.
        let limit = most.saturating_add(1).min(LARGEST_PAGE);
        let (mut from, mut is_proven) = (position, false);
        loop {
            let part = T::part(self, call, ordered.clone().at_most(limit).after(from)).await?;
            let known = part.items.iter().take_while(|item| item.id() <= marker.as_str()).count();
            let count = u64::try_from(part.items.len()).unwrap_or(u64::MAX);
            if known == 0 && from > 0 && !is_proven {
                from = from.saturating_sub(u64::from(limit));
            } else if known == part.items.len() && part.more && count > 0 {
                // The last of these is seen again as the proof, lest what begins right after it leads back here. Where
                // a service shows one at a time, to have come by is proof enough.
                is_proven = count == 1;
                from = from.saturating_add(count.saturating_sub(1).max(1));
            } else {
                return Ok(Stretch::new(part, from, known, most));
            }
        }
    }

    pub async fn create_share(&self, call: &Call, new: &NewShare) -> Result<Share> {
        let version = if new.scheduler_hints.is_empty() {
            self.up_to(call, FROM_SNAPSHOT_STATUS).await?
        } else {
            self.require(call, SCHEDULER_HINTS, "affinity between shares").await?;
            SCHEDULER_HINTS
        };
        let route = Route::new("/shares").microversion(version);
        Ok(self.client.post::<ShareBody>(call, route, &ShareBody { share: new }).await?.share)
    }

    /// Deletes a share; a member of a share group has to say so.
    pub async fn delete_share(&self, call: &Call, id: &str, group: Option<&str>) -> Result<()> {
        let mut route = Route::new("/shares/{}").id(id).microversion(LOWEST);
        if let Some(group) = group {
            route = route.query("share_group_id", group);
        }
        self.client.delete(call, route).await
    }

    pub async fn extend_share(&self, call: &Call, id: &str, gib: u64) -> Result<()> {
        let route = Route::new("/shares/{}/action").id(id).microversion(LOWEST);
        self.client.act(call, route, &serde_json::json!({"extend": {"new_size": gib}})).await
    }

    /// Adds to the metadata of a share.
    pub async fn tag_share(&self, call: &Call, id: &str, metadata: &Metadata) -> Result<()> {
        let route = Route::new("/shares/{}/metadata").id(id).microversion(LOWEST);
        self.client.act(call, route, &MetadataBody { metadata }).await
    }

    /// Removes an entry from the metadata of a share.
    pub async fn untag_share(&self, call: &Call, id: &str, key: &str) -> Result<()> {
        self.client.delete(call, Route::new("/shares/{}/metadata/{}").id(id).id(key).microversion(LOWEST)).await
    }

    pub async fn export_locations(&self, call: &Call, share: &str) -> Result<Vec<ExportLocation>> {
        let version = self.up_to(call, FROM_SNAPSHOT_STATUS).await?;
        let route = Route::new("/shares/{}/export_locations").id(share).microversion(version);
        Ok(self.client.get::<ExportsBody>(call, route).await?.export_locations)
    }

    /// The access rules of a share, in whatever state.
    pub async fn rules(&self, call: &Call, share: &str) -> Result<Vec<AccessRule>> {
        let route = Route::new("/share-access-rules").query("share_id", share).microversion(LOWEST);
        match self.client.get::<RulesBody>(call, route).await {
            Ok(body) => Ok(body.access_list),
            // A share that is not there is a wrong parameter here.
            Err(error) if error.cause::<Refusal>().is_some_and(is_missing_share) => Err(error.as_kind(Kind::NotFound)),
            Err(error) => Err(error),
        }
    }

    /// Makes an access rule. Manila refuses (400) one for whom there is a rule already, whatever that allows.
    pub async fn allow(&self, call: &Call, share: &str, new: &NewRule) -> Result<AccessRule> {
        #[derive(Serialize)]
        struct Body<'a> {
            allow_access: &'a NewRule,
        }
        let version = self.up_to(call, RULES_BESIDE_ERRORS).await?;
        let route = Route::new("/shares/{}/action").id(share).microversion(version);
        Ok(self.client.post::<RuleBody>(call, route, &Body { allow_access: new }).await?.access)
    }

    /// Revokes an access rule.
    pub async fn deny(&self, call: &Call, share: &str, rule: &str) -> Result<()> {
        let version = self.up_to(call, RULES_BESIDE_ERRORS).await?;
        let route = Route::new("/shares/{}/action").id(share).microversion(version);
        self.client.act(call, route, &serde_json::json!({"deny_access": {"access_id": rule}})).await
    }

    /// Changes what an access rule allows; needs [`CHANGE_LEVEL`].
    pub async fn change_level(&self, call: &Call, rule: &str, level: &AccessLevel) -> Result<()> {
        let route = Route::new("/share-access-rules/{}").id(rule).microversion(CHANGE_LEVEL);
        let body = serde_json::json!({"update_access": {"access_level": level.as_str()}});
        self.client.put::<serde::de::IgnoredAny>(call, route, &body).await.map(drop)
    }

    /// Adds to the metadata of an access rule.
    pub async fn tag_rule(&self, call: &Call, rule: &str, metadata: &Metadata) -> Result<()> {
        let route = Route::new("/share-access-rules/{}/metadata").id(rule).microversion(LOWEST);
        self.client.put::<serde::de::IgnoredAny>(call, route, &MetadataBody { metadata }).await.map(drop)
    }

    /// Removes an entry from the metadata of an access rule.
    pub async fn untag_rule(&self, call: &Call, rule: &str, key: &str) -> Result<()> {
        let route = Route::new("/share-access-rules/{}/metadata/{}").id(rule).id(key).microversion(LOWEST);
        self.client.delete(call, route).await
    }

    pub async fn create_snapshot(&self, call: &Call, new: &NewSnapshot) -> Result<Snapshot> {
        let route = Route::new("/snapshots").microversion(self.up_to(call, SNAPSHOT_METADATA).await?);
        Ok(self.client.post::<SnapshotBody>(call, route, &SnapshotBody { snapshot: new }).await?.snapshot)
    }

    pub async fn delete_snapshot(&self, call: &Call, id: &str) -> Result<()> {
        self.client.delete(call, Route::new("/snapshots/{}").id(id).microversion(LOWEST)).await
    }

    pub async fn create_backup(&self, call: &Call, new: &NewBackup) -> Result<Backup> {
        self.require(call, BACKUPS, "a share backup").await?;
        let route = Route::new("/share-backups").microversion(BACKUPS).experimental();
        Ok(self.client.post::<BackupBody>(call, route, &BackupBody { share_backup: new }).await?.share_backup)
    }

    pub async fn delete_backup(&self, call: &Call, id: &str) -> Result<()> {
        self.client.delete(call, Route::new("/share-backups/{}").id(id).microversion(BACKUPS).experimental()).await
    }

    /// Replaces the content of a share with that of a backup.
    pub async fn restore_backup(&self, call: &Call, backup: &str, share: &str) -> Result<()> {
        self.require(call, RESTORE_ELSEWHERE, "restoring a share backup into another share").await?;
        let route = Route::new("/share-backups/{}/action").id(backup).microversion(RESTORE_ELSEWHERE).experimental();
        self.client.act(call, route, &serde_json::json!({"restore": share})).await
    }

    /// What Manila says to users about an object, the newest first.
    pub async fn messages(&self, call: &Call, resource: &str) -> Result<Vec<Message>> {
        let route = Route::new("/messages").query("resource_id", resource).microversion(LOWEST);
        let mut messages = self.client.get::<MessagesBody>(call, route).await?.messages;
        messages.sort_by_key(|message| std::cmp::Reverse(message.created_at));
        Ok(messages)
    }

    pub async fn limits(&self, call: &Call) -> Result<AbsoluteLimits> {
        let route = Route::new("/limits").microversion(LOWEST);
        Ok(self.client.get::<LimitsBody>(call, route).await?.limits.absolute)
    }

    /// The quotas of a project, or of a share type in it, and what is used of them: `gigabytes`, `shares`,
    /// `per_share_gigabytes`, …
    pub async fn quotas(&self, call: &Call, project: &str, share_type: Option<&str>) -> Result<HashMap<String, Quota>> {
        let version = self.up_to(call, SHARE_SIZE_QUOTA).await?.max(TYPE_QUOTAS);
        let mut route = Route::new("/quota-sets/{}/detail").id(project).microversion(version);
        if let Some(share_type) = share_type {
            route = route.query("share_type", share_type);
        }
        let set = self.client.get::<QuotaBody>(call, route).await?.quota_set;
        // The set also holds the project's id, which is no quota.
        Ok(set.into_iter().filter_map(|(key, value)| Some((key, serde_json::from_value(value).ok()?))).collect())
    }
}

impl<T: Listed> Stretch<T> {
    /// At most so many of a part that begins at a position, without the first so many.
    fn new(part: Part<T>, from: u64, without: usize, most: u32) -> Self {
        let end = without.saturating_add(usize::try_from(most).unwrap_or(usize::MAX)).min(part.items.len());
        let is_cut = end < part.items.len();
        let last = part.items.iter().zip(from..).take(end).last().filter(|_| part.more || is_cut);
        let last = last.map(|(item, position)| (item.id().to_owned(), position));
        Self { items: part.items.into_iter().take(end).skip(without).collect(), last }
    }
}

fn is_missing_share(refusal: &Refusal) -> bool {
    refusal.status == 400 && refusal.message.contains("not found")
}

#[cfg(test)]
mod tests {
    use super::{Microversion, NewShare, Part, SchedulerHints, Share, Stretch};
    use serde_json::json;

    #[test]
    fn what_was_not_asked_for_is_not_sent() {
        let new = NewShare { name: "n".to_owned(), size: 1, share_proto: "NFS".to_owned(), ..NewShare::default() };
        assert_eq!(
            serde_json::to_value(&new).unwrap(),
            json!({"name": "n", "description": "", "size": 1, "share_proto": "NFS", "metadata": {}})
        );
        let hints = SchedulerHints { different_host: Some("a,b".to_owned()), same_host: None };
        let sent = serde_json::to_value(NewShare { scheduler_hints: hints, ..new }).unwrap();
        assert_eq!(sent["scheduler_hints"], json!({"different_host": "a,b"}));
    }

    #[test]
    fn microversions_rise_in_the_order_of_their_use() {
        let all = [super::LOWEST, super::SNAPSHOT_METADATA, super::BACKUPS, super::RESTORE_ELSEWHERE];
        assert!(all.is_sorted() && super::LOWEST >= Microversion(2, 38));
    }

    #[test]
    fn the_place_in_a_list_is_that_of_its_last_entry() {
        let share = |id: &str| -> Share { serde_json::from_value(json!({"id": id, "status": "available"})).unwrap() };
        let part = |more| Part { items: vec![share("a"), share("b"), share("c")], more };
        let stretch = Stretch::new(part(true), 10, 1, 2);
        assert_eq!(stretch.items.iter().map(|share| share.id.as_str()).collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(stretch.last, Some(("c".to_owned(), 12)));
        assert_eq!(Stretch::new(part(false), 0, 0, 3).last, None);
    }

    #[test]
    fn a_stretch_is_never_longer_than_was_asked_for() {
        let share = |id: &str| -> Share { serde_json::from_value(json!({"id": id, "status": "available"})).unwrap() };
        for more in [false, true] {
            let stretch = Stretch::new(Part { items: vec![share("a"), share("b"), share("c")], more }, 10, 1, 1);
            assert_eq!(stretch.items.iter().map(|share| share.id.as_str()).collect::<Vec<_>>(), ["b"]);
            assert_eq!(stretch.last, Some(("b".to_owned(), 11)), "there is another");
        }
    }
}
