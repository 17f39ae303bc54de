//! Options of every process that serves: which driver it is, where it listens, what it logs.

use super::{DriverName, Endpoint, HttpEndpoint, ProviderName};
use crate::config::duration;
use clap::{Args, ValueEnum};
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// Which driver it is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Driver")]
pub struct DriverOptions {
    /// Where volumes come from
    #[arg(long, value_name = "NAME", default_value = "cinder", env = "FUXI_CSI_PROVIDER")]
    pub provider: ProviderName,

    /// The name under which the orchestrator knows the driver [default: PROVIDER.fuxi.openstack.org]
    ///
    /// StorageClasses name it as their provisioner, and volumes belong to it for life. With
    /// cinder.csi.openstack.org the driver takes over the volumes, classes and parameters of cinder-csi. It has to be
    /// the same on the controller and on all nodes.
    #[arg(long = "driver-name", value_name = "NAME", env = "FUXI_CSI_DRIVER_NAME")]
    pub given_name: Option<DriverName>,

    /// Who attaches volumes to nodes [default: nova on a node, either on a controller]
    ///
    /// A node that is a server of Nova gets them from its hypervisor. Any other machine is a host, and attaches them
    /// itself, with what Cinder tells the controller. A controller without this option serves both; with `host` it needs
    /// no Nova.
    #[arg(long, value_enum, value_name = "WHO", env = "FUXI_CSI_ATTACH")]
    pub attach: Option<Attach>,
}

/// Who attaches volumes to nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum Attach {
    /// Nova, to its servers
    Nova,
    /// The host itself
    Host,
}

impl DriverOptions {
    /// The driver's name: the given one, or the provider's default.
    #[must_use]
    pub fn name(&self) -> DriverName {
        self.given_name.clone().unwrap_or_else(|| self.provider.default_driver_name())
    }
}

/// How the services are served.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Service")]
pub struct ServiceOptions {
    /// The Unix socket to serve CSI on: unix:///PATH or a bare path
    ///
    /// A socket left behind by a dead process is replaced; one that a living process serves is refused.
    #[arg(long, value_name = "SOCKET", env = "CSI_ENDPOINT")]
    pub endpoint: Endpoint,

    /// Serve /metrics and /healthz on this address, such as :8080 or 127.0.0.1:8080 [default: off]
    #[arg(long, value_name = "ADDRESS", env = "FUXI_CSI_HTTP_ENDPOINT")]
    pub http_endpoint: Option<HttpEndpoint>,

    /// How long running calls may take to end after SIGTERM
    ///
    /// Seconds, or for example 45s or 2m. New calls are refused at once. Keep it below the pod's
    /// terminationGracePeriodSeconds.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = duration::parse)]
    #[arg(env = "FUXI_CSI_SHUTDOWN_GRACE")]
    pub shutdown_grace: Duration,
}

/// What is logged, to standard error.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Log")]
pub struct LogOptions {
    /// How log lines look
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "FUXI_CSI_LOG_FORMAT")]
    pub log_format: LogFormat,

    /// What is logged: error, warn, info, debug or trace, or a filter such as info,fuxi_csi::openstack=debug
    ///
    /// The filter is that of RUST_LOG: levels by module, the most specific wins. At info there is one line per CSI
    /// call, with its duration, result and OpenStack request ids; at debug also one per OpenStack request.
    #[arg(long, value_name = "FILTER", default_value = "info", env = "RUST_LOG", value_parser = log_filter)]
    pub log_level: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum LogFormat {
    /// For people; coloured on a terminal
    Text,
    /// For machines: one object per line
    Json,
}

fn log_filter(text: &str) -> Result<String, String> {
    EnvFilter::builder()
        .parse(text)
        .map(|_| text.to_owned())
        .map_err(|error| format!("{error}; write a level, or for example info,fuxi_csi::openstack=debug"))
}
