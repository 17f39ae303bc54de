//! Snapshots of shares. As with shares, name and metadata are the way back to what an earlier call began; services
//! before 2.73 keep no metadata of snapshots, and there the description says whose they are.

use super::backup::{describe_backup, remove_backup};
use super::failure::{creation_refused, ended_in_error};
use super::parameters::SnapshotType;
use super::{Cloud, FIRST_LOOK, ManilaProvider};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::model::{Page, PageRequest, SnapshotFilter, SnapshotId, SnapshotSpec};
use crate::openstack::client::found;
use crate::openstack::manila::{self, Listing, NewSnapshot, Seen, SnapshotStatus};
use crate::provider::failure::{is_refused_with, is_unclear, with_remains};
use crate::provider::handle::{SnapshotHandle, SnapshotKind, VolumeHandle};
use crate::provider::names::check_name;
use crate::provider::size::gib;
use crate::provider::{SNAPSHOT_PATIENCE, Snapshots};
use async_trait::async_trait;

/// How manila-csi describes its snapshots.
const MANILA_CSI_DESCRIPTION: &str = "provisioned-by=manila.csi.openstack.org";

#[async_trait]
impl Snapshots for ManilaProvider {
    async fn create_snapshot(&self, call: &Call, spec: &SnapshotSpec) -> Result<crate::model::Snapshot> {
        Box::pin(self.take_snapshot(call, spec))
            .await
            .map_err(|error| error.during(format!("take snapshot {} of share {}", spec.name, spec.source)))
    }

    async fn delete_snapshot(&self, call: &Call, id: &SnapshotId) -> Result<()> {
        Box::pin(self.drop_snapshot(call, id)).await.map_err(|error| error.during(format!("delete snapshot {id}")))
    }

    async fn snapshots(
        &self,
        call: &Call,
        filter: &SnapshotFilter,
        page: &PageRequest,
    ) -> Result<Page<crate::model::Snapshot>> {
        self.list_snapshots(call, filter, page).await.map_err(|error| error.during("list snapshots"))
    }

    async fn snapshot(&self, call: &Call, id: &SnapshotId) -> Result<crate::model::Snapshot> {
        self.show_snapshot(call, id).await.map_err(|error| error.during(format!("look at snapshot {id}")))
    }

    fn have_topology(&self) -> bool {
        false
    }
}

/// How the wait for a snapshot ended.
enum Taken {
    Ready(manila::Snapshot),
    Failed(manila::Snapshot),
}

impl ManilaProvider {
    /// The story of CreateSnapshot.
    async fn take_snapshot(&self, call: &Call, spec: &SnapshotSpec) -> Result<crate::model::Snapshot> {
        let what = SnapshotType::parse(&self.names, &spec.parameters)?;
        check_name(&spec.name)?;
        let (cloud, share) = self.existing(call, &spec.source).await?;
        // The secret of the class may name the cloud as well; the share's own cloud is the only one possible.
        if !spec.secrets.is_empty() && self.cloud_of_class(&spec.secrets).await?.name != cloud.name {
            return Err(Error::invalid("the secret of the class names another cloud than that of the share"));
        }
        let taken = match what {
            SnapshotType::Backup => self.take_backup(call, cloud, &share, spec).await?,
            SnapshotType::Snapshot => {
                let snapshot = self.find_or_take(call, cloud, &share, spec).await?;
                describe(cloud, &await_ready(call, cloud, snapshot).await?)?
            }
        };
        Ok(crate::model::Snapshot { source: spec.source.clone(), ..taken })
    }

    /// The snapshot of this name, taken now if need be; it may still be in the making.
    async fn find_or_take(
        &self,
        call: &Call,
        cloud: &Cloud,
        share: &str,
        spec: &SnapshotSpec,
    ) -> Result<manila::Snapshot> {
        let mut unconfirmed = true;
        loop {
            call.check("look for the snapshot")?;
            match self.lookup_snapshot(call, cloud, &spec.name).await? {
                Some(snapshot) if snapshot.share_id != share => {
                    return Err(Error::new(
                        Kind::Conflict,
                        format!(
                            "snapshot {} has the name {} already, and is of share {}",
                            snapshot.id, spec.name, snapshot.share_id
                        ),
                    ));
                }
                Some(snapshot) if snapshot.status == SnapshotStatus::Deleting => {
                    await_gone(call, cloud, &snapshot.id).await?;
                }
                Some(snapshot) => return Ok(snapshot),
                None if unconfirmed && self.wait_for_lost(call, cloud, &doubt(&spec.name)).await? => {
                    unconfirmed = false;
                }
                None => return self.ask_for_snapshot(call, cloud, share, spec).await,
            }
        }
    }

    async fn ask_for_snapshot(
        &self,
        call: &Call,
        cloud: &Cloud,
        share: &str,
        spec: &SnapshotSpec,
    ) -> Result<manila::Snapshot> {
        let new = NewSnapshot {
            name: spec.name.clone(),
            description: self.names.description(),
            share_id: share.to_owned(),
            metadata: self.names.metadata(&spec.parameters),
        };
        call.check("ask Manila for the snapshot")?;
        cloud.manila.create_snapshot(call, &new).await.map_err(|error| {
            if is_unclear(&error) {
                cloud.doubts.note(&doubt(&spec.name));
            }
            if is_refused_with(&error, 404) {
                return error;
            }
            creation_refused(error, "the share", "the share")
        })
    }

    /// The snapshot of this name that is ours; the earliest if there are several, and then later ones are removed.
    async fn lookup_snapshot(&self, call: &Call, cloud: &Cloud, name: &str) -> Result<Option<manila::Snapshot>> {
        let named = cloud.manila.all::<manila::Snapshot>(call, Listing::all().named(name)).await?;
        let mut ours: Vec<_> =
            named.into_iter().filter(|snapshot| snapshot.name == name && self.is_our_snapshot(snapshot)).collect();
        ours.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        let mut ours = ours.into_iter();
        let first = ours.next();
        for twin in ours {
            tracing::info!(snapshot = %twin.id, %name, "removing a second snapshot of this name");
            remove(call, cloud, &twin.id).await?;
        }
        Ok(first)
    }

    fn is_our_snapshot(&self, snapshot: &manila::Snapshot) -> bool {
        if self.names.is_drop_in() && snapshot.description == MANILA_CSI_DESCRIPTION {
            return true;
        }
        match &snapshot.metadata {
            Some(metadata) => self.names.is_ours(metadata),
            None => snapshot.description == self.names.description(),
        }
    }

    /// The story of DeleteSnapshot.
    async fn drop_snapshot(&self, call: &Call, id: &SnapshotId) -> Result<()> {
        // What cannot exist is not there.
        let Some(handle) = SnapshotHandle::parse(id) else { return Ok(()) };
        let cloud = self.clouds.of_handle(&handle.cloud)?;
        match handle.kind {
            SnapshotKind::Bare => remove(call, cloud, handle.id.as_str()).await,
            SnapshotKind::Backup => remove_backup(call, cloud, handle.id.as_str()).await,
        }
    }

    async fn show_snapshot(&self, call: &Call, id: &SnapshotId) -> Result<crate::model::Snapshot> {
        let handle = SnapshotHandle::parse(id).ok_or_else(|| Error::not_found(format!("there is no snapshot {id}")))?;
        let cloud = self.clouds.of_handle(&handle.cloud)?;
        match handle.kind {
            SnapshotKind::Bare => describe(cloud, &cloud.manila.one(call, handle.id.as_str()).await?),
            SnapshotKind::Backup => describe_backup(cloud, &cloud.manila.one(call, handle.id.as_str()).await?),
        }
    }
}

/// Under what a snapshot whose answer was lost is noted: shares have names too.
fn doubt(name: &str) -> String {
    format!("snapshot {name}")
}

/// A snapshot as the orchestrator should know it.
pub(super) fn describe(cloud: &Cloud, snapshot: &manila::Snapshot) -> Result<crate::model::Snapshot> {
    Ok(crate::model::Snapshot {
        id: SnapshotHandle::write_snapshot(&cloud.name, &snapshot.id)?,
        source: VolumeHandle::write(&cloud.name, &snapshot.share_id)?,
        size: gib(snapshot.share_size)?,
        created: snapshot.created_at.unwrap_or(jiff::Timestamp::UNIX_EPOCH),
        ready: is_usable(&snapshot.status),
        topology: Vec::new(),
    })
}

fn is_usable(status: &SnapshotStatus) -> bool {
    matches!(status, SnapshotStatus::Available | SnapshotStatus::Restoring)
}

/// Waits a little until a snapshot is usable; then it is shown as it is. One that failed is removed.
async fn await_ready(call: &Call, cloud: &Cloud, snapshot: manila::Snapshot) -> Result<manila::Snapshot> {
    let taken = match ready(Some(&snapshot))? {
        Some(taken) => taken,
        None => {
            let wait = cloud.snapshots.until_from(call, "take snapshot", FIRST_LOOK, &snapshot.id, |seen| {
                ready(seen.map(|seen| &seen.object))
            });
            match tokio::time::timeout(SNAPSHOT_PATIENCE, wait).await {
                Err(_out_of_patience) => return Ok(snapshot),
                Ok(taken) => taken?,
            }
        }
    };
    match taken {
        Taken::Ready(snapshot) => Ok(snapshot),
        Taken::Failed(snapshot) => {
            let error = ended_in_error(call, cloud, "snapshot", &snapshot.id, snapshot.status.as_str()).await;
            match remove(call, cloud, &snapshot.id).await {
                Ok(()) => Err(error),
                Err(later) => Err(with_remains(error, &later)),
            }
        }
    }
}

/// What a snapshot's status means: usable, failed, or to be waited for.
fn ready(seen: Option<&manila::Snapshot>) -> Result<Option<Taken>> {
    let Some(snapshot) = seen else { return Err(Error::busy("the snapshot was removed while it was taken")) };
    Ok(match &snapshot.status {
        status if is_usable(status) => Some(Taken::Ready(snapshot.clone())),
        SnapshotStatus::Error => Some(Taken::Failed(snapshot.clone())),
        SnapshotStatus::Creating => None,
        SnapshotStatus::Deleting => return Err(Error::busy(format!("snapshot {} is being deleted", snapshot.id))),
        status => {
            return Err(Error::wrong_state(format!(
                "snapshot {} is {status}; when its cause is gone, an administrator can set it with `openstack share \
                 snapshot set --status`",
                snapshot.id
            )));
        }
    })
}

/// Deletes a snapshot and waits until it is gone; success if there is none.
async fn remove(call: &Call, cloud: &Cloud, id: &str) -> Result<()> {
    loop {
        call.check("delete the snapshot")?;
        match cloud.manila.delete_snapshot(call, id).await {
            Ok(()) => return await_gone(call, cloud, id).await,
            Err(error) if error.is(Kind::NotFound) => return Ok(()),
            Err(error) if [400, 403, 409].iter().any(|status| is_refused_with(&error, *status)) => {
                let Some(snapshot) = found(cloud.manila.one::<manila::Snapshot>(call, id).await)? else {
                    return Ok(());
                };
                match snapshot.status {
                    SnapshotStatus::Deleting => return await_gone(call, cloud, id).await,
                    SnapshotStatus::Creating | SnapshotStatus::Restoring => {
                        let was = snapshot.status;
                        let left = move |seen: Option<&Seen<manila::Snapshot>>| {
                            Ok(seen.is_none_or(|seen| seen.object.status != was).then_some(()))
                        };
                        cloud.snapshots.until(call, "settle snapshot", id, left).await?;
                    }
                    status => {
                        return Err(Error::wrong_state(format!("snapshot {id} is {status}")).because(error));
                    }
                }
            }
            Err(error) => return Err(error),
        }
    }
}

pub(super) async fn await_gone(call: &Call, cloud: &Cloud, id: &str) -> Result<()> {
    let _noted = cloud.notes.leaving(id);
    let back = cloud
        .snapshots
        .until_from(call, "delete snapshot", FIRST_LOOK, id, |seen| match seen.map(|seen| &seen.object) {
            None => Ok(Some(None)),
            Some(snapshot) if snapshot.status == SnapshotStatus::Deleting => Ok(None),
            Some(snapshot) => Ok(Some(Some(snapshot.clone()))),
        })
        .await?;
    match back {
        None => Ok(()),
        Some(snapshot) => {
            let why = ended_in_error(call, cloud, "snapshot", id, snapshot.status.as_str()).await;
            let kind = if snapshot.status == SnapshotStatus::Available { Kind::WrongState } else { why.kind() };
            Err(why.as_kind(kind).during("the storage refuses to delete it: something may depend on it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Taken, ready};
    use crate::error::Kind;
    use crate::openstack::manila::Snapshot;
    use serde_json::json;

    #[test]
    fn what_the_status_of_a_snapshot_means() {
        for (status, expected) in [
            ("creating", "wait"),
            ("available", "ready"),
            ("restoring", "ready"),
            ("error", "failed"),
            ("error_deleting", "wrong"),
            ("deleting", "busy"),
        ] {
            let snapshot: Snapshot =
                serde_json::from_value(json!({"id": "s", "share_id": "v", "status": status})).unwrap();
            let meaning = match ready(Some(&snapshot)) {
                Ok(None) => "wait",
                Ok(Some(Taken::Ready(_))) => "ready",
                Ok(Some(Taken::Failed(_))) => "failed",
                Err(error) if error.is(Kind::Busy) => "busy",
                Err(_) => "wrong",
            };
            assert_eq!(meaning, expected, "{status}");
        }
        assert_eq!(ready(None).err().unwrap().kind(), Kind::Busy);
    }
}
