//! `fuxi-csi controller`, `node` and `all`: from options to a server, and to its end.

use super::connect::Needs;
use super::machine::{self, Way};
use super::registry::{ProviderEntry, ProviderSetup, Registry};
use super::reload::{Configuration, ReloadingCloud};
use super::signals::Signals;
use crate::call::Call;
use crate::cli;
use crate::config::{BlockStorageOptions, Source};
use crate::csi::controller::ControllerService;
use crate::csi::identity::IdentityService;
use crate::csi::node::NodeService;
use crate::csi::operation::Operations;
use crate::error::{Error, Kind, Result};
use crate::model::StringMap;
use crate::observe::http::{HttpServer, Readiness};
use crate::observe::metrics::Metrics;
use crate::openstack::client::{Meter, ServiceKind};
use crate::openstack::session::Session;
use crate::provider::Provider;
use crate::provider::cinder::CephClients;
use crate::server::{self, Services, Shutdown, Socket};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long the start of a node may be held up by looking for volumes that left it.
const FORGETTING: Duration = Duration::from_secs(20);

/// What is to be served.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan<'a> {
    role: cli::Role,
    driver: &'a cli::DriverOptions,
    service: &'a cli::ServiceOptions,
    files: &'a cli::ConfigurationOptions,
    cloud: Option<&'a cli::CloudOptions>,
    node: Option<&'a cli::NodeOptions>,
}

impl<'a> Plan<'a> {
    /// `fuxi-csi controller`
    pub(super) fn controller(options: &'a cli::Controller) -> Self {
        let cli::Controller { driver, service, files, cloud, log: _ } = options;
        Self { role: cli::Role::Controller, driver, service, files, cloud: Some(cloud), node: None }
    }

    /// `fuxi-csi node`
    pub(super) fn node(options: &'a cli::Node) -> Self {
        let cli::Node { driver, service, files, node, log: _ } = options;
        Self { role: cli::Role::Node, driver, service, files, cloud: None, node: Some(node) }
    }

    /// `fuxi-csi all`
    pub(super) fn all(options: &'a cli::All) -> Self {
        let cli::All { driver, service, files, cloud, node, log: _ } = options;
        Self { role: cli::Role::All, driver, service, files, cloud: Some(cloud), node: Some(node) }
    }

    fn role_name(&self) -> &'static str {
        match self.role {
            cli::Role::Controller => "controller",
            cli::Role::Node => "node",
            cli::Role::All => "all",
        }
    }
}

/// Serves until a signal ends it, or until the configuration turns out to be wrong.
pub(super) async fn serve(plan: Plan<'_>, registry: Registry) -> Result<()> {
    let mut signals = Signals::catch()?;
    let driver = plan.driver.name();
    let metrics = Metrics::new(driver.as_str(), plan.role_name());
    let operations = Operations::default();
    let entry = registry.provider(plan.driver.provider.as_str())?;

    let way = Way::of(entry.delivery, plan.driver.attach);
    let controller = match plan.cloud {
        Some(cloud) => Some(Controller::assemble(&plan, cloud, entry, &metrics).await?),
        None => None,
    };
    let node = match plan.node {
        Some(options) => {
            let files = plan.files.cloud_config.clone();
            Some(Arc::new(machine::node(plan.driver, options, files, way, entry.abilities.zones, &registry).await?))
        }
        None => None,
    };
    let services = Services {
        identity: IdentityService::new(
            driver.as_str().to_owned(),
            registry.version().to_owned(),
            manifest(),
            entry.abilities,
        ),
        controller: controller
            .as_ref()
            .map(|controller| ControllerService::new(Arc::clone(&controller.provider), operations.clone())),
        node: node.as_ref().map(|node| NodeService::new(Arc::clone(node), entry.abilities, operations.clone())),
    };

    let socket = Socket::take(plan.service.endpoint.path())?;
    // Who has the socket is the only one that works on this node's volumes.
    if let Some(node) = &node
        && let Err(error) = node.forget_what_is_gone(&Call::lasting(FORGETTING)).await
    {
        tracing::warn!(%error, "not all records of volumes were looked at: the next start does");
    }
    let (set_readiness, readiness) = watch::channel(Readiness::Waiting("starting".to_owned()));
    if let Some(endpoint) = &plan.service.http_endpoint {
        let http = HttpServer::bind(endpoint.addresses(), metrics.clone(), readiness).await?;
        tokio::spawn(http.serve());
    }
    tracing::info!(
        driver = driver.as_str(),
        version = registry.version(),
        role = plan.role_name(),
        provider = plan.driver.provider.as_str(),
        endpoint = %plan.service.endpoint,
        "serving CSI"
    );

    let (provider, clouds) =
        controller.map_or((None, Vec::new()), |controller| (Some(controller.provider), controller.clouds));
    let has_nova = plan.driver.attach != Some(cli::Attach::Host);
    let is_needed = |service: &ServiceKind| has_nova || *service != ServiceKind::Compute;
    let needed = entry.services.iter().copied().filter(is_needed).collect();
    let needs = Needs { clouds, services: needed, provider, node };
    let shutdown = Shutdown { begin: CancellationToken::new(), grace: plan.service.shutdown_grace };
    let served = server::serve(socket, services, &operations, metrics, shutdown.clone());
    Box::pin(until_the_end(served, needs.met(&set_readiness), &mut signals, &shutdown)).await
}

/// Serves, drains at the first signal or when the configuration is found to be wrong, and ends at once at the second
/// signal.
async fn until_the_end(
    served: impl Future<Output = Result<()>>,
    connected: impl Future<Output = Result<()>>,
    signals: &mut Signals,
    shutdown: &Shutdown,
) -> Result<()> {
    tokio::pin!(served);
    let reason = tokio::select! {
        result = &mut served => return result,
        signal = signals.next() => {
            tracing::info!(signal, seconds = shutdown.grace.as_secs(), "ending: RPCs in flight may finish");
            None
        }
        error = failure(connected) => Some(error),
    };
    shutdown.begin.cancel();
    let drained = tokio::select! {
        result = served => result,
        signal = signals.next() => Err(Error::new(Kind::Deadline, format!("{signal} again: ended without waiting"))),
    };
    reason.map_or(drained, Err)
}

/// The error of a future that fails; never returns for one that succeeds.
async fn failure(future: impl Future<Output = Result<()>>) -> Error {
    match future.await {
        Err(error) => error,
        Ok(()) => std::future::pending().await,
    }
}

/// What a controller consists of.
struct Controller {
    provider: Arc<dyn Provider>,
    clouds: Vec<(String, Session)>,
}

impl Controller {
    async fn assemble(
        plan: &Plan<'_>,
        options: &cli::CloudOptions,
        entry: &ProviderEntry,
        metrics: &Metrics,
    ) -> Result<Self> {
        let mut ceph: Arc<dyn CephClients> = Arc::new(Vec::new());
        let (clouds, block_storage) = if entry.services.is_empty() {
            (Vec::new(), BlockStorageOptions::default())
        } else {
            let source = Source::new(plan.files.cloud_config.clone(), options.cloud_name.clone());
            let configuration = Configuration::load(source).await?;
            let block_storage = configuration.config().block_storage.clone();
            ceph = Arc::clone(&configuration) as Arc<dyn CephClients>;
            (sessions(&configuration, metrics), block_storage)
        };
        let setup = ProviderSetup {
            driver: plan.driver.name().as_str().to_owned(),
            cluster: options.cluster.clone(),
            clouds,
            most_requests: options.max_requests.get(),
            block_storage,
            attach: plan.driver.attach,
            runtime_config: options.runtime_config_file.clone(),
            ceph,
        };
        Ok(Self { provider: entry.make(&setup)?, clouds: setup.clouds })
    }
}

/// A session with each cloud, the default one (by the empty name) first.
fn sessions(configuration: &Arc<Configuration>, metrics: &Metrics) -> Vec<(String, Session)> {
    let session = |name: Option<String>| {
        let cloud = ReloadingCloud { configuration: Arc::clone(configuration), name };
        let meter: Arc<dyn Meter> = Arc::new(metrics.clone());
        Session::new(cloud, Vec::new(), meter)
    };
    let config = configuration.config();
    let others = config.clouds.others.iter().map(|cloud| (cloud.name.clone(), session(Some(cloud.name.clone()))));
    std::iter::once((String::new(), session(None))).chain(others).collect()
}

/// What `GetPluginInfo` says beyond name and version.
fn manifest() -> StringMap {
    option_env!("FUXI_CSI_COMMIT").map(|commit| ("commit".to_owned(), commit.to_owned())).into_iter().collect()
}
