//! Volumes that are raw files on an NFS export: Cinder's connections of type `nfs`. The export is mounted once for all
//! its volumes, and each file becomes a loop device.
//!
//! Every host that can mount an export can write to every volume on it, and no detaching keeps it off. So this is off unless
//! the operator asks for it. Only raw files: a qcow2 image in the place of one would be shown as it lies there.

use super::lock::{Held, Locks};
use super::release::release;
use super::{Connector, Link, Source};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::exec::{Command, Exec};
use crate::model::Bytes;
use crate::node::blocking;
use crate::node::connector::local::device_at;
use crate::node::device::{Device, Host};
use crate::node::mount::{Mounter, Unmount};
use crate::node::record::digest;
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

/// Cinder's `driver_volume_type`.
const KIND: &str = "nfs";

/// What an operator of Cinder may put into `nfs_mount_options`; the rest is no matter of this node.
const OPTIONS: [&str; 16] = [
    "vers",
    "nfsvers",
    "minorversion",
    "proto",
    "port",
    "rsize",
    "wsize",
    "timeo",
    "retrans",
    "hard",
    "soft",
    "nconnect",
    "sec",
    "noatime",
    "nodiratime",
    "lookupcache",
];

/// An image of QEMU begins so.
const QCOW2: &[u8] = b"QFI\xfb";

/// Mounts exports and makes loop devices of files.
#[derive(Debug)]
pub struct NfsFile {
    host: Host,
    exec: Arc<dyn Exec>,
    mounter: Arc<dyn Mounter>,
    directory: PathBuf,
    /// Mounting and unmounting an export is for one at a time, and so is the search for a free loop device.
    locks: Locks,
}

/// Where a volume is.
#[derive(Debug)]
struct Place {
    export: String,
    options: String,
    /// Where the export is mounted.
    mount_point: PathBuf,
    file: PathBuf,
}

/// What `losetup --json` says.
#[derive(Debug, Deserialize)]
struct Loops {
    loopdevices: Vec<Loop>,
}

#[derive(Debug, Deserialize)]
struct Loop {
    name: String,
    #[serde(rename = "back-file")]
    file: Option<PathBuf>,
}

impl NfsFile {
    /// On this machine, with mount points below this directory.
    #[must_use]
    pub fn new(host: Host, exec: Arc<dyn Exec>, mounter: Arc<dyn Mounter>, directory: impl Into<PathBuf>) -> Self {
        Self { host, exec, mounter, directory: directory.into(), locks: Locks::default() }
    }

    fn place(&self, link: &Link) -> Result<Place> {
        let text = |key: &str| link.connection.data.get(key).and_then(Value::as_str);
        let wrong = |what: &str, value: &str| {
            Error::invalid(format!("volume {}: connection_info has {what} {value:?}, which cannot be", link.volume))
        };
        let (export, name) = (text("export").unwrap_or_default(), text("name").unwrap_or_default());
        let is_plain =
            |text: &str| !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == ',');
        let is_export = is_plain(export)
            && !export.starts_with('-')
            && export
                .split_once(":/")
                .is_some_and(|(server, path)| !server.is_empty() && !path.split('/').any(|part| part == ".."));
        if !is_export {
            return Err(wrong("export", export));
        }
        if !is_plain(name) || name.contains('/') || name.starts_with(['.', '-']) {
            return Err(wrong("name", name));
        }
        if let Some(format) = text("format").filter(|format| *format != "raw") {
            return Err(Error::unsupported(format!(
                "volume {} is a {format} image on NFS, and only raw ones can be used here: set nfs_qcow2_volumes = false in Cinder",
                link.volume
            )));
        }
        let given = text("options").unwrap_or_default();
        let options = given.trim().strip_prefix("-o").unwrap_or(given).trim();
        for option in options.split(',').filter(|option| !option.is_empty()) {
            let key = option.split_once('=').map_or(option, |(key, _)| key);
            if !OPTIONS.contains(&key) || !is_plain(option) {
                return Err(wrong("the mount option", option));
            }
        }
        let mount_point = self.directory.join(format!("{:016x}", digest(export.as_bytes())));
        let file = mount_point.join(name);
        Ok(Place { export: export.to_owned(), options: options.to_owned(), mount_point, file })
    }

    /// Mounts the export if it is not.
    async fn mount(&self, call: &Call, place: &Place) -> Result<()> {
        let table = self.mounter.table(call).await?;
        if let Some(entry) = table.top(&place.mount_point) {
            return if entry.source.as_os_str() == place.export.as_str() {
                Ok(())
            } else {
                Err(Error::wrong_state(format!(
                    "{} has {} mounted and not {}",
                    place.mount_point.display(),
                    entry.source.display(),
                    place.export
                )))
            };
        }
        let directory = place.mount_point.clone();
        blocking::run(call, "make a mount point", move || {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)
                .map_err(|error| Error::internal(format!("make {}", directory.display())).because(error))
        })
        .await?;
        let mut command = Command::new("mount").args(["-t", "nfs"]).to_the_end();
        if !place.options.is_empty() {
            command = command.arg("-o").arg(&place.options);
        }
        let output = self.exec.run(call, command.arg(&place.export).arg(&place.mount_point)).await?;
        if output.code == 0 { Ok(()) } else { Err(output.failure(Kind::Unavailable)) }
    }

    /// Unmounts the export if none of its files is in use as a loop device.
    async fn unmount_if_unused(&self, call: &Call, place: &Place) -> Result<()> {
        let in_use = self
            .loops(call)
            .await?
            .iter()
            .any(|one| one.file.as_ref().is_some_and(|file| file.starts_with(&place.mount_point)));
        let table = self.mounter.table(call).await?;
        if in_use || table.top(&place.mount_point).is_none() {
            return Ok(());
        }
        match self.mounter.unmount(call, &place.mount_point, Unmount::Unused).await {
            // Somebody looks at it: the next one to go unmounts it.
            Err(error) if error.is(Kind::Busy) => Ok(()),
            other => other,
        }
    }

    async fn loops(&self, call: &Call) -> Result<Vec<Loop>> {
        let command = Command::new("losetup").args(["--list", "--json", "--output", "NAME,BACK-FILE"]);
        let output = self.exec.run(call, command).await?.success()?;
        if output.stdout.trim().is_empty() {
            return Ok(Vec::new());
        }
        let loops: Loops = serde_json::from_str(&output.stdout)
            .map_err(|error| Error::internal("read the list of loop devices").because(error))?;
        Ok(loops.loopdevices)
    }

    /// The loop device of a file, if there is one.
    async fn find(&self, call: &Call, place: &Place, link: &Link) -> Result<Option<Device>> {
        let loops = self.loops(call).await?;
        let mut names = loops.into_iter().filter(|one| one.file.as_ref() == Some(&place.file)).map(|one| one.name);
        let Some(name) = names.next() else { return Ok(None) };
        if let Some(other) = names.next() {
            return Err(Error::wrong_state(format!("both {name} and {other} show {}", place.file.display())));
        }
        let host = self.host.clone();
        let device = blocking::run(call, "look at a loop device", move || device_at(&host, name.as_ref())).await?;
        let identity = format!("{}/{}", place.export, place.file.file_name().unwrap_or_default().to_string_lossy());
        if let Some(known) =
            link.device.as_ref().and_then(|device| device.wwid.as_ref()).filter(|known| **known != identity)
        {
            return Err(Error::wrong_state(format!("volume {} was {known} and is {identity} now", link.volume)));
        }
        Ok(device.map(|device| Device { wwid: Some(identity), ..device }))
    }

    async fn hold(&self, call: &Call) -> Result<Held> {
        self.locks.hold(call, [KIND.to_owned()]).await
    }

    /// Mounts the export and makes the file a loop device, if it is none; says whether it made one.
    async fn bring(&self, call: &Call, place: &Place, link: &Link, is_made: &mut bool) -> Result<Device> {
        self.mount(call, place).await?;
        if self.find(call, place, link).await?.is_none() {
            self.check(call, place).await?;
            let mut command = Command::new("losetup").arg("--find").to_the_end();
            if link.is_read_only() {
                command = command.arg("--read-only");
            }
            *is_made = true;
            self.exec.run(call, command.arg(&place.file)).await?.success()?;
        }
        let gone = || Error::new(Kind::Unavailable, format!("{} shows up as no loop device", place.file.display()));
        let device = self.find(call, place, link).await?.ok_or_else(gone)?;
        match link.connection.size {
            Some(promised) if device.size < promised => Err(Error::wrong_state(format!(
                "{} has only {} where {promised} were promised for volume {}: it is not used",
                place.file.display(),
                device.size,
                link.volume
            ))),
            _ => Ok(device),
        }
    }

    /// Takes away what a call that failed has made.
    async fn undo(&self, call: &Call, held: &Held, place: &Place, is_made: bool) -> Result<()> {
        if is_made {
            let loops = self.loops(call).await?;
            for name in loops.into_iter().filter(|one| one.file.as_ref() == Some(&place.file)).map(|one| one.name) {
                let host = self.host.clone();
                let device =
                    blocking::run(call, "look at a loop device", move || device_at(&host, name.as_ref())).await?;
                if let Some(device) = device {
                    self.detach(call, held, place, &device).await?;
                }
            }
        }
        self.unmount_if_unused(call, place).await
    }

    /// Gives a loop device back, unless it is in use. What was written to it is on the server before: the kernel keeps it in
    /// the cache of the export otherwise, which stays mounted for other volumes, and the next node would not see it.
    async fn detach(&self, call: &Call, held: &Held, place: &Place, device: &Device) -> Result<()> {
        release(call, held, device).await?;
        let detach = Command::new("losetup").arg("--detach").arg(&device.path).to_the_end();
        self.exec.run(call, detach).await?.success()?;
        // The kernel keeps a device that is open until it is closed.
        if self.loops(call).await?.iter().any(|one| one.file.as_ref() == Some(&place.file)) {
            return Err(Error::busy(format!("{} is still in use", device.path.display())));
        }
        Ok(())
    }

    /// Refuses a file that is not there, or no raw one.
    async fn check(&self, call: &Call, place: &Place) -> Result<()> {
        let file = place.file.clone();
        blocking::run(call, "look at the volume's file", move || {
            let unreadable = |error: io::Error| {
                let kind = if error.kind() == io::ErrorKind::NotFound { Kind::WrongState } else { Kind::Unavailable };
                Error::new(kind, format!("read {}", file.display())).because(error)
            };
            let mut start = [0; 4];
            let mut open = std::fs::File::open(&file).map_err(unreadable)?;
            if !open.metadata().map_err(unreadable)?.is_file() {
                return Err(Error::wrong_state(format!("{} is no file", file.display())));
            }
            let is_image = io::Read::read_exact(&mut open, &mut start).is_ok() && start == QCOW2;
            if is_image {
                return Err(Error::unsupported(format!(
                    "{} is a qcow2 image, and only raw files can be used here",
                    file.display()
                )));
            }
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl Connector for NfsFile {
    fn kinds(&self) -> &[&str] {
        &[KIND]
    }

    async fn connect(&self, call: &Call, link: &Link) -> Result<Source> {
        let place = self.place(link)?;
        let held = self.hold(call).await?;
        let mut is_made = false;
        let result = self.bring(call, &place, link, &mut is_made).await;
        if result.is_err()
            && let Err(left) = self.undo(call, &held, &place, is_made).await
        {
            tracing::warn!(volume = %link.volume, error = %left, "a loop device or a mounted export is left behind");
        }
        result.map(Source::Block)
    }

    async fn locate(&self, call: &Call, link: &Link) -> Result<Option<Source>> {
        Ok(self.find(call, &self.place(link)?, link).await?.map(Source::Block))
    }

    async fn rescan(&self, call: &Call, link: &Link, size: Bytes) -> Result<Source> {
        let place = self.place(link)?;
        let gone = || Error::not_found(format!("volume {} is not on this node", link.volume));
        let device = self.find(call, &place, link).await?.ok_or_else(gone)?;
        if device.size < size {
            // Opened, its size is asked of the server again; what the client remembers may be a minute old.
            let file = place.file.clone();
            blocking::run(call, "look at the volume's file", move || {
                std::fs::File::open(&file).and_then(|open| open.metadata()).map(drop).map_err(|error| {
                    Error::new(Kind::Unavailable, format!("read the size of {}", file.display())).because(error)
                })
            })
            .await?;
            let command = Command::new("losetup").arg("--set-capacity").arg(&device.path).to_the_end();
            self.exec.run(call, command).await?.success()?;
        }
        self.find(call, &place, link).await?.map(Source::Block).ok_or_else(gone)
    }

    async fn disconnect(&self, call: &Call, link: &Link) -> Result<()> {
        let place = self.place(link)?;
        let held = self.hold(call).await?;
        if let Some(device) = self.find(call, &place, link).await? {
            self.detach(call, &held, &place, &device).await?;
        }
        self.unmount_if_unused(call, &place).await
    }
}

#[cfg(test)]
mod tests {
    use super::NfsFile;
    use crate::call::Call;
    use crate::error::Kind;
    use crate::exec::Output;
    use crate::exec::scripted::ScriptedExec;
    use crate::model::{AccessMode, Bytes, Connection, Secrets};
    use crate::node::connector::{Connector, Link, Source};
    use crate::node::device::{Device, Host, fake};
    use crate::node::mount::memory::MemoryMounter;
    use crate::node::mount::options::MountOptions;
    use crate::node::mount::{Mount, Mounter};
    use serde_json::{Value, json};
    use std::path::PathBuf;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    const EXPORT: &str = "10.0.0.1:/srv/cinder";

    /// A machine on which losetup and mount are played.
    struct Bench {
        _root: tempfile::TempDir,
        exec: ScriptedExec,
        mounter: MemoryMounter,
        connector: NfsFile,
        attached: Arc<Mutex<Option<PathBuf>>>,
    }

    impl Bench {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let (exec, mounter) = (ScriptedExec::new(), MemoryMounter::new());
            let attached = Arc::new(Mutex::new(None));
            let at = root.path().to_owned();
            let now = Arc::clone(&attached);
            exec.does("losetup --list", move |command| {
                let loops: Vec<Value> =
                    now.lock().unwrap().iter().map(|file| json!({"name": "/dev/loop7", "back-file": file})).collect();
                Ok(Output::of(command, 0, json!({ "loopdevices": loops }).to_string(), ""))
            });
            let now = Arc::clone(&attached);
            exec.does("losetup --find", move |command| {
                let file = PathBuf::from(command.arguments().last().unwrap());
                fake::add_disk(&at, "loop7", 7, std::fs::metadata(&file).unwrap().len(), None);
                *now.lock().unwrap() = Some(file);
                Ok(Output::of(command, 0, "", ""))
            });
            let now = Arc::clone(&attached);
            exec.does("losetup --detach", move |command| {
                *now.lock().unwrap() = None;
                Ok(Output::of(command, 0, "", ""))
            });
            let connector = NfsFile::new(
                Host::below(root.path()),
                Arc::new(exec.clone()),
                Arc::new(mounter.clone()),
                root.path().join("exports"),
            );
            Self { _root: root, exec, mounter, connector, attached }
        }

        /// The export as the kernel would have it mounted, with a file on it.
        async fn mounted(&self, size: u64) {
            let place = self.connector.place(&link()).unwrap();
            std::fs::create_dir_all(&place.mount_point).unwrap();
            std::fs::File::create(&place.file).unwrap().set_len(size).unwrap();
            let options = MountOptions::parse([]).unwrap();
            let mount = Mount {
                source: EXPORT.into(),
                target: place.mount_point,
                fstype: "nfs4".to_owned(),
                options,
                secret: None,
            };
            self.mounter.mount(&call(), &mount).await.unwrap();
        }

        async fn connect(&self, link: &Link) -> crate::error::Result<Device> {
            match self.connector.connect(&call(), link).await? {
                Source::Block(device) => Ok(device),
                Source::Share(share) => panic!("{share:?}"),
            }
        }
    }

    fn call() -> Call {
        Call::lasting(Duration::from_secs(20))
    }

    fn with(data: Value) -> Link {
        Link {
            volume: "v".parse().unwrap(),
            connection: Connection {
                kind: "nfs".to_owned(),
                data,
                size: Some(Bytes::new(Bytes::GIB)),
                read_only: false,
                sealed: None,
            },
            secrets: Secrets::new(),
            mode: AccessMode::SingleNodeWriter,
            device: None,
        }
    }

    fn link() -> Link {
        with(json!({"export": EXPORT, "name": "volume-1", "options": "-o vers=4.2,hard"}))
    }

    #[tokio::test]
    async fn a_file_becomes_a_loop_device_once_and_goes_with_its_export() {
        let bench = Bench::new();
        bench.mounted(Bytes::GIB).await;
        let device = bench.connect(&link()).await.unwrap();
        assert_eq!((device.name.as_str(), device.wwid.as_deref()), ("loop7", Some("10.0.0.1:/srv/cinder/volume-1")));
        assert_eq!(bench.connect(&link()).await.unwrap(), device);
        assert_eq!(bench.exec.ran().iter().filter(|line| line.starts_with("losetup --find")).count(), 1);
        let known = Link { device: Some(device), ..link() };
        assert!(bench.connector.locate(&call(), &known).await.unwrap().is_some());
        bench.connector.disconnect(&call(), &known).await.unwrap();
        assert_eq!(*bench.attached.lock().unwrap(), None);
        assert_eq!(bench.mounter.table(&call()).await.unwrap().entries().len(), 0, "the export is unmounted");
        bench.connector.disconnect(&call(), &known).await.unwrap();
        assert_eq!(bench.connector.locate(&call(), &known).await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_export_that_is_not_mounted_is_mounted_with_cinders_options() {
        let bench = Bench::new();
        bench.exec.once("mount -t nfs", 32, "", "mount.nfs: Connection refused");
        let error = bench.connect(&link()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        let ran = bench.exec.ran();
        assert!(ran[0].starts_with("mount -t nfs -o vers=4.2,hard 10.0.0.1:/srv/cinder "), "{ran:?}");
    }

    #[tokio::test]
    async fn a_smaller_file_an_image_or_none_is_not_used_and_nothing_is_left() {
        let bench = Bench::new();
        bench.mounted(Bytes::GIB / 2).await;
        assert_eq!(bench.connect(&link()).await.unwrap_err().kind(), Kind::WrongState);
        assert_eq!(*bench.attached.lock().unwrap(), None);
        assert_eq!(bench.mounter.table(&call()).await.unwrap().entries().len(), 0, "the export is unmounted");
        let bench = Bench::new();
        bench.mounted(Bytes::GIB).await;
        let file = bench.connector.place(&link()).unwrap().file;
        std::fs::write(&file, b"QFI\xfb and more").unwrap();
        assert_eq!(bench.connect(&link()).await.unwrap_err().kind(), Kind::Unsupported);
        let bench = Bench::new();
        bench.mounted(Bytes::GIB).await;
        std::fs::remove_file(bench.connector.place(&link()).unwrap().file).unwrap();
        assert_eq!(bench.connect(&link()).await.unwrap_err().kind(), Kind::WrongState);
        assert_eq!(bench.mounter.table(&call()).await.unwrap().entries().len(), 0);
    }

    #[test]
    fn what_openstack_says_is_checked_before_it_gets_anywhere() {
        let bench = Bench::new();
        let refused = |data: Value| bench.connector.place(&with(data)).unwrap_err().kind();
        for (export, name, options) in [
            ("", "v", ""),
            ("host", "v", ""),
            ("h:/a/../b", "v", ""),
            ("h:/a b", "v", ""),
            ("-o:/x", "v", ""),
            ("h:/a", "", ""),
            ("h:/a", "../v", ""),
            ("h:/a", "v/w", ""),
            ("h:/a", ".v", ""),
            ("h:/a", "v", "-o exec"),
            ("h:/a", "v", "-o vers=4,suid"),
            ("h:/a", "v", "vers=4 -o x"),
        ] {
            let data = json!({"export": export, "name": name, "options": options});
            assert_eq!(refused(data), Kind::InvalidArgument, "{export} {name} {options}");
        }
        assert_eq!(refused(json!({"export": "h:/a", "name": "v", "format": "qcow2"})), Kind::Unsupported);
        bench.connector.place(&with(json!({"export": "[fd00::1]:/a", "name": "volume-1", "options": null}))).unwrap();
    }
}
