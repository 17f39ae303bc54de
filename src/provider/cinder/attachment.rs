//! Attaching volumes to servers and detaching them, through Nova.
//!
//! The request comes first; questions are asked only where it is refused. Both services keep a record: attached is a
//! volume when Cinder shows it in use by the server, detached when neither shows it any more. Where they disagree for
//! good (a server was deleted behind Cinder's back, a compute service died half-way), Nova's word counts, and Cinder's
//! left-over attachment is removed; Cinder itself refuses that as long as Nova still uses it.

use super::failure::{is_stuck, wrong_state};
use super::host::tag::of_cluster;
use super::volume::needs_sharing;
use super::{CinderProvider, Cloud};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::model::{Bytes, Capability, Connection, KIND_NOVA, NodeId, VolumeId};
use crate::openstack::cinder::{Volume, VolumeStatus};
use crate::openstack::client::found;
use crate::provider::failure::{is_refused_with, says};
use crate::provider::handle::{Uuid, VolumeHandle, server_of};
use crate::provider::size::gib;
use std::time::Duration;

/// How long to wait before a request is repeated that came too early; it grows with each repetition.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A pause that grows.
struct Pause(Duration);

impl Pause {
    fn new() -> Self {
        Self(FIRST_PAUSE)
    }

    async fn wait(&mut self, call: &Call, why: &str) -> Result<()> {
        call.sleep(why, self.0).await?;
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

/// How the wait for an attachment ended.
#[derive(Debug, PartialEq, Eq)]
enum Attaching {
    /// The server has the volume, which is so large.
    Done(Bytes),
    /// Cinder shows no attachment to the server, finished or not: Nova may have given up.
    NotToBeSeen,
}

/// What to do after a refused request to attach.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    /// Cinder shows the volume attached to the server already.
    Attached,
    /// The volume is on its way, to this server or another.
    OnItsWay,
    /// It is attached elsewhere and cannot be shared.
    Elsewhere,
    /// The volume is in another change, which will pass.
    Passing,
    /// The refusal spoke of a state that has passed meanwhile.
    TooEarly,
    /// Nothing here will change by waiting.
    Final,
}

impl CinderProvider {
    /// The story of ControllerPublishVolume.
    pub(super) async fn attach(
        &self,
        call: &Call,
        id: &VolumeId,
        server: &Uuid,
        capability: &Capability,
    ) -> Result<Connection> {
        let (volume, cloud) = self.existing(id)?;
        needs_sharing(capability)?;
        let (volume, server) = (volume.id.as_str(), server.as_str());
        call.check("attach the volume")?;
        let _first = cloud.precedence.take();
        if cloud.attached_lately.has(volume, server)
            && let Some(size) = still_attached(call, cloud, volume, server).await?
        {
            return Ok(connection(volume, size));
        }
        let size = self.attach_anew(call, cloud, volume, server).await?;
        cloud.attached_lately.note(volume, server);
        Ok(connection(volume, size))
    }

    /// Attaches, whatever there is; how large the volume is.
    async fn attach_anew(&self, call: &Call, cloud: &Cloud, volume: &str, server: &str) -> Result<Bytes> {
        let mut pause = Pause::new();
        let mut given_up = false;
        loop {
            call.check("attach the volume")?;
            if let Err(error) = cloud.nova.attach(call, server, volume).await
                && let Some(size) =
                    Box::pin(self.attached_in_spite(call, cloud, volume, server, error, &mut pause)).await?
            {
                return Ok(size);
            }
            match await_attached(call, cloud, volume, server).await? {
                Attaching::Done(size) => return Ok(size),
                Attaching::NotToBeSeen if cloud.nova.has_record(call, server, volume).await? => {
                    pause.wait(call, "wait for Nova to attach the volume").await?;
                }
                // A compute service that failed once mostly succeeds the next time.
                Attaching::NotToBeSeen if !given_up => {
                    given_up = true;
                    pause.wait(call, "wait before the volume is attached again").await?;
                }
                Attaching::NotToBeSeen => {
                    return Err(Error::internal(format!(
                        "Nova accepted the attachment and then gave it up, twice; `openstack server event list {server}` and the \
                         log of its compute service say why"
                    )));
                }
            }
        }
    }

    /// After a refused request to attach: finds out why. Some: it is attached all the same. None: wait for the volume,
    /// or for what hindered, and see again.
    async fn attached_in_spite(
        &self,
        call: &Call,
        cloud: &Cloud,
        id: &str,
        server: &str,
        error: Error,
        pause: &mut Pause,
    ) -> Result<Option<Bytes>> {
        let mut error = error;
        loop {
            let error_now = server_refused(error);
            if !is_refused_with(&error_now, 400) {
                return Err(error_now);
            }
            let volume = cloud.cinder.volume(call, id).await?;
            match why_refused(&volume, server, &error_now) {
                Refused::Attached if cloud.nova.has_record(call, server, id).await? => {
                    return gib(volume.size).map(Some);
                }
                Refused::Attached => {
                    self.release_stale(call, cloud, &volume, Some(server)).await?;
                }
                Refused::OnItsWay => {
                    let ours = cloud.nova.has_record(call, server, id).await?;
                    if ours && !is_stuck(&volume, cloud.cinder.client().service_time()) {
                        return Ok(None);
                    }
                    if !self.release_stale(call, cloud, &volume, Some(server)).await? {
                        if volume.multiattach {
                            pause.wait(call, "wait for another server to get the volume").await?;
                        } else {
                            return Err(wrong_state(&volume).because(error_now));
                        }
                    }
                }
                Refused::Elsewhere => {
                    if !self.release_stale(call, cloud, &volume, Some(server)).await? {
                        return Err(wrong_state(&volume).because(error_now));
                    }
                }
                Refused::Passing => await_settled(call, cloud, &volume).await?,
                Refused::TooEarly => pause.wait(call, "wait until the volume can be attached").await?,
                Refused::Final if volume.status.is_error() => return Err(wrong_state(&volume).because(error_now)),
                Refused::Final => return Err(error_now.as_kind(Kind::WrongState)),
            }
            call.check("attach the volume")?;
            match cloud.nova.attach(call, server, id).await {
                Ok(()) => return Ok(None),
                Err(next) => error = next,
            }
        }
    }

    /// The story of ControllerUnpublishVolume for one node.
    pub(super) async fn detach(&self, call: &Call, id: &VolumeId, node: &NodeId) -> Result<()> {
        // What cannot exist is not attached.
        let (Some(volume), Some(server)) = (VolumeHandle::parse(id), server_of(node)) else { return Ok(()) };
        let cloud = self.clouds.of_handle(&volume.cloud)?;
        self.detach_from(call, cloud, volume.id.as_str(), server.as_str()).await
    }

    /// The same for all nodes.
    pub(super) async fn detach_everywhere(&self, call: &Call, id: &VolumeId) -> Result<()> {
        let Some(handle) = VolumeHandle::parse(id) else { return Ok(()) };
        let cloud = self.clouds.of_handle(&handle.cloud)?;
        let id = handle.id.as_str();
        let attachments = match cloud.cinder.attachments(call, id).await {
            Ok(attachments) => attachments,
            Err(error) if error.is(Kind::NotFound) => return Ok(()),
            Err(error) => return Err(error),
        };
        for server in attachments.iter().filter_map(|attachment| attachment.instance.as_deref()) {
            self.detach_from(call, cloud, id, server).await?;
        }
        Ok(())
    }

    async fn detach_from(&self, call: &Call, cloud: &Cloud, id: &str, server: &str) -> Result<()> {
        cloud.attached_lately.forget(id, server);
        let _first = cloud.precedence.take();
        let mut pause = Pause::new();
        loop {
            call.check("detach the volume")?;
            match cloud.nova.detach(call, server, id).await {
                Ok(()) => {}
                // No such server, volume, or attachment; Cinder may still think otherwise.
                Err(error) if error.is(Kind::NotFound) => {
                    return Box::pin(self.forget(call, cloud, id, server)).await;
                }
                Err(error) => {
                    let error = server_refused(error);
                    if !is_refused_with(&error, 400) {
                        return Err(error);
                    }
                    if !Box::pin(self.detaches_in_spite(call, cloud, id, server, error)).await? {
                        pause.wait(call, "wait until the volume can be detached").await?;
                        continue;
                    }
                }
            }
            if await_detached(call, cloud, id, server).await? {
                return await_no_record(call, cloud, id, server).await;
            }
            // The status went back to in-use: the server did not let go of the device.
            pause.wait(call, "wait before the volume is detached again").await?;
        }
    }

    /// After a refused request to detach: whether the volume is being detached all the same. If not, ask again.
    async fn detaches_in_spite(
        &self,
        call: &Call,
        cloud: &Cloud,
        id: &str,
        server: &str,
        error: Error,
    ) -> Result<bool> {
        if says(&error, &["root device"]) {
            return Err(error.as_kind(Kind::WrongState));
        }
        let Some(volume) = found(cloud.cinder.volume(call, id).await)? else { return Ok(true) };
        let stuck = is_stuck(&volume, cloud.cinder.client().service_time());
        match &volume.status {
            VolumeStatus::Detaching if volume.is_attached_to(server) => {
                if stuck {
                    // Whoever began this is gone. Cinder allows its owner to take the status back.
                    tracing::warn!(volume = id, server, "the volume has been detaching for minutes: starting over");
                    cloud.cinder.stop_detaching(call, id).await?;
                    return Ok(false);
                }
                Ok(true)
            }
            VolumeStatus::Reserved | VolumeStatus::Attaching if !volume.is_attached_to(server) => {
                if stuck && self.release_stale(call, cloud, &volume, Some(server)).await? {
                    return Ok(false);
                }
                await_settled(call, cloud, &volume).await.map(|()| false)
            }
            // Detached already; Nova is about to drop its record.
            VolumeStatus::Available => Ok(true),
            VolumeStatus::InUse => Ok(!volume.is_attached_to(server)),
            status if status.is_passing() => await_settled(call, cloud, &volume).await.map(|()| false),
            _ => Err(wrong_state(&volume).because(error)),
        }
    }
}

fn connection(volume: &str, size: Bytes) -> Connection {
    Connection {
        kind: KIND_NOVA.to_owned(),
        data: serde_json::json!({"serial": volume}),
        size: Some(size),
        read_only: false,
        sealed: None,
    }
}

/// What a refusal by Nova means that has nothing to do with the volume's state.
fn server_refused(error: Error) -> Error {
    if is_refused_with(&error, 403) && says(&error, &["disk devices", "maximum"]) {
        return error.as_kind(Kind::Exhausted).during("the server has no room for another volume");
    }
    if is_refused_with(&error, 409) {
        let kind = if says(&error, &["locked"]) { Kind::WrongState } else { Kind::Busy };
        return error.as_kind(kind).during("the server is in a state that does not allow it");
    }
    error
}

/// Why a request to attach was refused, from the volume's state and the words of the refusal.
fn why_refused(volume: &Volume, server: &str, error: &Error) -> Refused {
    if volume.is_attached_to(server) && volume.status != VolumeStatus::Detaching {
        return Refused::Attached;
    }
    let of_state = says(error, &["already attached", "status must be", "is not in a state", "must be available"]);
    match &volume.status {
        VolumeStatus::Reserved | VolumeStatus::Attaching => Refused::OnItsWay,
        VolumeStatus::InUse if volume.multiattach && of_state => Refused::TooEarly,
        VolumeStatus::InUse if !volume.multiattach => Refused::Elsewhere,
        VolumeStatus::Available if of_state => Refused::TooEarly,
        status if status.is_passing() => Refused::Passing,
        _ => Refused::Final,
    }
}

/// How large the volume is, if the server has it.
async fn still_attached(call: &Call, cloud: &Cloud, id: &str, server: &str) -> Result<Option<Bytes>> {
    let Some(volume) = found(cloud.cinder.volume(call, id).await)? else { return Ok(None) };
    let in_use = volume.status == VolumeStatus::InUse && volume.is_attached_to(server);
    in_use.then(|| gib(volume.size)).transpose()
}

/// Waits until Cinder shows the volume in use by the server.
async fn await_attached(call: &Call, cloud: &Cloud, id: &str, server: &str) -> Result<Attaching> {
    let (volume, server) = (id.to_owned(), server.to_owned());
    cloud
        .volumes
        .until(call, "attach volume", id, move |seen| match seen {
            None => Err(Error::not_found(format!("volume {volume} is gone"))),
            Some(seen) => attaching(&seen.volume, &server),
        })
        .await
}

/// What a volume's state means after Nova has agreed to attach it.
fn attaching(volume: &Volume, server: &str) -> Result<Option<Attaching>> {
    Ok(match &volume.status {
        VolumeStatus::Detaching => None,
        _ if volume.is_attached_to(server) => Some(Attaching::Done(gib(volume.size)?)),
        VolumeStatus::Reserved => None,
        VolumeStatus::Available | VolumeStatus::InUse => Some(Attaching::NotToBeSeen),
        status if status.is_passing() => None,
        _ => return Err(wrong_state(volume)),
    })
}

/// Waits until Cinder shows no attachment to the server; false if the detaching was given up.
pub(super) async fn await_detached(call: &Call, cloud: &Cloud, id: &str, server: &str) -> Result<bool> {
    let server = server.to_owned();
    cloud
        .volumes
        .until(call, "detach volume", id, move |seen| {
            let Some(volume) = seen.map(|seen| &seen.volume) else { return Ok(Some(true)) };
            Ok(match &volume.status {
                _ if !volume.is_attached_to(&server) => Some(true),
                VolumeStatus::InUse => Some(false),
                status if status.is_passing() => None,
                _ => return Err(wrong_state(volume)),
            })
        })
        .await
}

/// Waits until Nova has dropped its record, which is a little after Cinder has: before that, attaching the volume to
/// this server again would be refused.
async fn await_no_record(call: &Call, cloud: &Cloud, id: &str, server: &str) -> Result<()> {
    let id = id.to_owned();
    cloud
        .servers
        .until(call, "forget volume", server, move |seen| {
            Ok((!seen.is_some_and(|volumes| volumes.contains(&id))).then_some(()))
        })
        .await
}

/// Waits until the status of a volume is another one.
pub(super) async fn await_settled(call: &Call, cloud: &Cloud, volume: &Volume) -> Result<()> {
    let was = volume.status.clone();
    cloud
        .volumes
        .until(call, "settle volume", &volume.id, move |seen| {
            Ok(seen.is_none_or(|seen| seen.volume.status != was).then_some(()))
        })
        .await
}

/// The nodes of this cluster that a volume is attached to.
pub(super) fn attached_nodes(volume: &Volume, cluster: &str) -> Vec<NodeId> {
    let servers = volume.attached_servers().filter_map(|server| server.parse().ok());
    servers.chain(of_cluster(volume, cluster).map(|(_, tag)| tag.node().clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::{Attaching, Refused, attaching, server_refused, why_refused};
    use crate::error::{Error, Kind};
    use crate::model::Bytes;
    use crate::openstack::cinder::Volume;
    use crate::openstack::client::Refusal;
    use serde_json::json;

    fn volume(status: &str, multiattach: bool, servers: &[&str]) -> Volume {
        let attachments: Vec<_> =
            servers.iter().map(|server| json!({"attachment_id": format!("a-{server}"), "server_id": server})).collect();
        serde_json::from_value(
            json!({"id": "v", "status": status, "size": 1, "multiattach": multiattach, "attachments": attachments}),
        )
        .unwrap()
    }

    fn refused(status: u16, message: &str) -> Error {
        let refusal = Refusal { status, message: message.to_owned(), request_id: None };
        Error::new(refusal.kind(), "refused").because(refusal)
    }

    const STATE: &str = "Invalid volume: Volume v status must be available or downloading to reserve, but the current \
                         status is x";
    const ALREADY: &str = "Invalid volume: volume v already attached";
    const ZONE: &str = "Invalid volume: Instance and volume not in same availability_zone";

    #[test]
    fn why_an_attachment_was_refused() {
        for (status, multiattach, servers, message, expected) in [
            ("in-use", false, &["s1"][..], ALREADY, Refused::Attached),
            ("in-use", true, &["s2", "s1"], ALREADY, Refused::Attached),
            ("extending", false, &["s1"], STATE, Refused::Attached),
            ("in-use", false, &["s2"], STATE, Refused::Elsewhere),
            ("in-use", true, &["s2"], STATE, Refused::TooEarly),
            ("in-use", true, &["s2"], ZONE, Refused::Final),
            ("reserved", false, &[], STATE, Refused::OnItsWay),
            ("attaching", true, &["s2"], STATE, Refused::OnItsWay),
            ("available", false, &[], ALREADY, Refused::TooEarly),
            ("available", false, &[], STATE, Refused::TooEarly),
            ("available", false, &[], ZONE, Refused::Final),
            ("creating", false, &[], STATE, Refused::Passing),
            ("detaching", false, &["s1"], STATE, Refused::Passing),
            ("detaching", false, &["s2"], STATE, Refused::Passing),
            ("extending", false, &["s2"], STATE, Refused::Passing),
            ("error", false, &[], STATE, Refused::Final),
            ("maintenance", false, &[], STATE, Refused::Final),
        ] {
            let why = why_refused(&volume(status, multiattach, servers), "s1", &refused(400, message));
            assert_eq!(why, expected, "{status} {multiattach} {servers:?} {message}");
        }
    }

    #[test]
    fn what_states_mean_while_attaching() {
        let done = Attaching::Done(Bytes::from_gib(1).unwrap());
        for (status, servers, expected) in [
            ("in-use", &["s1"][..], Ok(Some(done))),
            ("in-use", &["s2"], Ok(Some(Attaching::NotToBeSeen))),
            ("reserved", &[], Ok(None)),
            ("attaching", &[], Ok(None)),
            ("detaching", &["s1"], Ok(None)),
            ("available", &[], Ok(Some(Attaching::NotToBeSeen))),
            ("error", &[], Err(Kind::WrongState)),
        ] {
            let meaning = attaching(&volume(status, false, servers), "s1").map_err(|error| error.kind());
            assert_eq!(meaning, expected, "{status} {servers:?}");
        }
    }

    #[test]
    fn refusals_about_the_server() {
        let too_many =
            "The maximum allowed number of disk devices (8) to attach to a single instance has been exceeded.";
        for (status, message, kind) in [
            (403, too_many, Kind::Exhausted),
            (403, "Policy doesn't allow os_compute_api:os-volumes-attachments:create to be performed.", Kind::Denied),
            (409, "Instance s1 is locked", Kind::WrongState),
            (409, "Cannot 'attach_volume' instance s1 while it is in task_state rebooting", Kind::Busy),
            (404, "Instance s1 could not be found.", Kind::NotFound),
        ] {
            assert_eq!(server_refused(refused(status, message)).kind(), kind, "{message}");
        }
    }
}
