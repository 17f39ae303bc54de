//! The sessions that this machine has, as sysfs shows them.

use super::target::Target;
use crate::node::connector::kernel::names_in;
use crate::node::connector::portal::Portal;
use crate::node::connector::scsi::address::Address;
use crate::node::device::{Host, attribute};
use std::io;

/// A session with a target at a portal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) number: String,
    pub(super) state: String,
    /// The SCSI host and target that it is.
    host: u32,
    target: u32,
}

impl Session {
    pub(super) fn is_up(&self) -> bool {
        self.state == "LOGGED_IN"
    }

    /// Where a LUN of it sits.
    pub(super) fn address(&self, target: &Target) -> Address {
        Address { host: self.host, channel: 0, target: self.target, lun: target.lun }
    }
}

/// The session with this target at this portal: one that is up, if there are several.
pub(super) fn session(host: &Host, target: &Target) -> io::Result<Option<Session>> {
    let directory = host.path("/sys/class/iscsi_session");
    let mut found: Option<Session> = None;
    for name in names_in(&directory)? {
        let here = directory.join(&name);
        let Some(number) = name.strip_prefix("session") else { continue };
        if attribute(&here.join("targetname"))?.as_deref() != Some(target.iqn.as_str()) {
            continue;
        }
        if portal(host, number)? != Some(target.portal) {
            continue;
        }
        let Some(scsi_host) = scsi_host(host, &name)? else { continue };
        let session = Session {
            number: number.to_owned(),
            state: attribute(&here.join("state"))?.unwrap_or_default(),
            host: scsi_host,
            target: attribute(&here.join("target_id"))?.and_then(|id| id.parse().ok()).unwrap_or(0),
        };
        if found.as_ref().is_none_or(|other| session.is_up() && !other.is_up()) {
            found = Some(session);
        }
    }
    Ok(found)
}

/// The portal that a session was told to go to; not the one that it was redirected to.
fn portal(host: &Host, session: &str) -> io::Result<Option<Portal>> {
    let connection = host.path("/sys/class/iscsi_connection").join(format!("connection{session}:0"));
    let address = attribute(&connection.join("persistent_address"))?;
    let port = attribute(&connection.join("persistent_port"))?;
    Ok(address.zip(port).and_then(|(address, port)| Portal::new(Portal::address(&address).ok()?, port.parse().ok()?)))
}

/// The number of the SCSI host that carries a session.
fn scsi_host(host: &Host, session: &str) -> io::Result<Option<u32>> {
    let hosts = host.path("/sys/class/iscsi_host");
    for name in names_in(&hosts)? {
        if hosts.join(&name).join("device").join(session).exists() {
            return Ok(name.strip_prefix("host").and_then(|number| number.parse().ok()));
        }
    }
    Ok(None)
}
