//! What a `connection_info` says about a namespace, in both forms that Cinder's drivers give it: v1 with one portal, v2
//! with a list of them.
//!
//! All of it ends up between commas in a control file, so nothing passes that could begin another option.

use crate::error::{Error, Result};
use crate::node::connector::Link;
use crate::node::connector::field::Fields;
use crate::node::connector::portal::Portal;
use serde_json::Value;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The longest NQN of the specification, in bytes.
const LONGEST_NQN: usize = 223;

/// The usual port of NVMe over TCP and RDMA.
const USUAL_PORT: u16 = 4420;

/// The name of a subsystem or a host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Nqn(String);

impl Nqn {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Nqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Nqn {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".:-_+~@".contains(&byte);
        if text.starts_with("nqn.") && text.len() <= LONGEST_NQN && text.bytes().all(is_plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("is {text:?}, which is no NVMe qualified name (nqn.…)"))
        }
    }
}

/// How bytes get there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Transport {
    Tcp,
    Rdma,
}

impl Transport {
    /// The kernel's word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Rdma => "rdma",
        }
    }
}

impl FromStr for Transport {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "rdma" | "rocev2" | "roce" => Ok(Self::Rdma),
            "fc" => Err("is Fibre Channel, which this connector does not speak".to_owned()),
            // As os-brick has it: drivers write it in many ways.
            _ => Ok(Self::Tcp),
        }
    }
}

/// One way to the subsystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Path {
    pub(super) transport: Transport,
    pub(super) portal: Portal,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} over {}", self.portal, self.transport.word())
    }
}

/// 128 bits that the storage gave a namespace, as 32 small hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WideId(String);

impl FromStr for WideId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let digits: String = text.chars().filter(|c| *c != '-').map(|c| c.to_ascii_lowercase()).collect();
        let is_hexadecimal = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hexadecimal && digits.bytes().any(|byte| byte != b'0') {
            Ok(Self(digits))
        } else {
            Err(format!("is {text:?}, which is no id of 32 hexadecimal digits"))
        }
    }
}

impl fmt::Display for WideId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How the namespace is known: by the best id that was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NamespaceId {
    Uuid(WideId),
    Nguid(WideId),
    /// Only its place in the subsystem, which another volume may get later.
    Number(u32),
}

impl fmt::Display for NamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(id) => write!(f, "namespace with UUID {id}"),
            Self::Nguid(id) => write!(f, "namespace with NGUID {id}"),
            Self::Number(number) => write!(f, "namespace {number}"),
        }
    }
}

/// A namespace and the ways to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) subsystem: Nqn,
    pub(super) namespace: NamespaceId,
    pub(super) paths: Vec<Path>,
    /// The host for which it was exported, where the back end says.
    pub(super) host: Option<Nqn>,
}

impl Target {
    /// What a connection says.
    ///
    /// # Errors
    /// `InvalidArgument`: it makes no sense. `Unsupported`: it is a replicated volume (KumoScale), put together on the host.
    pub(super) fn of(link: &Link) -> Result<Self> {
        let fields = Fields::of(link);
        if fields.value("volume_replicas").is_some() || fields.value("replica_count").is_some_and(|n| n != 1) {
            return Err(Error::unsupported(format!(
                "volume {} is replicated over several NVMe targets, which would have to be joined on this node: that is \
                 not supported",
                link.volume
            )));
        }
        let subsystem = match fields.optional("target_nqn")? {
            Some(nqn) => nqn,
            None => fields.required("nqn")?,
        };
        let mut paths = Self::paths(fields)?;
        paths.sort();
        paths.dedup();
        Ok(Self { subsystem, namespace: Self::namespace(fields)?, paths, host: fields.optional("host_nqn")? })
    }

    fn paths(fields: Fields<'_>) -> Result<Vec<Path>> {
        const KEY: &str = "portals";
        let Some(portals) = fields.value(KEY) else {
            let transport = fields.optional("transport_type")?.unwrap_or(Transport::Tcp);
            let address = fields.required::<Address>("target_portal")?.0;
            let port = fields.optional::<Port>("target_port")?.map_or(USUAL_PORT, |port| port.0);
            return Ok(vec![Path { transport, portal: Portal { address, port } }]);
        };
        let wrong = || fields.wrong(KEY, "is no list of [address, port, transport]");
        portals
            .as_array()
            .ok_or_else(wrong)?
            .iter()
            .map(|entry| match entry.as_array().map(Vec::as_slice) {
                Some([address, port, transport]) => {
                    let address = fields.parse::<Address>(KEY, address)?.0;
                    let port = if port.is_null() { USUAL_PORT } else { fields.parse::<Port>(KEY, port)?.0 };
                    let transport =
                        if *transport == Value::Null { Transport::Tcp } else { fields.parse(KEY, transport)? };
                    Ok(Path { transport, portal: Portal { address, port } })
                }
                _ => Err(wrong()),
            })
            .collect()
    }

    fn namespace(fields: Fields<'_>) -> Result<NamespaceId> {
        if let Some(uuid) = fields.optional("vol_uuid")? {
            return Ok(NamespaceId::Uuid(uuid));
        }
        if let Some(nguid) = fields.optional("volume_nguid")? {
            return Ok(NamespaceId::Nguid(nguid));
        }
        match fields.required("ns_id")? {
            0 | u32::MAX => Err(fields.wrong("ns_id", "is no number of a namespace")),
            number => Ok(NamespaceId::Number(number)),
        }
    }
}

/// An IP address, with or without brackets.
struct Address(IpAddr);

impl FromStr for Address {
    type Err = super::super::portal::NoPortal;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Portal::address(text).map(Self)
    }
}

/// A port; zero is none.
struct Port(u16);

impl FromStr for Port {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(port) if port != 0 && !text.starts_with('+') => Ok(Self(port)),
            _ => Err(format!("has {text:?} as a port")),
        }
    }
}
