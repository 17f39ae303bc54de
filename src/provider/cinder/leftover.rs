//! Attachments that Cinder still has and Nova does not: of servers that were deleted behind Cinder's back, and of
//! attempts that broke off half-way. Nova's word counts; and Cinder refuses to remove what Nova still uses.

use super::attachment::await_detached;
use super::failure::is_stuck;
use super::{CinderProvider, Cloud};
use crate::call::Call;
use crate::error::{Kind, Result};
use crate::openstack::cinder::{AttachmentStatus, Volume, VolumeStatus};
use crate::openstack::client::found;
use crate::provider::failure::is_refused_with;

impl CinderProvider {
    /// Nova knows of no such attachment: sees to it that Cinder does not either.
    pub(super) async fn forget(&self, call: &Call, cloud: &Cloud, id: &str, server: &str) -> Result<()> {
        let Some(volume) = found(cloud.cinder.volume(call, id).await)? else { return Ok(()) };
        let unfinished =
            matches!(volume.status, VolumeStatus::Reserved | VolumeStatus::Attaching | VolumeStatus::Detaching);
        if !volume.is_attached_to(server) && !unfinished {
            return Ok(());
        }
        for attachment in cloud.cinder.attachments(call, id).await? {
            if attachment.instance.as_deref() == Some(server) {
                tracing::warn!(volume = id, server, attachment = %attachment.id, "removing an attachment that Nova does not know");
                delete_attachment(call, cloud, &attachment.id).await?;
            }
        }
        if volume.is_attached_to(server) {
            await_detached(call, cloud, id, server).await?;
        }
        Ok(())
    }

    /// Removes the attachments of a volume that Nova does not know: of servers that were deleted, and of attempts that
    /// broke off. Whether there were any. `server` is the one on whose behalf this is asked.
    pub(super) async fn release_stale(
        &self,
        call: &Call,
        cloud: &Cloud,
        volume: &Volume,
        server: Option<&str>,
    ) -> Result<bool> {
        let stuck = is_stuck(volume, cloud.cinder.client().service_time());
        let mut released = false;
        for attachment in cloud.cinder.attachments(call, &volume.id).await? {
            // Without a server it is not Nova's, so Nova cannot tell whether it is in use.
            let Some(holder) = attachment.instance.as_deref() else { continue };
            let record = match cloud.nova.attached_volumes(call, holder).await? {
                Some(volumes) if volumes.contains(&volume.id) => Record::Present,
                Some(_) => Record::Absent,
                None => Record::NoServer,
            };
            let is_asking = server == Some(holder);
            let is_ours = self.names.is_ours(&volume.metadata);
            if !is_stale(record, &attachment.status, is_asking, is_ours, stuck) {
                continue;
            }
            tracing::warn!(volume = %volume.id, server = %holder, attachment = %attachment.id, status = %attachment.status,
                "removing an attachment that Nova does not know");
            delete_attachment(call, cloud, &attachment.id).await?;
            released = true;
        }
        Ok(released)
    }
}

/// What Nova says about a volume at a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Record {
    /// The server has it.
    Present,
    /// The server is there and does not have it.
    Absent,
    /// There is no such server, or not for this project.
    NoServer,
}

/// Whether an attachment is a left-over that may go. A server that this project does not see may be another project's,
/// and very much alive: only a volume that this driver made is known to be attached nowhere but in this project.
fn is_stale(record: Record, status: &AttachmentStatus, is_asking: bool, is_ours: bool, stuck: bool) -> bool {
    let complete = *status == AttachmentStatus::Attached;
    match record {
        Record::Present => false,
        // Nova makes its record before Cinder's attachment; but a server that is being built has none for a while.
        Record::Absent => complete || is_asking || stuck,
        Record::NoServer => is_ours && (complete || is_asking || stuck),
    }
}

async fn delete_attachment(call: &Call, cloud: &Cloud, id: &str) -> Result<()> {
    match cloud.cinder.delete_attachment(call, id).await {
        Err(error) if error.is(Kind::NotFound) => Ok(()),
        Err(error) if is_refused_with(&error, 409) => {
            Err(error.as_kind(Kind::Busy).during("Nova still uses an attachment that it did not show"))
        }
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::{Record, is_stale};
    use crate::openstack::cinder::AttachmentStatus;

    #[test]
    fn only_left_over_attachments_are_removed() {
        for (record, status, is_asking, is_ours, stuck, expected) in [
            (Record::Present, AttachmentStatus::Attached, true, true, true, false),
            (Record::Absent, AttachmentStatus::Attached, false, false, false, true),
            (Record::Absent, AttachmentStatus::Reserved, false, true, false, false),
            (Record::Absent, AttachmentStatus::Reserved, false, false, true, true),
            (Record::Absent, AttachmentStatus::Attaching, true, false, false, true),
            (Record::NoServer, AttachmentStatus::Attached, false, false, true, false),
            (Record::NoServer, AttachmentStatus::Attached, false, true, false, true),
            (Record::NoServer, AttachmentStatus::Reserved, false, true, false, false),
            (Record::NoServer, AttachmentStatus::ErrorAttaching, false, true, true, true),
        ] {
            let stale = is_stale(record, &status, is_asking, is_ours, stuck);
            assert_eq!(stale, expected, "{record:?} {status} {is_asking} {is_ours} {stuck}");
        }
    }
}
