//! What storage has to know of this host where Nova does not attach: initiator names, ports, address; and the key to which
//! secrets are sealed. All of it is the node's id.
//!
//! The names are the host's own (`/etc/iscsi`, `/etc/nvme`), whoever runs there beside us. The NVMe names are made if there are none,
//! once and for good: a name that changed would be another host to the storage.

use super::{Server, Source};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::initiator::{Initiator, Uuid, Wwn};
use crate::node::blocking;
use crate::node::device::{Host, attribute};
use crate::seal::PublicKey;
use async_trait::async_trait;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The beginning of a host NQN that is made of a UUID.
const NQN_START: &str = "nqn.2014-08.org.nvmexpress:uuid:";

/// The longest NQN (NVMe base specification) and IQN (RFC 3720).
const LONGEST_NAME: usize = 223;

/// The longest host name of Linux.
const LONGEST_HOST: usize = 64;

/// Addresses that are never used (RFC 5737, RFC 3849): the route to them is the default one.
const ANYWHERE: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(192, 0, 2, 1), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// What the operator says instead of what is found.
#[derive(Debug, Clone, Default)]
pub struct HostOptions {
    /// The host's name.
    pub name: Option<String>,
    /// The address from which storage is reached.
    pub address: Option<IpAddr>,
    /// Whether volumes come over several paths.
    pub multipath: Option<bool>,
}

/// The name under which storage and secrets know this host. Blocks.
///
/// # Errors
/// `InvalidArgument`: it cannot be one.
pub fn name(host: &Host, options: &HostOptions) -> Result<String> {
    let name = match &options.name {
        Some(name) => name.clone(),
        None => read(&host.path("/proc/sys/kernel/hostname"))?.unwrap_or_default(),
    };
    let is_sane = (1..=LONGEST_HOST).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
        && name != "localhost";
    if is_sane {
        Ok(name)
    } else {
        Err(Error::invalid(format!(
            "{name:?} cannot be the name under which storage knows this host: set --host-name, to something else on each host"
        )))
    }
}

/// Gathers the facts. Blocks.
///
/// # Errors
/// `InvalidArgument`: a file says something that cannot be. `Internal`: a file cannot be read.
pub fn gather(host: &Host, options: &HostOptions, public_key: PublicKey) -> Result<Initiator> {
    let system_uuid = system_uuid(host)?;
    let (nqn, nvme_host_id) = nvme_names(host, system_uuid)?.unzip();
    let (wwpns, wwnns) = fibre_channel(host)?;
    Ok(Initiator {
        public_key,
        host: name(host, options)?,
        ip: options.address.or_else(address_by_route),
        iqn: initiator_name(host)?,
        nqn,
        nvme_host_id,
        wwpns,
        wwnns,
        multipath: match options.multipath {
            Some(multipath) => multipath,
            None => multipathd_runs(host)?,
        },
        system_uuid,
    })
}

/// The facts of this host as the id of this node.
#[derive(Debug)]
pub struct HostFacts {
    host: Host,
    options: HostOptions,
    public_key: PublicKey,
}

impl HostFacts {
    /// Of this machine.
    #[must_use]
    pub fn new(host: Host, options: HostOptions, public_key: PublicKey) -> Self {
        Self { host, options, public_key }
    }
}

#[async_trait]
impl Source for HostFacts {
    fn name(&self) -> &'static str {
        "host"
    }

    async fn ask(&self, call: &Call) -> Result<Server> {
        let (host, options, key) = (self.host.clone(), self.options.clone(), self.public_key);
        let facts = blocking::run(call, "gather the facts of this host", move || gather(&host, &options, key)).await?;
        Ok(Server { id: Some(facts.pack()?.into()), zone: None })
    }
}

/// A file of one line; none if it is not there or empty.
fn read(path: &Path) -> Result<Option<String>> {
    let content = attribute(path).map_err(|error| unreadable(path, error))?;
    Ok(content.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()))
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::internal(format!("read {}", path.display())).because(error)
}

/// The name of this host's iSCSI initiator; none if it has none (yet). Blocks.
///
/// # Errors
/// `InvalidArgument`: the file says something that cannot be one.
pub fn initiator_name(host: &Host) -> Result<Option<String>> {
    let path = host.path("/etc/iscsi/initiatorname.iscsi");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(unreadable(&path, error)),
    };
    let name = text.lines().map(str::trim).filter_map(|line| line.strip_prefix("InitiatorName=")).next_back();
    let Some(name) = name.map(str::trim).filter(|name| !name.is_empty()) else {
        // Distributions leave this until the initiator starts for the first time.
        return Ok(None);
    };
    let is_sane = name.len() <= LONGEST_NAME
        && ["iqn.", "eui.", "naa."].iter().any(|start| name.starts_with(start))
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b':' | b'_'));
    if is_sane {
        Ok(Some(name.to_owned()))
    } else {
        Err(Error::invalid(format!("{}: {name:?} is not the name of an iSCSI initiator", path.display())))
    }
}

/// The host NQN and host id; made if there are none, and none where that cannot be.
fn nvme_names(host: &Host, system_uuid: Option<Uuid>) -> Result<Option<(String, Uuid)>> {
    let (nqn_path, id_path) = (host.path("/etc/nvme/hostnqn"), host.path("/etc/nvme/hostid"));
    let (nqn, id) = (read(&nqn_path)?, read(&id_path)?);
    let is_sane =
        |nqn: &String| nqn.len() <= LONGEST_NAME && nqn.starts_with("nqn.") && !nqn.contains([',', ' ', '\t', '\n']);
    if let Some(nqn) = nqn.as_ref().filter(|nqn| !is_sane(nqn)) {
        return Err(Error::invalid(format!("{}: {nqn:?} is not the NQN of a host", nqn_path.display())));
    }
    let id = match id {
        None => None,
        Some(text) => Some(
            Uuid::parse(&text)
                .ok_or_else(|| Error::invalid(format!("{}: {text:?} is not a UUID", id_path.display())))?,
        ),
    };
    // Newer kernels want one id for one NQN, so the two are of one UUID where we make them.
    let of_nqn = nqn.as_deref().and_then(|nqn| nqn.strip_prefix(NQN_START)).and_then(Uuid::parse);
    let uuid = id.or(of_nqn).or(system_uuid).unwrap_or_else(|| Uuid::random(fastrand::u128(..)));
    let made = keep(&nqn_path, nqn, || format!("{NQN_START}{uuid}"))
        .and_then(|nqn| Ok((nqn, keep(&id_path, id.map(|id| id.to_string()), || uuid.to_string())?)));
    match made {
        Ok((nqn, id)) => Ok(Uuid::parse(&id).map(|id| (nqn, id))),
        Err(error) => {
            tracing::warn!(%error, "this host gets no NVMe names, so no volume comes over NVMe");
            Ok(None)
        }
    }
}

/// What a file says, or what it says from now on. Should another process make it at the same moment, that one's word counts.
fn keep(path: &Path, content: Option<String>, make: impl FnOnce() -> String) -> Result<String> {
    if let Some(content) = content {
        return Ok(content);
    }
    let content = make();
    let made = || -> io::Result<()> {
        let directory = path.parent().unwrap_or(path);
        fs::create_dir_all(directory)?;
        let staged = path.with_extension(format!("{:08x}.new", fastrand::u32(..)));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&staged)?;
        let written = file.write_all(format!("{content}\n").as_bytes()).and_then(|()| file.sync_all());
        let linked = written.and_then(|()| match fs::metadata(path) {
            // An empty file is no name.
            Ok(empty) if empty.len() == 0 => fs::rename(&staged, path),
            _ => fs::hard_link(&staged, path),
        });
        drop(fs::remove_file(&staged));
        linked?;
        File::open(directory)?.sync_all()
    };
    match made() {
        Ok(()) => Ok(content),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            read(path)?.ok_or_else(|| Error::internal(format!("{} is empty", path.display())))
        }
        Err(error) => Err(Error::new(Kind::Internal, format!("write {}", path.display())).because(error)),
    }
}

fn system_uuid(host: &Host) -> Result<Option<Uuid>> {
    let path = host.path("/sys/class/dmi/id/product_uuid");
    match read(&path) {
        Ok(text) => Ok(text.and_then(|text| Uuid::parse(&text)).filter(Uuid::is_distinct)),
        // Only root may read it.
        Err(error) if error.cause::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::PermissionDenied) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The ports and nodes of the adapters that are connected.
fn fibre_channel(host: &Host) -> Result<(Vec<Wwn>, Vec<Wwn>)> {
    let directory = host.path("/sys/class/fc_host");
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), Vec::new())),
        Err(error) => return Err(unreadable(&directory, error)),
    };
    let mut adapters = Vec::new();
    for entry in entries {
        adapters.push(entry.map_err(|error| unreadable(&directory, error))?.path());
    }
    adapters.sort();
    let (mut ports, mut nodes) = (Vec::new(), Vec::new());
    for adapter in adapters {
        if read(&adapter.join("port_state"))?.as_deref() != Some("Online") {
            continue;
        }
        ports.extend(read(&adapter.join("port_name"))?.as_deref().and_then(Wwn::parse));
        let node = read(&adapter.join("node_name"))?.as_deref().and_then(Wwn::parse);
        nodes.extend(node.filter(|node| !nodes.contains(node)));
    }
    Ok((ports, nodes))
}

/// The address that packets to the outside world leave from, one of IPv4 where there is one. Nothing is sent.
#[must_use]
pub fn address_by_route() -> Option<IpAddr> {
    const DISCARD: u16 = 9;
    let towards = |any: IpAddr, there: IpAddr| {
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((there, DISCARD)).ok()?;
        socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
    };
    let (four, six) = ANYWHERE;
    towards(Ipv4Addr::UNSPECIFIED.into(), four.into()).or_else(|| towards(Ipv6Addr::UNSPECIFIED.into(), six.into()))
}

/// Whether the daemon listens at its socket, which has a name but no file.
fn multipathd_runs(host: &Host) -> Result<bool> {
    let path = host.path("/proc/net/unix");
    match fs::read_to_string(&path) {
        Ok(sockets) => {
            Ok(sockets.lines().any(|line| line.ends_with("/multipathd") || line.ends_with("multipathd.socket")))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(unreadable(&path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::{HostFacts, HostOptions, gather, name};
    use crate::call::Call;
    use crate::error::Kind;
    use crate::initiator::{Initiator, Wwn};
    use crate::node::device::Host;
    use crate::node::identity::Source;
    use crate::seal::PublicKey;
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    const SYSTEM: &str = "4c4c4544-0043-3010-8052-b4c04f4d4e31";

    fn write(root: &Path, path: &str, content: &str) {
        let path = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A host with everything.
    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in [
            ("/proc/sys/kernel/hostname", "rack7-12\n"),
            (
                "/etc/iscsi/initiatorname.iscsi",
                "## made at installation\nInitiatorName=iqn.1993-08.org.debian:01:5a1b\n",
            ),
            ("/sys/class/dmi/id/product_uuid", "4C4C4544-0043-3010-8052-B4C04F4D4E31\n"),
            ("/sys/class/fc_host/host3/port_name", "0x10000000c9a1b2c3\n"),
            ("/sys/class/fc_host/host3/node_name", "0x20000000c9a1b2c3\n"),
            ("/sys/class/fc_host/host3/port_state", "Online\n"),
            ("/sys/class/fc_host/host4/port_name", "0x10000000c9a1b2c4\n"),
            ("/sys/class/fc_host/host4/node_name", "0x20000000c9a1b2c3\n"),
            ("/sys/class/fc_host/host4/port_state", "Linkdown\n"),
            (
                "/proc/net/unix",
                "Num RefCount\nffff: 00000002 00000000 00010000 0001 01 3 @/org/kernel/linux/storage/multipathd\n",
            ),
        ] {
            write(root.path(), path, content);
        }
        root
    }

    fn options() -> HostOptions {
        HostOptions { address: Some("10.1.2.3".parse().unwrap()), ..HostOptions::default() }
    }

    fn facts(root: &Path) -> Initiator {
        gather(&Host::below(root), &options(), PublicKey::new([7; 32])).unwrap()
    }

    #[test]
    fn the_facts_are_those_of_the_host_and_make_a_node_id() {
        let root = machine();
        let facts = facts(root.path());
        assert_eq!((facts.host.as_str(), facts.iqn.as_deref()), ("rack7-12", Some("iqn.1993-08.org.debian:01:5a1b")));
        assert_eq!(facts.wwpns, [Wwn::parse("10000000c9a1b2c3").unwrap()]);
        assert_eq!(facts.wwnns, [Wwn::parse("20000000c9a1b2c3").unwrap()]);
        assert_eq!(facts.ip.unwrap().to_string(), "10.1.2.3");
        assert!(facts.multipath);
        assert_eq!(facts.nqn.clone().unwrap(), format!("nqn.2014-08.org.nvmexpress:uuid:{SYSTEM}"));
        assert_eq!(facts.nvme_host_id.unwrap().to_string(), SYSTEM);
        assert_eq!(Initiator::unpack(&facts.pack().unwrap()).unwrap(), facts);
    }

    #[test]
    fn nvme_names_are_made_once_and_kept() {
        let root = machine();
        fs::remove_file(root.path().join("sys/class/dmi/id/product_uuid")).unwrap();
        let first = facts(root.path());
        assert_eq!(facts(root.path()), first);
        let nqn = fs::read_to_string(root.path().join("etc/nvme/hostnqn")).unwrap();
        assert_eq!(nqn.trim(), first.nqn.unwrap());
        assert_eq!(fs::read_dir(root.path().join("etc/nvme")).unwrap().count(), 2);
        let other = machine();
        fs::remove_file(other.path().join("sys/class/dmi/id/product_uuid")).unwrap();
        assert_ne!(facts(other.path()).nvme_host_id, first.nvme_host_id);
    }

    #[test]
    fn names_that_are_there_are_taken_as_they_are() {
        let root = machine();
        write(root.path(), "/etc/nvme/hostnqn", "nqn.2020-01.org.example:host7\n");
        let first = facts(root.path());
        assert_eq!(first.nqn.as_deref(), Some("nqn.2020-01.org.example:host7"));
        assert_eq!(first.nvme_host_id.unwrap().to_string(), SYSTEM);
        write(root.path(), "/etc/nvme/hostid", "11111111-2222-3333-4444-555555555555\n");
        assert_eq!(facts(root.path()).nvme_host_id.unwrap().to_string(), "11111111-2222-3333-4444-555555555555");
    }

    #[test]
    fn a_firmware_without_a_uuid_of_its_own_is_not_believed() {
        for nonsense in ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "n/a"] {
            let root = machine();
            write(root.path(), "/sys/class/dmi/id/product_uuid", nonsense);
            assert_eq!(facts(root.path()).system_uuid, None, "{nonsense}");
        }
    }

    #[test]
    fn a_bare_machine_has_a_name_and_little_else() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "/proc/sys/kernel/hostname", "n1\n");
        let facts = facts(root.path());
        assert_eq!((facts.iqn, facts.wwpns.len(), facts.multipath), (None, 0, false));
        assert!(facts.nqn.is_some(), "made");
    }

    #[test]
    fn what_cannot_be_a_name_is_refused_with_its_place() {
        let root = machine();
        for (path, content) in [
            ("/etc/iscsi/initiatorname.iscsi", "InitiatorName=bad name\n"),
            ("/etc/nvme/hostnqn", "nqn.x,traddr=1.2.3.4\n"),
            ("/etc/nvme/hostid", "7\n"),
        ] {
            let before = fs::read(root.path().join(path.trim_start_matches('/'))).ok();
            write(root.path(), path, content);
            let error = gather(&Host::below(root.path()), &options(), PublicKey::new([7; 32])).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidArgument);
            assert!(error.to_string().contains(path), "{error}");
            write(root.path(), path, &String::from_utf8(before.unwrap_or_default()).unwrap());
        }
        for bad in ["", "localhost", "a b", "x\u{e4}", &"h".repeat(65)] {
            let options = HostOptions { name: Some((*bad).to_owned()), ..options() };
            assert_eq!(name(&Host::below(root.path()), &options).unwrap_err().kind(), Kind::InvalidArgument, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn as_a_source_it_gives_the_packed_facts() {
        let root = machine();
        let source = HostFacts::new(Host::below(root.path()), options(), PublicKey::new([7; 32]));
        let server = source.ask(&Call::lasting(Duration::from_secs(9))).await.unwrap();
        let id = server.id.unwrap().parse().unwrap();
        assert_eq!(Initiator::unpack(&id).unwrap().host, "rack7-12");
    }
}
