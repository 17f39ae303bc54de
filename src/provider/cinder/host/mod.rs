//! Attaching volumes to hosts that Nova does not know, through Cinder's attachments alone.
//!
//! Two requests: `POST /attachments` with the host's connector, whose answer is the way to the volume, and `os-complete`.
//! The node is told only after the second. So an attachment that is not complete was used by nobody, and whatever breaks
//! off half-way leaves something that can be removed; it is never taken over, since Cinder does not show for which host
//! it was made. A complete one says that itself ([`tag`]).

mod ceph;
mod connection_info;
pub(super) mod known;
pub(super) mod tag;

use super::failure::{is_stuck, servers, wrong_state};
use super::volume::needs_sharing;
use super::{CinderProvider, Cloud};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::initiator::Initiator;
use crate::model::{Capability, Connection, NodeId, VolumeId};
use crate::openstack::cinder::{AttachedTo, AttachmentStatus, AttachmentWithInfo, NewAttachment, Volume, VolumeStatus};
use crate::openstack::client::found;
use crate::provider::failure::{is_refused_with, is_unclear, says};
use crate::provider::handle::VolumeHandle;
use connection_info::Told;
use known::Shape;
use std::time::Duration;
use tag::{Tag, of_cluster, tag_of};

/// The time that undoing a failed attachment gets, since the caller's own may be over.
const UNDO_TIME: Duration = Duration::from_secs(60);

/// How long a request whose answer was lost may still be at work in Cinder.
const DOUBT: Duration = Duration::from_secs(5);

/// The pause before a request is repeated that came too early.
const PAUSE: Duration = Duration::from_millis(500);

/// One call to attach a volume to a host.
struct Attaching<'a> {
    provider: &'a CinderProvider,
    call: &'a Call,
    cloud: &'a Cloud,
    id: &'a VolumeId,
    /// The volume in its cloud.
    volume: &'a str,
    host: &'a Initiator,
    tag: Tag,
    read_only: bool,
    /// Whether other hosts may have it as well.
    is_shared: bool,
}

impl CinderProvider {
    /// The story of ControllerPublishVolume for a host.
    pub(super) async fn attach_to_host(
        &self,
        call: &Call,
        id: &VolumeId,
        (node, host): (&NodeId, &Initiator),
        capability: &Capability,
        read_only: bool,
    ) -> Result<Connection> {
        let (handle, cloud) = self.existing(id)?;
        let is_shared = needs_sharing(capability)?;
        self.hosts.admit(host)?;
        let attaching = Attaching {
            provider: self,
            call,
            cloud,
            id,
            volume: handle.id.as_str(),
            host,
            tag: Tag::new(self.names.cluster(), node),
            read_only: read_only || capability.mode.is_read_only(),
            is_shared,
        };
        let _first = cloud.precedence.take();
        let _turn = call.bound("wait for another attachment", cloud.turns.wait(handle.id.as_str())).await?;
        attaching.run().await
    }

    /// The story of ControllerUnpublishVolume for a host. Its node id says enough, also when it is gone; should its facts
    /// have changed since, its name still finds what was attached under the old id.
    pub(super) async fn detach_from_host(
        &self,
        call: &Call,
        id: &VolumeId,
        node: &NodeId,
        host: Option<&Initiator>,
    ) -> Result<()> {
        let host = host.map(|host| host.host.as_str());
        let is_meant = |tag: &Tag| tag.node() == node || host.is_some_and(|host| tag.node_name() == host);
        self.detach_tagged(call, id, is_meant).await
    }

    /// The same for all hosts of this cluster.
    pub(super) async fn detach_from_all_hosts(&self, call: &Call, id: &VolumeId) -> Result<()> {
        self.detach_tagged(call, id, |_| true).await
    }

    async fn detach_tagged(&self, call: &Call, id: &VolumeId, is_meant: impl Fn(&Tag) -> bool + Send) -> Result<()> {
        let Some(handle) = VolumeHandle::parse(id) else { return Ok(()) };
        let cloud = self.clouds.of_handle(&handle.cloud)?;
        let id = handle.id.as_str();
        let _first = cloud.precedence.take();
        let _turn = call.bound("wait for another attachment", cloud.turns.wait(id)).await?;
        let Some(volume) = found(cloud.cinder.volume(call, id).await)? else { return Ok(()) };
        let ours = of_cluster(&volume, self.names.cluster()).filter(|(_, tag)| is_meant(tag));
        let ids: Vec<String> = ours.map(|(attachment, _)| attachment.attachment_id.clone()).collect();
        for attachment in &ids {
            call.check("detach the volume")?;
            remove(call, cloud, attachment).await?;
        }
        if is_half_attached(&volume) && self.names.is_ours(&volume.metadata) {
            self.remove_unfinished(call, cloud, &volume, true).await?;
        }
        Ok(())
    }

    /// Removes what an attempt to attach left behind. Whether there was anything.
    ///
    /// Such an attachment may be somebody else's (an installation of Ironic, a person's), who uses it before it is complete: so
    /// it has to be certain that it is ours, or it must have been left alone for minutes.
    pub(super) async fn remove_unfinished(
        &self,
        call: &Call,
        cloud: &Cloud,
        volume: &Volume,
        is_ours: bool,
    ) -> Result<bool> {
        let may_go = is_ours || is_stuck(volume, cloud.cinder.client().service_time());
        let mut removed = false;
        for attachment in cloud.cinder.attachments(call, &volume.id).await? {
            let is_unfinished = !matches!(attachment.status, AttachmentStatus::Attached | AttachmentStatus::Detached);
            // What has a server is Nova's.
            if attachment.instance.is_some() || !is_unfinished || !may_go {
                continue;
            }
            tracing::warn!(volume = %volume.id, attachment = %attachment.id, status = %attachment.status,
                "removing an attachment that was never finished");
            remove(call, cloud, &attachment.id).await?;
            removed = true;
        }
        Ok(removed)
    }
}

impl Attaching<'_> {
    async fn run(&self) -> Result<Connection> {
        // A volume that can have one attachment is not asked for it: Cinder refuses a second one.
        let mut shape = match self.cloud.shapes.get(self.volume) {
            Some(shape) if !shape.multiattach => shape,
            _ => match self.look().await? {
                Seen::Here(connection) => return Ok(*connection),
                Seen::NotHere(volume) => Shape::of(&volume)?,
                Seen::Cleared(shape) => shape,
            },
        };
        loop {
            self.call.check("attach the volume")?;
            let error = match self.request().await {
                Ok(attachment) => return self.complete(attachment, shape).await,
                Err(error) => error,
            };
            if !is_refused_with(&error, 400) {
                self.clear_up_after(&error).await;
                return Err(error);
            }
            match self.look().await? {
                Seen::Here(connection) => return Ok(*connection),
                Seen::NotHere(volume) => {
                    shape = Shape::of(&volume)?;
                    self.make_way(&volume, error).await?;
                }
                Seen::Cleared(now) => {
                    shape = now;
                    // Should Cinder make the same useless attachment again, it is not asked without end at full speed.
                    self.call.sleep("wait after removing an attachment", PAUSE).await?;
                }
            }
        }
    }

    async fn request(&self) -> Result<AttachmentWithInfo> {
        let new = NewAttachment {
            volume: self.volume,
            connector: self.host.connector(&self.tag.mountpoint()),
            read_only: self.read_only,
        };
        self.cloud.cinder.create_attachment(self.call, &new).await
    }

    /// Looks at the volume: it may be attached to this host already.
    async fn look(&self) -> Result<Seen> {
        let volume = self.cloud.cinder.volume(self.call, self.volume).await?;
        self.cloud.shapes.note(&volume);
        let shape = Shape::of(&volume)?;
        let mut here = None;
        for (attachment, tag) in of_cluster(&volume, self.provider.names.cluster()) {
            if let Ok(other) = Initiator::unpack(tag.node()) {
                self.provider.hosts.admit(&other)?;
            }
            if tag.node_name() == self.host.host {
                here = Some((attachment, tag));
            }
        }
        if let Some((attachment, tag)) = here {
            return Ok(match self.adopt(attachment, &tag, shape).await? {
                Some(connection) => Seen::Here(Box::new(connection)),
                None => Seen::Cleared(shape),
            });
        }
        let may_be_shared = volume.multiattach && self.is_shared;
        if volume.attachments.is_empty() || may_be_shared {
            Ok(Seen::NotHere(Box::new(volume)))
        } else {
            Err(elsewhere(&volume))
        }
    }

    /// Takes up an attachment that an earlier call made for this host; none if it is of no use and was removed.
    async fn adopt(&self, attachment: &AttachedTo, tag: &Tag, shape: Shape) -> Result<Option<Connection>> {
        let conflict = |what: &str| {
            Error::new(Kind::Conflict, format!("volume {} is attached to host {} {what}", self.id, self.host.host))
        };
        let was = Initiator::unpack(tag.node()).map(|was| was.connector(""));
        if was.ok() != Some(self.host.connector("")) {
            return Err(Error::wrong_state(format!(
                "volume {} is attached to host {} as that was before its initiator names or ports changed: detach it first",
                self.id, self.host.host
            )));
        }
        let id = attachment.attachment_id.as_str();
        let Some(made) = found(self.cloud.cinder.attachment(self.call, id).await)? else { return Ok(None) };
        if made.connection_info.is_empty() {
            // Cinder's API gave up waiting for its volume service, and never wrote down what that answered.
            remove(self.call, self.cloud, id).await?;
            return Ok(None);
        }
        match made.attach_mode.as_deref() {
            Some("ro") if !self.read_only => Err(conflict("for reading only")),
            Some("rw") if self.read_only => Err(conflict("for reading and writing")),
            _ => self.told(made, shape).await.map(Some),
        }
    }

    /// Tells the node, and lets Cinder know that the attachment is in use. If either is sure to have failed, the attachment is
    /// removed.
    async fn complete(&self, attachment: AttachmentWithInfo, shape: Shape) -> Result<Connection> {
        let id = attachment.id.clone();
        let error = match self.told(attachment, shape).await {
            Ok(connection) => match self.cloud.cinder.complete_attachment(self.call, &id).await {
                Ok(()) => return Ok(connection),
                // It may be complete: then another replica may have found it and told the node, which uses it by now.
                Err(error) if is_unclear(&error) => {
                    self.undo_unless_complete(&id).await;
                    return Err(error);
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        self.undo(&id).await;
        Err(error)
    }

    async fn told(&self, attachment: AttachmentWithInfo, shape: Shape) -> Result<Connection> {
        let mut info = attachment.connection_info;
        let more_secrets = ceph::complete(&mut info, &self.provider.ceph.all().await?);
        let told = Told { volume: self.id, host: self.host, size: shape.size, read_only: self.read_only, more_secrets };
        told.about(info)
    }

    /// Removes an attachment that this call made, as far as that is possible now.
    async fn undo(&self, attachment: &str) {
        if let Err(error) = remove(&Call::lasting(UNDO_TIME), self.cloud, attachment).await {
            tracing::warn!(volume = %self.id, attachment, %error, "an attachment was not undone: the next call does it");
        }
    }

    /// After a request to complete whose answer was lost: of a volume of ours, the next call finds what is left, and does so
    /// at once. Of another one it could not tell whose that is, so it is removed here if it has not become complete by then.
    async fn undo_unless_complete(&self, attachment: &str) {
        let call = Call::lasting(UNDO_TIME);
        let undone = async {
            let end = tokio::time::Instant::now() + DOUBT;
            loop {
                let Some(volume) = found(self.cloud.cinder.volume(&call, self.volume).await)? else { return Ok(()) };
                // Cinder shows only the complete ones with the volume.
                let is_complete = volume.attachments.iter().any(|made| made.attachment_id == attachment);
                if is_complete || self.provider.names.is_ours(&volume.metadata) {
                    return Ok::<_, Error>(());
                }
                if tokio::time::Instant::now() >= end {
                    return remove(&call, self.cloud, attachment).await;
                }
                call.sleep("wait for what became of an attachment", PAUSE).await?;
            }
        };
        if let Err(error) = undone.await {
            tracing::warn!(volume = %self.id, attachment, %error, "cannot see whether an attachment became complete");
        }
    }

    /// After a request that failed in Cinder, or whose answer was lost: what it left is removed, of volumes that only this
    /// cluster attaches. It may never have arrived; then what is there is somebody else's.
    async fn clear_up_after(&self, error: &Error) {
        let unclear = is_unclear(error);
        // A request that was sent is waited for: a call whose time ended first has sent none.
        if error.is(Kind::Deadline) || !unclear && !is_refused_with(error, 500) {
            return;
        }
        let call = Call::lasting(UNDO_TIME);
        let cleared = async {
            let end = tokio::time::Instant::now() + DOUBT;
            loop {
                let Some(volume) = found(self.cloud.cinder.volume(&call, self.volume).await)? else { return Ok(()) };
                if !self.provider.names.is_ours(&volume.metadata) {
                    return Ok(());
                }
                let is_there = is_half_attached(&volume);
                if is_there && self.provider.remove_unfinished(&call, self.cloud, &volume, true).await? {
                    return Ok(());
                }
                if !unclear || tokio::time::Instant::now() >= end {
                    return Ok::<_, Error>(());
                }
                call.sleep("wait for what became of an attachment", PAUSE).await?;
            }
        };
        if let Err(error) = cleared.await {
            tracing::warn!(volume = %self.id, %error, "cannot see what a failed attachment left: the next call does");
        }
    }

    /// After a refusal: removes or waits for what is in the way, or says what it is.
    async fn make_way(&self, volume: &Volume, error: Error) -> Result<()> {
        let of_state = says(&error, &["status must be", "is not in a state", "must be available", "already attached"]);
        match &volume.status {
            VolumeStatus::Reserved | VolumeStatus::Attaching | VolumeStatus::InUse if is_half_attached(volume) => {
                let is_ours = self.provider.names.is_ours(&volume.metadata);
                if self.provider.remove_unfinished(self.call, self.cloud, volume, is_ours).await? {
                    return Ok(());
                }
                if volume.multiattach {
                    return self.call.sleep("wait for another host to get the volume", PAUSE).await;
                }
                Err(Error::busy(format!(
                    "volume {} is {}: something else is attaching it; repeat when that is over",
                    self.id, volume.status
                ))
                .because(error))
            }
            VolumeStatus::InUse if volume.multiattach && of_state => {
                self.call.sleep("wait until the volume can be attached", PAUSE).await
            }
            VolumeStatus::Available if of_state => {
                self.call.sleep("wait until the volume can be attached", PAUSE).await
            }
            status if status.is_passing() => super::attachment::await_settled(self.call, self.cloud, volume).await,
            status if status.is_error() => Err(wrong_state(volume).because(error)),
            _ => Err(error.as_kind(Kind::WrongState)),
        }
    }
}

/// What a look at the volume showed.
enum Seen {
    /// It is attached to this host already.
    Here(Box<Connection>),
    /// It is not.
    NotHere(Box<Volume>),
    /// It was, in a way that was of no use; it is no longer.
    Cleared(Shape),
}

/// Whether an attachment may be there that was not finished.
fn is_half_attached(volume: &Volume) -> bool {
    matches!(volume.status, VolumeStatus::Reserved | VolumeStatus::Attaching)
}

async fn remove(call: &Call, cloud: &Cloud, attachment: &str) -> Result<()> {
    match cloud.cinder.delete_attachment(call, attachment).await {
        Err(error) if error.is(Kind::NotFound) => Ok(()),
        outcome => outcome,
    }
}

/// A volume that somebody else has.
fn elsewhere(volume: &Volume) -> Error {
    let holders: Vec<String> = volume
        .attachments
        .iter()
        .map(|attachment| match (tag_of(attachment), &attachment.server_id) {
            (Some(tag), _) => format!("host {} ({})", tag.node_name(), tag.cluster_in_words()),
            (None, Some(server)) => format!("server {server}"),
            (None, None) => servers(volume),
        })
        .collect();
    let sharing = if volume.multiattach { ", and was to be used by one node only" } else { "" };
    Error::wrong_state(format!(
        "volume {} is attached to {}{sharing}: detach it there first",
        volume.id,
        holders.join(", ")
    ))
}
