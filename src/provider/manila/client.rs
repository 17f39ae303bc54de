//! Who a node is to Manila: its address for NFS, a Ceph user of its own for CephFS.

use crate::error::{Error, Result};
use crate::initiator::Initiator;
use crate::model::NodeId;
use crate::openstack::manila::{AccessRule, AccessType, Protocol};
use sha2::{Digest, Sha256};
use std::net::IpAddr;

/// The longest part of a host name that a Ceph user's name has.
const LONGEST_HOST: usize = 32;

/// An address, or a network of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Reads `10.0.0.1`, `10.0.0.0/24`, `fd00::/64`.
    #[must_use]
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= most)?,
        };
        Some(Self { address, bits })
    }

    /// Whether an address is in it.
    #[must_use]
    pub(super) fn holds(&self, address: IpAddr) -> bool {
        let number = |address: IpAddr| match address {
            IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
            IpAddr::V6(address) => (address.to_bits(), 128),
        };
        let ((own, own_bits), (other, other_bits)) = (number(self.address), number(address));
        let rest = own_bits - u32::from(self.bits);
        own_bits == other_bits && own.checked_shr(rest) == other.checked_shr(rest)
    }
}

/// Whom an access rule is to let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entrant {
    pub(super) access_type: AccessType,
    pub(super) access_to: String,
}

impl Entrant {
    /// The same client, however it is written.
    pub(super) fn is_of(&self, rule: &AccessRule) -> bool {
        if rule.access_type != self.access_type {
            return false;
        }
        match (Network::parse(&rule.access_to), Network::parse(&self.access_to)) {
            (Some(theirs), Some(ours)) => theirs == ours,
            _ => rule.access_to == self.access_to,
        }
    }
}

/// A node, as its id describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) initiator: Initiator,
    ceph_user: String,
}

impl Client {
    /// The node of this id.
    pub(super) fn of(cluster: &str, driver: &str, node: &NodeId) -> Result<Self> {
        let initiator = Initiator::unpack(node).map_err(|error| {
            Error::not_found(format!(
                "there is no node {node}: the id of a node that mounts shares is made by the node plug-in of this provider"
            ))
            .because(error)
        })?;
        let ceph_user = ceph_user(cluster, driver, &initiator);
        Ok(Self { initiator, ceph_user })
    }

    /// Whom the rule for all nodes lets in; of several, separated by commas, the one that this node is among.
    pub(super) fn entrant_among(&self, everybody: &str) -> Result<Entrant> {
        let all: Vec<&str> = everybody.split(',').map(str::trim).collect();
        let is_own = |text: &&&str| {
            self.initiator.ip.is_some_and(|ip| Network::parse(text).is_some_and(|network| network.holds(ip)))
        };
        let own = match all.as_slice() {
            // Servers may see the node under another address than its own.
            [only] => Some(only),
            all => all.iter().find(is_own),
        };
        let access_to = own.map(|own| (*own).to_owned()).ok_or_else(|| {
            let address = self.initiator.ip.map_or_else(|| "no known address".to_owned(), |ip| ip.to_string());
            Error::wrong_state(format!(
                "node {} ({address}) is in none of the networks of nfs-shareClient: {everybody}",
                self.initiator.host
            ))
        })?;
        Ok(Entrant { access_type: AccessType::Ip, access_to })
    }

    /// Whom a rule for this node alone lets in.
    pub(super) fn entrant(&self, protocol: &Protocol) -> Result<Entrant> {
        match protocol {
            Protocol::Cephfs => Ok(Entrant { access_type: AccessType::Cephx, access_to: self.ceph_user.clone() }),
            Protocol::Nfs => {
                let address = self.initiator.ip.ok_or_else(|| {
                    Error::wrong_state(format!(
                        "node {} has not said its address: start its node plug-in with --share-address",
                        self.initiator.host
                    ))
                })?;
                Ok(Entrant { access_type: AccessType::Ip, access_to: address.to_string() })
            }
            Protocol::Unknown(word) => {
                Err(Error::wrong_state(format!("this driver does not mount shares of protocol {word:?}")))
            }
        }
    }
}

/// Whether two ids are of one node. Its key, address or initiator name may have changed between them, not its name.
pub(super) fn is_same_node(one: &str, other: &str) -> bool {
    one == other || described(one).zip(described(other)).is_some_and(|(one, other)| one.host == other.host)
}

/// What the nodes have in common that may come to hold the same rule, one after the other: the address, or the name of
/// one that has said none.
pub(super) fn address_of(node: &str) -> String {
    match described(node) {
        Some(Initiator { ip: Some(ip), .. }) => ip.to_string(),
        Some(Initiator { host, .. }) => host,
        None => node.to_owned(),
    }
}

fn described(node: &str) -> Option<Initiator> {
    Initiator::unpack(&node.parse().ok()?).ok()
}

/// A name that no other node has: Ceph knows its users in all clusters and projects, gives one user the same key for all
/// its shares, and takes no periods.
fn ceph_user(cluster: &str, driver: &str, node: &Initiator) -> String {
    let plain: String = node
        .host
        .chars()
        .take(LONGEST_HOST)
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' })
        .collect();
    let address = node.ip.map(|ip| ip.to_string()).unwrap_or_default();
    let digest = Sha256::digest([cluster, driver, &node.host, &address].join("\0"));
    let digest: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("csi-{plain}-{digest}")
}

#[cfg(test)]
pub(super) fn node(host: &str, ip: Option<&str>) -> NodeId {
    Initiator {
        public_key: crate::seal::PrivateKey::generate().public(),
        host: host.to_owned(),
        ip: ip.map(|ip| ip.parse().unwrap()),
        iqn: None,
        nqn: None,
        nvme_host_id: None,
        wwpns: Vec::new(),
        wwnns: Vec::new(),
        multipath: false,
        system_uuid: None,
    }
    .pack()
    .unwrap()
}

#[cfg(test)]
mod tests {
    use super::{Client, Entrant, Network, address_of, is_same_node, node};
    use crate::error::Kind;
    use crate::openstack::manila::{AccessRule, AccessType, Protocol};
    use proptest::prelude::{any, proptest};
    use serde_json::json;

    fn client(cluster: &str, host: &str, ip: Option<&str>) -> Client {
        Client::of(cluster, "manila.fuxi.openstack.org", &node(host, ip)).unwrap()
    }

    #[test]
    fn rules_are_compared_as_networks() {
        let entrant = client("c", "n1", Some("10.0.0.7")).entrant(&Protocol::Nfs).unwrap();
        let rule = |access_type: &str, access_to: &str| -> AccessRule {
            serde_json::from_value(json!({"id": "r", "access_type": access_type, "access_to": access_to,
                "access_level": "rw", "state": "active"}))
            .unwrap()
        };
        for (access_type, access_to, same) in [
            ("ip", "10.0.0.7", true),
            ("ip", "10.0.0.7/32", true),
            ("ip", "10.0.0.0/24", false),
            ("ip", "10.0.0.8", false),
            ("user", "10.0.0.7", false),
        ] {
            assert_eq!(entrant.is_of(&rule(access_type, access_to)), same, "{access_type} {access_to}");
        }
    }

    #[test]
    fn every_node_of_every_cluster_has_a_ceph_user_of_its_own() {
        let user = |client: Client| match client.entrant(&Protocol::Cephfs).unwrap() {
            Entrant { access_type: AccessType::Cephx, access_to } => access_to,
            other => panic!("{other:?}"),
        };
        let one = user(client("c", "node.one", Some("10.0.0.1")));
        assert!(one.starts_with("csi-node-one-") && !one.contains('.'), "{one}");
        assert_eq!(one, user(client("c", "node.one", Some("10.0.0.1"))), "and keeps it");
        assert_ne!(one, user(client("c", "node-one", Some("10.0.0.1"))));
        assert_ne!(one, user(client("c", "node.one", Some("10.0.0.2"))));
        assert_ne!(one, user(client("d", "node.one", Some("10.0.0.1"))));
        assert!(user(client("c", &"x".repeat(60), None)).len() < 64);
    }

    #[test]
    fn a_node_is_known_by_its_name_whatever_else_its_id_says() {
        let strange = "0f8fad5b-d9cb-469f-a165-70867728950e";
        let [one, same, moved, other, nowhere] = [
            ("n1", Some("10.0.0.1")),
            ("n1", Some("10.0.0.1")),
            ("n1", Some("10.0.0.2")),
            ("n2", Some("10.0.0.1")),
            ("n1", None),
        ]
        .map(|(host, ip)| node(host, ip).to_string());
        assert_ne!(one, same, "the key differs");
        for (id, is_same, address) in [
            (one.as_str(), true, "10.0.0.1"),
            (&same, true, "10.0.0.1"),
            (&moved, true, "10.0.0.2"),
            (&other, false, "10.0.0.1"),
            (&nowhere, true, "n1"),
            (strange, false, strange),
        ] {
            assert_eq!((is_same_node(&one, id), address_of(id).as_str()), (is_same, address));
        }
        assert!(is_same_node(strange, strange) && !is_same_node(strange, ""));
    }

    #[test]
    fn a_node_that_cannot_be_let_in_is_told_what_is_missing() {
        let error = client("c", "n1", None).entrant(&Protocol::Nfs).unwrap_err();
        assert!(error.is(Kind::WrongState) && error.to_string().contains("--share-address"), "{error}");
        let strange = "0f8fad5b-d9cb-469f-a165-70867728950e".parse().unwrap();
        assert_eq!(Client::of("c", "d", &strange).unwrap_err().kind(), Kind::NotFound);
    }

    proptest! {
        #[test]
        fn any_text_is_a_network_or_not(text in any::<String>()) {
            let _ = Network::parse(&text);
        }
    }
}
