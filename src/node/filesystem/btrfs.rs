//! btrfs, on one device.

use super::{FORMAT_LIMIT, Filesystem, GROW_LIMIT, Growth, Tools, superblock};
use crate::error::{Error, Result};
use crate::exec::Command;
use crate::model::Bytes;
use crate::node::blocking;
use async_trait::async_trait;
use std::path::Path;

/// btrfs.
#[derive(Debug)]
pub struct Btrfs;

/// The part of a mounted btrfs that is on one device.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    id: u64,
    size: Bytes,
}

impl Btrfs {
    async fn part(&self, tools: &Tools<'_>, mount_point: &Path) -> Result<Part> {
        let command = Command::new("btrfs").args(["filesystem", "show", "--raw"]).arg(mount_point);
        let output = tools.exec.run(tools.call, command).await?.success()?;
        only_part(&output.stdout).ok_or_else(|| {
            Error::internal(format!(
                "the btrfs on {} is not on exactly one device: {}",
                mount_point.display(),
                output.stdout.trim()
            ))
        })
    }
}

#[async_trait]
impl Filesystem for Btrfs {
    fn name(&self) -> &'static str {
        "btrfs"
    }

    async fn format(&self, tools: &Tools<'_>, device: &Path, options: &[String], again: bool) -> Result<()> {
        // Without -f mkfs.btrfs itself refuses a device that holds something: one guard more.
        let force = again.then_some("-f");
        let command = Command::new("mkfs.btrfs")
            .args(["-q", "-K"])
            .args(force)
            .args(options)
            .arg(device)
            .limit(FORMAT_LIMIT)
            .to_the_end();
        tools.exec.run(tools.call, command).await?.success().map(drop)
    }

    /// btrfs replays its log when it is mounted, and refuses to be mounted when it is damaged.
    async fn check(&self, _tools: &Tools<'_>, _device: &Path) -> Result<()> {
        Ok(())
    }

    async fn size(&self, tools: &Tools<'_>, device: &Path) -> Result<Bytes> {
        let (doing, device) = (format!("read the btrfs on {}", device.display()), device.to_owned());
        blocking::run(tools.call, &doing.clone(), move || {
            superblock::btrfs_size(&device).map(Bytes::new).map_err(|error| Error::internal(doing).because(error))
        })
        .await
    }

    async fn mounted_size(&self, tools: &Tools<'_>, _device: &Path, mount_point: &Path) -> Result<Bytes> {
        Ok(self.part(tools, mount_point).await?.size)
    }

    async fn grow(&self, tools: &Tools<'_>, _device: &Path, mount_point: &Path) -> Result<Growth> {
        let id = self.part(tools, mount_point).await?.id;
        let command = Command::new("btrfs")
            .args(["filesystem", "resize", &format!("{id}:max")])
            .arg(mount_point)
            .limit(GROW_LIMIT)
            .to_the_end();
        tools.exec.run(tools.call, command).await?.success().map(|_| Growth::Done)
    }

    /// Linux 6.7 and later mount copies beside each other and need none of this.
    async fn make_distinct(&self, tools: &Tools<'_>, device: &Path) -> Result<bool> {
        let path = device.to_owned();
        let has_log = blocking::run(tools.call, "read the log's place", move || {
            superblock::has_btrfs_log(&path)
                .map_err(|error| Error::internal(format!("read {}", path.display())).because(error))
        });
        if has_log.await? {
            // btrfstune does not look, and what it writes makes a file system with a log unmountable for ever.
            return Err(Error::wrong_state(format!(
                "the btrfs on {} is a copy of one that is mounted on this node, was copied while in use, and this kernel \
                 mounts no two copies (6.7 and later do): use it once on a node where the other one is not, and after \
                 that it can be used here",
                device.display()
            )));
        }
        // -m changes the UUID that the kernel goes by and leaves that of the metadata: one superblock, not a rewrite.
        let command = Command::new("btrfstune").args(["-f", "-m"]).arg(device).limit(GROW_LIMIT).to_the_end();
        tools.exec.run(tools.call, command).await?.success().map(|_| true)
    }
}

/// The one `devid 1 size 1073741824 used … path /dev/vdb` of `btrfs filesystem show --raw`.
fn only_part(text: &str) -> Option<Part> {
    let mut parts = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        match (words.next()?, words.next()?, words.next()?, words.next()?) {
            ("devid", id, "size", size) => Some(Part { id: id.parse().ok()?, size: Bytes::new(size.parse().ok()?) }),
            _ => None,
        }
    });
    let part = parts.next()?;
    parts.next().is_none().then_some(part)
}

#[cfg(test)]
mod tests {
    use super::{Part, only_part};
    use crate::model::Bytes;
    use proptest::prelude::{any, proptest};

    #[test]
    fn the_only_device_is_understood_and_several_are_not() {
        let text = "Label: none  uuid: 1-2\n\tTotal devices 1 FS bytes used 147456\n\
            \tdevid    1 size 536870912 used 92274688 path /dev/loop0\n";
        assert_eq!(only_part(text), Some(Part { id: 1, size: Bytes::new(512 << 20) }));
        assert_eq!(only_part(&format!("{text}\tdevid 2 size 1 used 1 path /dev/loop1\n")), None);
        assert_eq!(only_part(""), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = only_part(&format!("devid {text}"));
        }
    }
}
