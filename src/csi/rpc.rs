//! One RPC on its way through this layer: its time, its caller, and what is noted about it.

use crate::call::{self, Call};
use crate::csi::subject::{Concerns, Subject};
use crate::csi::{Answer, deadline, status};
use crate::error::Result;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::Instant;

/// How long after its deadline an RPC without a caller's deadline may still answer with the reason.
const DEFAULT_MARGIN: Duration = Duration::from_secs(1);

/// What is known about an RPC when it ends. The layer around all RPCs ([`crate::observe::rpc`]) makes one, lets it travel
/// in the request's extensions, and reads it for the log line.
#[derive(Debug, Default)]
pub struct Record {
    subject: OnceLock<Subject>,
    call: OnceLock<Call>,
}

impl Record {
    /// What the RPC was about; none where its message could not even be decoded.
    #[must_use]
    pub fn subject(&self) -> Option<&Subject> {
        self.subject.get()
    }

    /// How many requests to OpenStack it made until now.
    #[must_use]
    pub fn openstack_calls(&self) -> u32 {
        self.call.get().map_or(0, Call::openstack_calls)
    }

    /// The ids that OpenStack gave those requests, the first ones.
    #[must_use]
    pub fn request_ids(&self) -> Vec<String> {
        self.call.get().map(Call::request_ids).unwrap_or_default()
    }
}

/// One RPC.
#[derive(Debug, Clone)]
pub struct Rpc {
    call: Call,
    answer_by: Instant,
}

impl Rpc {
    /// Takes a request apart, and notes what it is about.
    pub fn begin<M: Concerns>(request: tonic::Request<M>) -> (Self, M) {
        let time = deadline::from_metadata(request.metadata());
        let record = request.extensions().get::<Arc<Record>>().cloned();
        let message = request.into_inner();
        let rpc = Self::lasting(time);
        if let Some(record) = record {
            // The layer makes one record per RPC, so neither can be set already.
            let _ = record.subject.set(message.subject());
            let _ = record.call.set(rpc.call.clone());
        }
        (rpc, message)
    }

    /// An RPC whose caller gave it this much time. The work ends a little earlier, so that its own words reach the
    /// caller; should the work not end, half of that margin is left to say so.
    #[must_use]
    pub fn lasting(time: Option<Duration>) -> Self {
        let (work, grace) = match time {
            Some(time) => {
                let margin = deadline::margin(time);
                (time.saturating_sub(margin), margin / 2)
            }
            None => (call::DEFAULT_TIME, DEFAULT_MARGIN),
        };
        let call = Call::lasting(work);
        let answer_by = call.deadline() + grace;
        Self { call, answer_by }
    }

    /// The RPC as the layers below see it.
    #[must_use]
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// When the caller must have its answer, whatever the work is doing.
    #[must_use]
    pub fn answer_by(&self) -> Instant {
        self.answer_by
    }
}

/// Makes a result what the generated services return.
pub(crate) fn answer<T>(result: Result<T>) -> Answer<T> {
    result.map(tonic::Response::new).map_err(|error| status::from_error(&error))
}

#[cfg(test)]
mod tests {
    use super::Rpc;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn the_work_ends_before_the_answer_and_the_answer_before_the_callers_deadline() {
        for time in [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(20), Duration::from_secs(60)] {
            let start = tokio::time::Instant::now();
            let rpc = Rpc::lasting(Some(time));
            assert!(rpc.call().deadline() <= rpc.answer_by(), "{time:?}");
            assert!(rpc.answer_by() <= start + time, "{time:?}");
        }
    }
}
