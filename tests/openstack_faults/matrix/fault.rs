//! What is done to a call.

use crate::standin::fault::{Action, Gate};

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    KillBefore,
    KillAfter,
    AnswerLost,
    Reset,
    Unavailable,
    TooMany,
    ServerError,
    /// The gateway answers 504 although the call was done.
    GatewayTimeout,
    Revoked,
    /// The call is held up beyond the RPC's deadline, the RPC is repeated meanwhile, then the call reaches the cloud.
    Slow,
}

impl Fault {
    pub(super) const ALL: [Self; 10] = [
        Self::KillBefore,
        Self::KillAfter,
        Self::AnswerLost,
        Self::Reset,
        Self::Unavailable,
        Self::TooMany,
        Self::ServerError,
        Self::GatewayTimeout,
        Self::Revoked,
        Self::Slow,
    ];

    pub(super) fn action(self, gate: &Gate) -> Action {
        match self {
            Self::KillBefore => Action::KillBefore,
            Self::KillAfter => Action::KillAfter,
            Self::AnswerLost => Action::LoseAnswer,
            Self::Reset => Action::Reset,
            Self::Unavailable => Action::status(503),
            Self::TooMany => Action::Status { status: 429, retry_after: Some(1) },
            Self::ServerError => Action::status(500),
            Self::GatewayTimeout => Action::StatusAfter { status: 504 },
            Self::Revoked => Action::RevokeToken,
            Self::Slow => Action::Hold(gate.clone()),
        }
    }
}
