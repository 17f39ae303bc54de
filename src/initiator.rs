//! What a node that is no Nova instance tells Cinder about itself, and how that fits into a CSI node id.
//!
//! There is no registry of nodes: the node id *is* the facts, packed. So the controller can attach for any
//! orchestrator, without a custom resource, and detach for a node that is gone. A node id has at most 192 characters
//! (the limit of older Kubernetes; today's is 256): 144 bytes, base64url.
//!
//! Packed form: one byte of version, then fields (tag, length, bytes), then four bytes of CRC-32 over all before.
//! Fields are written in the order of their tags; a field that a reader does not know makes the id unreadable to it, so
//! that no fact is silently lost. What is common is short: the prefixes of the IQNs and NQNs that distributions make.

use crate::error::{Error, Result};
use crate::model::NodeId;
use crate::seal::PublicKey;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use std::fmt;
use std::net::IpAddr;

/// The longest node id, in characters.
pub const LONGEST: usize = 192;

/// The version of the packed form.
const VERSION: u8 = 1;

const CHECKSUM_BYTES: usize = 4;

/// Beginnings that distributions give their initiator names; a name says which by its place here, from 1.
const IQN_PREFIXES: [&str; 6] = [
    "iqn.1993-08.org.debian:01:",
    "iqn.1994-05.com.redhat:",
    "iqn.2004-10.com.ubuntu:01:",
    "iqn.1996-04.de.suse:01:",
    "iqn.2016-04.com.open-iscsi:",
    "iqn.2005-03.org.open-iscsi:",
];

/// The beginning of an NQN that is made of a UUID.
const NQN_PREFIX: &str = "nqn.2014-08.org.nvmexpress:uuid:";

/// The fields of the packed form.
mod tag {
    pub(super) const PUBLIC_KEY: u8 = 1;
    pub(super) const HOST: u8 = 2;
    pub(super) const IP: u8 = 3;
    pub(super) const IQN: u8 = 4;
    pub(super) const NQN: u8 = 5;
    pub(super) const NQN_UUID: u8 = 6;
    pub(super) const NVME_HOST_ID: u8 = 7;
    pub(super) const WWPNS: u8 = 8;
    pub(super) const WWNNS: u8 = 9;
    pub(super) const MULTIPATH: u8 = 10;
    pub(super) const SYSTEM_UUID: u8 = 11;
}

/// The facts of one node, as os-brick's connector properties name them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initiator {
    /// The key to which secrets are sealed.
    pub public_key: PublicKey,
    /// The host name; back ends register the node by it.
    pub host: String,
    /// The address from which storage is reached.
    pub ip: Option<IpAddr>,
    /// The iSCSI initiator name.
    pub iqn: Option<String>,
    /// The NVMe host NQN.
    pub nqn: Option<String>,
    /// The NVMe host id.
    pub nvme_host_id: Option<Uuid>,
    /// The Fibre Channel ports.
    pub wwpns: Vec<Wwn>,
    /// The Fibre Channel nodes.
    pub wwnns: Vec<Wwn>,
    /// Whether dm-multipath is there.
    pub multipath: bool,
    /// The machine's own UUID.
    pub system_uuid: Option<Uuid>,
}

/// 128 bits, written as a UUID.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Uuid([u8; 16]);

/// A World Wide Name: 64 bits, written as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Wwn([u8; 8]);

/// Hexadecimal digits, at most as many as fit, exactly `N` bytes of them.
fn from_hex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let digits: Vec<u8> =
        digits.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(high << 4 | low),
            _ => None,
        })
        .collect::<Option<_>>()?;
    bytes.try_into().ok()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Uuid {
    /// With or without hyphens, in any case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        from_hex(&text.trim().replace('-', "")).map(Self)
    }

    /// One made of random bits (version 4).
    #[must_use]
    pub fn random(bits: u128) -> Self {
        const VERSION: u128 = 0xf000 << 64;
        const VARIANT: u128 = 0xc << 60;
        Self((bits & !VERSION & !VARIANT | 0x4000 << 64 | 0x8 << 60).to_be_bytes())
    }

    /// Whether it can be one machine's own: firmware that has none often says all zeros, or all ones.
    #[must_use]
    pub fn is_distinct(&self) -> bool {
        self.0.iter().any(|byte| *byte != 0) && self.0.iter().any(|byte| *byte != 0xff)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Wwn {
    /// With or without `0x`, in any case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        from_hex(text.strip_prefix("0x").unwrap_or(text)).map(Self)
    }
}

impl fmt::Display for Wwn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for Wwn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Initiator {
    /// As a node id.
    ///
    /// # Errors
    /// `InvalidArgument` when the facts do not fit into [`LONGEST`] characters: names the parts and their lengths.
    pub fn pack(&self) -> Result<NodeId> {
        let mut fields: Vec<(u8, Vec<u8>)> =
            vec![(tag::PUBLIC_KEY, self.public_key.as_bytes().to_vec()), (tag::HOST, self.host.as_bytes().to_vec())];
        if let Some(ip) = self.ip {
            fields.push((tag::IP, address_bytes(ip)));
        }
        if let Some(iqn) = &self.iqn {
            fields.push((tag::IQN, pack_iqn(iqn)));
        }
        if let Some(nqn) = &self.nqn {
            match nqn
                .strip_prefix(NQN_PREFIX)
                .and_then(Uuid::parse)
                .filter(|uuid| nqn == &format!("{NQN_PREFIX}{uuid}"))
            {
                Some(uuid) => fields.push((tag::NQN_UUID, uuid.0.to_vec())),
                None => fields.push((tag::NQN, nqn.as_bytes().to_vec())),
            }
        }
        if let Some(id) = self.nvme_host_id {
            // Usually the UUID of the NQN: then no byte of it is repeated.
            let same = fields.iter().any(|(tag, bytes)| *tag == tag::NQN_UUID && *bytes == id.0);
            fields.push((tag::NVME_HOST_ID, if same { Vec::new() } else { id.0.to_vec() }));
        }
        for (tag, names) in [(tag::WWPNS, &self.wwpns), (tag::WWNNS, &self.wwnns)] {
            if !names.is_empty() {
                fields.push((tag, names.iter().flat_map(|name| name.0).collect()));
            }
        }
        if self.multipath {
            fields.push((tag::MULTIPATH, Vec::new()));
        }
        if let Some(uuid) = self.system_uuid {
            fields.push((tag::SYSTEM_UUID, uuid.0.to_vec()));
        }
        let mut packed = vec![VERSION];
        for (tag, bytes) in &fields {
            let length = u8::try_from(bytes.len()).map_err(|_| self.too_long(usize::MAX))?;
            packed.extend([*tag, length]);
            packed.extend(bytes);
        }
        packed.extend(crc32fast::hash(&packed).to_be_bytes());
        let text = URL_SAFE_NO_PAD.encode(packed);
        if text.len() > LONGEST { Err(self.too_long(text.len())) } else { text.parse() }
    }

    /// From a node id.
    ///
    /// # Errors
    /// `InvalidArgument`: it is none of ours, was changed on the way, or comes from a newer version.
    pub fn unpack(id: &NodeId) -> Result<Self> {
        let wrong = |why: &str| Error::invalid(format!("node_id {id} does not describe a host: {why}"));
        let broken = |why: &str| {
            wrong(&format!(
                "{why}, so it was changed or cut on its way, or is the id of something else (a server of Nova, say). \
                 `fuxi-csi node-id` prints it on the host"
            ))
        };
        let bytes = URL_SAFE_NO_PAD.decode(id.as_str()).map_err(|_| broken("it is not base64url"))?;
        let at = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or_else(|| broken("it is too short"))?;
        let (packed, checksum) = bytes.split_at(at);
        if checksum != crc32fast::hash(packed).to_be_bytes() {
            return Err(broken("its checksum is wrong"));
        }
        let Some((&VERSION, mut rest)) = packed.split_first() else {
            return Err(wrong("it is of another version; run the same version of the driver everywhere"));
        };
        let mut public_key = None;
        let mut found = Self {
            public_key: PublicKey::new([0; 32]),
            host: String::new(),
            ip: None,
            iqn: None,
            nqn: None,
            nvme_host_id: None,
            wwpns: Vec::new(),
            wwnns: Vec::new(),
            multipath: false,
            system_uuid: None,
        };
        while let Some((&[tag, length], after)) = rest.split_first_chunk() {
            let (value, after) = after.split_at_checked(length.into()).ok_or_else(|| wrong("a field is cut"))?;
            rest = after;
            let broken = || wrong(&format!("field {tag} is broken"));
            match tag {
                tag::PUBLIC_KEY => public_key = Some(PublicKey::new(value.try_into().map_err(|_| broken())?)),
                tag::HOST => found.host = text(value).ok_or_else(broken)?,
                tag::IP => found.ip = Some(address(value).ok_or_else(broken)?),
                tag::IQN => found.iqn = Some(unpack_iqn(value).ok_or_else(broken)?),
                tag::NQN => found.nqn = Some(text(value).ok_or_else(broken)?),
                tag::NQN_UUID => {
                    found.nqn = Some(format!("{NQN_PREFIX}{}", Uuid(value.try_into().map_err(|_| broken())?)));
                }
                tag::NVME_HOST_ID if value.is_empty() => {
                    let uuid = found.nqn.as_deref().and_then(|nqn| nqn.strip_prefix(NQN_PREFIX)).and_then(Uuid::parse);
                    found.nvme_host_id = Some(uuid.ok_or_else(broken)?);
                }
                tag::NVME_HOST_ID => found.nvme_host_id = Some(Uuid(value.try_into().map_err(|_| broken())?)),
                tag::WWPNS => found.wwpns = names(value).ok_or_else(broken)?,
                tag::WWNNS => found.wwnns = names(value).ok_or_else(broken)?,
                tag::MULTIPATH => found.multipath = true,
                tag::SYSTEM_UUID => found.system_uuid = Some(Uuid(value.try_into().map_err(|_| broken())?)),
                _ => {
                    return Err(wrong(&format!("field {tag} is unknown; the node runs a newer version of the driver")));
                }
            }
        }
        if !rest.is_empty() || found.host.is_empty() {
            return Err(wrong("it is incomplete"));
        }
        found.public_key = public_key.ok_or_else(|| wrong("it has no key"))?;
        Ok(found)
    }

    /// As the `connector` of Cinder's attachment API: the dictionary that os-brick would send from this host.
    /// `mountpoint` is shown by the volume as the attachment's `device`.
    #[must_use]
    pub fn connector(&self, mountpoint: &str) -> Value {
        let mut connector = Map::new();
        let mut put = |key: &str, value: Value| {
            connector.insert(key.to_owned(), value);
        };
        put("platform", json!(std::env::consts::ARCH));
        put("os_type", json!("linux"));
        put("host", json!(self.host));
        put("multipath", json!(self.multipath));
        put("enforce_multipath", json!(false));
        put("do_local_attach", json!(false));
        put("mountpoint", json!(mountpoint));
        if let Some(ip) = self.ip {
            put("ip", json!(ip));
        }
        if let Some(iqn) = &self.iqn {
            put("initiator", json!(iqn));
        }
        if let Some(nqn) = &self.nqn {
            put("nqn", json!(nqn));
            put("nvme_native_multipath", json!(true));
        }
        if let Some(id) = self.nvme_host_id {
            put("nvme_hostid", json!(id.to_string()));
        }
        if let Some(uuid) = self.system_uuid {
            put("system uuid", json!(uuid.to_string()));
        }
        for (key, names) in [("wwpns", &self.wwpns), ("wwnns", &self.wwnns)] {
            if !names.is_empty() {
                put(key, json!(names.iter().map(Wwn::to_string).collect::<Vec<_>>()));
            }
        }
        Value::Object(connector)
    }

    fn too_long(&self, length: usize) -> Error {
        let mut parts = vec![format!("host name {} bytes", self.host.len())];
        if let Some(iqn) = &self.iqn {
            parts.push(format!("initiator name {} bytes", iqn.len()));
        }
        if let Some(nqn) = &self.nqn {
            parts.push(format!("host NQN {} bytes", nqn.len()));
        }
        if !self.wwpns.is_empty() {
            parts.push(format!("{} Fibre Channel ports of 8 bytes", self.wwpns.len()));
        }
        Error::invalid(format!(
            "the facts about this host need a node id of {length} characters, and {LONGEST} are allowed: {}; \
             shorten the initiator name or the host name, or leave out ports",
            parts.join(", ")
        ))
    }
}

/// One fact per line, for people.
impl fmt::Display for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: &dyn fmt::Display| writeln!(f, "  {name:<20} {value}");
        let list = |names: &[Wwn]| names.iter().map(Wwn::to_string).collect::<Vec<_>>().join(", ");
        line("host", &self.host)?;
        if let Some(ip) = &self.ip {
            line("storage address", ip)?;
        }
        if let Some(iqn) = &self.iqn {
            line("iSCSI initiator", iqn)?;
        }
        if let Some(nqn) = &self.nqn {
            line("NVMe host NQN", nqn)?;
        }
        if let Some(id) = &self.nvme_host_id {
            line("NVMe host id", id)?;
        }
        if !self.wwpns.is_empty() {
            line("FC ports", &list(&self.wwpns))?;
        }
        if !self.wwnns.is_empty() {
            line("FC nodes", &list(&self.wwnns))?;
        }
        line("multipath", &if self.multipath { "yes" } else { "no" })?;
        if let Some(uuid) = &self.system_uuid {
            line("system UUID", uuid)?;
        }
        line("public key", &URL_SAFE_NO_PAD.encode(self.public_key.as_bytes()))
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok().filter(|text| !text.chars().any(char::is_control))
}

fn address_bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four: Option<[u8; 4]> = bytes.try_into().ok();
    let sixteen: Option<[u8; 16]> = bytes.try_into().ok();
    four.map(IpAddr::from).or(sixteen.map(IpAddr::from))
}

fn names(bytes: &[u8]) -> Option<Vec<Wwn>> {
    bytes.chunks(8).map(|name| name.try_into().ok().map(Wwn)).collect()
}

/// The prefix's number (0 for none), then the rest; twice as dense where the rest is an even number of lower-case
/// hexadecimal digits (bit 7 of the number).
fn pack_iqn(iqn: &str) -> Vec<u8> {
    const HEX: u8 = 0x80;
    let known = (1..).zip(IQN_PREFIXES).find_map(|(number, prefix)| Some((number, iqn.strip_prefix(prefix)?)));
    let (number, rest) = known.unwrap_or((0, iqn));
    let is_hex = !rest.is_empty() && rest.len() % 2 == 0 && rest.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
    if is_hex {
        let nibble = |c: char| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()).unwrap_or_default();
        let digits: Vec<u8> = rest.chars().map(nibble).collect();
        let dense = digits.chunks(2).filter_map(|pair| match pair {
            [high, low] => Some(high << 4 | low),
            _ => None,
        });
        std::iter::once(number | HEX).chain(dense).collect()
    } else {
        std::iter::once(number).chain(rest.bytes()).collect()
    }
}

fn unpack_iqn(bytes: &[u8]) -> Option<String> {
    let (first, rest) = bytes.split_first()?;
    let (is_hex, number) = (first & 0x80 != 0, first & 0x7f);
    let prefix = match usize::from(number).checked_sub(1) {
        None => "",
        Some(at) => IQN_PREFIXES.get(at)?,
    };
    let rest = if is_hex { to_hex(rest) } else { text(rest)? };
    Some(format!("{prefix}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::{Initiator, LONGEST, Uuid, Wwn};
    use crate::error::Kind;
    use crate::model::NodeId;
    use crate::seal::PublicKey;
    use proptest::prelude::{Strategy, any, prop, proptest};
    use serde_json::json;

    fn typical() -> Initiator {
        Initiator {
            public_key: PublicKey::new([7; 32]),
            host: "compute-17".into(),
            ip: Some("10.0.0.17".parse().unwrap()),
            iqn: Some("iqn.1993-08.org.debian:01:d0a3b1c2e4f5".into()),
            nqn: Some("nqn.2014-08.org.nvmexpress:uuid:4c4c4544-0043-5910-8052-b9c04f4e3233".into()),
            nvme_host_id: Uuid::parse("4c4c4544-0043-5910-8052-b9c04f4e3233"),
            wwpns: vec![Wwn::parse("0x2100001B32189B7A").unwrap(), Wwn::parse("2101001b32389b7a").unwrap()],
            wwnns: vec![],
            multipath: true,
            system_uuid: None,
        }
    }

    #[test]
    fn the_facts_of_a_typical_host_fit_with_room_to_spare() {
        let id = typical().pack().unwrap();
        assert!(id.as_str().len() <= 150, "{} characters", id.as_str().len());
        assert_eq!(Initiator::unpack(&id).unwrap(), typical());
    }

    #[test]
    fn the_packed_form_does_not_change() {
        // Node ids live in Kubernetes objects for years: this one must stay readable.
        let id: NodeId = concat!(
            "AQEgBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcCCmNvbXB1dGUtMTcDBAoAABEEB4HQo7HC5PUGEExMRUQAQ1kQgFK5wE9OMjMH",
            "AAgQIQAAGzIYm3ohAQAbMjibegoApUWJbg"
        )
        .parse()
        .unwrap();
        assert_eq!(typical().pack().unwrap(), id);
    }

    #[test]
    fn the_connector_is_the_dictionary_of_os_brick() {
        assert_eq!(
            typical().connector("csi:blue:compute-17"),
            json!({
                "platform": std::env::consts::ARCH, "os_type": "linux", "host": "compute-17", "ip": "10.0.0.17",
                "initiator": "iqn.1993-08.org.debian:01:d0a3b1c2e4f5", "multipath": true, "enforce_multipath": false,
                "do_local_attach": false, "mountpoint": "csi:blue:compute-17",
                "nqn": "nqn.2014-08.org.nvmexpress:uuid:4c4c4544-0043-5910-8052-b9c04f4e3233",
                "nvme_hostid": "4c4c4544-0043-5910-8052-b9c04f4e3233", "nvme_native_multipath": true,
                "wwpns": ["2100001b32189b7a", "2101001b32389b7a"],
            })
        );
    }

    #[test]
    fn facts_that_do_not_fit_are_named() {
        let long = Initiator { iqn: Some(format!("iqn.2020-01.com.example:{}", "x".repeat(150))), ..typical() };
        let error = long.pack().unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument);
        assert!(error.to_string().contains("initiator name 174 bytes"), "{error}");
    }

    #[test]
    fn a_server_id_or_a_changed_id_is_refused_with_words() {
        for (id, why) in [
            ("5d0cf0b7-3c7b-4b7e-9d63-0cb7f8c0a2e1", "does not describe a host"),
            (&typical().pack().unwrap().as_str().replace('B', "C"), "checksum"),
        ] {
            let error = Initiator::unpack(&id.parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    fn initiators() -> impl Strategy<Value = Initiator> {
        let wwns = || prop::collection::vec(any::<[u8; 8]>().prop_map(Wwn), 0..4);
        (
            any::<[u8; 32]>(),
            "[a-z][a-z0-9.-]{0,20}",
            any::<Option<std::net::IpAddr>>(),
            prop::option::of("(iqn\\.1994-05\\.com\\.redhat:|iqn\\.2020-01\\.org\\.x:)[0-9a-fA-Fx]{0,14}"),
            prop::option::of(any::<[u8; 16]>().prop_map(|b| format!("nqn.2014-08.org.nvmexpress:uuid:{}", Uuid(b)))),
            any::<Option<[u8; 16]>>(),
            (wwns(), wwns(), any::<bool>()),
        )
            .prop_map(|(key, host, ip, iqn, nqn, host_id, (wwpns, wwnns, multipath))| Initiator {
                public_key: PublicKey::new(key),
                host,
                ip,
                iqn,
                nqn,
                nvme_host_id: host_id.map(Uuid),
                wwpns,
                wwnns,
                multipath,
                system_uuid: None,
            })
    }

    proptest! {
        #[test]
        fn every_host_survives_packing(initiator in initiators()) {
            if let Ok(id) = initiator.pack() {
                assert!(id.as_str().len() <= LONGEST);
                assert_eq!(Initiator::unpack(&id).unwrap(), initiator);
            }
        }

        #[test]
        fn no_node_id_is_too_strange(text in "\\PC{1,200}") {
            if let Ok(id) = text.parse() {
                let _ = Initiator::unpack(&id);
            }
        }
    }
}
