//! This node's ports on the fabric, and the targets that they see, as sysfs shows them.

use super::target::{Target, Wwpn};
use crate::node::connector::kernel::names_in;
use crate::node::connector::scsi::address::Address;
use crate::node::device::{Host, attribute};
use std::io;

/// One port of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) host: u32,
    pub(super) name: Wwpn,
    pub(super) is_online: bool,
}

/// All ports of this node.
pub(super) fn ports(host: &Host) -> io::Result<Vec<Port>> {
    let directory = host.path("/sys/class/fc_host");
    let mut found = Vec::new();
    for entry in names_in(&directory)? {
        let number = entry.strip_prefix("host").and_then(|number| number.parse().ok());
        let name = attribute(&directory.join(&entry).join("port_name"))?.and_then(|name| name.parse().ok());
        if let (Some(host), Some(name)) = (number, name) {
            let state = attribute(&directory.join(&entry).join("port_state"))?;
            found.push(Port { host, name, is_online: state.as_deref() == Some("Online") });
        }
    }
    Ok(found)
}

/// Where the LUN sits on every path of this node that can be used now.
pub(super) fn addresses(host: &Host, target: &Target) -> io::Result<Vec<Address>> {
    addresses_of(host, target, |port| port.is_online)
}

/// Where the LUN may sit: a port that lost its link keeps its disks for a while.
pub(super) fn all_addresses(host: &Host, target: &Target) -> io::Result<Vec<Address>> {
    addresses_of(host, target, |_| true)
}

fn addresses_of(host: &Host, target: &Target, counts: impl Fn(&Port) -> bool) -> io::Result<Vec<Address>> {
    let directory = host.path("/sys/class/fc_remote_ports");
    let mut found = Vec::new();
    for port in ports(host)?.iter().filter(|port| counts(port)) {
        let start = format!("rport-{}:", port.host);
        for entry in names_in(&directory)?.iter().filter(|entry| entry.starts_with(&start)) {
            let here = directory.join(entry);
            let name = attribute(&here.join("port_name"))?.and_then(|name| name.parse::<Wwpn>().ok());
            let Some((name, lun)) = name.and_then(|name| target.ports.get(&name).map(|lun| (name, *lun))) else {
                continue;
            };
            if !target.is_zoned(&port.name, &name) {
                continue;
            }
            // A remote port that is no target has -1.
            let id = attribute(&here.join("scsi_target_id"))?.and_then(|id| id.parse().ok());
            // `rport-H:C-N`
            let channel = entry.strip_prefix(&start).and_then(|rest| rest.split('-').next()?.parse().ok());
            if let (Some(id), Some(channel)) = (id, channel) {
                found.push(Address { host: port.host, channel, target: id, lun });
            }
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}
