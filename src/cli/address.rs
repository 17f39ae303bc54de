//! Where the program listens: the CSI socket, and the HTTP address for metrics.

use crate::error::{Error, Result};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use url::Url;

/// The longest path of a Unix socket on Linux: `sun_path` less its final zero.
const LONGEST_SOCKET_PATH: usize = 107;

/// A Unix socket: the only kind of address on which CSI is served.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint(PathBuf);

impl Endpoint {
    /// The path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix:{}", self.0.display())
    }
}

/// `unix:///run/csi.sock`, `unix:/run/csi.sock`, or a bare path. `unix://csi/csi.sock`, as cinder-csi's manifests have
/// it, means `/csi/csi.sock`, as it does there.
impl FromStr for Endpoint {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let refuse =
            |why: &str| Error::invalid(format!("endpoint {text:?}: {why}; write for example unix:///csi/csi.sock"));
        let path = match text.split_once("://") {
            Some((scheme, path)) if scheme.eq_ignore_ascii_case("unix") => format!("/{}", path.trim_start_matches('/')),
            Some((scheme, _)) => {
                return Err(refuse(&format!("CSI is served on Unix sockets only, not over {scheme}")));
            }
            None => text.strip_prefix("unix:").unwrap_or(text).to_owned(),
        };
        if path.is_empty() || path == "/" {
            return Err(refuse("the path of the socket is missing"));
        }
        if path.ends_with('/') {
            return Err(refuse("this is a directory, not a socket"));
        }
        if path.contains('\0') {
            return Err(refuse("the path has a zero byte"));
        }
        if path.len() > LONGEST_SOCKET_PATH {
            return Err(refuse(&format!(
                "the path has {} bytes, and Linux allows {LONGEST_SOCKET_PATH} for a socket",
                path.len()
            )));
        }
        Ok(Self(PathBuf::from(path)))
    }
}

/// Where `/metrics` and `/healthz` are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpEndpoint(Vec<SocketAddr>);

impl HttpEndpoint {
    /// The addresses to try, in this order; the first that can be bound is used. `:8080` is every address of the
    /// machine: IPv6 and IPv4 at once where the kernel has both, else IPv4.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.0
    }
}

impl fmt::Display for HttpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [only] => only.fmt(f),
            several => write!(f, ":{}", several.first().map_or(0, SocketAddr::port)),
        }
    }
}

/// `10.0.0.1:8080`, `[::1]:8080`, `localhost:8080`, or `:8080` for every address.
impl FromStr for HttpEndpoint {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let refuse = || {
            Error::invalid(format!(
                "{text:?} is not an address to listen on: write for example :8080 or 127.0.0.1:8080"
            ))
        };
        if let Ok(address) = text.parse() {
            return Ok(Self(vec![address]));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(refuse)?;
        let port: u16 = port.parse().map_err(|_| refuse())?;
        let hosts: [IpAddr; 2] = match host {
            "" => [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()],
            "localhost" => return Ok(Self(vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)])),
            _ => return Err(refuse()),
        };
        Ok(Self(hosts.into_iter().map(|host| SocketAddr::new(host, port)).collect()))
    }
}

/// A page that is asked, not served: `http://` with a host.
pub(super) fn http_url(text: &str) -> Result<Url, String> {
    let expected = "write for example http://127.0.0.1:8080/metrics";
    let url = Url::parse(text).map_err(|error| format!("{error}; {expected}"))?;
    match url.scheme() {
        "http" if url.has_host() => Ok(url),
        scheme => Err(format!("{scheme} is not http; {expected}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, HttpEndpoint};
    use proptest::prelude::{any, proptest};
    use std::path::Path;

    #[test]
    fn every_spelling_of_a_unix_socket_is_read() {
        for (text, path) in [
            ("unix:///csi/csi.sock", "/csi/csi.sock"),
            ("unix://csi/csi.sock", "/csi/csi.sock"),
            ("UNIX:///csi/csi.sock", "/csi/csi.sock"),
            ("unix:/csi/csi.sock", "/csi/csi.sock"),
            ("/csi/csi.sock", "/csi/csi.sock"),
            ("unix:csi.sock", "csi.sock"),
            ("./csi.sock", "./csi.sock"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().path(), Path::new(path), "{text}");
        }
        assert_eq!("/a".parse::<Endpoint>().unwrap().to_string(), "unix:/a");
    }

    #[test]
    fn what_is_no_socket_is_refused_with_the_reason() {
        let long = "x".repeat(108);
        for (text, why) in [
            ("", "missing"),
            ("unix://", "missing"),
            ("unix:", "missing"),
            ("tcp://127.0.0.1:1", "not over tcp"),
            ("/csi/", "directory"),
            ("/a\0b", "zero byte"),
            (long.as_str(), "108 bytes"),
        ] {
            let message = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(message.contains(why) && message.contains("unix:///csi/csi.sock"), "{message}");
        }
    }

    #[test]
    fn http_addresses_are_read_as_go_writes_them() {
        let addresses = |text: &str| -> Vec<String> {
            text.parse::<HttpEndpoint>().unwrap().addresses().iter().map(ToString::to_string).collect()
        };
        assert_eq!(addresses(":8080"), ["[::]:8080", "0.0.0.0:8080"]);
        assert_eq!(addresses("127.0.0.1:0"), ["127.0.0.1:0"]);
        assert_eq!(addresses("[::1]:9"), ["[::1]:9"]);
        assert_eq!(addresses("localhost:9"), ["127.0.0.1:9"]);
        assert_eq!(":8080".parse::<HttpEndpoint>().unwrap().to_string(), ":8080");
        for text in ["", "8080", ":", ":x", ":70000", "example.org:80"] {
            assert!(text.parse::<HttpEndpoint>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_an_address_never_panics(text in any::<String>()) {
            let _ = text.parse::<Endpoint>();
            let _ = text.parse::<HttpEndpoint>();
        }
    }
}
