//! XFS.

use super::{FORMAT_LIMIT, Filesystem, GROW_LIMIT, Growth, Tools, superblock};
use crate::error::{Error, Result};
use crate::exec::Command;
use crate::model::Bytes;
use crate::node::blocking;
use async_trait::async_trait;
use std::path::Path;

/// XFS.
#[derive(Debug)]
pub struct Xfs;

#[async_trait]
impl Filesystem for Xfs {
    fn name(&self) -> &'static str {
        "xfs"
    }

    async fn format(&self, tools: &Tools<'_>, device: &Path, options: &[String], again: bool) -> Result<()> {
        // Without -f mkfs.xfs itself refuses a device that holds something: one guard more.
        let force = again.then_some("-f");
        let command = Command::new("mkfs.xfs")
            .args(["-q", "-K"])
            .args(force)
            .args(options)
            .arg(device)
            .limit(FORMAT_LIMIT)
            .to_the_end();
        tools.exec.run(tools.call, command).await?.success().map(drop)
    }

    /// XFS replays its log when it is mounted, and refuses to be mounted when it is damaged.
    async fn check(&self, _tools: &Tools<'_>, _device: &Path) -> Result<()> {
        Ok(())
    }

    fn mount_options(&self) -> &'static [&'static str] {
        // A clone has its source's UUID, and without this the kernel mounts only one of them.
        &["nouuid"]
    }

    async fn size(&self, tools: &Tools<'_>, device: &Path) -> Result<Bytes> {
        let (doing, device) = (format!("read the xfs on {}", device.display()), device.to_owned());
        blocking::run(tools.call, &doing.clone(), move || {
            superblock::xfs_size(&device).map(Bytes::new).map_err(|error| Error::internal(doing).because(error))
        })
        .await
    }

    async fn mounted_size(&self, tools: &Tools<'_>, _device: &Path, mount_point: &Path) -> Result<Bytes> {
        // The superblock on the device may be older than the log; the kernel knows.
        let command = Command::new("xfs_growfs").arg("-n").arg(mount_point);
        let output = tools.exec.run(tools.call, command).await?.success()?;
        geometry(&output.stdout).ok_or_else(|| {
            Error::internal(format!(
                "xfs_growfs -n {} does not tell the size: {}",
                mount_point.display(),
                output.last_words()
            ))
        })
    }

    async fn grow(&self, tools: &Tools<'_>, _device: &Path, mount_point: &Path) -> Result<Growth> {
        let command = Command::new("xfs_growfs").arg("-d").arg(mount_point).limit(GROW_LIMIT).to_the_end();
        tools.exec.run(tools.call, command).await?.success().map(|_| Growth::Done)
    }
}

/// The size in the `data = bsize=4096 blocks=131072, imaxpct=25` of `xfs_growfs -n`.
fn geometry(text: &str) -> Option<Bytes> {
    let line = text.lines().find(|line| line.starts_with("data "))?;
    let value = |key: &str| -> Option<u64> {
        let start = line.split_once(key)?.1;
        start.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    value(" bsize=")?.checked_mul(value(" blocks=")?).map(Bytes::new)
}

#[cfg(test)]
mod tests {
    use super::geometry;
    use crate::model::Bytes;
    use proptest::prelude::{any, proptest};

    #[test]
    fn the_geometry_is_understood() {
        let text = "meta-data=/dev/loop0             isize=512    agcount=4, agsize=32768 blks\n\
            data     =                       bsize=4096   blocks=131072, imaxpct=25\n\
            naming   =version 2              bsize=4096   ascii-ci=0, ftype=1\n";
        assert_eq!(geometry(text), Some(Bytes::new(512 << 20)));
        assert_eq!(geometry("data = bsize=4096"), None);
    }

    proptest! {
        #[test]
        fn no_geometry_panics(text in any::<String>()) {
            let _ = geometry(&format!("data {text}"));
        }
    }
}
