//! The one place that makes a gRPC status from an error.

use crate::error::{Error, Kind};
use tonic::{Code, Status};

/// The longest message that is sent, in bytes. It travels percent-encoded in a header, and clients limit those.
const LONGEST_MESSAGE: usize = 2048;

/// The gRPC code that tells the orchestrator what to do about a failure of this kind.
#[must_use]
pub fn code(kind: Kind) -> Code {
    match kind {
        Kind::NotFound => Code::NotFound,
        Kind::Conflict => Code::AlreadyExists,
        Kind::InvalidArgument => Code::InvalidArgument,
        Kind::WrongState => Code::FailedPrecondition,
        Kind::Busy | Kind::StaleToken => Code::Aborted,
        Kind::Exhausted => Code::ResourceExhausted,
        Kind::OutOfRange => Code::OutOfRange,
        Kind::Unavailable => Code::Unavailable,
        Kind::Denied => Code::PermissionDenied,
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::Unsupported => Code::Unimplemented,
        Kind::Deadline => Code::DeadlineExceeded,
        Kind::Internal => Code::Internal,
    }
}

/// The status of a failure: its code, and its whole message.
#[must_use]
pub fn from_error(error: &Error) -> Status {
    Status::new(code(error.kind()), shortened(error.to_string()))
}

/// Cuts a message that is too long for a header, at a character's end and visibly.
fn shortened(mut message: String) -> String {
    if message.len() > LONGEST_MESSAGE {
        message.truncate(message.floor_char_boundary(LONGEST_MESSAGE));
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_MESSAGE, from_error};
    use crate::error::Error;
    use tonic::Code;

    #[test]
    fn a_status_has_the_code_of_the_kind_and_the_whole_story() {
        let error = Error::busy("volume v: being deleted").because(std::io::Error::other("because"));
        let status = from_error(&error);
        assert_eq!(status.code(), Code::Aborted);
        assert_eq!(status.message(), "volume v: being deleted: because");
    }

    #[test]
    fn an_endless_message_is_cut_between_characters() {
        let status = from_error(&Error::internal("ä".repeat(LONGEST_MESSAGE)));
        assert!(status.message().len() <= LONGEST_MESSAGE + '…'.len_utf8());
        assert!(status.message().ends_with("ä…"));
    }
}
