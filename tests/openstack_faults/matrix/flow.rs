//! The RPCs: what each needs before, the call itself, and what must hold after it.

use crate::proto;
use crate::proto::volume_capability::access_mode::Mode;
use crate::sidecar::{GIB, Sidecar, capability, create_request, from_snapshot, from_volume, mounted};
use crate::standin::cloud::{Cloud, Disk, Kind};
use tonic::Status;

/// One RPC, from a prepared start to a checked end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Flow {
    Create,
    CreateFromSnapshot,
    CreateFromVolume,
    CreateFromBackup,
    CreateOverError,
    Delete,
    Publish,
    PublishToSecond,
    Unpublish,
    UnpublishFromAll,
    ExpandOffline,
    ExpandOnline,
    Snapshot,
    SnapshotInUse,
    Backup,
    BackupInUse,
    DeleteSnapshot,
    DeleteBackup,
    ListVolumes,
    ListSnapshots,
    Get,
    Validate,
    Capacity,
}

impl Flow {
    pub(super) const ALL: [Self; 23] = [
        Self::Create,
        Self::CreateFromSnapshot,
        Self::CreateFromVolume,
        Self::CreateFromBackup,
        Self::CreateOverError,
        Self::Delete,
        Self::Publish,
        Self::PublishToSecond,
        Self::Unpublish,
        Self::UnpublishFromAll,
        Self::ExpandOffline,
        Self::ExpandOnline,
        Self::Snapshot,
        Self::SnapshotInUse,
        Self::Backup,
        Self::BackupInUse,
        Self::DeleteSnapshot,
        Self::DeleteBackup,
        Self::ListVolumes,
        Self::ListSnapshots,
        Self::Get,
        Self::Validate,
        Self::Capacity,
    ];

    /// What must be there before.
    pub(super) fn needs_volume(self) -> bool {
        !matches!(self, Self::Create | Self::CreateOverError)
    }

    pub(super) fn needs_snapshot(self) -> bool {
        matches!(self, Self::CreateFromSnapshot | Self::DeleteSnapshot | Self::ListSnapshots)
    }

    pub(super) fn needs_backup(self) -> bool {
        matches!(self, Self::CreateFromBackup | Self::DeleteBackup | Self::ListSnapshots)
    }

    pub(super) fn needs_attachment(self) -> bool {
        matches!(
            self,
            Self::PublishToSecond
                | Self::Unpublish
                | Self::UnpublishFromAll
                | Self::ExpandOnline
                | Self::SnapshotInUse
                | Self::BackupInUse
        )
    }

    pub(super) fn is_multiattach(self) -> bool {
        matches!(self, Self::PublishToSecond | Self::UnpublishFromAll)
    }
}

/// What a flow works on.
#[derive(Debug, Default)]
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) nodes: Vec<String>,
    pub(super) volume: String,
    pub(super) snapshot: String,
    pub(super) backup: String,
    /// What the RPC under test made.
    pub(super) made_volume: Option<proto::Volume>,
    pub(super) made_snapshot: Option<proto::Snapshot>,
}

/// A raw block device for many writers.
fn shared() -> proto::VolumeCapability {
    capability(Mode::MultiNodeMultiWriter, true)
}

impl Subject {
    /// Makes what the flow needs.
    pub(super) async fn prepare(&mut self, flow: Flow, sidecar: &Sidecar) -> Result<(), Status> {
        if flow.needs_volume() {
            let mut request = create_request(&format!("{}-source", self.name), 1);
            if flow.is_multiattach() {
                request.parameters.insert("type".to_owned(), "multi".to_owned());
                request.volume_capabilities = vec![shared()];
            }
            self.volume = sidecar.create_as(request).await?.volume_id;
        }
        if flow.needs_attachment() {
            self.publish(flow, sidecar, 0).await?;
        }
        if flow == Flow::UnpublishFromAll {
            self.publish(flow, sidecar, 1).await?;
        }
        if flow.needs_snapshot() {
            let name = format!("{}-snapshot", self.name);
            self.snapshot = sidecar.ready_snapshot(&name, &self.volume, false).await?.snapshot_id;
        }
        if flow.needs_backup() {
            let name = format!("{}-backup", self.name);
            self.backup = sidecar.ready_snapshot(&name, &self.volume, true).await?.snapshot_id;
        }
        Ok(())
    }

    async fn publish(&self, flow: Flow, sidecar: &Sidecar, node: usize) -> Result<(), Status> {
        let mode = if flow.is_multiattach() { shared() } else { mounted() };
        sidecar.publish_as(&self.volume, &self.nodes[node], mode).await.map(drop)
    }

    /// The RPC under test, once.
    pub(super) async fn act(&mut self, flow: Flow, sidecar: &Sidecar) -> Result<(), Status> {
        let mut create = create_request(&self.name, 1);
        match flow {
            Flow::Create | Flow::CreateOverError => {}
            Flow::CreateFromSnapshot => create.volume_content_source = from_snapshot(&self.snapshot),
            Flow::CreateFromBackup => create.volume_content_source = from_snapshot(&self.backup),
            Flow::CreateFromVolume => create.volume_content_source = from_volume(&self.volume),
            Flow::Delete => return sidecar.delete(&self.volume).await,
            Flow::Publish => return sidecar.publish(&self.volume, &self.nodes[0]).await.map(drop),
            Flow::PublishToSecond => {
                return sidecar.publish_as(&self.volume, &self.nodes[1], shared()).await.map(drop);
            }
            Flow::Unpublish => return sidecar.unpublish(&self.volume, &self.nodes[0]).await,
            Flow::UnpublishFromAll => return sidecar.unpublish(&self.volume, "").await,
            Flow::ExpandOffline | Flow::ExpandOnline => {
                let size = sidecar.expand(&self.volume, 2).await?;
                return if size == 2 * GIB { Ok(()) } else { Err(Status::data_loss(format!("expanded to {size}"))) };
            }
            Flow::Snapshot | Flow::SnapshotInUse | Flow::Backup | Flow::BackupInUse => {
                let backup = matches!(flow, Flow::Backup | Flow::BackupInUse);
                let made = sidecar.ready_snapshot(&self.name, &self.volume, backup).await?;
                self.made_snapshot = Some(made);
                return Ok(());
            }
            Flow::DeleteSnapshot => return sidecar.delete_snapshot(&self.snapshot).await,
            Flow::DeleteBackup => return sidecar.delete_snapshot(&self.backup).await,
            Flow::ListVolumes => {
                let listed = sidecar.list(0, "").await?;
                let has = |entry: &proto::list_volumes_response::Entry| {
                    entry.volume.as_ref().is_some_and(|volume| volume.volume_id == self.volume)
                };
                return if listed.entries.iter().any(has) { Ok(()) } else { Err(Status::data_loss("not listed")) };
            }
            Flow::ListSnapshots => {
                let listed = sidecar.list_snapshots(proto::ListSnapshotsRequest::default()).await?;
                return if listed.entries.len() == 2 { Ok(()) } else { Err(Status::data_loss("not two listed")) };
            }
            Flow::Get => return sidecar.get(&self.volume).await.map(drop),
            Flow::Validate => return sidecar.validate(&self.volume).await,
            Flow::Capacity => return sidecar.capacity().await.map(drop),
        }
        self.made_volume = Some(sidecar.create_as(create).await?);
        Ok(())
    }

    /// Whether the cloud is as the RPC promised.
    pub(super) fn check(&self, flow: Flow, cloud: &Cloud) -> Result<(), String> {
        let ensure = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        if let Some(made) = &self.made_volume {
            let named = cloud.named(Kind::Volume, &self.name);
            let [volume] = named.as_slice() else {
                return Err(format!("{} volumes of that name", named.len()));
            };
            ensure(made.volume_id == volume.id, "another volume was answered")?;
            ensure(volume.status == "available", "the volume is not available")?;
            ensure(made.capacity_bytes == GIB && volume.size == 1, "the size is wrong")?;
            ensure(
                (flow == Flow::CreateFromSnapshot) == volume.snapshot_id.is_some()
                    && (flow == Flow::CreateFromVolume) == volume.source_volid.is_some(),
                "the source is wrong",
            )?;
        }
        if let Some(made) = &self.made_snapshot {
            let backup = matches!(flow, Flow::Backup | Flow::BackupInUse);
            let kind = if backup { Kind::Backup } else { Kind::Snapshot };
            let named = cloud.named(kind, &self.name);
            let [snapshot] = named.as_slice() else {
                return Err(format!("{} {}s of that name", named.len(), kind.singular()));
            };
            ensure(made.snapshot_id.ends_with(&snapshot.id), "another snapshot was answered")?;
            ensure(made.source_volume_id == self.volume, "the source is wrong")?;
            let snapshots = cloud.items.iter().filter(|item| item.kind == Kind::Snapshot).count();
            ensure(!backup || snapshots == 0, "the backup's own snapshot was not removed")?;
        }
        let attached = |node: usize| {
            let on = |disk: &&Disk| disk.volume == self.volume && disk.server == self.nodes[node];
            cloud.disks.iter().filter(on).count()
        };
        match flow {
            Flow::Delete => ensure(cloud.volume(&self.volume).is_none(), "the volume is still there"),
            Flow::Publish => ensure(attached(0) == 1, "not attached once"),
            Flow::PublishToSecond => ensure(attached(0) == 1 && attached(1) == 1, "not attached to both"),
            Flow::Unpublish | Flow::UnpublishFromAll => {
                // Which servers these were only Cinder can tell: what it has let go, a driver that was killed
                // meanwhile cannot ask Nova about.
                let nova_may_lag = flow == Flow::UnpublishFromAll;
                ensure(nova_may_lag || attached(0) + attached(1) == 0, "Nova has the disk still")?;
                let status = cloud.volume(&self.volume).map(|volume| volume.status.clone());
                ensure(status.as_deref() == Some("available"), "Cinder has it attached still")
            }
            Flow::ExpandOffline | Flow::ExpandOnline => {
                ensure(cloud.volume(&self.volume).is_some_and(|volume| volume.size == 2), "not 2 GiB")
            }
            Flow::DeleteSnapshot => {
                ensure(cloud.item(Kind::Snapshot, &self.snapshot).is_none(), "the snapshot is still there")
            }
            Flow::DeleteBackup => {
                let left = cloud.items.iter().any(|item| item.kind == Kind::Backup);
                ensure(!left, "the backup is still there")
            }
            _ => Ok(()),
        }
    }
}
