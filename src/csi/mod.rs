//! The CSI services: gRPC messages in, domain types through, gRPC messages out.
//!
//! This layer only translates. A message is parsed once ([`request`]) into types that cannot hold nonsense; the work is
//! done by a [`crate::provider::Provider`] or the [`crate::node::Node`]; the answer is put back into a message
//! ([`response`]), an error into a code ([`status`]). Each RPC runs as an [`operation`], which keeps two operations on
//! the same object apart and outlives a caller that goes away.

pub mod abilities;
pub mod controller;
pub mod deadline;
pub mod identity;
pub mod node;
pub mod operation;
pub mod request;
pub mod response;
pub mod rpc;
pub mod status;
pub mod subject;

/// The messages and services of CSI 1.13, generated from `proto/csi.proto`. Secrets do not show in `Debug`.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic)]
pub mod proto {
    tonic::include_proto!("csi.v1");
    include!(concat!(env!("OUT_DIR"), "/redacted.rs"));
}

/// What a method of a generated service returns.
pub(crate) type Answer<T> = Result<tonic::Response<T>, tonic::Status>;
