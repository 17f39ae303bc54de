//! ext4 and ext3.

use super::{CHECK_LIMIT, FORMAT_LIMIT, Filesystem, GROW_LIMIT, Growth, Tools, superblock};
use crate::error::{Error, Kind, Result};
use crate::exec::{Command, Output};
use crate::model::Bytes;
use crate::node::blocking;
use async_trait::async_trait;
use std::path::Path;

/// e2fsck found nothing, or repaired what it found (1; 2 asks for a reboot, which concerns mounted root file systems).
const SOUND: std::ops::RangeInclusive<i32> = 0..=2;

/// Bit of e2fsck's exit code: errors are left.
const UNCORRECTED: i32 = 4;

/// ext4 or ext3: the same programs.
#[derive(Debug)]
pub struct Ext {
    name: &'static str,
    mkfs: &'static str,
}

impl Ext {
    /// ext4.
    pub const EXT4: Self = Self { name: "ext4", mkfs: "mkfs.ext4" };
    /// ext3.
    pub const EXT3: Self = Self { name: "ext3", mkfs: "mkfs.ext3" };

    async fn fsck(&self, tools: &Tools<'_>, device: &Path, force: bool) -> Result<()> {
        let force = force.then_some("-f");
        let command = Command::new("e2fsck").args(force).arg("-p").arg(device).limit(CHECK_LIMIT).to_the_end();
        let output = tools.exec.run(tools.call, command).await?;
        if SOUND.contains(&output.code) {
            if output.code != 0 {
                tracing::warn!(device = %device.display(), said = output.last_words(), "e2fsck repaired a file system");
            }
            return Ok(());
        }
        if output.code & UNCORRECTED != 0 {
            return Err(output.failure(Kind::WrongState).during(format!(
                "the {} on {} is damaged and was not mounted; run `e2fsck -f` on it by hand, or restore a snapshot",
                self.name,
                device.display()
            )));
        }
        // The words why go to standard output, and those to standard error only say that it gave up.
        let busy = ["is in use", "is mounted"].iter().find(|words| output.stdout.contains(**words));
        let failure = match busy {
            Some(words) => output.failure(Kind::Busy).during(format!("{} {words} by something else", device.display())),
            None => output.failure(Kind::Internal),
        };
        Err(failure.during(format!("check the {} on {}", self.name, device.display())))
    }

    async fn resize(&self, tools: &Tools<'_>, device: &Path) -> Result<Output> {
        let command = Command::new("resize2fs").arg(device).limit(GROW_LIMIT).to_the_end();
        tools.exec.run(tools.call, command).await
    }
}

#[async_trait]
impl Filesystem for Ext {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn format(&self, tools: &Tools<'_>, device: &Path, options: &[String], _again: bool) -> Result<()> {
        // No blocks kept for root: the workload pays for all. No discard: the device was just proven blank.
        let command = Command::new(self.mkfs)
            .args(["-q", "-F", "-m0", "-E", "nodiscard"])
            .args(options)
            .arg(device)
            .limit(FORMAT_LIMIT)
            .to_the_end();
        tools.exec.run(tools.call, command).await?.success().map(drop)
    }

    async fn check(&self, tools: &Tools<'_>, device: &Path) -> Result<()> {
        self.fsck(tools, device, false).await
    }

    async fn size(&self, tools: &Tools<'_>, device: &Path) -> Result<Bytes> {
        let (doing, device) = (format!("read the {} on {}", self.name, device.display()), device.to_owned());
        blocking::run(tools.call, &doing.clone(), move || {
            superblock::ext_size(&device).map(Bytes::new).map_err(|error| Error::internal(doing).because(error))
        })
        .await
    }

    async fn mounted_size(&self, tools: &Tools<'_>, device: &Path, _mount_point: &Path) -> Result<Bytes> {
        // The mounted file system keeps its superblock in the device's own cache, which is what is read here.
        self.size(tools, device).await
    }

    async fn grow(&self, tools: &Tools<'_>, device: &Path, _mount_point: &Path) -> Result<Growth> {
        let output = self.resize(tools, device).await?;
        // Without CAP_SYS_RESOURCE, or where the file system was made without room for more block groups.
        let refused = ["Permission denied", "Operation not permitted", "does not support online resizing"];
        if output.code != 0 && refused.iter().any(|words| output.stderr.contains(words)) {
            return Ok(Growth::NotMounted(output.last_words()));
        }
        output.success().map(|_| Growth::Done)
    }

    async fn grow_unmounted(&self, tools: &Tools<'_>, device: &Path) -> Result<()> {
        // resize2fs refuses what was not fully checked since it was mounted last.
        self.fsck(tools, device, true).await?;
        self.resize(tools, device).await?.success().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::Ext;
    use crate::call::Call;
    use crate::error::Kind;
    use crate::exec::scripted::ScriptedExec;
    use crate::node::filesystem::{Filesystem, Growth, Tools};
    use std::path::Path;
    use std::time::Duration;

    #[tokio::test]
    async fn exit_codes_of_e2fsck_are_told_apart() {
        let call = Call::lasting(Duration::from_secs(9));
        let cases = [
            (0, None),
            (1, None),
            (2, None),
            (4, Some(Kind::WrongState)),
            (12, Some(Kind::WrongState)),
            (8, Some(Kind::Internal)),
            (16, Some(Kind::Internal)),
            (32, Some(Kind::Internal)),
            (128, Some(Kind::Internal)),
        ];
        for (code, kind) in cases {
            let exec = ScriptedExec::new();
            exec.always("e2fsck -p /dev/vdb", code, "", "inode 7 is bad");
            let result = Ext::EXT4.check(&Tools { exec: &exec, call: &call }, Path::new("/dev/vdb")).await;
            assert_eq!(result.as_ref().err().map(crate::error::Error::kind), kind, "exit code {code}");
            if let Err(error) = result {
                assert!(error.to_string().contains("inode 7 is bad"), "{error}");
            }
        }
    }

    #[tokio::test]
    async fn a_device_that_something_else_holds_is_busy() {
        let call = Call::lasting(Duration::from_secs(9));
        for said in ["/dev/vdb is in use.\n", "/dev/vdb is mounted.\n"] {
            let exec = ScriptedExec::new();
            exec.always("e2fsck -p /dev/vdb", 8, said, "e2fsck: Cannot continue, aborting.");
            let result = Ext::EXT4.check(&Tools { exec: &exec, call: &call }, Path::new("/dev/vdb")).await;
            assert_eq!(result.unwrap_err().kind(), Kind::Busy);
        }
    }

    #[tokio::test]
    async fn a_kernel_that_does_not_grow_it_mounted_is_not_an_error() {
        let call = Call::lasting(Duration::from_secs(9));
        let exec = ScriptedExec::new();
        let tools = Tools { exec: &exec, call: &call };
        let (device, mount_point) = (Path::new("/dev/vdb"), Path::new("/mnt"));
        exec.once("resize2fs", 1, "", "resize2fs: Permission denied to resize filesystem");
        let growth = Ext::EXT4.grow(&tools, device, mount_point).await.unwrap();
        assert!(matches!(growth, Growth::NotMounted(why) if why.contains("Permission denied")));
        exec.once("resize2fs", 1, "", "resize2fs: Device or resource busy");
        assert_eq!(Ext::EXT4.grow(&tools, device, mount_point).await.unwrap_err().kind(), Kind::Internal);
        exec.once("resize2fs", 0, "", "");
        assert_eq!(Ext::EXT4.grow(&tools, device, mount_point).await.unwrap(), Growth::Done);
    }
}
