//! What the driver asked of OpenStack, read from its `/metrics`.

use crate::error::{Error, Kind, Result};
use std::time::Duration;
use url::Url;

/// The counters of OpenStack requests, by driver: ours, and cinder-csi's.
const COUNTERS: [&str; 2] = ["fuxi_csi_openstack_requests_total", "openstack_api_requests_total"];

/// What all our figures begin with: a counter that has not counted yet is not on the page at all.
const OURS: &str = "fuxi_csi_";

/// How long one reading may take.
const READ_TIME: Duration = Duration::from_secs(5);

/// The `/metrics` pages of a driver's processes.
#[derive(Debug, Clone)]
pub(super) struct Cost {
    http: reqwest::Client,
    pages: Vec<Url>,
}

impl Cost {
    /// Reads these pages; none for no counting.
    ///
    /// # Errors
    /// `Internal`: no HTTP client can be made.
    pub(super) fn new(pages: Vec<Url>) -> Result<Self> {
        // The client wants a TLS provider even for http. An error only says that it is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(READ_TIME)
            .no_proxy()
            .build()
            .map_err(|error| Error::internal("make an HTTP client").because(error))?;
        Ok(Self { http, pages })
    }

    /// How many requests there were so far; none where nobody counts.
    ///
    /// # Errors
    /// `Unavailable`: a page cannot be read. `InvalidArgument`: it is not the page of a driver.
    pub(super) async fn calls(&self) -> Result<Option<u64>> {
        let mut sum = None;
        for page in &self.pages {
            let calls = self.read(page).await.map_err(|error| error.during(format!("--metrics-url {page}")))?;
            sum = Some(sum.unwrap_or(0) + calls);
        }
        Ok(sum)
    }

    async fn read(&self, page: &Url) -> Result<u64> {
        let unreadable = |error| Error::new(Kind::Unavailable, "cannot be read").because(error);
        let answer = self.http.get(page.clone()).send().await.map_err(unreadable)?;
        let answer = answer.error_for_status().map_err(unreadable)?;
        parse(&answer.text().await.map_err(unreadable)?)
    }
}

/// Adds up the requests of a page in Prometheus's or OpenMetrics's text format. A counter that never counted is zero.
///
/// # Errors
/// `InvalidArgument`: there is no such counter.
fn parse(page: &str) -> Result<u64> {
    let mut declared = false;
    let mut sum = 0;
    for line in page.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix('#') {
            declared |= comment.split_whitespace().nth(1).is_some_and(is_counter);
            continue;
        }
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap_or(line.len()));
        declared |= name.starts_with(OURS);
        if !COUNTERS.contains(&name) {
            continue;
        }
        let value =
            after_labels(rest).split_whitespace().next().and_then(whole_number).ok_or_else(|| {
                Error::invalid(format!("the line {line:?} has no count: this is not a page of metrics"))
            })?;
        declared = true;
        sum = u64::saturating_add(sum, value);
    }
    if declared {
        Ok(sum)
    } else {
        Err(Error::invalid(format!(
            "no counter {} on this page: give the address of the controller's --http-endpoint, with /metrics",
            COUNTERS.join(" or ")
        )))
    }
}

/// OpenMetrics declares counters without their suffix.
fn is_counter(name: &str) -> bool {
    COUNTERS.iter().any(|counter| *counter == name || counter.strip_suffix("_total") == Some(name))
}

/// What stands behind `{…}`. A label's value may contain a brace, and quotes behind a backslash.
fn after_labels(text: &str) -> &str {
    let Some(labels) = text.strip_prefix('{') else { return text };
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in labels.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '}' if !quoted => return labels.get(at + 1..).unwrap_or_default(),
            _ => {}
        }
    }
    ""
}

/// `17`, `17.0`, `1.7e+01` (as Go writes large counters): a count, if it is one.
fn whole_number(text: &str) -> Option<u64> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let number: f64 = text.parse().ok().filter(|number: &f64| *number >= 0.0 && number.fract() == 0.0)?;
    format!("{number:.0}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parse;
    use proptest::prelude::{any, prop, proptest};

    #[test]
    fn requests_of_all_labels_are_added_up() {
        let page = "# HELP fuxi_csi_openstack_requests Requests.\n\
                    # TYPE fuxi_csi_openstack_requests counter\n\
                    fuxi_csi_openstack_requests_total{service=\"cinder\",path=\"/volumes/{}\",status=\"200\"} 3\n\
                    fuxi_csi_openstack_requests_total{service=\"nova\",path=\"a\\\"}\",status=\"202\"} 4\n\
                    fuxi_csi_openstack_requests_total_other{a=\"b\"} 50\n\
                    fuxi_csi_rpc_total{a=\"b\"} 60\n# EOF\n";
        assert_eq!(parse(page).unwrap(), 7);
    }

    #[test]
    fn the_page_of_cinder_csi_is_read_as_well() {
        let page = "# TYPE openstack_api_requests_total counter\n\
                    openstack_api_requests_total{request=\"volume_get\"} 1.2e+01\n\
                    openstack_api_requests_total{request=\"x\"} 2 1700000000000\n";
        assert_eq!(parse(page).unwrap(), 14);
    }

    #[test]
    fn a_counter_that_never_counted_is_zero_and_none_at_all_is_an_error() {
        assert_eq!(parse("# TYPE openstack_api_requests_total counter\n").unwrap(), 0);
        assert_eq!(parse("fuxi_csi_build_info{version=\"1\"} 1\n# EOF\n").unwrap(), 0);
        for page in ["", "up 1\n", "<html>not found</html>"] {
            assert!(parse(page).unwrap_err().to_string().contains("/metrics"), "{page}");
        }
        for value in ["", "x", "-1", "0.5", "NaN", "+Inf"] {
            assert!(parse(&format!("openstack_api_requests_total {value}\n")).is_err(), "{value}");
        }
    }

    proptest! {
        #[test]
        fn no_page_panics(page in any::<String>(), rest in any::<String>()) {
            let _ = parse(&page);
            let _ = parse(&format!("openstack_api_requests_total{rest}"));
        }

        #[test]
        fn counts_come_back(counts in prop::collection::vec(0_u64..1 << 40, 1..9)) {
            let page: String =
                counts.iter().enumerate().map(|(n, c)| format!("openstack_api_requests_total{{n=\"{n}\"}} {c}\n")).collect();
            assert_eq!(parse(&page).unwrap(), counts.iter().sum::<u64>());
        }
    }
}
