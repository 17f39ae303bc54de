//! What the refusals and failures of Manila mean, and what to do about them.

use super::Cloud;
use crate::call::Call;
use crate::error::{Error, Kind};
use crate::openstack::manila::{Message, Share, ShareStatus};
use crate::provider::failure::{is_refused_with, says};

/// Details of Manila's messages that say that there is no room now: no back end, none in the zone, none with space.
const NO_ROOM: [&str; 3] = ["002", "007", "009"];

/// Details that say that there never will be: no such network, no back end that can do this.
const NEVER: [&str; 2] = ["003", "008"];

/// What a refused creation means. Manila says 404 for what the class names, often without saying which of it, and 400 for
/// a source that is busy now.
pub(super) fn creation_refused(error: Error, what: &str, named: &str) -> Error {
    if is_refused_with(&error, 404) && !says(&error, &["snapshot"]) {
        return error
            .as_kind(Kind::InvalidArgument)
            .during(format!("the class names something that the cloud does not have ({named})"));
    }
    if (is_refused_with(&error, 400) || is_refused_with(&error, 403))
        && says(&error, &["status must be", "must be in", "must be available"])
    {
        return error.as_kind(Kind::Busy).during(format!("{what} is not ready yet"));
    }
    if is_refused_with(&error, 422)
        || (is_refused_with(&error, 400) && says(&error, &["does not support", "not supported"]))
    {
        return error.as_kind(Kind::InvalidArgument).during("the share type does not allow it");
    }
    error
}

/// Why something ended in an error state, as an error of its own. `resource` is what Manila has messages for.
pub(super) async fn ended_in_error(call: &Call, cloud: &Cloud, noun: &str, id: &str, status: &str) -> Error {
    let messages = cloud.manila.messages(call, id).await.unwrap_or_else(|error| {
        tracing::warn!(%noun, %id, %error, "cannot ask for the reason of a failure");
        Vec::new()
    });
    reason(&messages, &format!("{noun} {id} ended in status {status}"))
}

/// The newest message as the reason.
fn reason(messages: &[Message], what: &str) -> Error {
    match messages.iter().find(|message| !message.user_message.is_empty()) {
        Some(message) => {
            let detail = message.detail_id.as_str();
            let kind = match detail {
                _ if NO_ROOM.contains(&detail) => Kind::Exhausted,
                _ if NEVER.contains(&detail) => Kind::InvalidArgument,
                _ => Kind::Internal,
            };
            Error::new(kind, format!("{what}: {}", message.user_message))
        }
        None => Error::internal(format!(
            "{what}, and Manila does not say why; see the logs of its scheduler and share service"
        )),
    }
}

/// A share that is not in a state to do something with, and for whom that is a matter.
pub(super) fn wrong_state(share: &Share) -> Error {
    let status = &share.status;
    let text = format!("share {} is {status}", share.id);
    if status.is_passing() {
        return Error::busy(format!("{text}; repeat when that is over"));
    }
    let remedy = match status {
        ShareStatus::AwaitingTransfer => "wait until its owner has finished",
        ShareStatus::Inactive => "its share server is not active; see `openstack share show`",
        ShareStatus::DeferredDeleting | ShareStatus::ErrorDeferredDeleting => "it has been deleted",
        _ => {
            "see `openstack share message list`; when its cause is gone, an administrator can set the status with \
             `openstack share set --status`"
        }
    };
    Error::wrong_state(format!("{text}: {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::{creation_refused, reason, wrong_state};
    use crate::error::Kind;
    use crate::openstack::manila::{Message, Share};
    use crate::provider::failure::refused;
    use serde_json::json;

    #[test]
    fn a_refused_creation_says_whose_fault_it_is() {
        for (status, message, kind) in [
            (404, "Share type gold could not be found.", Kind::InvalidArgument),
            (404, "Availability zone x could not be found.", Kind::InvalidArgument),
            (404, "Snapshot x could not be found.", Kind::NotFound),
            (400, "Invalid share snapshot: status must be 'available'", Kind::Busy),
            (422, "Snapshots cannot be created: share type has no snapshot support", Kind::InvalidArgument),
            (400, "Invalid input received: Invalid share protocol provided: X", Kind::InvalidArgument),
            (503, "away", Kind::Unavailable),
        ] {
            let error = creation_refused(refused(status, message), "the source", "type \"gold\"");
            assert_eq!(error.kind(), kind, "{status} {message}");
        }
    }

    #[test]
    fn what_the_cloud_does_not_have_is_named_though_manila_does_not() {
        let error = creation_refused(refused(404, "Share type not found."), "the source", "type \"gold\"");
        assert!(error.to_string().contains("type \"gold\""), "{error}");
    }

    #[test]
    fn the_newest_message_is_the_reason() {
        let message = |detail: &str, text: &str| Message {
            user_message: text.to_owned(),
            detail_id: detail.to_owned(),
            created_at: None,
        };
        for (detail, kind) in [("009", Kind::Exhausted), ("008", Kind::InvalidArgument), ("001", Kind::Internal)] {
            let error = reason(&[message(detail, "words of the service")], "share s failed");
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains("words of the service"));
        }
        assert!(reason(&[], "x").to_string().contains("does not say why"));
    }

    #[test]
    fn every_state_that_is_wrong_is_busy_or_has_a_remedy() {
        for (status, kind, words) in [
            ("creating", Kind::Busy, "repeat"),
            ("extending_error", Kind::WrongState, "--status"),
            ("awaiting_transfer", Kind::WrongState, "owner"),
            ("no-such-status", Kind::WrongState, "--status"),
        ] {
            let share: Share = serde_json::from_value(json!({"id": "s", "status": status})).unwrap();
            let error = wrong_state(&share);
            assert_eq!(error.kind(), kind, "{status}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
