//! The config drive: a small disk on which Nova leaves the metadata.

use super::{Server, Source, read_meta_data};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::exec::{Command, Exec};
use crate::node::blocking;
use crate::node::mount::options::MountOptions;
use crate::node::mount::{Mount, Mounter, Unmount, place};
use async_trait::async_trait;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The label of its file system.
const LABEL: &str = "config-2";

/// What Nova puts on it.
const FILESYSTEMS: [&str; 2] = ["iso9660", "vfat"];

/// The metadata on it.
const META_DATA: &str = "openstack/latest/meta_data.json";

/// The time that taking it away again gets.
const CLEAR_TIME: Duration = Duration::from_secs(30);

/// Reads the config drive.
#[derive(Debug)]
pub struct ConfigDrive {
    exec: Arc<dyn Exec>,
    mounter: Arc<dyn Mounter>,
    mount_point: PathBuf,
}

impl ConfigDrive {
    /// Mounts the drive in a directory of the driver's own, for the time of a look.
    #[must_use]
    pub fn new(exec: Arc<dyn Exec>, mounter: Arc<dyn Mounter>, plugin_dir: &Path) -> Self {
        Self { exec, mounter, mount_point: plugin_dir.join("config-drive") }
    }

    async fn find(&self, call: &Call) -> Result<(PathBuf, String)> {
        let command = Command::new("blkid").args(["-t", &format!("LABEL={LABEL}"), "-o", "device"]);
        let output = self.exec.run(call, command).await?;
        let device = match output.code {
            0 => output.stdout.lines().next().map(PathBuf::from),
            2 => None,
            _ => return Err(output.failure(Kind::Internal)),
        };
        let device = device.ok_or_else(|| Error::not_found(format!("no disk has a file system labelled {LABEL}")))?;
        let command = Command::new("blkid").args(["-o", "value", "-s", "TYPE"]).arg(&device);
        let fstype = self.exec.run(call, command).await?.success()?.stdout.trim().to_owned();
        if FILESYSTEMS.contains(&fstype.as_str()) {
            Ok((device, fstype))
        } else {
            Err(Error::internal(format!("{} is labelled {LABEL} and holds {fstype:?}", device.display())))
        }
    }

    async fn read(&self, call: &Call, mount_point: &Path) -> Result<Server> {
        let file = mount_point.join(META_DATA);
        blocking::run(call, "read the config drive", move || {
            let text = fs::read(&file)
                .map_err(|error: io::Error| Error::internal(format!("read {}", file.display())).because(error))?;
            read_meta_data(&text)
        })
        .await
    }
}

#[async_trait]
impl Source for ConfigDrive {
    fn name(&self) -> &'static str {
        "config-drive"
    }

    async fn ask(&self, call: &Call) -> Result<Server> {
        let (device, fstype) = self.find(call).await?;
        let number = self.mounter.block_device(call, &device).await?;
        let table = self.mounter.table(call).await?;
        if let Some(entry) = number.and_then(|number| table.of(number).next()) {
            return self.read(call, &entry.mount_point).await;
        }
        place::make(call, &self.mount_point, place::Shape::Directory).await?;
        let mount = Mount {
            secret: None,
            source: device,
            target: self.mount_point.clone(),
            fstype,
            options: MountOptions::parse(["ro", "nosuid", "nodev", "noexec"])?,
        };
        self.mounter.mount(call, &mount).await?;
        let server = self.read(call, &self.mount_point).await;
        let call = Call::lasting(CLEAR_TIME);
        self.mounter.unmount(&call, &self.mount_point, Unmount::Detach).await?;
        place::remove(&call, &self.mount_point).await?;
        server
    }
}
