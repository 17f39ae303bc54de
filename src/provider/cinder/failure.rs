//! What the refusals and failures of Cinder and Nova mean, and what to do about them.

use super::Cloud;
use crate::call::Call;
use crate::error::{Error, Kind};
use crate::openstack::cinder::{Message, Volume, VolumeStatus};
use crate::provider::failure::{is_refused_with, says};
use std::time::Duration;

/// Details of Cinder's messages that say that there is no room: no back end, quota, no space for an image.
const NO_ROOM: [&str; 3] = ["003", "006", "007"];

/// How long a volume may stay in a passing state of an attachment before that state counts as stuck.
const STUCK: Duration = Duration::from_secs(150);

/// What a refused creation means. Cinder says 400 both for what can never work and for a source that is busy now.
pub(super) fn creation_refused(error: Error, what: &str) -> Error {
    if is_refused_with(&error, 404) && says(&error, &["volume type", "volume_type"]) {
        return error
            .as_kind(Kind::InvalidArgument)
            .during("the class names a volume type that the cloud does not have");
    }
    if is_refused_with(&error, 400) && says(&error, &["status must be", "must be available", "not been scheduled"]) {
        return error.as_kind(Kind::Busy).during(format!("{what} is not ready yet"));
    }
    if is_refused_with(&error, 400) && says(&error, &["same availability zone", "must be in the same"]) {
        return error.as_kind(Kind::Exhausted).during("the cloud clones only within a zone");
    }
    error
}

/// Why something ended in an error state, as an error of its own.
pub(super) async fn ended_in_error(call: &Call, cloud: &Cloud, noun: &str, id: &str, status: &str) -> Error {
    let messages = cloud.cinder.messages(call, id).await.unwrap_or_else(|error| {
        tracing::warn!(%noun, %id, %error, "cannot ask for the reason of a failure");
        Vec::new()
    });
    reason(&messages, &format!("{noun} {id} ended in status {status}"))
}

/// The newest message as the reason.
fn reason(messages: &[Message], what: &str) -> Error {
    match messages.iter().find(|message| !message.user_message.is_empty()) {
        Some(message) => {
            let no_room = message.event_id.rsplit('_').next().is_some_and(|detail| NO_ROOM.contains(&detail));
            let kind = if no_room { Kind::Exhausted } else { Kind::Internal };
            Error::new(kind, format!("{what}: {}", message.user_message))
        }
        None => Error::internal(format!(
            "{what}, and Cinder does not say why; see the logs of its scheduler and volume service"
        )),
    }
}

/// A volume that is not in a state to do something with, and for whom that is a matter.
pub(super) fn wrong_state(volume: &Volume) -> Error {
    let status = &volume.status;
    let text = format!("volume {} is {status}", volume.id);
    if status.is_passing() {
        return Error::busy(format!("{text}; repeat when that is over"));
    }
    let remedy = match status {
        VolumeStatus::InUse => format!("it is attached to {}", servers(volume)),
        VolumeStatus::Reserved => format!(
            "something has reserved it without attaching it: `openstack --os-volume-api-version 3.27 volume attachment list \
             --volume-id {}` shows what, and `volume attachment delete` ends it",
            volume.id
        ),
        VolumeStatus::Maintenance | VolumeStatus::AwaitingTransfer => "wait until its owner has finished".to_owned(),
        _ => "see `openstack volume message list`; when its cause is gone, an administrator can set the status with \
              `openstack volume set --state`"
            .to_owned(),
    };
    Error::wrong_state(format!("{text}: {remedy}"))
}

/// The servers that a volume is attached to, in words.
pub(super) fn servers(volume: &Volume) -> String {
    let servers: Vec<&str> = volume
        .attachments
        .iter()
        .map(|attachment| attachment.server_id.as_deref().or(attachment.device.as_deref()).unwrap_or("an unknown host"))
        .collect();
    if servers.is_empty() { "a server that Cinder does not name".to_owned() } else { servers.join(", ") }
}

/// Whether a volume has been in its state for so long that nothing will come of it.
pub(super) fn is_stuck(volume: &Volume, now: Option<jiff::Timestamp>) -> bool {
    let (Some(now), Some(changed)) = (now, volume.updated_at) else { return false };
    now.duration_since(changed) > jiff::SignedDuration::try_from(STUCK).unwrap_or(jiff::SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::{creation_refused, is_stuck, reason, wrong_state};
    use crate::error::Kind;
    use crate::openstack::cinder::{Message, Volume};
    use crate::provider::failure::refused;
    use serde_json::json;

    fn volume(status: &str) -> Volume {
        serde_json::from_value(json!({"id": "v", "status": status, "updated_at": "2026-11-21T08:00:00.000000",
            "attachments": [{"attachment_id": "a", "server_id": "s1"}]}))
        .unwrap()
    }

    #[test]
    fn a_refused_creation_says_whose_fault_it_is() {
        for (status, message, kind) in [
            (413, "VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds", Kind::Exhausted),
            (404, "Volume type with name fast could not be found.", Kind::InvalidArgument),
            (404, "Snapshot x could not be found.", Kind::NotFound),
            (400, "Invalid snapshot: Originating snapshot status must be one of 'available' values", Kind::Busy),
            (400, "Invalid volume: Volume v status must be available, but current status is: creating.", Kind::Busy),
            (400, "Availability zone 'x' is invalid.", Kind::InvalidArgument),
            (503, "away", Kind::Unavailable),
        ] {
            assert_eq!(creation_refused(refused(status, message), "the source").kind(), kind, "{status} {message}");
        }
    }

    #[test]
    fn the_newest_message_is_the_reason() {
        let message = |event: &str, text: &str| Message {
            user_message: text.to_owned(),
            event_id: event.to_owned(),
            created_at: None,
        };
        let error = reason(&[message("VOLUME_VOLUME_001_003", "no backend")], "volume v failed");
        assert_eq!(error.kind(), Kind::Exhausted);
        assert!(error.to_string().contains("no backend"));
        let error = reason(&[message("VOLUME_VOLUME_001_012", "driver failed")], "volume v failed");
        assert_eq!(error.kind(), Kind::Internal);
        assert!(reason(&[], "x").to_string().contains("does not say why"));
    }

    #[test]
    fn every_state_that_is_wrong_is_busy_or_has_a_remedy() {
        for (status, kind, words) in [
            ("creating", Kind::Busy, "repeat"),
            ("detaching", Kind::Busy, "repeat"),
            ("in-use", Kind::WrongState, "s1"),
            ("error_extending", Kind::WrongState, "--state"),
            ("reserved", Kind::WrongState, "attachment list"),
            ("no-such-status", Kind::WrongState, "--state"),
        ] {
            let error = wrong_state(&volume(status));
            assert_eq!(error.kind(), kind, "{status}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn a_state_is_stuck_after_minutes_by_the_services_own_clock() {
        let at = |text: &str| Some(text.parse().unwrap());
        assert!(!is_stuck(&volume("detaching"), at("2026-11-21T08:01:00Z")));
        assert!(is_stuck(&volume("detaching"), at("2026-11-21T08:03:00Z")));
        assert!(!is_stuck(&volume("detaching"), None));
    }
}
