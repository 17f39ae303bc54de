//! Making and removing shares.
//!
//! Manila takes no token from its clients and allows equal names, so a share is found by its exact name and our
//! metadata. Two of one name come from a lost race (two replicas; an answer that was lost and a request that arrived
//! late): the earliest is the share, later ones are removed while nobody is let in to them.

use super::failure::{creation_refused, ended_in_error, wrong_state};
use super::parameters::ShareParameters;
use super::{Cloud, FIRST_LOOK_AT_MADE, ManilaProvider};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::model::{Bytes, ContentSource, Volume, VolumeId, VolumeSpec};
use crate::openstack::client::found;
use crate::openstack::manila::{
    Backup, BackupStatus, Listing, NewShare, RESTORE_ELSEWHERE, Seen, Share, ShareStatus, Snapshot, SnapshotStatus,
};
use crate::provider::failure::{is_refused_with, is_unclear, says, with_remains};
use crate::provider::handle::{SnapshotHandle, SnapshotKind, VolumeHandle};
use crate::provider::names::check_name;
use crate::provider::size::gib;
use std::time::Duration;

/// The size of a share for which none was asked.
const DEFAULT_GIB: u64 = 1;

/// How long to wait before a deletion is repeated that was refused for a reason that has passed.
const PAUSE: Duration = Duration::from_millis(250);

/// The word of the metadata key that holds the address of the one rule for all nodes.
pub(super) const SHARED_CLIENT: &str = "shared-client";

/// What a share is to be made of.
struct Source {
    kind: SnapshotKind,
    id: String,
    /// Its size, where that was asked for.
    gib: Option<u64>,
}

/// How the wait for a new share ended.
enum Made {
    /// It is usable; with it came others of its name.
    Usable(Seen<Share>),
    /// It failed.
    Failed(Share),
    /// Somebody has removed it.
    Gone,
}

impl ManilaProvider {
    /// The story of CreateVolume: look up, make, wait; what an earlier call began is gone on with.
    pub(super) async fn create(&self, call: &Call, spec: &VolumeSpec) -> Result<Volume> {
        let cloud = self.cloud_of_class(&spec.secrets).await?;
        let parameters = ShareParameters::parse(&self.names, &self.protocol, &spec.parameters)?;
        check_name(&spec.name)?;
        refuse_mutable(spec)?;
        let mut unconfirmed = true;
        loop {
            call.check("look for the share")?;
            let share = match self.lookup(call, cloud, &spec.name).await? {
                // Whatever it was to be: it has to be out of the way before another one is made.
                Some(share) if is_spent(&share.status) => {
                    self.finish(call, cloud, spec, share).await?;
                    continue;
                }
                Some(share) => {
                    self.check_compatible(cloud, spec, &parameters, &share)?;
                    share
                }
                None if unconfirmed && self.wait_for_lost(call, cloud, &spec.name).await? => {
                    unconfirmed = false;
                    continue;
                }
                None => self.make(call, cloud, spec, &parameters).await?,
            };
            let Some(share) = self.finish(call, cloud, spec, share).await? else { continue };
            let share = match backup_of(spec) {
                None => share,
                Some(backup) => match self.fill(call, cloud, share, backup.id.as_str()).await? {
                    Some(share) => share,
                    None => continue,
                },
            };
            return self.describe(cloud, spec, &parameters, &share);
        }
    }

    /// The share of this name that is ours; the earliest if there are several, and then later ones are removed.
    async fn lookup(&self, call: &Call, cloud: &Cloud, name: &str) -> Result<Option<Share>> {
        let named = cloud.manila.all::<Share>(call, Listing::all().named(name)).await?;
        let mut ours: Vec<_> =
            named.into_iter().filter(|share| share.name == name && self.names.is_ours(&share.metadata)).collect();
        ours.sort_by(|a, b| age(a).cmp(&age(b)));
        let mut ours = ours.into_iter();
        let first = ours.next();
        for twin in ours {
            self.withdraw(call, cloud, &twin).await?;
        }
        Ok(first)
    }

    /// After a request under this name whose answer was lost: waits until it must have arrived. Whether to look again.
    pub(super) async fn wait_for_lost(&self, call: &Call, cloud: &Cloud, name: &str) -> Result<bool> {
        let Some(time) = cloud.doubts.take(name) else { return Ok(false) };
        if let Err(error) = call.sleep("wait for a request whose answer was lost", time).await {
            cloud.doubts.note(name);
            return Err(error);
        }
        Ok(true)
    }

    /// Makes the share.
    async fn make(&self, call: &Call, cloud: &Cloud, spec: &VolumeSpec, parameters: &ShareParameters) -> Result<Share> {
        let source = self.source(call, cloud, spec, spec.size.required == Bytes::ZERO).await?;
        let is_size_known = source.as_ref().is_none_or(|source| source.gib.is_some());
        match self.ask_for(call, cloud, spec, parameters, source).await {
            Err(error) if !is_size_known && says(&error, &["snapshot size"]) => {
                let source = self.source(call, cloud, spec, true).await?;
                self.ask_for(call, cloud, spec, parameters, source).await
            }
            asked => asked,
        }
    }

    /// Asks Manila for the share.
    async fn ask_for(
        &self,
        call: &Call,
        cloud: &Cloud,
        spec: &VolumeSpec,
        parameters: &ShareParameters,
        source: Option<Source>,
    ) -> Result<Share> {
        let size = spec.size.whole_gib(source.as_ref().and_then(|source| source.gib).unwrap_or(DEFAULT_GIB))?;
        // Manila's zones are not Nova's: only a class that says that they are takes them from the topology.
        let requirement = spec.topology.as_ref().filter(|_| parameters.auto_topology);
        let zone = self.zones.choose(parameters.availability.as_deref(), None, requirement)?;
        let mut metadata = parameters.metadata.clone();
        metadata.extend(self.names.metadata(&spec.parameters));
        if let Some(client) = &parameters.shared_client {
            metadata.insert(self.names.key(SHARED_CLIENT), client.clone());
        }
        if let Some(source) = source.as_ref().filter(|source| source.kind == SnapshotKind::Backup) {
            metadata.insert(self.names.source_key().to_owned(), source.id.clone());
        }
        let new = NewShare {
            name: spec.name.clone(),
            description: self.names.description(),
            size,
            share_proto: parameters.protocol.as_str().to_owned(),
            share_type: parameters.share_type.clone(),
            availability_zone: zone,
            share_network_id: parameters.share_network.clone(),
            share_group_id: parameters.group.clone(),
            snapshot_id: source.filter(|source| source.kind == SnapshotKind::Bare).map(|source| source.id),
            scheduler_hints: parameters.hints.clone(),
            metadata,
        };
        call.check("ask Manila for the share")?;
        cloud.manila.create_share(call, &new).await.map_err(|error| {
            if is_unclear(&error) {
                cloud.doubts.note(&spec.name);
            }
            creation_refused(error, "the snapshot that the share is made of", &named(&new))
        })
    }

    /// What the share is to be made of; its size only where that is needed, since it costs a request.
    async fn source(&self, call: &Call, cloud: &Cloud, spec: &VolumeSpec, sized: bool) -> Result<Option<Source>> {
        let id = match &spec.source {
            None => return Ok(None),
            Some(ContentSource::Volume(_)) => {
                return Err(Error::invalid("Manila makes no share of a share: take a snapshot, and make one of that"));
            }
            Some(ContentSource::Snapshot(id)) => id,
        };
        let handle = SnapshotHandle::parse(id).ok_or_else(|| Error::not_found(format!("there is no snapshot {id}")))?;
        if self.clouds.of_handle(&handle.cloud)?.name != cloud.name {
            return Err(Error::invalid(format!(
                "the source {id} is in another cloud than the class ({:?}): data does not travel between clouds",
                cloud.name
            )));
        }
        let kind = handle.kind;
        if kind == SnapshotKind::Backup {
            cloud.manila.require(call, RESTORE_ELSEWHERE, "a share made of a share backup").await?;
            let backup: Backup = cloud.manila.one(call, handle.id.as_str()).await?;
            if backup.status == BackupStatus::Creating {
                return Err(Error::busy(format!("backup {} is being made: repeat when it is ready", backup.id)));
            }
            return Ok(Some(Source { kind, id: backup.id, gib: Some(backup.size) }));
        }
        if !sized {
            // Whether it is there, ready and not too large, Manila looks at itself.
            return Ok(Some(Source { kind, id: handle.id.to_string(), gib: None }));
        }
        let snapshot: Snapshot = cloud.manila.one(call, handle.id.as_str()).await?;
        Ok(Some(Source { kind, id: snapshot.id, gib: Some(snapshot.share_size) }))
    }

    /// Waits until a share that is being made is usable. None: look again.
    async fn finish(&self, call: &Call, cloud: &Cloud, spec: &VolumeSpec, share: Share) -> Result<Option<Share>> {
        match self.await_usable(call, cloud, spec, share).await? {
            Made::Usable(seen) => self.settle_race(call, cloud, seen).await,
            Made::Failed(share) => {
                let error = ended_in_error(call, cloud, "share", &share.id, share.status.as_str()).await;
                match self.withdraw(call, cloud, &share).await {
                    Ok(()) => Err(error),
                    Err(later) => Err(with_remains(error, &later)),
                }
            }
            Made::Gone => Ok(None),
        }
    }

    async fn await_usable(&self, call: &Call, cloud: &Cloud, spec: &VolumeSpec, share: Share) -> Result<Made> {
        if let Some(made) = made(&Seen { object: share.clone(), namesakes: Vec::new() })? {
            return Ok(made);
        }
        let doing = if spec.source.is_some() { "create share from snapshot" } else { "create share" };
        let _noted = cloud.notes.being_made(&share.id, &share.name);
        cloud
            .shares
            .until_from(call, doing, FIRST_LOOK_AT_MADE, &share.id, |seen| match seen {
                Some(seen) => made(seen),
                None => Ok(Some(Made::Gone)),
            })
            .await
    }

    /// Of several shares of one name, leaves the earliest. None if that is another one than ours.
    async fn settle_race(&self, call: &Call, cloud: &Cloud, seen: Seen<Share>) -> Result<Option<Share>> {
        let Seen { object: share, namesakes } = seen;
        let twins: Vec<_> = namesakes
            .into_iter()
            .filter(|twin| twin.name == share.name && self.names.is_ours(&twin.metadata) && !twin.status.is_leaving())
            .collect();
        if twins.iter().any(|twin| age(twin) < age(&share)) {
            self.withdraw(call, cloud, &share).await?;
            return Ok(None);
        }
        for twin in twins {
            self.withdraw(call, cloud, &twin).await?;
        }
        Ok(Some(share))
    }

    /// Removes a share of ours that nobody can be using: one that failed, or the later one of two twins.
    pub(super) async fn withdraw(&self, call: &Call, cloud: &Cloud, share: &Share) -> Result<()> {
        let let_in = if share.status == ShareStatus::Available {
            found(cloud.manila.rules(call, &share.id).await)?.unwrap_or_default()
        } else {
            Vec::new()
        };
        if !let_in.is_empty() || !self.names.is_ours(&share.metadata) {
            tracing::warn!(share = %share.id, name = %share.name, "a second share of this name is in use and stays");
            return Ok(());
        }
        tracing::info!(share = %share.id, name = %share.name, status = %share.status, "removing a share that is not to be");
        self.remove(call, cloud, &share.id).await
    }

    /// The story of DeleteVolume.
    pub(super) async fn delete(&self, call: &Call, id: &VolumeId) -> Result<()> {
        // What cannot exist is not there.
        let Some(handle) = VolumeHandle::parse(id) else { return Ok(()) };
        self.remove(call, self.clouds.of_handle(&handle.cloud)?, handle.id.as_str()).await
    }

    /// Deletes a share and waits until it is gone. What hinders only for a while is waited for.
    async fn remove(&self, call: &Call, cloud: &Cloud, id: &str) -> Result<()> {
        let mut group = None;
        loop {
            call.check("delete the share")?;
            match cloud.manila.delete_share(call, id, group.as_deref()).await {
                Ok(()) => return self.await_gone(call, cloud, id).await,
                Err(error) if error.is(Kind::NotFound) => return Ok(()),
                Err(error) if [400, 403, 409].iter().any(|status| is_refused_with(&error, *status)) => {
                    let Some(share) = found(cloud.manila.one::<Share>(call, id).await)? else { return Ok(()) };
                    if share.status.is_leaving() {
                        return self.await_gone(call, cloud, id).await;
                    }
                    if group.is_none() && share.share_group_id.is_some() {
                        group = share.share_group_id;
                        continue;
                    }
                    self.make_deletable(call, cloud, &share, error).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for what stands in the way of a deletion; an error if somebody has to clear it away.
    async fn make_deletable(&self, call: &Call, cloud: &Cloud, share: &Share, refused: Error) -> Result<()> {
        match &share.status {
            status if status.is_passing() => await_settled(call, cloud, share).await,
            ShareStatus::Available | ShareStatus::Error | ShareStatus::Inactive => {
                let snapshots = cloud.manila.all::<Snapshot>(call, Listing::all().of_share(&share.id)).await?;
                let (leaving, staying): (Vec<_>, Vec<_>) =
                    snapshots.into_iter().partition(|snapshot| snapshot.status == SnapshotStatus::Deleting);
                if !staying.is_empty() {
                    let ids: Vec<String> = staying.into_iter().map(|snapshot| snapshot.id).collect();
                    return Err(Error::wrong_state(format!(
                        "share {} has snapshots, which have to be deleted first: {}",
                        share.id,
                        ids.join(", ")
                    ))
                    .because(refused));
                }
                if let Some(snapshot) = leaving.first() {
                    return super::snapshot::await_gone(call, cloud, &snapshot.id).await;
                }
                if is_refused_with(&refused, 409) {
                    // Refused for something that was gone when it was looked for.
                    return call.sleep("wait before the share is deleted", PAUSE).await;
                }
                Err(refused.as_kind(Kind::WrongState))
            }
            _ => Err(wrong_state(share).because(refused)),
        }
    }

    async fn await_gone(&self, call: &Call, cloud: &Cloud, id: &str) -> Result<()> {
        let _noted = cloud.notes.leaving(id);
        let back = cloud
            .shares
            .until_from(call, "delete share", FIRST_LOOK_AT_MADE, id, |seen| match seen.map(|seen| &seen.object) {
                None => Ok(Some(None)),
                // What is deferred is Manila's alone: its quota is given back, and nobody can mount it.
                Some(share) if share.status == ShareStatus::DeferredDeleting => Ok(Some(None)),
                Some(share) if share.status == ShareStatus::Deleting => Ok(None),
                Some(share) => Ok(Some(Some(share.clone()))),
            })
            .await?;
        match back {
            None => Ok(()),
            Some(share) => Err(ended_in_error(call, cloud, "share", id, share.status.as_str()).await),
        }
    }

    /// A finished share as the orchestrator should know it.
    fn describe(
        &self,
        cloud: &Cloud,
        spec: &VolumeSpec,
        parameters: &ShareParameters,
        share: &Share,
    ) -> Result<Volume> {
        let mut context = parameters.context.clone();
        if self.names.is_drop_in() {
            // Where manila-csi is brought back, this is what it goes by.
            context.insert("shareID".to_owned(), share.id.clone());
        }
        Ok(Volume {
            id: VolumeHandle::write(&cloud.name, &share.id)?,
            size: gib(share.size)?,
            source: spec.source.clone(),
            topology: self.zones.reachable_from(&share.availability_zone, spec.topology.as_ref()),
            context,
        })
    }
}

/// Waits until the status of a share is another one.
pub(super) async fn await_settled(call: &Call, cloud: &Cloud, share: &Share) -> Result<()> {
    let was = share.status.clone();
    cloud
        .shares
        .until(call, "settle share", &share.id, move |seen| {
            Ok(seen.is_none_or(|seen| seen.object.status != was).then_some(()))
        })
        .await
}

/// The backup that a share is to be made of.
fn backup_of(spec: &VolumeSpec) -> Option<SnapshotHandle> {
    match &spec.source {
        Some(ContentSource::Snapshot(id)) => {
            SnapshotHandle::parse(id).filter(|handle| handle.kind == SnapshotKind::Backup)
        }
        _ => None,
    }
}

impl ManilaProvider {
    /// Whether the share that has the name is the one that is asked for.
    fn check_compatible(
        &self,
        cloud: &Cloud,
        spec: &VolumeSpec,
        parameters: &ShareParameters,
        share: &Share,
    ) -> Result<()> {
        let conflict = |what: String| {
            Error::new(Kind::Conflict, format!("share {} has the name {} already, and {what}", share.id, spec.name))
        };
        let size = gib(share.size)?;
        if !spec.size.allows(size) {
            return Err(conflict(format!("its size is {size}")));
        }
        if share.share_proto != parameters.protocol {
            return Err(conflict(format!("its protocol is {}", share.share_proto)));
        }
        if !self.is_made_of(cloud, spec.source.as_ref(), share) {
            return Err(conflict("it is made of something else".to_owned()));
        }
        let differs = |wanted: &Option<String>, is: &[&Option<String>]| wanted.is_some() && !is.contains(&wanted);
        if differs(&parameters.share_type, &[&share.share_type_name, &share.share_type]) {
            return Err(conflict(format!("its type is {}", share.share_type_name.as_deref().unwrap_or("another one"))));
        }
        if differs(&parameters.share_network, &[&share.share_network_id]) {
            return Err(conflict("it is in another share network".to_owned()));
        }
        if differs(&parameters.group, &[&share.share_group_id]) {
            return Err(conflict("it is not a member of that share group".to_owned()));
        }
        Ok(())
    }

    /// Whether a share is made of this.
    fn is_made_of(&self, cloud: &Cloud, source: Option<&ContentSource>, share: &Share) -> bool {
        let backup = share.metadata.get(self.names.source_key()).map(String::as_str);
        match source {
            None => share.snapshot_id.is_none() && backup.is_none(),
            Some(ContentSource::Volume(_)) => false,
            Some(ContentSource::Snapshot(id)) => SnapshotHandle::parse(id).is_some_and(|handle| {
                let from = match handle.kind {
                    SnapshotKind::Bare => share.snapshot_id.as_deref(),
                    SnapshotKind::Backup => backup,
                };
                handle.cloud == cloud.name && from == Some(handle.id.as_str())
            }),
        }
    }
}

/// What a state means for a share that is being made.
fn made(seen: &Seen<Share>) -> Result<Option<Made>> {
    let share = &seen.object;
    Ok(match &share.status {
        ShareStatus::Available => Some(Made::Usable(seen.clone())),
        ShareStatus::Error | ShareStatus::BackupRestoringError => Some(Made::Failed(share.clone())),
        ShareStatus::Creating | ShareStatus::CreatingFromSnapshot | ShareStatus::Deleting => None,
        ShareStatus::DeferredDeleting => Some(Made::Gone),
        // Made long ago, and something is done with it since: the earlier call's answer was lost on the way.
        status if status.is_passing() => Some(Made::Usable(seen.clone())),
        _ => return Err(wrong_state(share)),
    })
}

/// Whether nothing will come of a share: it failed, or is being deleted.
fn is_spent(status: &ShareStatus) -> bool {
    matches!(status, ShareStatus::Error | ShareStatus::BackupRestoringError | ShareStatus::Deleting)
}

/// What the class names of the cloud, for whoever reads that some of it is not there.
fn named(new: &NewShare) -> String {
    let kind =
        new.share_type.as_ref().map_or_else(|| "Manila's default type".to_owned(), |kind| format!("type {kind:?}"));
    let others = [
        ("zone", &new.availability_zone),
        ("share network", &new.share_network_id),
        ("share group", &new.share_group_id),
    ];
    let others = others.into_iter().filter_map(|(what, name)| Some(format!("{what} {:?}", name.as_ref()?)));
    std::iter::once(kind).chain(others).collect::<Vec<_>>().join(", ")
}

/// By what the earliest of several shares is told: all who look must agree.
fn age(share: &Share) -> (Option<jiff::Timestamp>, &str) {
    (share.created_at, &share.id)
}

fn refuse_mutable(spec: &VolumeSpec) -> Result<()> {
    match spec.mutable_parameters.keys().next() {
        None => Ok(()),
        Some(key) => Err(Error::invalid(format!("mutable_parameters: {key:?} is unknown; shares have none yet"))),
    }
}

#[cfg(test)]
mod tests {
    use super::{Made, age, made};
    use crate::openstack::manila::{Seen, Share};
    use serde_json::json;

    fn share(id: &str, status: &str, created: &str) -> Share {
        serde_json::from_value(json!({"id": id, "status": status, "created_at": created})).unwrap()
    }

    #[test]
    fn what_the_states_of_a_new_share_mean() {
        for (status, expected) in [
            ("creating", "wait"),
            ("creating_from_snapshot", "wait"),
            ("deleting", "wait"),
            ("available", "usable"),
            ("extending", "usable"),
            ("error", "failed"),
            ("deferred_deleting", "gone"),
            ("error_deleting", "wrong"),
            ("inactive", "wrong"),
        ] {
            let seen = Seen { object: share("s", status, "2026-11-21T08:00:00"), namesakes: Vec::new() };
            let meaning = match made(&seen) {
                Ok(None) => "wait",
                Ok(Some(Made::Usable(_))) => "usable",
                Ok(Some(Made::Failed(_))) => "failed",
                Ok(Some(Made::Gone)) => "gone",
                Err(_) => "wrong",
            };
            assert_eq!(meaning, expected, "{status}");
        }
    }

    #[test]
    fn the_earliest_of_twins_is_the_same_for_all_who_look() {
        let mut twins = [
            share("b", "available", "2026-11-21T08:00:01"),
            share("c", "available", "2026-11-21T08:00:00"),
            share("a", "available", "2026-11-21T08:00:01"),
        ];
        twins.sort_by(|a, b| age(a).cmp(&age(b)));
        assert_eq!(twins.iter().map(|twin| twin.id.as_str()).collect::<Vec<_>>(), ["c", "a", "b"]);
    }
}
