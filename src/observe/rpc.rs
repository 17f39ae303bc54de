//! One layer around every RPC: a log line, and the figures. It sees how the RPC ends in every case, also when the
//! caller goes away and the RPC is dropped.

use super::metrics::Metrics;
use crate::csi::rpc::Record;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tonic::{Code, Status};

/// Puts [`Observed`] around the services.
#[derive(Debug, Clone)]
pub struct RpcLayer {
    metrics: Metrics,
}

impl RpcLayer {
    /// A layer that counts here.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics }
    }
}

impl<S> tower::Layer<S> for RpcLayer {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Observed { inner, metrics: self.metrics.clone() }
    }
}

/// A service whose calls are logged and counted.
#[derive(Debug, Clone)]
pub struct Observed<S> {
    inner: S,
    metrics: Metrics,
}

impl<S, B, R> tower::Service<http::Request<B>> for Observed<S>
where
    S: tower::Service<http::Request<B>, Response = http::Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let record = Arc::new(Record::default());
        let method = method(request.uri().path());
        request.extensions_mut().insert(Arc::clone(&record));
        self.metrics.rpc_begins(method);
        let mut running = Running { method, record, metrics: self.metrics.clone(), started: Instant::now(), end: None };
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await?;
            running.ends_with(response.headers());
            Ok(response)
        })
    }
}

/// An RPC that is being served. It tells its end when it is dropped, so always.
struct Running {
    method: &'static str,
    record: Arc<Record>,
    metrics: Metrics,
    started: Instant,
    end: Option<(Code, String)>,
}

impl Running {
    /// The status of a call that fails stands in the headers, since there is no message. Success is said after the
    /// message, in trailers that are still to be written.
    fn ends_with(&mut self, headers: &http::HeaderMap) {
        self.end = Some(match Status::from_header_map(headers) {
            Some(status) => (status.code(), status.message().to_owned()),
            None => (Code::Ok, String::new()),
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        let (code, message) =
            self.end.take().unwrap_or_else(|| (Code::Cancelled, "the caller went away before the answer".to_owned()));
        self.metrics.rpc_ends(self.method, code_name(code), took);
        log(self.method, code, &message, took, &self.record);
    }
}

/// How loud the line of an RPC is.
fn level(method: &str, code: Code) -> tracing::Level {
    match code {
        // What an orchestrator asks over and over is noise as long as it goes well.
        Code::Ok if matches!(method, "Probe" | "NodeGetVolumeStats") || method.ends_with("GetCapabilities") => {
            tracing::Level::DEBUG
        }
        Code::Ok if method == "GetPluginCapabilities" => tracing::Level::DEBUG,
        Code::Ok => tracing::Level::INFO,
        Code::Internal | Code::Unknown | Code::DataLoss | Code::Unauthenticated | Code::PermissionDenied => {
            tracing::Level::ERROR
        }
        _ => tracing::Level::WARN,
    }
}

fn log(method: &'static str, code: Code, message: &str, took: Duration, record: &Record) {
    let subject = record.subject();
    let volume = subject.and_then(|subject| subject.volume.as_deref());
    let node = subject.and_then(|subject| subject.node.as_deref());
    let snapshot = subject.and_then(|subject| subject.snapshot.as_deref());
    let name = subject.and_then(|subject| subject.name.as_deref());
    let calls = Some(record.openstack_calls()).filter(|calls| *calls > 0);
    let request_ids = Some(record.request_ids().join(" ")).filter(|ids| !ids.is_empty());
    let code_name = code_name(code);
    let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let error = (!message.is_empty()).then_some(message);
    macro_rules! line {
        ($level:expr) => {
            tracing::event!(
                target: "fuxi_csi::rpc",
                $level,
                volume,
                node,
                snapshot,
                name,
                code = code_name,
                milliseconds,
                openstack_calls = calls,
                request_ids = request_ids.as_deref(),
                error,
                "{method}"
            )
        };
    }
    match level(method, code) {
        tracing::Level::ERROR => line!(tracing::Level::ERROR),
        tracing::Level::WARN => line!(tracing::Level::WARN),
        tracing::Level::INFO => line!(tracing::Level::INFO),
        _ => line!(tracing::Level::DEBUG),
    }
}

/// The methods of CSI that may be asked for. Whatever else is asked counts as one, so that nobody can fill the metrics
/// with inventions.
const METHODS: &[&str] = &[
    "GetPluginInfo",
    "GetPluginCapabilities",
    "Probe",
    "CreateVolume",
    "DeleteVolume",
    "ControllerPublishVolume",
    "ControllerUnpublishVolume",
    "ValidateVolumeCapabilities",
    "ListVolumes",
    "ControllerListVolumeHealth",
    "ControllerGetVolumeHealth",
    "GetCapacity",
    "ControllerGetCapabilities",
    "CreateSnapshot",
    "DeleteSnapshot",
    "ListSnapshots",
    "GetSnapshot",
    "ControllerExpandVolume",
    "ControllerGetVolume",
    "ControllerModifyVolume",
    "NodeStageVolume",
    "NodeUnstageVolume",
    "NodePublishVolume",
    "NodeUnpublishVolume",
    "NodeGetVolumeStats",
    "NodeGetVolumeHealth",
    "NodeGetStorageHealth",
    "NodeExpandVolume",
    "NodeGetCapabilities",
    "NodeGetInfo",
];

/// The method of a path such as `/csi.v1.Controller/CreateVolume`.
fn method(path: &str) -> &'static str {
    let asked = path.strip_prefix("/csi.v1.").and_then(|rest| rest.split_once('/')).map(|(_, method)| method);
    METHODS.iter().copied().find(|known| asked == Some(*known)).unwrap_or("unknown")
}

/// A code as gRPC spells it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::{METHODS, level, method};
    use tonic::Code;
    use tracing::Level;

    #[test]
    fn only_methods_of_csi_become_labels() {
        assert_eq!(method("/csi.v1.Controller/CreateVolume"), "CreateVolume");
        assert_eq!(method("/csi.v1.Identity/Probe"), "Probe");
        for path in ["", "/", "/csi.v1.Controller/DropTables", "/other.Service/CreateVolume", "/csi.v1.Probe"] {
            assert_eq!(method(path), "unknown", "{path}");
        }
    }

    #[test]
    fn every_method_of_the_served_services_is_known() {
        let proto = include_str!("../../proto/csi.proto");
        let services = proto
            .split("\nservice ")
            .skip(1)
            .filter(|service| ["Identity ", "Controller ", "Node "].iter().any(|name| service.starts_with(name)));
        let mut count = 0;
        for service in services {
            let body = service.split("\n}").next().unwrap();
            for rpc in body.split("\n  rpc ").skip(1) {
                let name = rpc.split(['(', ' ']).next().unwrap();
                assert!(METHODS.contains(&name), "{name}");
                count += 1;
            }
        }
        assert_eq!(count, METHODS.len());
    }

    #[test]
    fn what_is_asked_all_the_time_is_quiet_unless_it_fails() {
        assert_eq!(level("Probe", Code::Ok), Level::DEBUG);
        assert_eq!(level("NodeGetCapabilities", Code::Ok), Level::DEBUG);
        assert_eq!(level("ValidateVolumeCapabilities", Code::Ok), Level::INFO);
        assert_eq!(level("CreateVolume", Code::Ok), Level::INFO);
        assert_eq!(level("Probe", Code::Unavailable), Level::WARN);
        assert_eq!(level("CreateVolume", Code::Internal), Level::ERROR);
    }
}
