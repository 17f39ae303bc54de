//! What a `connection_info` says about a LUN on a Fibre Channel fabric.

use crate::error::Result;
use crate::node::connector::Link;
use crate::node::connector::field::Fields;
use crate::node::connector::scsi::address::{AddressingMode, Lun};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// The name of a port: 16 small hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wwpn(String);

impl fmt::Display for Wwpn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Wwpn {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let small = text.trim().to_ascii_lowercase();
        let bare: String = small.strip_prefix("0x").unwrap_or(&small).chars().filter(|c| *c != ':').collect();
        if bare.len() == 16 && bare.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            Ok(Self(bare))
        } else {
            Err(format!("is {text:?}, which is no port name of 16 hexadecimal digits"))
        }
    }
}

/// A LUN and the ports that show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// Each target port with the LUN there.
    pub(super) ports: BTreeMap<Wwpn, Lun>,
    /// Which of this node's ports see which targets; empty if all may.
    zones: BTreeMap<Wwpn, BTreeSet<Wwpn>>,
    /// What the back end says that the disk is, where it does.
    pub(super) wwn: Option<String>,
}

impl Target {
    /// What a connection says.
    ///
    /// # Errors
    /// `InvalidArgument`: it makes no sense.
    pub(super) fn of(link: &Link) -> Result<Self> {
        let fields = Fields::of(link);
        let mode = fields.optional("addressing_mode")?.unwrap_or(AddressingMode::Sam);
        let plural: Vec<Wwpn> = fields.list("target_wwns")?;
        let names: Vec<Wwpn> = if plural.is_empty() { fields.list("target_wwn")? } else { plural };
        if names.is_empty() {
            return Err(fields.wrong("target_wwn", "is missing"));
        }
        let mut luns: Vec<Lun> = fields.list("target_luns")?;
        if luns.is_empty() {
            luns = vec![fields.required("target_lun")?; names.len()];
        }
        if luns.len() != names.len() {
            return Err(fields.wrong("target_luns", "has not as many entries as target_wwns"));
        }
        let ports = names.into_iter().zip(luns.into_iter().map(|lun| lun.encoded(mode))).collect();
        let wwn = fields.optional::<String>("wwn")?.map(|wwn| digits(&wwn));
        Ok(Self { ports, zones: Self::zones(fields)?, wwn: wwn.filter(|wwn| !wwn.is_empty()) })
    }

    fn zones(fields: Fields<'_>) -> Result<BTreeMap<Wwpn, BTreeSet<Wwpn>>> {
        const KEY: &str = "initiator_target_map";
        let Some(map) = fields.value(KEY) else { return Ok(BTreeMap::new()) };
        let map = map.as_object().ok_or_else(|| fields.wrong(KEY, "is no map of ports to lists of ports"))?;
        let mut zones = BTreeMap::new();
        for (initiator, targets) in map {
            let initiator = initiator.parse().map_err(|why: String| fields.wrong(KEY, &why))?;
            let targets = match targets.as_array() {
                Some(list) => list.iter().map(|target| fields.parse(KEY, target)).collect::<Result<_>>()?,
                None => BTreeSet::from([fields.parse(KEY, targets)?]),
            };
            zones.insert(initiator, targets);
        }
        Ok(zones)
    }

    /// Whether this node's port is to look for that target.
    pub(super) fn is_zoned(&self, initiator: &Wwpn, target: &Wwpn) -> bool {
        self.zones.is_empty() || self.zones.get(initiator).is_some_and(|targets| targets.contains(target))
    }
}

/// The hexadecimal digits of an identity, small, without what says of which kind it is.
pub(super) fn digits(identity: &str) -> String {
    let small = identity.trim().to_ascii_lowercase();
    let bare = small.rsplit_once('.').map_or(small.as_str(), |(_, rest)| rest);
    bare.strip_prefix("0x").unwrap_or(bare).chars().filter(char::is_ascii_hexdigit).collect()
}
