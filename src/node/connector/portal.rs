//! Where a target listens: an IP address and a port.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An IP address and a port. Shown as `10.0.0.1:3260` or `[fd00::1]:3260`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Portal {
    pub(super) address: IpAddr,
    pub(super) port: u16,
}

/// What is no portal, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoPortal(String);

impl fmt::Display for NoPortal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "is {:?}, which is no IP address with a port", self.0)
    }
}

impl Portal {
    /// An address as it is written in many ways, such as `10.0.0.1` or `[fd00::1]`, without scope.
    pub(super) fn address(text: &str) -> Result<IpAddr, NoPortal> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        let address: IpAddr = bare.parse().map_err(|_| NoPortal(text.to_owned()))?;
        if address.is_unspecified() { Err(NoPortal(text.to_owned())) } else { Ok(address) }
    }

    pub(super) fn new(address: IpAddr, port: u16) -> Option<Self> {
        (port != 0).then_some(Self { address, port })
    }
}

impl FromStr for Portal {
    type Err = NoPortal;
    fn from_str(text: &str) -> Result<Self, NoPortal> {
        let wrong = || NoPortal(text.to_owned());
        let (address, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        if address.contains(':') && !address.starts_with('[') {
            return Err(wrong());
        }
        let port = if port.bytes().all(|byte| byte.is_ascii_digit()) { port.parse().ok() } else { None };
        port.and_then(|port| Self::new(Self::address(address).ok()?, port)).ok_or_else(wrong)
    }
}

impl fmt::Display for Portal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::SocketAddr::new(self.address, self.port).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::Portal;
    use proptest::prelude::{any, proptest};
    use std::net::IpAddr;

    #[test]
    fn portals_are_ip_addresses_with_ports() {
        for text in ["10.0.0.1:3260", "[fd00::1]:3260", "127.0.0.1:1"] {
            assert_eq!(text.parse::<Portal>().unwrap().to_string(), text);
        }
        let wrong = [
            "",
            ":",
            "10.0.0.1",
            "10.0.0.1:",
            "10.0.0.1:0",
            "10.0.0.1:65536",
            "10.0.0.1:+80",
            "host:3260",
            "fd00::1:3260",
            "[fd00::1]",
            "[fe80::1%eth0]:3260",
            "0.0.0.0:3260",
            "10.0.0.1:80,nqn=x",
            "10.0.0.1:80\n",
            "10.0.0.1 :80",
            "-h:80",
        ];
        for text in wrong {
            assert!(text.parse::<Portal>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_portal_that_shows_anything_but_address_and_port(text in any::<String>()) {
            if let Ok(portal) = text.parse::<Portal>() {
                let shown = portal.to_string();
                assert!(shown.bytes().all(|b| b.is_ascii_hexdigit() || b"[]:.".contains(&b)), "{shown}");
            }
        }

        #[test]
        fn every_portal_survives_being_written(octets in any::<[u8; 16]>(), port in 1..=u16::MAX, short in any::<bool>()) {
            let address = if short { IpAddr::from([octets[0], octets[1], octets[2], octets[3]]) } else { IpAddr::from(octets) };
            if !address.is_unspecified() {
                let portal = Portal { address, port };
                assert_eq!(portal.to_string().parse::<Portal>().unwrap(), portal);
            }
        }
    }
}
