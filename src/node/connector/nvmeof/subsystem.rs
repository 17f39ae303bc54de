//! The controllers and namespaces of a subsystem, as sysfs shows them.
//!
//! A controller is one connection. With native multipath, each has its own hidden disk of a namespace (`nvme0c1n1`), and
//! the one that is used is the subsystem's (`nvme0n1`); without, each controller has a disk of its own.

use super::target::{NamespaceId, Nqn, Path as Way, WideId};
use crate::node::connector::kernel::names_in;
use crate::node::connector::portal::Portal;
use crate::node::device::{Host, attribute};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// Where all controllers are.
const CONTROLLERS: &str = "/sys/class/nvme";

/// One connection to the subsystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Controller {
    pub(super) name: String,
    pub(super) directory: PathBuf,
    pub(super) state: String,
    transport: String,
    address: String,
    pub(super) namespaces: Vec<Namespace>,
}

/// A namespace as one controller shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Namespace {
    /// The disk that is used.
    pub(super) disk: String,
    uuid: Option<String>,
    nguid: Option<String>,
    number: Option<String>,
    /// The kernel's own word for its identity.
    pub(super) wwid: Option<String>,
}

impl Namespace {
    /// Whether it is the one.
    pub(super) fn is(&self, wanted: &NamespaceId) -> bool {
        let same = |shown: &Option<String>, wanted: &WideId| {
            shown.as_ref().and_then(|text| text.parse::<WideId>().ok()).as_ref() == Some(wanted)
        };
        match wanted {
            NamespaceId::Uuid(id) => same(&self.uuid, id),
            NamespaceId::Nguid(id) => same(&self.nguid, id),
            NamespaceId::Number(number) => self.number.as_deref() == Some(number.to_string().as_str()),
        }
    }

    /// For people.
    pub(super) fn shown(&self) -> String {
        format!("{} ({})", self.disk, self.wwid.as_deref().unwrap_or("without an identity"))
    }
}

impl Controller {
    pub(super) fn is_live(&self) -> bool {
        self.state == "live"
    }

    pub(super) fn is_going(&self) -> bool {
        self.state.starts_with("deleting") || self.state == "dead"
    }

    /// Whether it goes this way.
    pub(super) fn goes(&self, way: &Way) -> bool {
        let part = |key: &str| {
            self.address
                .split(',')
                .find_map(|part| part.trim().strip_prefix(key)?.strip_prefix('='))
                .unwrap_or_default()
        };
        let here = Portal::address(part("traddr")).ok().zip(part("trsvcid").parse().ok());
        self.transport == way.transport.word() && here == Some((way.portal.address, way.portal.port))
    }
}

/// The controllers that this host has of a subsystem.
pub(super) fn controllers(host: &Host, subsystem: &Nqn, identity: &Nqn) -> io::Result<Vec<Controller>> {
    let mut found = Vec::new();
    for name in names_in(&host.path(CONTROLLERS))? {
        let directory = host.path(CONTROLLERS).join(&name);
        if attribute(&directory.join("subsysnqn"))?.as_deref() != Some(subsystem.as_str()) {
            continue;
        }
        // Somebody else's connection, made under another name.
        if attribute(&directory.join("hostnqn"))?.is_some_and(|nqn| nqn != identity.as_str()) {
            continue;
        }
        let text = |file: &str| attribute(&directory.join(file)).map(Option::unwrap_or_default);
        found.push(Controller {
            state: text("state")?,
            transport: text("transport")?,
            address: text("address")?,
            namespaces: namespaces(&directory)?,
            name,
            directory,
        });
    }
    Ok(found)
}

fn namespaces(controller: &Path) -> io::Result<Vec<Namespace>> {
    let mut found = Vec::new();
    for name in names_in(controller)? {
        let Some(disk) = disk_of(&name) else { continue };
        let directory = controller.join(&name);
        let text = |file: &str| attribute(&directory.join(file));
        found.push(Namespace {
            disk,
            uuid: text("uuid")?,
            nguid: text("nguid")?,
            number: text("nsid")?,
            wwid: text("wwid")?,
        });
    }
    Ok(found)
}

/// The disk that stands for this one: `nvme0n1` for `nvme0c1n1` and for itself. None for what is no disk.
fn disk_of(name: &str) -> Option<String> {
    let (controller, namespace) = name.strip_prefix("nvme")?.rsplit_once('n')?;
    let subsystem =
        controller.split_once('c').map_or(controller, |(subsystem, path)| if is_number(path) { subsystem } else { "" });
    (is_number(subsystem) && is_number(namespace)).then(|| format!("nvme{subsystem}n{namespace}"))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The disks of a namespace among these controllers.
pub(super) fn disks_of(controllers: &[Controller], wanted: &NamespaceId) -> BTreeSet<Namespace> {
    let all = controllers.iter().filter(|controller| !controller.is_going()).flat_map(|c| &c.namespaces);
    all.filter(|namespace| namespace.is(wanted)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::disk_of;

    #[test]
    fn the_hidden_disks_of_paths_stand_for_the_one_that_is_used() {
        assert_eq!(disk_of("nvme0c1n1").as_deref(), Some("nvme0n1"));
        assert_eq!(disk_of("nvme12n34").as_deref(), Some("nvme12n34"));
        for name in ["nvme0", "ng0n1", "nvme0n1p1", "nvme0c1", "nvmen1", "nvme0cn1", "hwmon0", "nvme0n", "nvme0cxn1"] {
            assert_eq!(disk_of(name), None, "{name}");
        }
    }
}
