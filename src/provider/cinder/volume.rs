//! Making and removing volumes.
//!
//! Cinder takes no token from its clients and allows equal names, so a volume is found by its exact name and our
//! metadata. Two of one name come from a lost race (two replicas; an answer that was lost and a request that arrived
//! late): the earliest is the volume, later ones are removed while nothing uses them.

use super::failure::{self, creation_refused, ended_in_error, wrong_state};
use super::parameters::{RESIZE_REQUIRED_CONTEXT, VolumeParameters};
use super::source::SourceKind;
use super::{CinderProvider, Cloud};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::model::{AccessKind, Capability, ContentSource, Volume, VolumeId, VolumeSpec};
use crate::openstack::cinder::{self, Listing, NewVolume, SeenVolume, VolumeStatus};
use crate::openstack::client::found;
use crate::provider::failure::{is_refused_with, is_unclear, says, with_remains};
use crate::provider::handle::{Uuid, VolumeHandle};
use crate::provider::names::check_name;
use crate::provider::size::gib;
use std::time::Duration;

/// The size of a volume for which none was asked.
const DEFAULT_GIB: u64 = 1;

/// The pauses before a deletion is repeated that was refused for nothing that is to be seen. What has just passed is passed
/// by then; after them it is a reason that stays.
const PAUSES: [Duration; 3] = [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1)];

/// How the wait for a new volume ended.
enum Made {
    /// It is usable; with it came others of its name.
    Usable(SeenVolume),
    /// It failed.
    Failed(cinder::Volume),
    /// Somebody has removed it.
    Gone,
}

impl CinderProvider {
    /// The story of CreateVolume: look up, make, wait; what an earlier call began is gone on with.
    pub(super) async fn create(&self, call: &Call, spec: &VolumeSpec) -> Result<Volume> {
        let cloud = self.clouds.of_class(&spec.secrets)?;
        let parameters = VolumeParameters::parse(&self.names, &spec.parameters)?;
        check_name(&spec.name)?;
        refuse_mutable(spec)?;
        let shared = spec.capabilities.iter().map(needs_sharing).collect::<Result<Vec<_>>>()?.contains(&true);
        let mut unconfirmed = true;
        loop {
            call.check("look for the volume")?;
            let volume = match self.lookup(call, cloud, &spec.name).await? {
                // Whatever it was to be: it has to be out of the way before another one is made.
                Some(volume) if is_spent(&volume.status) => {
                    self.finish(call, cloud, spec, volume).await?;
                    continue;
                }
                Some(volume) => {
                    self.check_compatible(call, cloud, spec, &parameters, &volume).await?;
                    if shared && !volume.multiattach {
                        return Err(not_shareable().as_kind(Kind::Conflict));
                    }
                    volume
                }
                None if unconfirmed && self.wait_for_lost(call, cloud, &spec.name).await? => {
                    unconfirmed = false;
                    continue;
                }
                None => {
                    if shared {
                        check_shareable(call, cloud, &parameters).await?;
                    }
                    let volume = self.make(call, cloud, spec, &parameters).await?;
                    if shared && !volume.multiattach {
                        // Older clouds do not tell users what a type allows before there is a volume of it.
                        self.withdraw(call, cloud, &volume).await?;
                        return Err(not_shareable());
                    }
                    volume
                }
            };
            if let Some(volume) = self.finish(call, cloud, spec, volume).await? {
                return self.describe(cloud, spec, &parameters, &volume);
            }
        }
    }

    /// The volume of this name that is ours; the earliest if there are several, and then later ones are removed.
    async fn lookup(&self, call: &Call, cloud: &Cloud, name: &str) -> Result<Option<cinder::Volume>> {
        let named = cloud.cinder.all_volumes(call, Listing::all().named(name)).await?;
        let mut ours: Vec<_> =
            named.into_iter().filter(|volume| volume.name == name && self.names.is_ours(&volume.metadata)).collect();
        ours.sort_by(|a, b| age(a).cmp(&age(b)));
        let mut ours = ours.into_iter();
        let first = ours.next();
        for twin in ours {
            self.withdraw(call, cloud, &twin).await?;
        }
        Ok(first)
    }

    /// After a request under this name whose answer was lost: waits until it must have arrived. Whether to look again.
    async fn wait_for_lost(&self, call: &Call, cloud: &Cloud, name: &str) -> Result<bool> {
        let Some(time) = cloud.doubts.take(name) else { return Ok(false) };
        if let Err(error) = call.sleep("wait for a request whose answer was lost", time).await {
            cloud.doubts.note(name);
            return Err(error);
        }
        Ok(true)
    }

    /// Asks Cinder for the volume.
    async fn make(
        &self,
        call: &Call,
        cloud: &Cloud,
        spec: &VolumeSpec,
        parameters: &VolumeParameters,
    ) -> Result<cinder::Volume> {
        let source = self.source(call, cloud, spec).await?;
        let gib = spec.size.whole_gib(source.as_ref().map_or(DEFAULT_GIB, |source| source.gib))?;
        let zone = self.zones.choose(
            parameters.availability.as_deref(),
            source.as_ref().and_then(|source| source.zone.as_deref()),
            spec.topology.as_ref(),
        )?;
        let mut metadata = self.names.metadata(&spec.parameters);
        let id_of = |kind| source.as_ref().filter(|source| source.kind == kind).map(|source| source.id.clone());
        if let Some(backup) = id_of(SourceKind::Backup) {
            metadata.insert(self.names.source_key().to_owned(), backup);
        }
        let new = NewVolume {
            name: spec.name.clone(),
            description: self.names.description(),
            size: gib,
            volume_type: parameters.volume_type.clone(),
            availability_zone: zone,
            snapshot_id: id_of(SourceKind::Snapshot),
            source_volid: id_of(SourceKind::Volume),
            backup_id: id_of(SourceKind::Backup),
            metadata,
        };
        call.check("ask Cinder for the volume")?;
        cloud.cinder.create_volume(call, &new).await.map_err(|error| {
            if is_unclear(&error) {
                cloud.doubts.note(&spec.name);
            }
            creation_refused(error, "what the volume is made of")
        })
    }

    /// Waits until a volume that is being made is usable. None: look again.
    async fn finish(
        &self,
        call: &Call,
        cloud: &Cloud,
        spec: &VolumeSpec,
        volume: cinder::Volume,
    ) -> Result<Option<cinder::Volume>> {
        match self.await_usable(call, cloud, spec, volume).await? {
            Made::Usable(seen) => self.settle_race(call, cloud, seen).await,
            Made::Failed(volume) => {
                let error = ended_in_error(call, cloud, "volume", &volume.id, volume.status.as_str()).await;
                match self.withdraw(call, cloud, &volume).await {
                    Ok(()) => Err(error),
                    Err(later) => Err(with_remains(error, &later)),
                }
            }
            Made::Gone => Ok(None),
        }
    }

    async fn await_usable(
        &self,
        call: &Call,
        cloud: &Cloud,
        spec: &VolumeSpec,
        volume: cinder::Volume,
    ) -> Result<Made> {
        if let Some(made) = made(&SeenVolume { volume: volume.clone(), namesakes: Vec::new() })? {
            return Ok(made);
        }
        let doing = match spec.source {
            None => "create volume",
            Some(ContentSource::Volume(_)) => "clone volume",
            Some(ContentSource::Snapshot(_)) => "create volume from snapshot",
        };
        let _noted = cloud.notes.being_made(&volume.id, &volume.name);
        cloud
            .volumes
            .until(call, doing, &volume.id, |seen| match seen {
                Some(seen) => made(seen),
                None => Ok(Some(Made::Gone)),
            })
            .await
    }

    /// Of several volumes of one name, leaves the earliest. None if that is another one than ours.
    async fn settle_race(&self, call: &Call, cloud: &Cloud, seen: SeenVolume) -> Result<Option<cinder::Volume>> {
        let SeenVolume { volume, namesakes } = seen;
        let twins: Vec<_> = namesakes.into_iter().filter(|twin| self.names.is_ours(&twin.metadata)).collect();
        if twins.iter().any(|twin| age(twin) < age(&volume)) {
            self.withdraw(call, cloud, &volume).await?;
            return Ok(None);
        }
        for twin in twins {
            self.withdraw(call, cloud, &twin).await?;
        }
        Ok(Some(volume))
    }

    /// Removes a volume of ours that nobody can be using: one that failed, or the later one of two twins.
    async fn withdraw(&self, call: &Call, cloud: &Cloud, volume: &cinder::Volume) -> Result<()> {
        if !volume.attachments.is_empty() || !self.names.is_ours(&volume.metadata) {
            tracing::warn!(volume = %volume.id, name = %volume.name, "a second volume of this name is in use and stays");
            return Ok(());
        }
        tracing::info!(volume = %volume.id, name = %volume.name, status = %volume.status, "removing a volume that is not to be");
        self.remove(call, cloud, &volume.id).await
    }

    /// The story of DeleteVolume.
    pub(super) async fn delete(&self, call: &Call, id: &VolumeId) -> Result<()> {
        // What cannot exist is not there.
        let Some(handle) = VolumeHandle::parse(id) else { return Ok(()) };
        let cloud = self.clouds.of_handle(&handle.cloud)?;
        cloud.precedence.give(call).await?;
        self.remove(call, cloud, handle.id.as_str()).await
    }

    /// Deletes a volume and waits until it is gone. What hinders only for a while is waited for.
    async fn remove(&self, call: &Call, cloud: &Cloud, id: &str) -> Result<()> {
        let mut pauses = PAUSES.into_iter();
        loop {
            call.check("delete the volume")?;
            match cloud.cinder.delete_volume(call, id).await {
                Ok(()) => return self.await_gone(call, cloud, id).await,
                Err(error) if error.is(Kind::NotFound) => return Ok(()),
                Err(error) if is_refused_with(&error, 400) || is_refused_with(&error, 409) => {
                    let Some(volume) = found(cloud.cinder.volume(call, id).await)? else { return Ok(()) };
                    if volume.status == VolumeStatus::Deleting {
                        return self.await_gone(call, cloud, id).await;
                    }
                    self.make_deletable(call, cloud, &volume, error, &mut pauses).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for or clears away what stands in the way of a deletion; an error if somebody else has to do that.
    async fn make_deletable(
        &self,
        call: &Call,
        cloud: &Cloud,
        volume: &cinder::Volume,
        refused: Error,
        pauses: &mut impl Iterator<Item = Duration>,
    ) -> Result<()> {
        match &volume.status {
            VolumeStatus::Reserved | VolumeStatus::Attaching => {
                let is_ours = self.names.is_ours(&volume.metadata);
                if self.release_stale(call, cloud, volume, None).await?
                    || self.remove_unfinished(call, cloud, volume, is_ours).await?
                {
                    return Ok(());
                }
                Err(wrong_state(volume).because(refused))
            }
            status if status.is_passing() => {
                let was = status.clone();
                cloud
                    .volumes
                    .until(call, "settle volume", &volume.id, move |seen| {
                        Ok(seen.is_none_or(|seen| seen.volume.status != was).then_some(()))
                    })
                    .await
            }
            VolumeStatus::Available | VolumeStatus::Error if volume.attachments.is_empty() => {
                if self.clear_temporary_snapshots(call, cloud, &volume.id, &refused).await? {
                    return Ok(());
                }
                // Refused in a state that has passed since, or for a reason that only Cinder's words tell: it says the same
                // of a volume that is in a group or is being migrated.
                if says(&refused, &["status must be"])
                    && let Some(pause) = pauses.next()
                {
                    return call.sleep("wait before the volume is deleted", pause).await;
                }
                Err(refused.as_kind(Kind::WrongState))
            }
            _ if volume.attachments.is_empty() => Err(wrong_state(volume).because(refused)),
            _ => Err(Error::wrong_state(format!(
                "volume {} is {} and attached to {}; it can be deleted when it is detached",
                volume.id,
                volume.status,
                failure::servers(volume)
            ))
            .because(refused)),
        }
    }

    async fn await_gone(&self, call: &Call, cloud: &Cloud, id: &str) -> Result<()> {
        let _noted = cloud.notes.leaving(id);
        let back = cloud
            .volumes
            .until(call, "delete volume", id, |seen| match seen {
                None => Ok(Some(None)),
                Some(seen) if seen.volume.status == VolumeStatus::Deleting => Ok(None),
                Some(seen) => Ok(Some(Some(seen.volume.clone()))),
            })
            .await?;
        match back {
            None => {
                cloud.shapes.forget(id);
                Ok(())
            }
            // Some back ends refuse only after Cinder has agreed: clones or snapshots depend on the data.
            Some(volume) if volume.status == VolumeStatus::Available => {
                let why = ended_in_error(call, cloud, "volume", id, "available instead of being deleted").await;
                Err(why
                    .as_kind(Kind::WrongState)
                    .during("the storage refuses to delete it: something may depend on it"))
            }
            Some(volume) => Err(ended_in_error(call, cloud, "volume", id, volume.status.as_str()).await),
        }
    }

    /// Whether the volume that has the name is the one that is asked for.
    async fn check_compatible(
        &self,
        call: &Call,
        cloud: &Cloud,
        spec: &VolumeSpec,
        parameters: &VolumeParameters,
        volume: &cinder::Volume,
    ) -> Result<()> {
        let conflict = |what: String| {
            Error::new(Kind::Conflict, format!("volume {} has the name {} already, and {what}", volume.id, spec.name))
        };
        let size = gib(volume.size)?;
        if !spec.size.allows(size) {
            return Err(conflict(format!("its size is {size}")));
        }
        if !self.is_made_of(spec.source.as_ref(), volume) {
            return Err(conflict("it is made of something else".to_owned()));
        }
        if !self.zones.allows(&volume.availability_zone, spec.topology.as_ref()) {
            return Err(conflict(format!("it is in zone {}", volume.availability_zone)));
        }
        let Some(wanted) = &parameters.volume_type else { return Ok(()) };
        let actual = volume.volume_type.as_deref().unwrap_or("no type");
        if actual == wanted {
            return Ok(());
        }
        // The class may name the type by its id.
        if Uuid::parse(wanted).is_some()
            && cloud.cinder.volume_type(call, Some(wanted)).await?.is_some_and(|found| found.name == actual)
        {
            return Ok(());
        }
        Err(conflict(format!("its type is {actual}")))
    }

    /// A finished volume as the orchestrator should know it.
    fn describe(
        &self,
        cloud: &Cloud,
        spec: &VolumeSpec,
        parameters: &VolumeParameters,
        volume: &cinder::Volume,
    ) -> Result<Volume> {
        cloud.shapes.note(volume);
        let mut context = parameters.context.clone();
        if self.names.is_drop_in() && spec.source.is_some() {
            context.insert(self.names.key(RESIZE_REQUIRED_CONTEXT), "true".to_owned());
        }
        Ok(Volume {
            id: VolumeHandle::write(&cloud.name, &volume.id)?,
            size: gib(volume.size)?,
            source: spec.source.clone(),
            topology: self.zones.reachable_from(&volume.availability_zone, spec.topology.as_ref()),
            context,
        })
    }
}

/// Whether a volume used like that must allow several servers.
///
/// # Errors
/// `InvalidArgument`: a file system that several nodes write to would be destroyed.
pub(super) fn needs_sharing(capability: &Capability) -> Result<bool> {
    if !capability.mode.is_multi_node() {
        return Ok(false);
    }
    match capability.kind {
        AccessKind::Block => Ok(true),
        // Readers do no harm; on a type that allows one server only, the second node is told so when it attaches.
        AccessKind::Mount { .. } if capability.mode.is_read_only() => Ok(false),
        AccessKind::Mount { .. } => Err(Error::invalid(format!(
            "access mode {:?} with a mounted file system: a Cinder volume holds a file system for one node only; use \
             volumeMode Block on a multi-attach volume type, or a Manila share",
            capability.mode
        ))),
    }
}

/// Refuses a type that is known not to allow several servers.
async fn check_shareable(call: &Call, cloud: &Cloud, parameters: &VolumeParameters) -> Result<()> {
    let volume_type = cloud.cinder.volume_type(call, parameters.volume_type.as_deref()).await?;
    match volume_type.and_then(|found| found.allows_sharing()) {
        Some(false) => Err(not_shareable()),
        _ => Ok(()),
    }
}

fn not_shareable() -> Error {
    Error::invalid(
        "several nodes are to use the volume, and its type does not allow that: use a volume type with the extra spec \
         multiattach='<is> True'",
    )
}

/// What a state means for a volume that is being made.
fn made(seen: &SeenVolume) -> Result<Option<Made>> {
    let volume = &seen.volume;
    Ok(match &volume.status {
        VolumeStatus::Available => Some(Made::Usable(seen.clone())),
        VolumeStatus::Error | VolumeStatus::ErrorRestoring => Some(Made::Failed(volume.clone())),
        VolumeStatus::Creating | VolumeStatus::Downloading | VolumeStatus::RestoringBackup | VolumeStatus::Deleting => {
            None
        }
        // Made long ago and in use since: the earlier call's answer was lost on the way to the orchestrator.
        VolumeStatus::InUse | VolumeStatus::Reserved => Some(Made::Usable(seen.clone())),
        status if status.is_passing() => Some(Made::Usable(seen.clone())),
        _ => return Err(wrong_state(volume)),
    })
}

/// Whether nothing will come of a volume: it failed, or is being deleted.
fn is_spent(status: &VolumeStatus) -> bool {
    matches!(status, VolumeStatus::Error | VolumeStatus::ErrorRestoring | VolumeStatus::Deleting)
}

/// By what the earliest of several volumes is told: all who look must agree.
fn age(volume: &cinder::Volume) -> (Option<jiff::Timestamp>, &str) {
    (volume.created_at, &volume.id)
}

fn refuse_mutable(spec: &VolumeSpec) -> Result<()> {
    match spec.mutable_parameters.keys().next() {
        None => Ok(()),
        Some(key) => {
            Err(Error::invalid(format!("mutable_parameters: {key:?} is unknown; Cinder volumes have none yet")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Made, age, made, needs_sharing};
    use crate::error::Kind;
    use crate::model::{AccessKind, AccessMode, Capability};
    use crate::openstack::cinder::{SeenVolume, Volume};
    use serde_json::json;

    fn volume(id: &str, status: &str, created: &str) -> Volume {
        serde_json::from_value(json!({"id": id, "status": status, "created_at": created})).unwrap()
    }

    #[test]
    fn mounted_file_systems_have_one_writer() {
        let mount = AccessKind::Mount { fstype: None, options: Vec::new(), group: None };
        for (mode, kind, shared) in [
            (AccessMode::SingleNodeWriter, mount.clone(), Ok(false)),
            (AccessMode::SingleNodeMultiWriter, mount.clone(), Ok(false)),
            (AccessMode::SingleNodeReaderOnly, AccessKind::Block, Ok(false)),
            (AccessMode::MultiNodeMultiWriter, AccessKind::Block, Ok(true)),
            (AccessMode::MultiNodeReaderOnly, AccessKind::Block, Ok(true)),
            (AccessMode::MultiNodeMultiWriter, mount.clone(), Err(Kind::InvalidArgument)),
            (AccessMode::MultiNodeSingleWriter, mount.clone(), Err(Kind::InvalidArgument)),
            (AccessMode::MultiNodeReaderOnly, mount, Ok(false)),
        ] {
            let needed = needs_sharing(&Capability { mode, kind }).map_err(|error| error.kind());
            assert_eq!(needed, shared, "{mode:?}");
        }
    }

    #[test]
    fn what_the_states_of_a_new_volume_mean() {
        for (status, expected) in [
            ("creating", "wait"),
            ("downloading", "wait"),
            ("deleting", "wait"),
            ("available", "usable"),
            ("in-use", "usable"),
            ("attaching", "usable"),
            ("error", "failed"),
            ("error_restoring", "failed"),
            ("error_deleting", "wrong"),
            ("maintenance", "wrong"),
        ] {
            let seen = SeenVolume { volume: volume("v", status, "2026-11-21T08:00:00"), namesakes: Vec::new() };
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
            volume("b", "available", "2026-11-21T08:00:01"),
            volume("c", "available", "2026-11-21T08:00:00"),
            volume("a", "available", "2026-11-21T08:00:01"),
        ];
        twins.sort_by(|a, b| age(a).cmp(&age(b)));
        assert_eq!(twins.iter().map(|twin| twin.id.as_str()).collect::<Vec<_>>(), ["c", "a", "b"]);
    }
}
