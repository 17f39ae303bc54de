//! The figures behind `/metrics`, in the OpenMetrics text format.

use super::process::Process;
use crate::error::{Error, Result};
use crate::openstack::client::{Meter, Usage};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

/// Bounds of RPC durations, in seconds: from a look into memory to a backup's last step.
const RPC_SECONDS: [f64; 12] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0];

/// Bounds of OpenStack requests, in seconds.
const REQUEST_SECONDS: [f64; 9] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RpcLabels {
    method: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabel {
    method: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    service: &'static str,
    method: &'static str,
    path: &'static str,
    status: HttpStatus,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    service: &'static str,
    method: &'static str,
    path: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabel {
    service: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// An HTTP status; `none` where there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct HttpStatus(u16);

impl EncodeLabelValue for HttpStatus {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> fmt::Result {
        match self.0 {
            0 => encoder.write_str("none"),
            status => write!(encoder, "{status}"),
        }
    }
}

/// Makes histograms with the same bounds.
#[derive(Debug, Clone)]
struct Seconds(&'static [f64]);

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

/// All figures of this process. Cheap to clone; clones are the same figures.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Figures>);

#[derive(Debug)]
struct Figures {
    registry: Registry,
    rpcs: Family<RpcLabels, Counter>,
    rpc_time: Family<MethodLabel, Histogram, Seconds>,
    rpcs_in_flight: Family<MethodLabel, Gauge>,
    requests: Family<RequestLabels, Counter>,
    request_time: Family<RouteLabels, Histogram, Seconds>,
    retries: Family<ServiceLabel, Counter>,
    logins: Family<OutcomeLabel, Counter>,
}

impl Metrics {
    /// Figures that start at nothing. `driver` and `role` say whose they are.
    #[must_use]
    pub fn new(driver: &str, role: &'static str) -> Self {
        let rpcs = Family::default();
        let rpc_time = Family::new_with_constructor(Seconds(&RPC_SECONDS));
        let rpcs_in_flight = Family::default();
        let requests = Family::default();
        let request_time = Family::new_with_constructor(Seconds(&REQUEST_SECONDS));
        let retries = Family::default();
        let logins = Family::default();

        let mut registry = Registry::default();
        let own = registry.sub_registry_with_prefix("fuxi_csi");
        own.register("rpc", "CSI calls that ended, by method and gRPC code", rpcs.clone());
        own.register_with_unit("rpc_duration", "How long CSI calls took", Unit::Seconds, rpc_time.clone());
        own.register("rpc_in_flight", "CSI calls that are being served", rpcs_in_flight.clone());
        own.register(
            "openstack_requests",
            "Requests to OpenStack, repeats included, by service, method, path and HTTP status",
            requests.clone(),
        );
        own.register_with_unit(
            "openstack_request_duration",
            "How long requests to OpenStack took",
            Unit::Seconds,
            request_time.clone(),
        );
        own.register("openstack_retries", "Requests to OpenStack that had to be repeated", retries.clone());
        own.register("openstack_logins", "Logins to OpenStack (token renewals), by outcome", logins.clone());
        own.register(
            "build",
            "What is running",
            Info::new(vec![
                ("version", env!("CARGO_PKG_VERSION").to_owned()),
                ("driver", driver.to_owned()),
                ("role", role.to_owned()),
            ]),
        );
        registry.register_collector(Box::new(Process::new()));
        Self(Arc::new(Figures { registry, rpcs, rpc_time, rpcs_in_flight, requests, request_time, retries, logins }))
    }

    /// A CSI call begins.
    pub fn rpc_begins(&self, method: &'static str) {
        self.0.rpcs_in_flight.get_or_create(&MethodLabel { method }).inc();
    }

    /// A CSI call ended with this code after this time.
    pub fn rpc_ends(&self, method: &'static str, code: &'static str, took: Duration) {
        self.0.rpcs_in_flight.get_or_create(&MethodLabel { method }).dec();
        self.0.rpcs.get_or_create(&RpcLabels { method, code }).inc();
        self.0.rpc_time.get_or_create(&MethodLabel { method }).observe(took.as_secs_f64());
    }

    /// All figures, as OpenMetrics text.
    ///
    /// # Errors
    /// `Internal`: they cannot be encoded.
    pub fn text(&self) -> Result<String> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.0.registry)
            .map_err(|error| Error::internal("encode metrics").because(error))?;
        Ok(text)
    }
}

impl Meter for Metrics {
    fn request(&self, usage: &Usage) {
        let Usage { service, method, template: path, status, took } = *usage;
        self.0.requests.get_or_create(&RequestLabels { service, method, path, status: HttpStatus(status) }).inc();
        self.0.request_time.get_or_create(&RouteLabels { service, method, path }).observe(took.as_secs_f64());
    }

    fn retry(&self, service: &'static str) {
        self.0.retries.get_or_create(&ServiceLabel { service }).inc();
    }

    fn login(&self, succeeded: bool) {
        let outcome = if succeeded { "success" } else { "failure" };
        self.0.logins.get_or_create(&OutcomeLabel { outcome }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;
    use crate::openstack::client::{Meter, Usage};
    use std::time::Duration;

    #[test]
    fn everything_that_happened_is_in_the_text() {
        let metrics = Metrics::new("cinder.fuxi.openstack.org", "controller");
        metrics.rpc_begins("CreateVolume");
        metrics.rpc_begins("DeleteVolume");
        metrics.rpc_ends("CreateVolume", "OK", Duration::from_millis(30));
        for status in [0, 202] {
            metrics.request(&Usage {
                service: "cinder",
                method: "POST",
                template: "/volumes/{}/action",
                status,
                took: Duration::from_millis(3),
            });
        }
        metrics.retry("cinder");
        metrics.login(true);
        let text = metrics.text().unwrap();
        for line in [
            "fuxi_csi_rpc_total{method=\"CreateVolume\",code=\"OK\"} 1",
            "fuxi_csi_rpc_in_flight{method=\"CreateVolume\"} 0",
            "fuxi_csi_rpc_in_flight{method=\"DeleteVolume\"} 1",
            "fuxi_csi_rpc_duration_seconds_bucket{le=\"0.1\",method=\"CreateVolume\"} 1",
            "fuxi_csi_openstack_requests_total{service=\"cinder\",method=\"POST\",path=\"/volumes/{}/action\",status=\"202\"} 1",
            "fuxi_csi_openstack_requests_total{service=\"cinder\",method=\"POST\",path=\"/volumes/{}/action\",status=\"none\"} 1",
            "fuxi_csi_openstack_request_duration_seconds_count{service=\"cinder\",method=\"POST\",path=\"/volumes/{}/action\"} 2",
            "fuxi_csi_openstack_retries_total{service=\"cinder\"} 1",
            "fuxi_csi_openstack_logins_total{outcome=\"success\"} 1",
            "fuxi_csi_build_info{version=\"0.1.0\",driver=\"cinder.fuxi.openstack.org\",role=\"controller\"} 1",
            "process_resident_memory_bytes ",
            "process_start_time_seconds ",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
