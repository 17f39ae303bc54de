//! Volumes that are here already as a device: Cinder's connections of type `local`, whose back end's own client made the
//! device (LINSTOR's DRBD, for example).
//!
//! All that Cinder tells is a path, and a path is no identity: it is confined to `/dev`, followed to the device that it means
//! now, and as long as a device is staged it has to stay that disk.

use super::{Connector, Link, Source};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::model::Bytes;
use crate::node::blocking;
use crate::node::device::{Device, Host};
use async_trait::async_trait;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// Cinder's `driver_volume_type`.
const KIND: &str = "local";

/// How long a device may take to appear, and one that is too small to become larger.
const APPEARANCE: Duration = Duration::from_secs(30);
const GROWTH: Duration = Duration::from_secs(10);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// Finds devices by the paths that Cinder names.
#[derive(Debug, Clone)]
pub struct Local {
    host: Host,
    appearance: Duration,
    growth: Duration,
}

impl Local {
    /// On this machine.
    #[must_use]
    pub fn new(host: Host) -> Self {
        Self { host, appearance: APPEARANCE, growth: GROWTH }
    }

    /// How long devices may take to appear, and those that are too small to become larger.
    #[must_use]
    pub fn waiting(self, appearance: Duration, growth: Duration) -> Self {
        Self { appearance, growth, ..self }
    }

    async fn look(&self, call: &Call, path: &Path) -> Result<Option<Device>> {
        let (host, path) = (self.host.clone(), path.to_owned());
        blocking::run(call, "look for the volume's device", move || device_at(&host, &path)).await
    }

    async fn wait_for(&self, call: &Call, path: &Path, time: Duration, size: Bytes) -> Result<Option<Device>> {
        let end = Instant::now() + time;
        loop {
            let found = self.look(call, path).await?;
            let serves = found.as_ref().is_some_and(|device| device.size >= size);
            // A little before the caller gives up: an answer that says what is missing helps more than none.
            if serves || Instant::now() >= end || call.remaining() < PAUSE.saturating_mul(2) {
                return Ok(found);
            }
            call.sleep("wait for the volume's device", PAUSE).await?;
        }
    }
}

#[async_trait]
impl Connector for Local {
    fn kinds(&self) -> &[&str] {
        &[KIND]
    }

    async fn connect(&self, call: &Call, link: &Link) -> Result<Source> {
        let path = device_path(link)?;
        let promised = link.connection.size.unwrap_or(Bytes::new(1));
        let device = self.wait_for(call, &path, self.appearance, promised).await?.ok_or_else(|| {
            Error::new(
                Kind::Unavailable,
                format!(
                    "volume {}: {} is not there; does the back end's client run on this host?",
                    link.volume,
                    path.display()
                ),
            )
        })?;
        if device.size < promised {
            return Err(Error::wrong_state(format!(
                "{} is to be volume {}, but has only {} where {promised} were promised: it is not used",
                path.display(),
                link.volume,
                device.size
            )));
        }
        Ok(Source::Block(device))
    }

    async fn locate(&self, call: &Call, link: &Link) -> Result<Option<Source>> {
        let found = self.look(call, &device_path(link)?).await?;
        // Another disk under the path of the one that was proven is another volume.
        let is_same = |device: &Device| link.device.as_ref().is_none_or(|known| known.is_same_disk(device));
        Ok(found.filter(is_same).map(Source::Block))
    }

    async fn rescan(&self, call: &Call, link: &Link, size: Bytes) -> Result<Source> {
        let path = device_path(link)?;
        let gone = || Error::not_found(format!("the device of volume {} is not on this node", link.volume));
        if self.locate(call, link).await?.is_none() {
            return Err(gone());
        }
        self.wait_for(call, &path, self.growth, size).await?.map(Source::Block).ok_or_else(gone)
    }

    /// The back end's client made the device, and takes it away.
    async fn disconnect(&self, _call: &Call, _link: &Link) -> Result<()> {
        Ok(())
    }
}

/// The path that Cinder names, if it can be that of a device.
fn device_path(link: &Link) -> Result<PathBuf> {
    let told = link.connection.data.get("device_path").and_then(serde_json::Value::as_str).unwrap_or_default();
    let path = Path::new(told);
    let is_sane = path.starts_with("/dev")
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
        && path.components().count() > 2
        && !told.chars().any(char::is_control);
    if is_sane {
        Ok(path.to_owned())
    } else {
        Err(Error::invalid(format!(
            "volume {}: connection_info has device_path {told:?}, which is not a path below /dev",
            link.volume
        )))
    }
}

/// The device that a path means, following links that stay below `/dev`.
pub(super) fn device_at(host: &Host, path: &Path) -> Result<Option<Device>> {
    let below = host.path(&path.to_string_lossy());
    let unreadable = |error: io::Error| Error::internal(format!("look at {}", path.display())).because(error);
    let real = match below.canonicalize() {
        Ok(real) => real,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(unreadable(error)),
    };
    let dev = host.path("/dev").canonicalize().map_err(unreadable)?;
    let Ok(name) = real.strip_prefix(&dev) else {
        return Err(Error::invalid(format!("{} leads out of /dev, to {}", path.display(), real.display())));
    };
    // In sysfs, a `!` stands for the `/` of names such as `cciss/c0d0`.
    host.device(&name.to_string_lossy().replace('/', "!")).map_err(unreadable)?.map_or_else(
        || Err(Error::wrong_state(format!("{} is no block device", path.display()))),
        |device| Ok(Some(device)),
    )
}

#[cfg(test)]
mod tests {
    use super::Local;
    use crate::call::Call;
    use crate::error::Kind;
    use crate::model::{AccessMode, Bytes, Connection, Secrets};
    use crate::node::connector::{Connector, Link, Source};
    use crate::node::device::{Device, Host, fake};
    use proptest::prelude::{any, proptest};
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::time::Duration;

    const GIB: u64 = Bytes::GIB;

    fn link(path: &str) -> Link {
        Link {
            volume: "v".parse().unwrap(),
            connection: Connection {
                kind: "local".to_owned(),
                data: serde_json::json!({ "device_path": path }),
                size: Some(Bytes::new(GIB)),
                read_only: false,
                sealed: None,
            },
            secrets: Secrets::new(),
            mode: AccessMode::SingleNodeWriter,
            device: None,
        }
    }

    fn local(root: &Path) -> Local {
        Local::new(Host::below(root)).waiting(Duration::from_millis(100), Duration::from_millis(50))
    }

    fn call() -> Call {
        Call::lasting(Duration::from_secs(20))
    }

    fn block(source: Option<Source>) -> Option<Device> {
        source.map(|source| match source {
            Source::Block(device) => device,
            Source::Share(share) => panic!("{share:?}"),
        })
    }

    #[tokio::test]
    async fn a_device_is_found_by_path_or_by_a_link_within_dev() {
        let root = tempfile::tempdir().unwrap();
        let device = fake::add_disk(root.path(), "drbd1000", 5, GIB, None);
        symlink("../drbd1000", root.path().join("dev/disk/r0")).unwrap();
        for path in ["/dev/drbd1000", "/dev/disk/r0"] {
            let source = local(root.path()).connect(&call(), &link(path)).await.unwrap();
            assert_eq!(block(Some(source)).unwrap(), device, "{path}");
        }
    }

    #[tokio::test]
    async fn what_leads_out_of_dev_or_is_no_device_is_refused() {
        let root = tempfile::tempdir().unwrap();
        fake::add_disk(root.path(), "drbd1000", 5, GIB, None);
        std::fs::write(root.path().join("secret"), "x").unwrap();
        symlink("../secret", root.path().join("dev/out")).unwrap();
        std::fs::write(root.path().join("dev/file"), "x").unwrap();
        for (path, kind) in [
            ("/etc/passwd", Kind::InvalidArgument),
            ("/dev/../etc/passwd", Kind::InvalidArgument),
            ("/dev", Kind::InvalidArgument),
            ("dev/drbd1000", Kind::InvalidArgument),
            ("", Kind::InvalidArgument),
            ("/dev/out", Kind::InvalidArgument),
            ("/dev/file", Kind::WrongState),
            ("/dev/none", Kind::Unavailable),
        ] {
            let error = local(root.path()).connect(&call(), &link(path)).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{path}: {error}");
        }
    }

    #[tokio::test]
    async fn a_smaller_device_than_promised_is_not_used() {
        let root = tempfile::tempdir().unwrap();
        fake::add_disk(root.path(), "drbd1000", 5, GIB / 2, None);
        let error = local(root.path()).connect(&call(), &link("/dev/drbd1000")).await.unwrap_err();
        assert_eq!(error.kind(), Kind::WrongState);
    }

    #[tokio::test]
    async fn another_disk_under_the_same_path_is_not_the_volume() {
        let root = tempfile::tempdir().unwrap();
        let device = fake::add_disk(root.path(), "drbd1000", 5, GIB, None);
        let link = Link { device: Some(device.clone()), ..link("/dev/drbd1000") };
        let local = local(root.path());
        assert_eq!(block(local.locate(&call(), &link).await.unwrap()).unwrap(), device);
        fake::add_disk(root.path(), "drbd1000", 6, 2 * GIB, None);
        assert_eq!(block(local.locate(&call(), &link).await.unwrap()), None);
        assert_eq!(local.rescan(&call(), &link, Bytes::new(GIB)).await.unwrap_err().kind(), Kind::NotFound);
    }

    proptest! {
        #[test]
        fn no_path_is_too_strange(path in any::<String>()) {
            if let Ok(path) = super::device_path(&link(&path)) {
                assert!(path.starts_with("/dev") && !path.to_string_lossy().contains(".."));
            }
        }
    }
}
