//! A node whose disks are loop devices: files in a folder of its own, found by links by id like a hypervisor's disks.
//!
//! Everything is taken away when the machine is dropped, also after a failed test. `NO_TEST_CLEAN_UP=1` keeps the wreck.

use fuxi_csi::call::Call;
use fuxi_csi::error::Result;
use fuxi_csi::exec::SystemExec;
use fuxi_csi::model::{
    AccessKind, AccessMode, Bytes, Capability, Connection, KIND_NOVA, Secrets, SizeRange, StringMap, VolumeId,
};
use fuxi_csi::node::connector::Connectors;
use fuxi_csi::node::connector::virtual_disk::VirtualDisk;
use fuxi_csi::node::device::Host;
use fuxi_csi::node::filesystem::Filesystems;
use fuxi_csi::node::identity::{Identity, IdentityOptions};
use fuxi_csi::node::keychain::Keychain;
use fuxi_csi::node::mount::system::SystemMounter;
use fuxi_csi::node::mount::table::{MountEntry, MountTable};
use fuxi_csi::node::{Node, NodeParts, PublishRequest, StageRequest};
use nix::unistd::{Whence, lseek};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

pub(crate) const MIB: u64 = 1 << 20;

/// Programs that all of these tests need.
const PROGRAMS: [&str; 9] =
    ["losetup", "blkid", "mkfs.ext4", "e2fsck", "resize2fs", "mkfs.xfs", "xfs_growfs", "mkfs.btrfs", "btrfs"];

/// A volume of the test: its image, its loop device, its paths.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(crate) id: VolumeId,
    pub(crate) image: PathBuf,
    pub(crate) device: PathBuf,
    pub(crate) size: u64,
}

pub(crate) struct Machine {
    folder: PathBuf,
    pub(crate) node: Node,
}

impl Machine {
    /// A machine, or none where these tests cannot run; the reason is printed.
    pub(crate) fn start() -> Option<Self> {
        if let Some(why) = reason_to_skip() {
            println!("skipped: {why}");
            return None;
        }
        let folder = tempfile::Builder::new().prefix("fuxi-loop-").tempdir_in(place()).unwrap().keep();
        let folder = folder.canonicalize().unwrap();
        fs::create_dir_all(folder.join("dev/disk/by-id")).unwrap();
        symlink("/sys", folder.join("sys")).unwrap();
        symlink("/proc", folder.join("proc")).unwrap();
        let node = node_in(&folder);
        Some(Self { folder, node })
    }

    /// The same machine after the driver was started anew.
    pub(crate) fn restart(&mut self) {
        self.node = node_in(&self.folder);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A new blank disk.
    pub(crate) fn disk(&self, number: u32, size: u64) -> Disk {
        let image = self.path(&format!("image-{number}"));
        File::create(&image).unwrap().set_len(size).unwrap();
        self.attach(number, image, size)
    }

    /// A disk with the content that another has at this moment, as a snapshot in the cloud would be.
    pub(crate) fn copy(&self, number: u32, of: &Disk) -> Disk {
        let image = self.path(&format!("image-{number}"));
        must("cp", &["--sparse=always", of.image.to_str().unwrap(), image.to_str().unwrap()]);
        self.attach(number, image, of.size)
    }

    fn attach(&self, number: u32, image: PathBuf, size: u64) -> Disk {
        let id = format!("00000000-0000-4000-8000-{number:012}");
        // The first 20 characters tell the volumes of this test apart as well.
        let id = format!("{number:08}{}", &id[8..]);
        let device = PathBuf::from(must("losetup", &["--find", "--show", image.to_str().unwrap()]).trim());
        let name = device.file_name().unwrap().to_str().unwrap();
        // A loop device keeps its number; a link of an earlier disk of this machine may be there.
        drop(fs::remove_file(self.folder.join("dev").join(name)));
        symlink(&device, self.folder.join("dev").join(name)).unwrap();
        let link = self.folder.join("dev/disk/by-id").join(format!("virtio-{}", &id[..20]));
        symlink(format!("../../{name}"), link).unwrap();
        let disk = Disk { id: id.parse().unwrap(), image, device, size };
        // The orchestrator makes it.
        fs::create_dir_all(self.staging_path(&disk)).unwrap();
        disk
    }

    /// Takes a disk from the machine.
    pub(crate) fn detach(&self, disk: &Disk) {
        let link = self.folder.join("dev/disk/by-id").join(format!("virtio-{}", &disk.id.as_str()[..20]));
        drop(fs::remove_file(link));
        must("losetup", &["-d", disk.device.to_str().unwrap()]);
    }

    /// Takes a disk away and brings it back, maybe as another device.
    pub(crate) fn reattach(&self, number: u32, disk: &Disk) -> Disk {
        self.detach(disk);
        self.attach(number, disk.image.clone(), disk.size)
    }

    /// Makes a disk larger.
    pub(crate) fn enlarge(&self, disk: &mut Disk, size: u64) {
        fs::OpenOptions::new().write(true).open(&disk.image).unwrap().set_len(size).unwrap();
        must("losetup", &["-c", disk.device.to_str().unwrap()]);
        disk.size = size;
    }

    pub(crate) fn staging_path(&self, disk: &Disk) -> PathBuf {
        self.path(&format!("stage/{}/globalmount", disk.id))
    }

    pub(crate) fn target_path(&self, disk: &Disk, workload: &str) -> PathBuf {
        self.path(&format!("pods/{workload}/{}/mount", disk.id))
    }

    pub(crate) fn stage_request(&self, disk: &Disk, capability: Capability) -> StageRequest {
        StageRequest {
            volume: disk.id.clone(),
            connection: Connection {
                kind: KIND_NOVA.to_owned(),
                data: serde_json::json!({"serial": disk.id.as_str()}),
                size: Some(Bytes::new(disk.size)),
                read_only: false,
                sealed: None,
            },
            staging_path: self.staging_path(disk),
            capability,
            volume_context: StringMap::new(),
            secrets: Secrets::new(),
        }
    }

    pub(crate) async fn stage(&self, disk: &Disk, capability: Capability) -> Result<()> {
        self.node.stage(&call(), &self.stage_request(disk, capability)).await
    }

    pub(crate) async fn unstage(&self, disk: &Disk) -> Result<()> {
        self.node.unstage(&call(), &disk.id, &self.staging_path(disk)).await
    }

    pub(crate) fn publish_request(&self, disk: &Disk, workload: &str, capability: Capability) -> PublishRequest {
        PublishRequest {
            volume: disk.id.clone(),
            staging_path: self.staging_path(disk),
            target_path: self.target_path(disk, workload),
            capability,
            read_only: false,
            volume_context: StringMap::new(),
        }
    }

    pub(crate) async fn publish(&self, disk: &Disk, workload: &str, capability: Capability) -> Result<()> {
        self.node.publish(&call(), &self.publish_request(disk, workload, capability)).await
    }

    pub(crate) async fn unpublish(&self, disk: &Disk, workload: &str) -> Result<()> {
        self.node.unpublish(&call(), &disk.id, &self.target_path(disk, workload)).await
    }

    pub(crate) async fn expand(&self, disk: &Disk, path: &Path, required: u64) -> Result<Bytes> {
        let size = SizeRange { required: Bytes::new(required), limit: None };
        self.node.expand(&call(), &disk.id, path, Some(&self.staging_path(disk)), size).await
    }

    /// What is mounted at a path.
    pub(crate) fn mounts(&self, path: &Path) -> Vec<MountEntry> {
        let table = MountTable::parse(&fs::read("/proc/self/mountinfo").unwrap()).unwrap();
        table.at(path).cloned().collect()
    }

    /// Everything of this machine that is left: mounts and records.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        let table = MountTable::parse(&fs::read("/proc/self/mountinfo").unwrap()).unwrap();
        let mounts = table.entries().iter().map(|entry| entry.mount_point.clone());
        let mut left: Vec<_> = mounts.filter(|path| path.starts_with(&self.folder)).collect();
        for folder in ["plugin/volumes", "plugin/publishing"] {
            let entries = fs::read_dir(self.path(folder)).into_iter().flatten();
            left.extend(entries.map(|entry| entry.unwrap().path()));
        }
        left
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::env::var_os("NO_TEST_CLEAN_UP").is_some() {
            println!("left as it is: {}", self.folder.display());
            return;
        }
        let text = fs::read("/proc/self/mountinfo").unwrap_or_default();
        let table = MountTable::parse(&text).unwrap_or_default();
        for entry in table.entries().iter().rev().filter(|entry| entry.mount_point.starts_with(&self.folder)) {
            run("umount", &["-l", entry.mount_point.to_str().unwrap_or_default()]);
        }
        let devices = run("losetup", &["--list", "--noheadings", "--output", "NAME,BACK-FILE"]).1;
        for line in devices.lines().filter(|line| line.contains(self.folder.to_str().unwrap_or("?"))) {
            run("losetup", &["-d", line.split_whitespace().next().unwrap_or_default()]);
        }
        drop(fs::remove_dir_all(&self.folder));
    }
}

fn node_in(folder: &Path) -> Node {
    let host = Host::below(folder);
    let disks = VirtualDisk::new(host.clone()).waiting(Duration::from_millis(600), Duration::from_millis(300));
    Node::new(NodeParts {
        exec: Arc::new(SystemExec::default()),
        mounter: Arc::new(SystemMounter::default()),
        connectors: Connectors::new().with(Arc::new(disks)),
        filesystems: Filesystems::default(),
        identity: Identity::new(IdentityOptions::default(), Vec::new()),
        keychain: Keychain::none(),
        host,
        plugin_dir: folder.join("plugin"),
        default_fstype: "ext4".to_owned(),
    })
    .unwrap()
}

/// In memory where there is room: the images are sparse, and the tests wait for the disk all the time otherwise.
fn place() -> &'static str {
    let room =
        nix::sys::statvfs::statvfs("/dev/shm").map(|numbers| numbers.blocks_available() * numbers.fragment_size());
    if room.is_ok_and(|room| room > 4096 * MIB) { "/dev/shm" } else { "/var/tmp" }
}

fn reason_to_skip() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("mounts and loop devices need root".to_owned());
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("there is no /dev/loop-control".to_owned());
    }
    let exec = SystemExec::default();
    PROGRAMS.iter().find_map(|program| exec.find(program).err()).map(|error| error.to_string())
}

pub(crate) fn call() -> Call {
    Call::lasting(Duration::from_secs(60))
}

pub(crate) fn mounted(fstype: &str) -> Capability {
    mounted_with(Some(fstype), &[])
}

pub(crate) fn mounted_with(fstype: Option<&str>, options: &[&str]) -> Capability {
    let options = options.iter().map(|option| (*option).to_owned()).collect();
    let kind = AccessKind::Mount { fstype: fstype.map(str::to_owned), options, group: None };
    Capability { mode: AccessMode::SingleNodeWriter, kind }
}

pub(crate) fn raw() -> Capability {
    Capability { mode: AccessMode::SingleNodeWriter, kind: AccessKind::Block }
}

/// Runs a program of the test itself: whether it succeeded, and what it said.
pub(crate) fn run(program: &str, arguments: &[&str]) -> (bool, String, String) {
    let path = SystemExec::default().find(program).unwrap();
    let output = Command::new(path).args(arguments).env("LC_ALL", "C").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

pub(crate) fn must(program: &str, arguments: &[&str]) -> String {
    let (is_good, stdout, stderr) = run(program, arguments);
    assert!(is_good, "{program} {arguments:?}: {stderr}");
    stdout
}

/// Unmounts behind the driver's back. A program that a test beside this one starts holds, for a moment between fork and
/// exec, every file that is open in this process: that is waited out.
pub(crate) fn unmount(path: &Path) {
    for _ in 0..100 {
        let (is_done, _, stderr) = run("umount", &[path.to_str().unwrap()]);
        if is_done {
            return;
        }
        assert!(stderr.contains("busy"), "umount {}: {stderr}", path.display());
        thread::sleep(Duration::from_millis(20));
    }
    panic!("{} stays busy", path.display());
}

/// What tells one content of a file from another: its size, and a hash of all blocks that are not zero. Holes are jumped.
pub(crate) fn digest(path: &Path) -> (u64, u64) {
    let file = File::open(path).unwrap();
    let size = file.metadata().unwrap().len();
    let mut hasher = DefaultHasher::new();
    let mut block = vec![0; 1 << 16];
    let mut at = 0;
    while let Ok(data) = lseek(&file, at, Whence::SeekData) {
        let hole = lseek(&file, data, Whence::SeekHole).unwrap();
        at = data;
        while at < hole {
            let length = usize::try_from(hole - at).unwrap().min(block.len());
            file.read_exact_at(&mut block[..length], at.try_into().unwrap()).unwrap();
            if block[..length].iter().any(|byte| *byte != 0) {
                (at, &block[..length]).hash(&mut hasher);
            }
            at += i64::try_from(length).unwrap();
        }
    }
    (size, hasher.finish())
}
