//! The life of one volume, as an orchestrator would lead it: the story of this command.

use super::ledger::{Entry, Object};
use super::orchestrator::{Ended, Orchestrator};
use super::pattern::Pattern;
use super::plan::{BackupPlan, Growth};
use super::proto;
use super::report::Ending;
use super::step::Step;
use super::undo::undo;
use super::workload::View;
use crate::model::{Bytes, StringMap};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;
use tonic::Code;

/// The data before the snapshot, and after it.
const BEFORE: u64 = 1;
const AFTER: u64 = 2;

/// By how much a volume grows: the smallest step of Cinder.
const GROWTH: u64 = Bytes::GIB;

/// A life in progress.
struct Life<'a> {
    world: &'a Orchestrator,
    number: u32,
    /// The node on which it begins.
    home: usize,
    seed: u64,
    /// How often a volume was brought to a node: each time gets paths of its own.
    uses: u32,
}

/// A volume of this life.
#[derive(Debug, Clone)]
struct Volume {
    entry: Entry,
    id: String,
    size: u64,
    context: StringMap,
    topology: Vec<proto::Topology>,
}

/// A snapshot or backup.
#[derive(Debug, Clone)]
struct Snapshot {
    entry: Entry,
    id: String,
    size: u64,
}

/// A volume that a workload can use.
struct InUse {
    volume: String,
    node: usize,
    staging_path: String,
    view: View,
    /// The ledger's entries, as they were made.
    attachment: Option<Entry>,
    directories: Vec<Entry>,
    staging: Option<Entry>,
    publication: Entry,
}

/// What a volume is filled with, and what must be found in it.
struct Origin {
    step: Step,
    suffix: &'static str,
    source: proto::volume_content_source::Type,
    size: u64,
    generation: u64,
}

/// Leads life `number` to its end, undoing what a failure leaves.
pub(super) async fn lead(world: &Orchestrator, number: u32) {
    let started = Instant::now();
    let home = usize::try_from(number.saturating_sub(1)).unwrap_or_default() % world.driver.nodes.len().max(1);
    let mut life = Life { world, number, home, seed: fastrand::u64(..), uses: 0 };
    let outcome = Box::pin(life.run()).await;
    let took = started.elapsed();
    undo(world, number).await;
    let ending = match outcome {
        Ok(()) if world.ledger.of_life(number).is_empty() => Ending::Passed,
        Err(Ended::Stopped) => Ending::Stopped,
        _ => Ending::Failed,
    };
    if ending == Ending::Passed {
        world.report.measured(Step::WholeLife, took);
    }
    world.report.ended(number, ending, took);
}

impl Life<'_> {
    async fn run(&mut self) -> Result<(), Ended> {
        let plan = &self.world.plan;
        // A copy is used beside the original.
        let room = self.world.room(self.home, 2).await?;
        let started = Instant::now();
        let volume = self.create(Step::CreateVolume, "", self.world.settings.size, None).await?;
        let mounted = self.bring(&volume, self.home).await?;
        self.world.report.measured(Step::Usable, started.elapsed());
        self.write(&mounted, BEFORE).await?;
        self.compare(&mounted, BEFORE).await?;
        if plan.stats {
            self.stats(&mounted).await?;
        }

        // The backup first: Manila backs up no share that has a snapshot.
        let backup = self.backup(&volume).await?;
        let snapshot = if plan.snapshot { Some(self.snapshot(&volume).await?) } else { None };
        // So that a copy of the present state cannot pass for one of the past.
        self.write(&mounted, AFTER).await?;
        if let Some(snapshot) = &snapshot {
            self.restore(Step::CreateFromSnapshot, "-from-snapshot", snapshot).await?;
        }
        if let Some(backup) = &backup {
            self.restore(Step::CreateFromBackup, "-from-backup", backup).await?;
        }
        if plan.clone {
            self.clone(&volume).await?;
        }

        if plan.growth == Growth::Online {
            self.grow_online(&volume, &mounted).await?;
        }
        let size_before = self.size_if(plan.growth == Growth::Offline, &mounted).await?;
        self.take_away(mounted).await?;
        drop(room);

        let room = self.world.room(self.next_node(&volume), 1).await?;
        let grown = match size_before {
            Some(before) => Some((before, self.controller_expand(&volume).await?)),
            None => None,
        };
        let moved = self.bring(&volume, room.node).await?;
        if let Some((before, (size, node_step))) = grown {
            self.finish_growth(&volume, &moved, before, size, node_step).await?;
        }
        self.compare(&moved, AFTER).await?;
        self.take_away(moved).await?;
        drop(room);

        if let Some(backup) = backup {
            self.world.remove(self.number, Step::DeleteBackup, backup.entry).await?;
        }
        if let Some(snapshot) = snapshot {
            self.world.remove(self.number, Step::DeleteSnapshot, snapshot.entry).await?;
        }
        self.world.remove(self.number, Step::DeleteVolume, volume.entry).await
    }

    /// Makes a volume, for the node on which the life begins.
    async fn create(
        &self,
        step: Step,
        suffix: &str,
        size: u64,
        source: Option<proto::volume_content_source::Type>,
    ) -> Result<Volume, Ended> {
        let settings = &self.world.settings;
        let place = self.node_topology(self.home).filter(|_| self.world.plan.topology);
        let request = proto::CreateVolumeRequest {
            name: self.name(suffix),
            capacity_range: Some(range(size)),
            volume_capabilities: vec![settings.capability.clone()],
            parameters: settings.parameters.clone(),
            secrets: settings.secrets.clone(),
            volume_content_source: source.map(|source| proto::VolumeContentSource { r#type: Some(source) }),
            accessibility_requirements: place.map(|place| proto::TopologyRequirement {
                requisite: vec![place.clone()],
                preferred: vec![place.clone()],
            }),
            ..Default::default()
        };
        let object = Object::Volume { request: Box::new(request.clone()), id: None };
        let entry = self.world.ledger.begin(self.number, object);
        let name = |answer: Option<&proto::CreateVolumeResponse>| {
            let made = answer.and_then(|answer| answer.volume.as_ref());
            made.map_or_else(|| request.name.clone(), |volume| volume.volume_id.clone())
        };
        let controller = &self.world.driver.controller;
        let send = || {
            let (mut controller, request) = (controller.clone(), request.clone());
            async move { controller.create_volume(request).await }
        };
        let answer = self.world.rpc(self.number, step, name, send).await?;
        let made = match answer.volume {
            Some(made) if !made.volume_id.is_empty() => made,
            _ => return self.wrong(step, &request.name, "CreateVolume: the answer has no volume_id"),
        };
        self.world.ledger.identify(entry, &made.volume_id);
        let got = u64::try_from(made.capacity_bytes).unwrap_or_default();
        if got != 0 && got < size {
            let why = format!("CreateVolume: {size} bytes were required and the volume has {got}");
            return self.wrong(step, &made.volume_id, &why);
        }
        Ok(Volume {
            entry,
            id: made.volume_id,
            size: got.max(size),
            context: made.volume_context,
            topology: made.accessible_topology,
        })
    }

    /// Publishes a volume to a node, stages it there, publishes it to a workload.
    async fn bring(&mut self, volume: &Volume, node: usize) -> Result<InUse, Ended> {
        let (world, life) = (self.world, self.number);
        let settings = &world.settings;
        self.uses += 1;
        let directory = settings.work_dir.join(format!("{life}-{}", self.uses));
        let (staging_path, target_path) = (directory.join("staging"), directory.join("target"));
        let mut directories = vec![world.make_directory(life, directory).await?];
        let Ok(service) = world.node(node) else { return Err(Ended::Failed) };

        let (mut attachment, mut context) = (None, StringMap::new());
        if world.plan.publish {
            let object = Object::Attachment { volume: volume.id.clone(), node };
            attachment = Some(world.ledger.begin(life, object));
            let request = proto::ControllerPublishVolumeRequest {
                volume_id: volume.id.clone(),
                node_id: service.info.node_id.clone(),
                volume_capability: Some(settings.capability.clone()),
                readonly: false,
                secrets: settings.secrets.clone(),
                volume_context: volume.context.clone(),
            };
            let send = || {
                let (mut controller, request) = (world.driver.controller.clone(), request.clone());
                async move { controller.controller_publish_volume(request).await }
            };
            context = world.rpc(life, Step::ControllerPublish, |_| volume.id.clone(), send).await?.publish_context;
        }

        let mut staging = None;
        if world.plan.stage {
            directories.push(world.make_directory(life, staging_path.clone()).await?);
            let object = Object::Staging { volume: volume.id.clone(), node, path: staging_path.clone() };
            staging = Some(world.ledger.begin(life, object));
            let request = proto::NodeStageVolumeRequest {
                volume_id: volume.id.clone(),
                publish_context: context.clone(),
                staging_target_path: text(&staging_path),
                volume_capability: Some(settings.capability.clone()),
                secrets: settings.secrets.clone(),
                volume_context: volume.context.clone(),
            };
            let send = || {
                let (mut rpcs, request) = (service.rpcs.clone(), request.clone());
                async move { rpcs.node_stage_volume(request).await }
            };
            world.rpc(life, Step::NodeStage, |_| volume.id.clone(), send).await?;
        }

        let staging_path = if world.plan.stage { text(&staging_path) } else { String::new() };
        let object = Object::Publication { volume: volume.id.clone(), node, path: target_path.clone() };
        let publication = world.ledger.begin(life, object);
        let request = proto::NodePublishVolumeRequest {
            volume_id: volume.id.clone(),
            publish_context: context,
            staging_target_path: staging_path.clone(),
            target_path: text(&target_path),
            volume_capability: Some(settings.capability.clone()),
            readonly: false,
            secrets: settings.secrets.clone(),
            volume_context: volume.context.clone(),
        };
        let send = || {
            let (mut rpcs, request) = (service.rpcs.clone(), request.clone());
            async move { rpcs.node_publish_volume(request).await }
        };
        world.rpc(life, Step::NodePublish, |_| volume.id.clone(), send).await?;
        let view = View { path: target_path, block: settings.is_block(), first_size: settings.size };
        Ok(InUse { volume: volume.id.clone(), node, staging_path, view, attachment, directories, staging, publication })
    }

    /// The opposite of [`Life::bring`].
    async fn take_away(&self, used: InUse) -> Result<(), Ended> {
        let (world, life) = (self.world, self.number);
        world.remove(life, Step::NodeUnpublish, used.publication).await?;
        if let Some(staging) = used.staging {
            world.remove(life, Step::NodeUnstage, staging).await?;
        }
        for directory in used.directories.into_iter().rev() {
            world.remove_directory(life, directory).await?;
        }
        match used.attachment {
            Some(attachment) => world.remove(life, Step::ControllerUnpublish, attachment).await,
            None => Ok(()),
        }
    }

    async fn write(&self, used: &InUse, generation: u64) -> Result<(), Ended> {
        let work = self.world.workload.write(&used.view, self.pattern(generation));
        self.world.work(self.number, Step::Write, &used.volume, work).await
    }

    async fn compare(&self, used: &InUse, generation: u64) -> Result<(), Ended> {
        let work = self.world.workload.verify(&used.view, self.pattern(generation));
        self.world.work(self.number, Step::Compare, &used.volume, work).await
    }

    async fn size_if(&self, wanted: bool, used: &InUse) -> Result<Option<u64>, Ended> {
        if wanted { self.size(used).await.map(Some) } else { Ok(None) }
    }

    async fn size(&self, used: &InUse) -> Result<u64, Ended> {
        let work = self.world.workload.size(&used.view);
        self.world.work(self.number, Step::CheckSize, &used.volume, work).await
    }

    /// Asks for statistics and holds them against what the workload sees.
    async fn stats(&self, used: &InUse) -> Result<(), Ended> {
        let request = proto::NodeGetVolumeStatsRequest {
            volume_id: used.volume.clone(),
            volume_path: text(&used.view.path),
            staging_target_path: used.staging_path.clone(),
        };
        let Ok(service) = self.world.node(used.node) else { return Err(Ended::Failed) };
        let send = || {
            let (mut rpcs, request) = (service.rpcs.clone(), request.clone());
            async move { rpcs.node_get_volume_stats(request).await }
        };
        let answer = self.world.rpc(self.number, Step::Stats, |_| used.volume.clone(), send).await?;
        let bytes = answer.usage.iter().find(|usage| usage.unit() == proto::volume_usage::Unit::Bytes);
        let total = bytes.and_then(|usage| u64::try_from(usage.total).ok()).unwrap_or_default();
        let seen = match self.world.workload.size(&used.view).await {
            Ok(seen) => seen,
            Err(error) => return self.wrong(Step::Stats, &used.volume, &error.to_string()),
        };
        if total != seen {
            let why = format!("NodeGetVolumeStats says {total} bytes in all, and its workload sees {seen}");
            return self.wrong(Step::Stats, &used.volume, &why);
        }
        Ok(())
    }

    /// Takes a snapshot and waits until it can be used.
    async fn snapshot(&self, volume: &Volume) -> Result<Snapshot, Ended> {
        let parameters = self.world.settings.snapshot_parameters.clone();
        match self.take(Step::CreateSnapshot, "-snapshot", volume, parameters, |_| false).await? {
            Ok(snapshot) => Ok(snapshot),
            Err(_) => Err(Ended::Failed),
        }
    }

    /// Makes a backup, where there is such a thing.
    async fn backup(&self, volume: &Volume) -> Result<Option<Snapshot>, Ended> {
        let plan = self.world.plan.backup;
        if plan == BackupPlan::No || !self.world.makes_backups() {
            return Ok(None);
        }
        let mut parameters = self.world.settings.snapshot_parameters.clone();
        parameters.insert("type".to_owned(), "backup".to_owned());
        let tolerable =
            |code| plan == BackupPlan::IfThere && matches!(code, Code::InvalidArgument | Code::Unimplemented);
        match self.take(Step::CreateBackup, "-backup", volume, parameters, tolerable).await? {
            Ok(backup) => Ok(Some(backup)),
            Err(why) => {
                self.world.no_backups.store(true, Ordering::Relaxed);
                self.world.report.left_out("backup", &format!("the driver makes none here: {why}"));
                Ok(None)
            }
        }
    }

    async fn take(
        &self,
        step: Step,
        suffix: &str,
        volume: &Volume,
        parameters: StringMap,
        tolerable: impl Fn(Code) -> bool,
    ) -> Result<Result<Snapshot, String>, Ended> {
        let request = proto::CreateSnapshotRequest {
            source_volume_id: volume.id.clone(),
            name: self.name(suffix),
            secrets: self.world.settings.secrets.clone(),
            parameters,
            ..Default::default()
        };
        let entry =
            self.world.ledger.begin(self.number, Object::Snapshot { request: Box::new(request.clone()), id: None });
        let name = |answer: Option<&proto::CreateSnapshotResponse>| {
            let made = answer.and_then(|answer| answer.snapshot.as_ref());
            made.map_or_else(|| request.name.clone(), |snapshot| snapshot.snapshot_id.clone())
        };
        let ledger = &self.world.ledger;
        let send = || {
            let (mut controller, request) = (self.world.driver.controller.clone(), request.clone());
            async move {
                let answer = controller.create_snapshot(request).await?;
                match answer.get_ref().snapshot.as_ref() {
                    Some(snapshot) if !snapshot.ready_to_use => {
                        ledger.identify(entry, &snapshot.snapshot_id);
                        // The snapshotter asks again in the same way.
                        Err(tonic::Status::aborted("it is not ready to be used yet"))
                    }
                    _ => Ok(answer),
                }
            }
        };
        let answer = match self.world.try_rpc(self.number, step, name, tolerable, send).await? {
            Ok(answer) => answer,
            Err(status) => {
                self.world.ledger.end(entry);
                return Ok(Err(format!("{:?}: {}", status.code(), status.message())));
            }
        };
        let made = match answer.snapshot {
            Some(made) if !made.snapshot_id.is_empty() => made,
            _ => return self.wrong(step, &request.name, "CreateSnapshot: the answer has no snapshot_id"),
        };
        self.world.ledger.identify(entry, &made.snapshot_id);
        if made.source_volume_id != volume.id {
            let why = format!("CreateSnapshot: the answer is of volume {:?}", made.source_volume_id);
            return self.wrong(step, &made.snapshot_id, &why);
        }
        let size = u64::try_from(made.size_bytes).unwrap_or_default().max(volume.size);
        Ok(Ok(Snapshot { entry, id: made.snapshot_id, size }))
    }

    /// Makes a volume of a snapshot or backup and looks whether it holds what the volume held then.
    async fn restore(&mut self, step: Step, suffix: &'static str, snapshot: &Snapshot) -> Result<(), Ended> {
        let source = proto::volume_content_source::SnapshotSource { snapshot_id: snapshot.id.clone() };
        let source = proto::volume_content_source::Type::Snapshot(source);
        self.copy(Origin { step, suffix, source, size: snapshot.size, generation: BEFORE }).await
    }

    /// Makes a volume of the volume and looks whether it holds what that holds now.
    async fn clone(&mut self, volume: &Volume) -> Result<(), Ended> {
        let source = proto::volume_content_source::VolumeSource { volume_id: volume.id.clone() };
        let source = proto::volume_content_source::Type::Volume(source);
        let step = Step::CreateFromVolume;
        self.copy(Origin { step, suffix: "-clone", source, size: volume.size, generation: AFTER }).await
    }

    /// The copy is used on the same node as the original, while that is mounted: the hardest case.
    async fn copy(&mut self, origin: Origin) -> Result<(), Ended> {
        let copy = self.create(origin.step, origin.suffix, origin.size, Some(origin.source)).await?;
        let used = self.bring(&copy, self.home).await?;
        self.compare(&used, origin.generation).await?;
        self.take_away(used).await?;
        self.world.remove(self.number, Step::DeleteVolume, copy.entry).await
    }

    async fn grow_online(&self, volume: &Volume, used: &InUse) -> Result<(), Ended> {
        let before = self.size(used).await?;
        let (size, node_step) = self.controller_expand(volume).await?;
        self.finish_growth(volume, used, before, size, node_step).await
    }

    /// Grows the volume. Says how large it is, and whether the node has to do something.
    async fn controller_expand(&self, volume: &Volume) -> Result<(u64, bool), Ended> {
        let wanted = volume.size + GROWTH;
        let rpc = proto::controller_service_capability::rpc::Type::ExpandVolume;
        if !self.world.driver.advertised.controller.contains(&rpc) {
            return Ok((wanted, true));
        }
        let request = proto::ControllerExpandVolumeRequest {
            volume_id: volume.id.clone(),
            capacity_range: Some(range(wanted)),
            secrets: self.world.settings.secrets.clone(),
            volume_capability: Some(self.world.settings.capability.clone()),
        };
        let send = || {
            let (mut controller, request) = (self.world.driver.controller.clone(), request.clone());
            async move { controller.controller_expand_volume(request).await }
        };
        let step = Step::ControllerExpand;
        let answer = self.world.rpc(self.number, step, |_| volume.id.clone(), send).await?;
        let size = u64::try_from(answer.capacity_bytes).unwrap_or_default();
        if size < wanted {
            let why = format!("ControllerExpandVolume: {wanted} bytes were required, and the answer is {size}");
            return self.wrong(step, &volume.id, &why);
        }
        Ok((size, answer.node_expansion_required))
    }

    /// Has the node grow what is on the volume, and looks whether the workload sees it.
    async fn finish_growth(
        &self,
        volume: &Volume,
        used: &InUse,
        before: u64,
        size: u64,
        node_step: bool,
    ) -> Result<(), Ended> {
        if node_step {
            self.node_expand(used, size).await?;
        }
        let after = self.size(used).await?;
        // A file system needs some of the new space for itself.
        let enough = if used.view.block { size } else { before + (size - volume.size) / 10 * 9 };
        if after < enough {
            let why = format!("the volume grew to {size} bytes, and its workload sees {after} (before: {before})");
            return self.wrong(Step::CheckSize, &used.volume, &why);
        }
        Ok(())
    }

    async fn node_expand(&self, used: &InUse, size: u64) -> Result<(), Ended> {
        let step = Step::NodeExpand;
        if !self.world.plan.node_growth {
            let why = "the controller asks for a node expansion, which the node does not advertise";
            return self.wrong(step, &used.volume, why);
        }
        let Ok(service) = self.world.node(used.node) else { return Err(Ended::Failed) };
        let request = proto::NodeExpandVolumeRequest {
            volume_id: used.volume.clone(),
            volume_path: text(&used.view.path),
            capacity_range: Some(range(size)),
            staging_target_path: used.staging_path.clone(),
            volume_capability: Some(self.world.settings.capability.clone()),
            ..Default::default()
        };
        let send = || {
            let (mut rpcs, request) = (service.rpcs.clone(), request.clone());
            async move { rpcs.node_expand_volume(request).await }
        };
        self.world.rpc(self.number, step, |_| used.volume.clone(), send).await.map(drop)
    }

    /// The next node from which the volume can be reached; the same where there is no other.
    fn next_node(&self, volume: &Volume) -> usize {
        let nodes = self.world.driver.nodes.len();
        let others = (1..nodes).map(|step| (self.home + step) % nodes);
        let reachable = |node: &usize| {
            volume.topology.is_empty()
                || self
                    .node_topology(*node)
                    .is_some_and(|place| volume.topology.iter().any(|wanted| covers(place, wanted)))
        };
        let next = others.into_iter().find(reachable);
        if next.is_none() && nodes > 1 {
            self.world.report.note(
                self.number,
                &format!("volume {}: no other node is where it can be reached; it comes back to the same", volume.id),
            );
        }
        next.unwrap_or(self.home)
    }

    fn node_topology(&self, node: usize) -> Option<&proto::Topology> {
        let service = self.world.driver.nodes.get(node)?;
        service.info.accessible_topology.as_ref().filter(|place| !place.segments.is_empty())
    }

    fn name(&self, suffix: &str) -> String {
        format!("{}-{}{suffix}", self.world.settings.run, self.number)
    }

    fn pattern(&self, generation: u64) -> Pattern {
        Pattern { seed: self.seed, generation }
    }

    /// An RPC succeeded, and what it said or did is wrong.
    fn wrong<T>(&self, step: Step, object: &str, why: &str) -> Result<T, Ended> {
        self.world.report.failed(self.number, step, object, Duration::ZERO, 0, why);
        Err(Ended::Failed)
    }
}

/// Whether a node at `place` reaches what is accessible from `wanted`.
fn covers(place: &proto::Topology, wanted: &proto::Topology) -> bool {
    wanted.segments.iter().all(|(key, value)| place.segments.get(key) == Some(value))
}

fn range(size: u64) -> proto::CapacityRange {
    proto::CapacityRange { required_bytes: Bytes::new(size).to_wire(), limit_bytes: 0 }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
