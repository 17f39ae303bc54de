//! The driver at its sockets, and how an orchestrator's sidecars talk to it: each RPC with a deadline, repeated while
//! the answer says "not now".

use super::plan::Advertised;
use super::proto;
use crate::cli::Endpoint;
use crate::error::{Error, Kind, Result};
use proto::controller_client::ControllerClient;
use proto::identity_client::IdentityClient;
use proto::node_client::NodeClient;
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Uri};
use tonic::{Code, Response, Status};

/// Pauses between repetitions, as the sidecars make them; the last one stays.
pub(super) const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];

/// How long to wait for an answer, how long to pause, when to give up.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    /// For one RPC.
    pub(super) rpc: Duration,
    /// For all repetitions of an RPC together.
    pub(super) step: Duration,
    /// Between repetitions; the last one stays.
    pub(super) pauses: Vec<Duration>,
}

/// What an RPC came to, repetitions included.
#[derive(Debug)]
pub(super) struct Attempts<T> {
    /// The answer, or the last refusal.
    pub(super) answer: Result<T, Status>,
    /// How often it was sent.
    pub(super) count: u32,
    /// How long all that took.
    pub(super) took: Duration,
}

impl Patience {
    /// Sends an RPC until its answer is final, patience ends, or `stop` says so (then the answer is `Cancelled`, and
    /// what became of the RPC is unknown).
    pub(super) async fn persist<T, F>(
        &self,
        stop: &CancellationToken,
        again: impl Fn(&Status) -> bool,
        send: impl Fn() -> F,
    ) -> Attempts<T>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let started = Instant::now();
        let mut count = 0_u32;
        let answer = loop {
            count += 1;
            let answer = tokio::select! {
                answer = tokio::time::timeout(self.rpc, send()) => answer.unwrap_or_else(|_| {
                    Err(Status::deadline_exceeded(format!("no answer within {}", seconds(self.rpc))))
                }),
                () = stop.cancelled() => Err(stopped()),
            };
            let Err(status) = answer else { break answer };
            let status = as_seen_by_sidecars(status);
            let pause = self.pause_after(count);
            if stop.is_cancelled() || !again(&status) || started.elapsed() + pause >= self.step {
                break Err(status);
            }
            tracing::debug!(attempt = count, code = ?status.code(), message = status.message(), "repeat later");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => break Err(status),
            }
        };
        Attempts { answer, count, took: started.elapsed() }
    }

    fn pause_after(&self, count: u32) -> Duration {
        let place = usize::try_from(count).unwrap_or(usize::MAX).saturating_sub(1);
        self.pauses.get(place).or(self.pauses.last()).copied().unwrap_or_default()
    }
}

/// Whether an answer means that the operation may be under way, or that nobody was there: worth repeating as it is.
pub(super) fn is_passing(status: &Status) -> bool {
    matches!(status.code(), Code::Aborted | Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
}

fn stopped() -> Status {
    Status::cancelled("stopped by a signal before the answer came")
}

/// tonic calls a connection that broke "unknown"; gRPC for Go, in which the sidecars are written, "unavailable".
fn as_seen_by_sidecars(status: Status) -> Status {
    use std::error::Error as _;
    match (status.code(), status.source()) {
        (Code::Unknown, Some(cause)) => Status::unavailable(format!("the connection broke: {cause}")),
        _ => status,
    }
}

/// A time for people.
pub(super) fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// Which kind of error a status is.
pub(super) fn error_of(rpc: &str, status: &Status) -> Error {
    let kind = match status.code() {
        Code::NotFound => Kind::NotFound,
        Code::AlreadyExists => Kind::Conflict,
        Code::InvalidArgument => Kind::InvalidArgument,
        Code::FailedPrecondition => Kind::WrongState,
        Code::Aborted => Kind::Busy,
        Code::ResourceExhausted => Kind::Exhausted,
        Code::OutOfRange => Kind::OutOfRange,
        Code::Unavailable => Kind::Unavailable,
        Code::PermissionDenied => Kind::Denied,
        Code::Unauthenticated => Kind::Unauthenticated,
        Code::Unimplemented => Kind::Unsupported,
        Code::DeadlineExceeded | Code::Cancelled => Kind::Deadline,
        _ => Kind::Internal,
    };
    Error::new(kind, format!("{rpc}: {:?}: {}", status.code(), status.message()))
}

/// A node service.
#[derive(Debug, Clone)]
pub(super) struct NodeService {
    /// Its RPCs.
    pub(super) rpcs: NodeClient<Channel>,
    /// What it says about itself.
    pub(super) info: proto::NodeGetInfoResponse,
}

/// The driver: one controller service, and node services.
#[derive(Debug, Clone)]
pub(super) struct Driver {
    /// The controller's RPCs.
    pub(super) controller: ControllerClient<Channel>,
    /// The nodes.
    pub(super) nodes: Vec<NodeService>,
    /// Its name.
    pub(super) name: String,
    /// Its version.
    pub(super) version: String,
    /// What it says that it can.
    pub(super) advertised: Advertised,
}

impl Driver {
    /// Finds out what is behind the sockets.
    ///
    /// # Errors
    /// `Unavailable`: nobody serves a socket, or it does not get ready. Others as the driver gives them.
    pub(super) async fn find(
        controller: &Endpoint,
        nodes: &[Endpoint],
        patience: &Patience,
        stop: &CancellationToken,
    ) -> Result<Self> {
        let channel = connect(controller).await?;
        let at = |rpc: &str, endpoint: &Endpoint| format!("{rpc} at {endpoint}");
        let identity = IdentityClient::new(channel.clone());
        let ask = Ask { patience, stop };
        let plugin = ask
            .rpc(&at("GetPluginInfo", controller), || {
                let mut identity = identity.clone();
                async move { identity.get_plugin_info(proto::GetPluginInfoRequest {}).await }
            })
            .await?;
        ask.until_ready(&at("Probe", controller), &identity).await?;
        let capabilities = ask
            .rpc(&at("GetPluginCapabilities", controller), || {
                let mut identity = identity.clone();
                async move { identity.get_plugin_capabilities(proto::GetPluginCapabilitiesRequest {}).await }
            })
            .await?;
        let mut advertised = Advertised::default();
        for capability in capabilities.capabilities {
            match capability.r#type {
                Some(proto::plugin_capability::Type::Service(service)) => advertised.plugin.push(service.r#type()),
                Some(proto::plugin_capability::Type::VolumeExpansion(expansion)) => {
                    advertised.expansion.push(expansion.r#type());
                }
                None => {}
            }
        }
        let controller_rpcs = ControllerClient::new(channel);
        if advertised.plugin.contains(&proto::plugin_capability::service::Type::ControllerService) {
            let capabilities = ask
                .rpc(&at("ControllerGetCapabilities", controller), || {
                    let mut rpcs = controller_rpcs.clone();
                    async move { rpcs.controller_get_capabilities(proto::ControllerGetCapabilitiesRequest {}).await }
                })
                // A node's socket names the plug-in's capabilities as well, without serving them.
                .await;
            advertised.controller = match capabilities {
                Ok(answer) => answer.capabilities.iter().filter_map(controller_rpc).collect(),
                Err(error) if error.is(Kind::Unsupported) => Vec::new(),
                Err(error) => return Err(error),
            };
        }
        let mut services = Vec::new();
        for endpoint in nodes {
            let (service, abilities) = find_node(endpoint, &ask).await?;
            if services.is_empty() {
                advertised.node = abilities;
            } else {
                advertised.node.retain(|ability| abilities.contains(ability));
            }
            services.push(service);
        }
        let (name, version) = (plugin.name, plugin.vendor_version);
        Ok(Self { controller: controller_rpcs, nodes: services, name, version, advertised })
    }
}

type NodeRpc = proto::node_service_capability::rpc::Type;

async fn find_node(endpoint: &Endpoint, ask: &Ask<'_>) -> Result<(NodeService, Vec<NodeRpc>)> {
    let channel = connect(endpoint).await?;
    ask.until_ready(&format!("Probe at {endpoint}"), &IdentityClient::new(channel.clone())).await?;
    let rpcs = NodeClient::new(channel);
    let capabilities = ask
        .rpc(&format!("NodeGetCapabilities at {endpoint}"), || {
            let mut rpcs = rpcs.clone();
            async move { rpcs.node_get_capabilities(proto::NodeGetCapabilitiesRequest {}).await }
        })
        .await
        .map_err(|error| {
            if error.is(Kind::Unsupported) {
                error.during("this is not a node service: give the node's socket with --node-endpoint")
            } else {
                error
            }
        })?;
    let info = ask
        .rpc(&format!("NodeGetInfo at {endpoint}"), || {
            let mut rpcs = rpcs.clone();
            async move { rpcs.node_get_info(proto::NodeGetInfoRequest {}).await }
        })
        .await?;
    if info.node_id.is_empty() {
        return Err(Error::internal(format!("NodeGetInfo at {endpoint}: the answer has no node_id")));
    }
    let abilities = capabilities.capabilities.iter().filter_map(node_rpc).collect();
    Ok((NodeService { rpcs, info }, abilities))
}

/// Asks before the first life begins.
struct Ask<'a> {
    patience: &'a Patience,
    stop: &'a CancellationToken,
}

impl Ask<'_> {
    async fn rpc<T, F>(&self, rpc: &str, send: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let attempts = self.patience.persist(self.stop, is_passing, send).await;
        attempts.answer.map(Response::into_inner).map_err(|status| error_of(rpc, &status))
    }

    /// A driver that has just started may not be ready yet; one that says nothing about it is.
    async fn until_ready(&self, rpc: &str, identity: &IdentityClient<Channel>) -> Result<()> {
        self.rpc(rpc, || {
            let mut identity = identity.clone();
            async move {
                let answer = identity.probe(proto::ProbeRequest {}).await?;
                match answer.get_ref().ready {
                    Some(false) => Err(Status::unavailable("the driver says that it is not ready")),
                    _ => Ok(answer),
                }
            }
        })
        .await
        .map(drop)
    }
}

fn controller_rpc(
    capability: &proto::ControllerServiceCapability,
) -> Option<proto::controller_service_capability::rpc::Type> {
    capability.r#type.as_ref().map(|proto::controller_service_capability::Type::Rpc(rpc)| rpc.r#type())
}

fn node_rpc(capability: &proto::NodeServiceCapability) -> Option<NodeRpc> {
    capability.r#type.as_ref().map(|proto::node_service_capability::Type::Rpc(rpc)| rpc.r#type())
}

/// Connects to a Unix socket; a connection that breaks is made again with the next RPC.
async fn connect(endpoint: &Endpoint) -> Result<Channel> {
    let path = endpoint.path().to_owned();
    // The address is not used: the connector knows the path.
    let unused = tonic::transport::Endpoint::from_static("http://csi.invalid");
    let dial = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
    });
    unused.connect_with_connector(dial).await.map_err(|error| {
        let mut cause: &dyn std::error::Error = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        Error::new(
            Kind::Unavailable,
            format!("connect to {endpoint}: {cause}; is the driver running there, and may you use it?"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::{Patience, is_passing};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;
    use tokio::time::Instant;
    use tokio_util::sync::CancellationToken;
    use tonic::{Code, Status};

    fn patience() -> Patience {
        Patience { rpc: Duration::from_secs(10), step: Duration::from_secs(60), pauses: super::PAUSES.to_vec() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_passing_refusal_is_repeated_after_one_two_and_four_seconds() {
        let started = Instant::now();
        let sent = AtomicU32::new(0);
        let attempts = patience()
            .persist(&CancellationToken::new(), is_passing, || async {
                match sent.fetch_add(1, Ordering::Relaxed) {
                    0 => Err(Status::aborted("in flight")),
                    1 => Err(Status::unavailable("away")),
                    2 => Err(Status::deadline_exceeded("slow")),
                    _ => Ok("done"),
                }
            })
            .await;
        assert_eq!((attempts.answer.unwrap(), attempts.count), ("done", 4));
        assert_eq!(started.elapsed(), Duration::from_secs(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_final_refusal_is_not_repeated() {
        let attempts = patience()
            .persist(&CancellationToken::new(), is_passing, || async { Err::<(), _>(Status::invalid_argument("no")) })
            .await;
        assert_eq!((attempts.answer.unwrap_err().code(), attempts.count), (Code::InvalidArgument, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_rpc_without_an_answer_ends_at_its_deadline_and_patience_ends_too() {
        let attempts =
            patience().persist(&CancellationToken::new(), is_passing, std::future::pending::<Result<(), Status>>).await;
        assert_eq!(attempts.answer.unwrap_err().code(), Code::DeadlineExceeded);
        assert_eq!((attempts.count, attempts.took.as_secs()), (5, 65 - 8 + 8));
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_ends_the_waiting_at_once() {
        let stop = CancellationToken::new();
        stop.cancel();
        let attempts = patience().persist(&stop, is_passing, std::future::pending::<Result<(), Status>>).await;
        assert_eq!((attempts.answer.unwrap_err().code(), attempts.took), (Code::Cancelled, Duration::ZERO));
    }
}
