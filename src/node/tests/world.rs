//! A node in a folder. Every program, mount and connection passes [`Steps`], which fails or kills at a chosen one.

use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::exec::scripted::ScriptedExec;
use crate::exec::{Command, Exec, Output};
use crate::model::{AccessKind, AccessMode, Bytes, Capability, Connection, Secrets, SizeRange, StringMap, VolumeId};
use crate::node::connector::{Connector, Connectors, Link, Source};
use crate::node::device::{Device, DeviceNumber, Host, fake};
use crate::node::filesystem::Filesystems;
use crate::node::identity::{Identity, IdentityOptions};
use crate::node::keychain::Keychain;
use crate::node::mount::memory::MemoryMounter;
use crate::node::mount::table::{MountEntry, MountTable};
use crate::node::mount::{Mount, Mounter, Pulse, Unmount};
use crate::node::{Node, NodeParts, PublishRequest, StageRequest, Stats};
use async_trait::async_trait;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use sys_mount::MountFlags;
use tokio::sync::Notify;

pub(super) const SIZE: u64 = 64 << 20;
pub(super) const VOLUME: &str = "5a1c7b52-0d0f-4a57-9f34-3c1f1b4ad0aa";

/// What happens at the chosen step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mishap {
    /// It fails.
    Fail,
    /// The driver is killed there.
    Kill,
}

/// Counts the steps of all calls, and lets one of them go wrong.
#[derive(Debug, Default)]
pub(super) struct Steps {
    count: AtomicUsize,
    mishap: Mutex<Option<(usize, Mishap)>>,
    killed: Notify,
    names: Mutex<Vec<String>>,
}

impl Steps {
    pub(super) fn go_wrong_at(&self, step: usize, mishap: Mishap) {
        self.count.store(0, Ordering::SeqCst);
        self.names.lock().unwrap().clear();
        *self.mishap.lock().unwrap() = Some((step, mishap));
    }

    pub(super) fn go_well(&self) {
        *self.mishap.lock().unwrap() = None;
    }

    /// How many steps there were since a mishap was chosen.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    pub(super) fn last(&self) -> String {
        self.names.lock().unwrap().last().cloned().unwrap_or_default()
    }

    async fn pass(&self, name: String) -> Result<()> {
        let step = self.count.fetch_add(1, Ordering::SeqCst);
        self.names.lock().unwrap().push(name.clone());
        let mishap = *self.mishap.lock().unwrap();
        match mishap {
            Some((at, Mishap::Fail)) if at == step => Err(Error::internal(format!("injected at {name}"))),
            Some((at, Mishap::Kill)) if at == step => {
                self.killed.notify_one();
                std::future::pending().await
            }
            _ => Ok(()),
        }
    }
}

/// A disk that has to be connected. What is on it is in its file.
#[derive(Debug)]
pub(super) struct FakeConnector {
    root: PathBuf,
    steps: Arc<Steps>,
    pub(super) size: Mutex<u64>,
    /// Another disk is found where the volume was, from this look on.
    pub(super) replaced_at_look: Mutex<Option<usize>>,
    /// Whether the kernel tells disks apart by a count, as it does since Linux 5.15.
    pub(super) counts_disks: AtomicBool,
    looks: AtomicUsize,
}

impl FakeConnector {
    fn device(&self) -> Option<Device> {
        let look = self.looks.fetch_add(1, Ordering::SeqCst);
        let device = Host::below(&self.root).device("vdb").unwrap()?;
        let is_replaced = self.replaced_at_look.lock().unwrap().is_some_and(|from| look >= from);
        let sequence = if is_replaced { Some(99) } else { device.sequence };
        Some(Device { sequence: sequence.filter(|_| self.counts_disks.load(Ordering::SeqCst)), ..device })
    }
}

#[async_trait]
impl Connector for FakeConnector {
    fn kinds(&self) -> &[&str] {
        &["fake"]
    }

    async fn connect(&self, _call: &Call, link: &Link) -> Result<Source> {
        self.steps.pass("before connect".to_owned()).await?;
        let size = *self.size.lock().unwrap();
        fake::add_disk(&self.root, "vdb", 16, size, None);
        self.steps.pass("after connect".to_owned()).await?;
        let device = self.device().ok_or_else(|| Error::new(Kind::Unavailable, "no disk"))?;
        if device.size < link.connection.size.unwrap_or(Bytes::new(1)) {
            return Err(Error::wrong_state("smaller than promised"));
        }
        Ok(Source::Block(device))
    }

    async fn locate(&self, _call: &Call, _link: &Link) -> Result<Option<Source>> {
        Ok(self.device().map(Source::Block))
    }

    async fn rescan(&self, _call: &Call, _link: &Link, _size: Bytes) -> Result<Source> {
        self.device().map(Source::Block).ok_or_else(|| Error::not_found("no disk"))
    }

    async fn disconnect(&self, _call: &Call, _link: &Link) -> Result<()> {
        self.steps.pass("before disconnect".to_owned()).await?;
        // The disk goes; its content stays, as in the cloud.
        let host = Host::below(&self.root);
        drop(fs::remove_dir_all(host.sysfs("vdb")));
        drop(fs::remove_file(host.path("/sys/dev/block/252:16")));
        self.steps.pass("after disconnect".to_owned()).await
    }
}

#[derive(Debug)]
struct SteppedExec(ScriptedExec, Arc<Steps>);

#[async_trait]
impl Exec for SteppedExec {
    fn finds(&self, program: &str) -> bool {
        self.0.finds(program)
    }

    async fn run(&self, call: &Call, command: Command) -> Result<Output> {
        let name = command.program().to_owned();
        self.1.pass(format!("before {name}")).await?;
        if name.starts_with("mkfs") {
            // Half of it: what is on the disk now is nothing that is known.
            let device = PathBuf::from(command.arguments().last().unwrap());
            write(&device, 4096, b"half");
            self.1.pass("in mkfs".to_owned()).await?;
        }
        let output = self.0.run(call, command).await?;
        self.1.pass(format!("after {name}")).await?;
        Ok(output)
    }
}

#[derive(Debug)]
struct SteppedMounter(MemoryMounter, Arc<Steps>);

#[async_trait]
impl Mounter for SteppedMounter {
    async fn table(&self, call: &Call) -> Result<MountTable> {
        self.0.table(call).await
    }
    async fn mount(&self, call: &Call, mount: &Mount) -> Result<()> {
        self.1.pass("before mount".to_owned()).await?;
        self.0.mount(call, mount).await?;
        self.1.pass("after mount".to_owned()).await
    }
    async fn bind(&self, call: &Call, source: &Path, target: &Path) -> Result<()> {
        self.1.pass("before bind".to_owned()).await?;
        self.0.bind(call, source, target).await?;
        self.1.pass("after bind".to_owned()).await
    }
    async fn set_flags(&self, call: &Call, target: &Path, flags: MountFlags) -> Result<()> {
        self.1.pass("before set flags".to_owned()).await?;
        self.0.set_flags(call, target, flags).await?;
        self.1.pass("after set flags".to_owned()).await
    }
    async fn unmount(&self, call: &Call, target: &Path, how: Unmount) -> Result<()> {
        self.1.pass("before unmount".to_owned()).await?;
        self.0.unmount(call, target, how).await?;
        self.1.pass("after unmount".to_owned()).await
    }
    async fn statistics(&self, call: &Call, path: &Path) -> Result<Stats> {
        self.0.statistics(call, path).await
    }
    async fn pulse(&self, call: &Call, path: &Path) -> Result<Pulse> {
        self.0.pulse(call, path).await
    }
    async fn block_device(&self, call: &Call, path: &Path) -> Result<Option<DeviceNumber>> {
        self.0.block_device(call, path).await
    }
}

/// A node, and everything around it.
pub(super) struct World {
    folder: tempfile::TempDir,
    pub(super) node: Node,
    pub(super) steps: Arc<Steps>,
    pub(super) exec: ScriptedExec,
    pub(super) mounter: MemoryMounter,
    pub(super) connector: Arc<FakeConnector>,
}

impl World {
    /// With a blank volume.
    pub(super) fn new() -> Self {
        // In memory where that is possible: a record is synced to the disk each time.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("sys/class/block")).unwrap();
        fs::create_dir_all(root.join("dev")).unwrap();
        let steps = Arc::new(Steps::default());
        let connector = Arc::new(FakeConnector {
            root: root.clone(),
            steps: steps.clone(),
            size: Mutex::new(SIZE),
            replaced_at_look: Mutex::default(),
            counts_disks: AtomicBool::new(true),
            looks: AtomicUsize::new(0),
        });
        let mounter = MemoryMounter::new();
        mounter.set_device(&root.join("dev/vdb"), Some(DeviceNumber { major: 252, minor: 16 }));
        let exec = programs(&root.join("dev/vdb"));
        let node = node(&root, &exec, &mounter, &connector, &steps);
        let world = Self { folder, node, steps, exec, mounter, connector };
        world.boot("first");
        world
    }

    /// What the kernel says of this boot.
    pub(super) fn boot(&self, id: &str) {
        let directory = self.root().join("proc/sys/kernel/random");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("boot_id"), format!("{id}\n")).unwrap();
    }

    /// The driver is started anew.
    pub(super) fn restart(&mut self) {
        self.node = node(&self.root(), &self.exec, &self.mounter, &self.connector, &self.steps);
    }

    pub(super) fn root(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap()
    }

    pub(super) fn disk(&self) -> PathBuf {
        self.root().join("dev/vdb")
    }

    pub(super) fn staging_path(&self) -> PathBuf {
        self.root().join("stage")
    }

    pub(super) fn target_path(&self) -> PathBuf {
        self.root().join("pods/one/mount")
    }

    /// How large the ext4 on the disk says it is.
    pub(super) fn filesystem_size(&self) -> u64 {
        let mut blocks = [0; 4];
        fs::File::open(self.disk()).unwrap().read_exact_at(&mut blocks, 1024 + 4).unwrap();
        4096 * u64::from(u32::from_le_bytes(blocks))
    }

    pub(super) fn write(&self, at: u64, bytes: &[u8]) {
        write(&self.disk(), at, bytes);
    }

    pub(super) fn stage_request(&self, capability: Capability) -> StageRequest {
        StageRequest {
            volume: volume(),
            connection: Connection {
                kind: "fake".to_owned(),
                data: serde_json::json!({}),
                size: Some(Bytes::new(SIZE)),
                read_only: false,
                sealed: None,
            },
            staging_path: self.staging_path(),
            capability,
            volume_context: StringMap::new(),
            secrets: Secrets::new(),
        }
    }

    pub(super) fn publish_request(&self, capability: Capability, read_only: bool) -> PublishRequest {
        PublishRequest {
            volume: volume(),
            staging_path: self.staging_path(),
            target_path: self.target_path(),
            capability,
            read_only,
            volume_context: StringMap::new(),
        }
    }

    pub(super) async fn stage(&self) -> Result<()> {
        self.node.stage(&call(), &self.stage_request(mounted())).await
    }

    pub(super) async fn unstage(&self) -> Result<()> {
        self.node.unstage(&call(), &volume(), &self.staging_path()).await
    }

    pub(super) async fn publish(&self, read_only: bool) -> Result<()> {
        self.node.publish(&call(), &self.publish_request(mounted(), read_only)).await
    }

    pub(super) async fn unpublish(&self) -> Result<()> {
        self.node.unpublish(&call(), &volume(), &self.target_path()).await
    }

    pub(super) async fn expand(&self, path: &Path, required: u64) -> Result<Bytes> {
        let size = SizeRange { required: Bytes::new(required), limit: None };
        self.node.expand(&call(), &volume(), path, Some(&self.staging_path()), size).await
    }

    /// Runs a call until it ends or is killed at the chosen step.
    pub(super) async fn until_killed(&self, work: impl Future<Output = Result<()>>) -> Option<Result<()>> {
        tokio::select! {
            result = work => Some(result),
            () = self.steps.killed.notified() => None,
        }
    }

    pub(super) fn mounts_at(&self, path: &Path) -> Vec<MountEntry> {
        self.mounter.mounted().into_iter().filter(|entry| entry.mount_point == path).collect()
    }

    pub(super) fn is_connected(&self) -> bool {
        Host::below(self.root()).device("vdb").unwrap().is_some()
    }

    /// All that must not be there when nothing is staged or published.
    pub(super) fn leftovers(&self) -> Vec<String> {
        let mut left: Vec<String> =
            self.mounter.mounted().iter().map(|entry| format!("mount on {}", entry.mount_point.display())).collect();
        for folder in ["plugin/volumes", "plugin/publishing"] {
            let entries = fs::read_dir(self.root().join(folder)).into_iter().flatten();
            left.extend(entries.map(|entry| entry.unwrap().path().display().to_string()));
        }
        if self.is_connected() {
            left.push("the disk".to_owned());
        }
        if self.target_path().exists() {
            left.push("the target".to_owned());
        }
        left
    }
}

fn node(
    root: &Path,
    exec: &ScriptedExec,
    mounter: &MemoryMounter,
    connector: &Arc<FakeConnector>,
    steps: &Arc<Steps>,
) -> Node {
    Node::new(NodeParts {
        exec: Arc::new(SteppedExec(exec.clone(), steps.clone())),
        mounter: Arc::new(SteppedMounter(mounter.clone(), steps.clone())),
        connectors: Connectors::new()
            .with(Arc::new(crate::node::connector::share::FileServer::new()))
            .with(connector.clone()),
        filesystems: Filesystems::default(),
        identity: Identity::new(IdentityOptions::default(), Vec::new()),
        keychain: Keychain::none(),
        host: Host::below(root),
        plugin_dir: root.join("plugin"),
        default_fstype: "ext4".to_owned(),
    })
    .unwrap()
}

/// blkid, mkfs, e2fsck, resize2fs and blockdev for a disk that is a file: just enough of an ext4 superblock.
fn programs(disk: &Path) -> ScriptedExec {
    let exec = ScriptedExec::new();
    let path = disk.to_owned();
    exec.does("blkid -p", move |command| {
        let mut magic = [0; 2];
        let file = fs::File::open(&path).map_err(|error| Error::internal("open").because(error))?;
        let is_ext = file.read_exact_at(&mut magic, 1024 + 0x38).is_ok() && magic == [0x53, 0xef];
        Ok(match is_ext {
            true => Output::of(command, 0, "UUID=1-2\nTYPE=ext4\nUSAGE=filesystem\n", ""),
            false => Output::of(command, 2, "", ""),
        })
    });
    for program in ["mkfs.ext4", "resize2fs"] {
        let path = disk.to_owned();
        exec.does(program, move |command| {
            let blocks = u32::try_from(fs::metadata(&path).unwrap().len() / 4096).unwrap();
            write(&path, 1024 + 0x18, &[2]);
            write(&path, 1024 + 4, &blocks.to_le_bytes());
            write(&path, 1024 + 0x38, &[0x53, 0xef]);
            Ok(Output::of(command, 0, "", ""))
        });
    }
    exec.always("e2fsck", 0, "clean", "");
    exec
}

fn write(path: &Path, at: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

pub(super) fn call() -> Call {
    Call::lasting(Duration::from_secs(30))
}

pub(super) fn volume() -> VolumeId {
    VOLUME.parse().unwrap()
}

pub(super) fn mounted() -> Capability {
    let kind = AccessKind::Mount { fstype: Some("ext4".to_owned()), options: Vec::new(), group: None };
    Capability { mode: AccessMode::SingleNodeWriter, kind }
}

pub(super) fn raw() -> Capability {
    Capability { mode: AccessMode::SingleNodeWriter, kind: AccessKind::Block }
}
