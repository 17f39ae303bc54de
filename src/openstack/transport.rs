//! HTTP connections to one cloud: TLS, timeouts, the user agent.
//!
//! rustls is used with ring: compared with the default provider it saves 100 s of compilation and 2 MB of binary.

use super::cloud::Tls;
use crate::error::{Error, Kind, Result};
use std::path::Path;
use std::time::Duration;

/// How long a connection may take to be made.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// How long an idle connection is kept. Shorter than the usual keep-alive of the services (75 s), so that a request
/// is rarely sent into a connection that is just being closed.
const IDLE_TIME: Duration = Duration::from_secs(20);

/// How many idle connections per host are kept: as many as may be busy at once.
const IDLE_CONNECTIONS: usize = 32;

/// What this driver calls itself.
const USER_AGENT: &str = concat!("fuxi-csi/", env!("CARGO_PKG_VERSION"));

/// Makes the HTTP client of a cloud. Reads files, so call it where blocking is allowed.
///
/// # Errors
/// `InvalidArgument` naming the file that cannot be read or is not PEM.
pub(super) fn connect(tls: &Tls, user_agent: &[String]) -> Result<reqwest::Client> {
    // Process-wide by rustls's design; an error only says that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let agent = std::iter::once(USER_AGENT).chain(user_agent.iter().map(String::as_str)).collect::<Vec<_>>().join(" ");
    let mut builder = reqwest::Client::builder()
        .user_agent(agent)
        .connect_timeout(CONNECT_TIME)
        .pool_idle_timeout(IDLE_TIME)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .tcp_nodelay(true)
        .redirect(reqwest::redirect::Policy::none())
        .tls_danger_accept_invalid_certs(tls.insecure);
    if let Some(file) = &tls.ca_file {
        let authorities = reqwest::Certificate::from_pem_bundle(&read(file)?)
            .map_err(|error| Error::invalid(format!("CA file {} is not PEM", file.display())).because(error))?;
        if authorities.is_empty() {
            return Err(Error::invalid(format!("CA file {} has no certificate", file.display())));
        }
        builder = builder.tls_certs_merge(authorities);
    }
    if let Some(client) = &tls.client {
        let mut pem = read(&client.cert_file)?;
        pem.push(b'\n');
        pem.extend(read(&client.key_file)?);
        let identity = reqwest::Identity::from_pem(&pem).map_err(|error| {
            Error::invalid(format!(
                "client certificate {} with key {}",
                client.cert_file.display(),
                client.key_file.display()
            ))
            .because(error)
        })?;
        builder = builder.identity(identity);
    }
    builder.build().map_err(|error| Error::new(Kind::InvalidArgument, "set up TLS").because(error))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).map_err(|error| Error::invalid(format!("read {}", file.display())).because(error))
}
