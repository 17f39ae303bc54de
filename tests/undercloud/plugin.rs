//! The node plugin on a [`Machine`], and what an orchestrator asks of it.

use crate::machine::{Machine, PATIENCE, Running};
use crate::proto;
use crate::proto::node_client::NodeClient;
use fuxi_csi::model::{Bytes, Connection};
use fuxi_csi::node::mount::table::MountTable;
use proto::volume_capability::access_mode::Mode;
use serde_json::Value;
use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

pub(crate) const MIB: u64 = 1 << 20;

/// Where the volume of a test is staged and published on the machine.
pub(crate) const STAGING: &str = "/staging/globalmount";
pub(crate) const TARGET: &str = "/pods/one/mount";

/// The deadline of an RPC; kubelet's is as long.
const DEADLINE: Duration = Duration::from_secs(120);

/// A node plugin.
pub(crate) struct Plugin {
    pub(crate) machine: Machine,
    process: Running,
    client: NodeClient<Channel>,
    arguments: Vec<String>,
}

/// One volume as the orchestrator asks for it.
#[derive(Debug, Clone)]
pub(crate) struct Volume {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) data: Value,
    pub(crate) size: Option<u64>,
    pub(crate) secrets: HashMap<String, String>,
}

impl Volume {
    /// With a connection of this kind.
    pub(crate) fn of(kind: &str, data: Value) -> Self {
        Self {
            id: "b7f2c2a4-1d1e-4c55-9d6b-5f0f4f0a1c11".to_owned(),
            kind: kind.to_owned(),
            data,
            size: None,
            secrets: HashMap::new(),
        }
    }

    fn stage_request(&self) -> proto::NodeStageVolumeRequest {
        let connection = Connection {
            kind: self.kind.clone(),
            data: self.data.clone(),
            size: self.size.map(Bytes::new),
            read_only: false,
            sealed: None,
        };
        proto::NodeStageVolumeRequest {
            volume_id: self.id.clone(),
            publish_context: connection.to_context().unwrap(),
            staging_target_path: STAGING.to_owned(),
            volume_capability: Some(mounted()),
            secrets: self.secrets.clone().into_iter().collect(),
            ..Default::default()
        }
    }
}

fn mounted() -> proto::VolumeCapability {
    use proto::volume_capability::{AccessMode, AccessType, MountVolume};
    proto::VolumeCapability {
        access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    }
}

fn asked<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

impl Plugin {
    /// Starts the plugin on a machine, with more arguments, and waits until it serves.
    pub(crate) async fn start(machine: Machine, arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        // The orchestrator makes it.
        fs::create_dir_all(machine.path(STAGING)).unwrap();
        let process = spawn(&machine, &arguments);
        let client = connect(&machine).await;
        Self { machine, process, client, arguments }
    }

    /// kill -9 and a new start. Mounts are gone after it, as after a reboot; devices are not.
    pub(crate) async fn restart(&mut self) {
        self.process.kill();
        drop(fs::remove_file(self.machine.path("run/csi.sock")));
        self.process = spawn(&self.machine, &self.arguments);
        self.client = connect(&self.machine).await;
    }

    /// Where what is mounted in the machine is seen from this host.
    pub(crate) fn view(&self, inside: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.process.0.id())).join(inside.trim_start_matches('/'))
    }

    /// The command line and the environment of the plugin.
    pub(crate) fn shown(&self) -> String {
        let of = |name: &str| fs::read(format!("/proc/{}/{name}", self.process.0.id())).unwrap();
        String::from_utf8_lossy(&[of("cmdline"), of("environ")].concat()).replace('\0', " ")
    }

    pub(crate) fn log(&self) -> String {
        self.machine.read("tmp/driver.log")
    }

    pub(crate) async fn stage(&self, volume: &Volume) -> Result<(), Status> {
        self.stage_as(volume.stage_request()).await
    }

    pub(crate) async fn stage_as(&self, request: proto::NodeStageVolumeRequest) -> Result<(), Status> {
        self.client.clone().node_stage_volume(asked(request)).await.map(drop)
    }

    /// A request like the volume's, with another `publish_context`.
    pub(crate) async fn stage_with(&self, context: &[(&str, &str)]) -> Result<(), Status> {
        let mut request = Volume::of("any", Value::Null).stage_request();
        request.publish_context = context.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.stage_as(request).await
    }

    /// As often as it is in use still, which udev may be the cause of.
    pub(crate) async fn unstage(&self, volume: &Volume) -> Result<(), Status> {
        let begun = Instant::now();
        loop {
            match self.unstage_once(volume).await {
                Err(status) if status.code() == Code::Aborted && begun.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                other => return other,
            }
        }
    }

    async fn unstage_once(&self, volume: &Volume) -> Result<(), Status> {
        let request =
            proto::NodeUnstageVolumeRequest { volume_id: volume.id.clone(), staging_target_path: STAGING.to_owned() };
        self.client.clone().node_unstage_volume(asked(request)).await.map(drop)
    }

    pub(crate) async fn publish(&self, volume: &Volume) -> Result<(), Status> {
        let request = proto::NodePublishVolumeRequest {
            volume_id: volume.id.clone(),
            publish_context: volume.stage_request().publish_context,
            staging_target_path: STAGING.to_owned(),
            target_path: TARGET.to_owned(),
            volume_capability: Some(mounted()),
            ..Default::default()
        };
        self.client.clone().node_publish_volume(asked(request)).await.map(drop)
    }

    pub(crate) async fn unpublish(&self, volume: &Volume) -> Result<(), Status> {
        let request =
            proto::NodeUnpublishVolumeRequest { volume_id: volume.id.clone(), target_path: TARGET.to_owned() };
        self.client.clone().node_unpublish_volume(asked(request)).await.map(drop)
    }

    /// Lets the published volume grow to this size. Where the kernel does not let a mounted file system grow, the answer has
    /// to say what helps, and that is done.
    pub(crate) async fn grow(&self, volume: &Volume, size: u64) {
        if let Err(refused) = self.expand(volume, size).await {
            println!("ext4 does not grow here while mounted: {refused}");
            assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
            assert!(refused.message().contains("when it is staged the next time"), "{refused}");
            self.unpublish(volume).await.unwrap();
            self.unstage(volume).await.unwrap();
            self.assert_nothing_left("before it is staged the next time");
            self.stage(volume).await.unwrap();
            self.publish(volume).await.unwrap();
        }
        assert_eq!(self.expand(volume, size).await.unwrap(), size);
        let room = nix::sys::statvfs::statvfs(&self.view(TARGET)).unwrap();
        assert!(room.blocks() * room.fragment_size() > size * 8 / 10, "the file system did not grow");
    }

    async fn expand(&self, volume: &Volume, size: u64) -> Result<u64, Status> {
        let request = proto::NodeExpandVolumeRequest {
            volume_id: volume.id.clone(),
            volume_path: TARGET.to_owned(),
            staging_target_path: STAGING.to_owned(),
            capacity_range: Some(proto::CapacityRange { required_bytes: size.try_into().unwrap(), limit_bytes: 0 }),
            volume_capability: Some(mounted()),
            ..Default::default()
        };
        let answer = self.client.clone().node_expand_volume(asked(request)).await?;
        Ok(answer.into_inner().capacity_bytes.try_into().unwrap())
    }

    pub(crate) async fn node_id(&self) -> Result<String, Status> {
        let answer = self.client.clone().node_get_info(asked(proto::NodeGetInfoRequest {})).await?;
        Ok(answer.into_inner().node_id)
    }

    /// The file systems that the machine has mounted below these two places, in the words of its mount table.
    pub(crate) fn mounts(&self) -> Vec<(PathBuf, String)> {
        let text = fs::read(format!("/proc/{}/mountinfo", self.process.0.id())).unwrap();
        let table = MountTable::parse(&text).unwrap();
        let is_ours = |path: &Path| path.starts_with("/staging") || path.starts_with("/pods");
        let ours = table.entries().iter().filter(|entry| is_ours(&entry.mount_point));
        ours.map(|entry| (entry.mount_point.clone(), entry.fstype.clone())).collect()
    }

    /// Everything that a volume may leave on the machine: mounts, records, loop devices, programs that still run.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mounts = self.mounts().into_iter().map(|(path, _)| format!("mount {}", path.display()));
        let records = self.machine.names("plugin/volumes").into_iter().map(|name| format!("record {name}"));
        let devices = self
            .machine
            .loop_devices()
            .into_iter()
            .map(|(device, file)| format!("device {} of {file}", device.display()));
        let own = self.process.0.id();
        let programs = self.machine.processes().into_iter().filter(|(id, _)| *id != own);
        let programs = programs.map(|(id, line)| format!("process {id} {line}"));
        mounts.chain(records).chain(devices).chain(programs).collect()
    }

    /// What must be true of a call that was refused: its code, its words, and that it left nothing.
    pub(crate) fn assert_refused(&self, about: &str, answer: Result<(), Status>, code: Code, words: &[&str]) {
        let status = answer.expect_err(about);
        assert_eq!(status.code(), code, "{about}: {status}");
        for word in words {
            assert!(status.message().contains(word), "{about}: {word:?} is not in {:?}", status.message());
        }
        assert!(status.message().len() < 2500, "{about}: {} bytes of message", status.message().len());
        self.assert_nothing_left(about);
    }

    /// That a volume left nothing. Processes that were killed need a moment to be gone, and so do loop devices while
    /// somebody else of this host (udev) looks at them.
    pub(crate) fn assert_nothing_left(&self, about: &str) {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE
            && self.leftovers().iter().any(|left| !left.starts_with("mount") && !left.starts_with("record"))
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(self.leftovers(), Vec::<String>::new(), "{about}");
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.process.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the last lines of the driver's log:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}

fn spawn(machine: &Machine, arguments: &[String]) -> Running {
    let log = || File::options().create(true).append(true).open(machine.path("tmp/driver.log")).unwrap();
    let usual = [
        "node",
        "--attach",
        "host",
        "--endpoint",
        "unix:///run/csi.sock",
        "--plugin-dir",
        "/plugin",
        "--connector-dir",
        "/connectors",
        "--host-name",
        "rack-1",
        "--storage-address",
        "10.1.2.3",
        "--multipath",
        "false",
        "--zone",
        "nova",
        "--log-level",
        "info,fuxi_csi=debug",
    ];
    let all: Vec<&str> = usual.into_iter().chain(arguments.iter().map(String::as_str)).collect();
    let child = machine.driver(&all).stdin(Stdio::null()).stdout(log()).stderr(log()).spawn().unwrap();
    Running(child)
}

async fn connect(machine: &Machine) -> NodeClient<Channel> {
    let begun = Instant::now();
    let socket = format!("unix:{}", machine.path("run/csi.sock").display());
    loop {
        match Endpoint::from_shared(socket.clone()).unwrap().connect().await {
            Ok(channel) => return NodeClient::new(channel),
            Err(error) if begun.elapsed() > PATIENCE => {
                panic!("the driver does not serve: {error}; its log:\n{}", machine.read("tmp/driver.log"))
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}
