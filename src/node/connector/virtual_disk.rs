//! Disks that a hypervisor attaches to this machine: volumes attached by Nova.
//!
//! Nova gives the disk the volume's id as its serial number. What the guest sees of it depends on the bus: virtio-blk
//! and NVMe keep 20 characters, SCSI all of them. The serial is read from sysfs, which is there as soon as the disk is;
//! udev's links in `/dev/disk/by-id` come later, may be stale, and are the identity only of a disk that has no serial in
//! sysfs. Nothing is scanned or triggered while waiting: an attach is an event that the kernel hears of by itself.

use super::{Connector, Link, Source};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::model::{Bytes, KIND_NOVA};
use crate::node::blocking;
use crate::node::device::{Device, Host, attribute};
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::time::Duration;
use tokio::time::Instant;

/// How many characters of a serial virtio-blk and NVMe keep.
const SHORT_SERIAL: usize = 20;

/// The shortest id that is looked for: a shorter one could be anything's serial.
const SHORTEST_ID: usize = 20;

/// Names of block devices that are never disks of a hypervisor; there may be hundreds of them.
const NEVER_DISKS: [&str; 10] = ["loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd", "rbd", "drbd"];

/// How long a disk may take to appear after the controller said that it is attached.
const APPEARANCE: Duration = Duration::from_secs(60);

/// How long a disk that is too small may take to become larger.
const GROWTH: Duration = Duration::from_secs(10);

/// The first pause between two looks; each is a half longer than the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// The longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Finds the disks that the hypervisor attached.
#[derive(Debug, Clone)]
pub struct VirtualDisk {
    host: Host,
    appearance: Duration,
    growth: Duration,
}

impl VirtualDisk {
    /// On this machine.
    #[must_use]
    pub fn new(host: Host) -> Self {
        Self { host, appearance: APPEARANCE, growth: GROWTH }
    }

    /// How long disks may take to appear, and those that are too small to become larger.
    #[must_use]
    pub fn waiting(self, appearance: Duration, growth: Duration) -> Self {
        Self { appearance, growth, ..self }
    }

    async fn look(&self, call: &Call, id: &str) -> Result<Option<Device>> {
        let (host, wanted) = (self.host.clone(), id.to_owned());
        blocking::run(call, "look for the volume's disk", move || find(&host, &wanted)).await
    }

    /// Looks until a disk is there that serves, at most for some time; then gives what is there.
    async fn wait_for(
        &self,
        call: &Call,
        id: &str,
        time: Duration,
        serves: impl Fn(&Device) -> bool + Send,
    ) -> Result<Option<Device>> {
        let end = Instant::now() + time;
        let mut pause = FIRST_PAUSE;
        loop {
            let found = self.look(call, id).await?;
            if found.as_ref().is_some_and(&serves) || Instant::now() >= end {
                return Ok(found);
            }
            // A little before the caller gives up: an answer that says what is missing helps more than none.
            if call.remaining() < pause.saturating_mul(2) {
                return Ok(found);
            }
            call.sleep("wait for the volume's disk", pause).await?;
            pause = pause.saturating_mul(3).checked_div(2).unwrap_or(pause).min(LONGEST_PAUSE);
        }
    }

    /// Asks the kernel to look at this one disk again. virtio-blk needs no asking: its driver is told.
    async fn ask_for_size(&self, call: &Call, device: &Device) -> Result<()> {
        let directory = self.host.sysfs(&device.name).join("device");
        blocking::run(call, "rescan the volume's disk", move || {
            for file in ["rescan", "rescan_controller"] {
                match fs::OpenOptions::new().write(true).open(directory.join(file)) {
                    Ok(mut file) => io::Write::write_all(&mut file, b"1\n")
                        .map_err(|error| Error::internal(format!("rescan {}", directory.display())).because(error))?,
                    Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                    Err(error) => {
                        return Err(Error::internal(format!("rescan {}", directory.display())).because(error));
                    }
                }
            }
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl Connector for VirtualDisk {
    fn kinds(&self) -> &[&str] {
        &[KIND_NOVA]
    }

    async fn connect(&self, call: &Call, link: &Link) -> Result<Source> {
        let id = disk_id(link)?;
        // A disk of size zero is one that is not ready.
        let Some(mut device) = self.wait_for(call, &id, self.appearance, |device| device.size > Bytes::ZERO).await?
        else {
            return Err(self.missing(call, &id, link).await);
        };
        let promised = link.connection.size.unwrap_or(Bytes::new(1));
        if device.size < promised {
            self.ask_for_size(call, &device).await?;
            let grown = self.wait_for(call, &id, self.growth, |device| device.size >= promised).await?;
            device = match grown {
                Some(device) => device,
                None => return Err(self.missing(call, &id, link).await),
            };
        }
        if device.size < promised {
            return Err(Error::wrong_state(format!(
                "{} has the serial number of volume {}, but only {} where {promised} were promised: \
                 it is not used; detach and attach the volume, and look at its state in Cinder and Nova",
                device.path.display(),
                link.volume,
                device.size
            )));
        }
        Ok(Source::Block(device))
    }

    async fn locate(&self, call: &Call, link: &Link) -> Result<Option<Source>> {
        Ok(self.look(call, &disk_id(link)?).await?.map(Source::Block))
    }

    async fn rescan(&self, call: &Call, link: &Link, size: Bytes) -> Result<Source> {
        let id = disk_id(link)?;
        let gone = || Error::not_found(format!("the disk of volume {} is not attached to this node", link.volume));
        let device = self.look(call, &id).await?.ok_or_else(gone)?;
        if device.size >= size {
            return Ok(Source::Block(device));
        }
        self.ask_for_size(call, &device).await?;
        let found = self.wait_for(call, &id, self.growth, |device| device.size >= size).await?;
        found.map(Source::Block).ok_or_else(gone)
    }

    /// The hypervisor takes the disk away when the controller detaches the volume.
    async fn disconnect(&self, _call: &Call, _link: &Link) -> Result<()> {
        Ok(())
    }
}

impl VirtualDisk {
    /// Says that a disk did not appear, and what is there instead.
    async fn missing(&self, call: &Call, id: &str, link: &Link) -> Error {
        let host = self.host.clone();
        let seen = blocking::run(call, "list the disks", move || {
            let mut seen = Vec::new();
            for name in candidates(&host).map_err(unreadable)? {
                let serials = serials(&host, &name).map_err(unreadable)?;
                if !serials.is_empty() {
                    seen.push(format!("{name} ({})", serials.into_iter().collect::<Vec<_>>().join(", ")));
                }
            }
            Ok(if seen.is_empty() { "no disk with a serial number".to_owned() } else { seen.join(", ") })
        });
        let seen = seen.await.unwrap_or_else(|error| error.to_string());
        Error::new(
            Kind::Unavailable,
            format!(
                "volume {}: no disk with serial number {id} (or its first {SHORT_SERIAL} characters) and a size appeared \
                 on this node; there is {seen}. See whether Nova shows the volume attached to this server, and whether \
                 the guest's kernel supports hot-plug",
                link.volume
            ),
        )
    }
}

/// The id that the hypervisor gave the disk: the volume's in Cinder.
fn disk_id(link: &Link) -> Result<String> {
    let handle = link.volume.as_str();
    let told = link.connection.data.get("serial").and_then(serde_json::Value::as_str);
    let id = told.unwrap_or_else(|| handle.rsplit_once('/').map_or(handle, |(_, id)| id));
    let is_sane = id.len() >= SHORTEST_ID && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if is_sane {
        Ok(id.to_owned())
    } else {
        Err(Error::invalid(format!(
            "volume {}: {id:?} is not the id of a Cinder volume, so no disk can be told to be it",
            link.volume
        )))
    }
}

/// The disk of that id. Two of them, or one under another's name, are no answer.
fn find(host: &Host, id: &str) -> Result<Option<Device>> {
    let mut names = BTreeSet::new();
    for name in candidates(host).map_err(unreadable)? {
        if serials(host, &name).map_err(unreadable)?.iter().any(|serial| is_of(serial, id)) {
            names.insert(name);
        }
    }
    if names.is_empty() {
        names = linked(host, id)?;
    }
    let mut names = names.into_iter();
    let Some(name) = names.next() else { return Ok(None) };
    if let Some(other) = names.next() {
        return Err(Error::wrong_state(format!(
            "both {name} and {other} say that they are volume {id}: neither is used; detach one of them"
        )));
    }
    // Its node comes a moment after its directory in sysfs; until then it is not there.
    Ok(host.device(&name).map_err(unreadable)?.filter(|device| device.path.exists()))
}

/// The block devices that may be disks of a hypervisor.
fn candidates(host: &Host) -> io::Result<Vec<String>> {
    host.disks(|name| !NEVER_DISKS.iter().any(|start| name.starts_with(start)))
}

/// The disks that udev's links by id lead to, leaving out those whose own serial says otherwise.
fn linked(host: &Host, id: &str) -> Result<BTreeSet<String>> {
    let directory = host.path("/dev/disk/by-id");
    let mut names = BTreeSet::new();
    for link in link_names(id) {
        let target = match fs::read_link(directory.join(&link)) {
            Ok(target) => target,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(error) => return Err(unreadable(error)),
        };
        let Some(name) = target.file_name().map(|name| name.to_string_lossy().into_owned()) else { continue };
        if serials(host, &name).map_err(unreadable)?.is_empty() {
            names.insert(name);
        } else {
            tracing::warn!(link, name, "a stale link in /dev/disk/by-id is not followed");
        }
    }
    Ok(names)
}

/// The names that udev gives a disk with this serial.
fn link_names(id: &str) -> Vec<String> {
    let short = id.get(..SHORT_SERIAL).unwrap_or(id);
    let bare = id.replace('-', "");
    let mut names = vec![format!("wwn-0x{bare}")];
    for serial in [short, id] {
        for start in ["virtio-", "scsi-0QEMU_QEMU_HARDDISK_", "scsi-SQEMU_QEMU_HARDDISK_", "nvme-QEMU_NVMe_Ctrl_"] {
            names.push(format!("{start}{serial}"));
        }
    }
    names
}

/// Whether a serial is that of this id: as it is, as short as some buses make it, or as the digits of a world-wide name.
fn is_of(serial: &str, id: &str) -> bool {
    let digits =
        serial.split_once('.').filter(|(kind, _)| matches!(*kind, "naa" | "eui" | "uuid")).map(|(_, name)| name);
    serial == id
        || id.get(..SHORT_SERIAL) == Some(serial)
        || digits.is_some_and(|digits| digits.replace('-', "").eq_ignore_ascii_case(&id.replace('-', "")))
}

/// Everything that sysfs gives as a disk's serial number.
fn serials(host: &Host, name: &str) -> io::Result<BTreeSet<String>> {
    let directory = host.sysfs(name);
    let mut serials = BTreeSet::new();
    // virtio-blk has it on the disk, NVMe on the controller.
    for file in ["serial", "device/serial"] {
        serials.extend(attribute(&directory.join(file))?);
    }
    // SCSI: the page that every disk has; four bytes of header.
    match fs::read(directory.join("device/vpd_pg80")) {
        Ok(page) => serials.extend(page.get(4..).map(|serial| String::from_utf8_lossy(serial).into_owned())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
        // A disk that has no such page, or goes away at this moment.
        Err(error) => tracing::debug!(name, %error, "no unit serial number page"),
    }
    // `t10.ATA     QEMU HARDDISK   <serial>`, or an identifier made of the serial alone.
    for file in ["wwid", "device/wwid"] {
        if let Some(wwid) = attribute(&directory.join(file))? {
            serials.extend(wwid.split_whitespace().last().map(str::to_owned));
        }
    }
    Ok(serials
        .into_iter()
        .map(|serial| serial.trim_matches([' ', '\0']).to_owned())
        .filter(|serial| !serial.is_empty())
        .collect())
}

fn unreadable(error: io::Error) -> Error {
    Error::internal("read sysfs or /dev/disk/by-id: are /sys and the host's /dev mounted into the driver's container?")
        .because(error)
}

#[cfg(test)]
mod tests {
    use super::{SHORT_SERIAL, VirtualDisk};
    use crate::call::Call;
    use crate::error::{Error, Kind, Result};
    use crate::model::{AccessMode, Bytes, Connection, KIND_NOVA, Secrets};
    use crate::node::connector::{Connector, Link, Source};
    use crate::node::device::{Device, Host, fake};
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::time::Duration;

    const ID: &str = "5a1c7b52-0d0f-4a57-9f34-3c1f1b4ad0aa";
    const OTHER: &str = "5a1c7b52-0d0f-4a57-9f34-ffffffffffff";
    const GIB: u64 = Bytes::GIB;

    fn link() -> Link {
        Link {
            volume: format!("west/{ID}").parse().unwrap(),
            connection: Connection {
                kind: KIND_NOVA.to_owned(),
                data: serde_json::json!({}),
                size: Some(Bytes::new(GIB)),
                read_only: false,
                sealed: None,
            },
            secrets: Secrets::new(),
            mode: AccessMode::SingleNodeWriter,
            device: None,
        }
    }

    fn connector(root: &Path) -> VirtualDisk {
        let (appearance, growth) = (Duration::from_millis(200), Duration::from_millis(100));
        fs::create_dir_all(root.join("sys/class/block")).unwrap();
        VirtualDisk::new(Host::below(root)).waiting(appearance, growth)
    }

    async fn connect(root: &Path) -> Result<Device> {
        let call = Call::lasting(Duration::from_secs(20));
        match connector(root).connect(&call, &link()).await? {
            Source::Block(device) => Ok(device),
            Source::Share(share) => Err(Error::internal(format!("{share:?}"))),
        }
    }

    #[tokio::test]
    async fn a_disk_is_found_by_its_serial_on_every_bus() {
        let root = tempfile::tempdir().unwrap();
        fake::add_disk(root.path(), "vda", 0, GIB, None);
        fake::add_disk(root.path(), "vdc", 32, GIB, Some("5a1c7b52-0d0f-4a57-a"));
        let short = &ID[..SHORT_SERIAL];

        let virtio = fake::add_disk(root.path(), "vdb", 16, GIB, Some(short));
        assert_eq!(connect(root.path()).await.unwrap(), virtio);
        fake::remove_disk(root.path(), &virtio);

        let scsi = fake::add_disk(root.path(), "sda", 17, GIB, None);
        let directory = Host::below(root.path()).sysfs("sda").join("device");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("vpd_pg80"), [&[0, 0x80, 0, 36], ID.as_bytes()].concat()).unwrap();
        assert_eq!(connect(root.path()).await.unwrap(), scsi);
        fs::remove_file(directory.join("vpd_pg80")).unwrap();
        fs::write(directory.join("wwid"), format!("t10.ATA     QEMU HARDDISK                           {ID}\n"))
            .unwrap();
        assert_eq!(connect(root.path()).await.unwrap(), scsi);
        fake::remove_disk(root.path(), &scsi);

        let nvme = fake::add_disk(root.path(), "nvme0n1", 18, GIB, None);
        let directory = Host::below(root.path()).sysfs("nvme0n1").join("device");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("serial"), format!("{short}\n")).unwrap();
        assert_eq!(connect(root.path()).await.unwrap(), nvme);
    }

    #[tokio::test]
    async fn a_link_by_id_is_the_identity_of_a_disk_without_a_serial_only() {
        let root = tempfile::tempdir().unwrap();
        let disk = fake::add_disk(root.path(), "vdb", 16, GIB, None);
        symlink("../../vdb", root.path().join("dev/disk/by-id").join(format!("virtio-{}", &ID[..20]))).unwrap();
        assert_eq!(connect(root.path()).await.unwrap(), disk);

        fake::add_disk(root.path(), "vdb", 16, GIB, Some("somebody-else's"));
        let error = connect(root.path()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable, "a stale link is not followed");
        assert!(error.to_string().contains("somebody-else's"), "{error}");
    }

    #[tokio::test]
    async fn a_disk_that_appears_later_is_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().to_owned();
        fs::create_dir_all(path.join("sys/class/block")).unwrap();
        let late = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            fake::add_disk(&path, "vdb", 16, 0, Some(ID));
            tokio::time::sleep(Duration::from_millis(50)).await;
            fake::add_disk(&path, "vdb", 16, GIB, Some(ID));
        });
        assert_eq!(connect(root.path()).await.unwrap().size, Bytes::new(GIB), "a size of zero is waited out");
        late.await.unwrap();
    }

    #[tokio::test]
    async fn a_disk_with_another_serial_is_never_taken() {
        let root = tempfile::tempdir().unwrap();
        fake::add_disk(root.path(), "vdb", 16, GIB, Some(OTHER));
        assert_eq!(connect(root.path()).await.unwrap_err().kind(), Kind::Unavailable);
        fake::add_disk(root.path(), "vdb", 16, GIB, Some(&ID[..19]));
        assert_eq!(connect(root.path()).await.unwrap_err().kind(), Kind::Unavailable);
    }

    #[tokio::test]
    async fn a_disk_that_is_smaller_than_promised_is_refused_and_a_larger_one_is_not() {
        let root = tempfile::tempdir().unwrap();
        fake::add_disk(root.path(), "vdb", 16, GIB - 512, Some(ID));
        let error = connect(root.path()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::WrongState);
        assert!(error.to_string().contains("1 GiB were promised"), "{error}");
        fake::add_disk(root.path(), "vdb", 16, 2 * GIB, Some(ID));
        assert_eq!(connect(root.path()).await.unwrap().size, Bytes::new(2 * GIB));
    }

    #[tokio::test]
    async fn a_zero_sized_disk_is_never_connected() {
        let root = tempfile::tempdir().unwrap();
        fake::add_disk(root.path(), "vdb", 16, 0, Some(ID));
        let mut link = link();
        link.connection.size = None;
        let call = Call::lasting(Duration::from_secs(20));
        assert!(connector(root.path()).connect(&call, &link).await.is_err());
    }

    #[tokio::test]
    async fn two_disks_of_one_serial_are_an_error() {
        let root = tempfile::tempdir().unwrap();
        fake::add_disk(root.path(), "vdb", 16, GIB, Some(ID));
        fake::add_disk(root.path(), "vdc", 32, GIB, Some(&ID[..20]));
        let error = connect(root.path()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::WrongState);
        assert!(error.to_string().contains("vdb") && error.to_string().contains("vdc"), "{error}");
    }

    #[tokio::test]
    async fn a_rescan_asks_this_disk_only_and_gives_what_is_there() {
        let root = tempfile::tempdir().unwrap();
        fake::add_disk(root.path(), "sda", 16, GIB, Some(ID));
        fake::add_disk(root.path(), "sdb", 32, GIB, None);
        let host = Host::below(root.path());
        for name in ["sda", "sdb"] {
            fs::create_dir_all(host.sysfs(name).join("device")).unwrap();
            fs::write(host.sysfs(name).join("device/rescan"), "").unwrap();
        }
        let call = Call::lasting(Duration::from_secs(20));
        let source = connector(root.path()).rescan(&call, &link(), Bytes::new(2 * GIB)).await.unwrap();
        assert!(matches!(source, Source::Block(device) if device.size == Bytes::new(GIB)));
        assert_eq!(fs::read_to_string(host.sysfs("sda").join("device/rescan")).unwrap(), "1\n");
        assert_eq!(fs::read_to_string(host.sysfs("sdb").join("device/rescan")).unwrap(), "");
    }

    #[tokio::test]
    async fn an_id_that_no_disk_can_be_told_by_is_refused() {
        let root = tempfile::tempdir().unwrap();
        for id in ["short", "../../../../../../../etc/passwd", "west/"] {
            let link = Link { volume: id.parse().unwrap(), ..link() };
            let call = Call::lasting(Duration::from_secs(20));
            let error = connector(root.path()).locate(&call, &link).await.unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidArgument, "{id}");
        }
    }
}
