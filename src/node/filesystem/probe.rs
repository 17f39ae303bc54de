//! What is on a device: nothing, something known, or something that nobody here can tell.
//!
//! Only the first answer lets a file system be made, so it is never given by default. blkid says "nothing found" with
//! the very exit code that it uses for a device that it cannot read; hence its word is not enough, and the device is read
//! here as well: its start, its end, the places where signatures and their copies live, and samples in between must
//! all be there and all be zero. What holds bytes without a signature may be somebody's raw data.

use super::Tools;
use crate::call::Call;
use crate::error::Result;
use crate::exec::Command;
use crate::node::blocking;
use crate::node::device::Device;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// blkid found nothing, or could not read the device.
const BLKID_NOTHING: i32 = 2;

/// blkid found several things that contradict each other.
const BLKID_AMBIVALENT: i32 = 8;

/// How much is read at the start of a device: boot sectors, partition tables, LVM, LUKS, md, ZFS, btrfs; and whoever
/// writes to a raw device without any signature mostly begins here.
const HEAD: u64 = 4 << 20;

/// How much is read at its end: backup GPT, md, ZFS, DDF.
const TAIL: u64 = 1 << 20;

/// How much is read elsewhere.
const SAMPLE: u64 = 4096;

/// How much is held in memory of it.
const WINDOW: usize = 1 << 20;

/// How many samples are taken evenly between start and end.
const SAMPLES: u64 = 32;

/// Copies of superblocks: ext4's second and fourth group (by 4 KiB blocks), btrfs's mirrors.
const COPIES: [u64; 5] = [8 << 20, 64 << 20, 128 << 20, 384 << 20, 256 << 30];

/// What a device holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Nothing: proven.
    Blank,
    /// A file system.
    Filesystem {
        /// Its type, as blkid names it.
        kind: String,
        /// Its UUID, where it has one.
        uuid: Option<String>,
    },
    /// Something else: a partition table, a member of a RAID or volume group, an encrypted device.
    Other(String),
    /// Data without any signature that is known; where. Not blank.
    Unknown(String),
    /// It cannot be told; why. Not blank.
    Unreadable(String),
}

/// Looks at a device.
///
/// # Errors
/// blkid could not be run at all, or the call is over.
pub async fn probe(tools: &Tools<'_>, device: &Device) -> Result<Content> {
    let command = Command::new("blkid").args(["-p", "-o", "export"]).arg(&device.path).limit(Duration::from_secs(60));
    let output = tools.exec.run(tools.call, command).await?;
    match output.code {
        0 => Ok(signature(&output.stdout)),
        BLKID_NOTHING => prove_blank(tools.call, device).await,
        BLKID_AMBIVALENT => {
            Ok(Content::Unreadable("it has several signatures that contradict each other (blkid exit code 8)".into()))
        }
        code => Ok(Content::Unreadable(format!("blkid ended with exit code {code}: {}", output.last_words()))),
    }
}

/// Understands `blkid -o export`: lines of `KEY=value`.
fn signature(text: &str) -> Content {
    let value = |wanted: &str| {
        text.lines().filter_map(|line| line.split_once('=')).find(|(key, _)| *key == wanted).map(|(_, value)| value)
    };
    match (value("TYPE"), value("USAGE"), value("PTTYPE")) {
        (Some(kind), Some("filesystem") | None, _) => {
            Content::Filesystem { kind: kind.to_owned(), uuid: value("UUID").map(str::to_owned) }
        }
        (Some(kind), Some(usage), _) => Content::Other(format!("{kind} ({usage})")),
        (None, _, Some(table)) => Content::Other(format!("a partition table ({table})")),
        (None, _, None) => Content::Unreadable(format!("blkid found something and does not name it: {text:?}")),
    }
}

async fn prove_blank(call: &Call, device: &Device) -> Result<Content> {
    let device = device.clone();
    blocking::run(call, &format!("read {}", device.path.display()), move || {
        let size = device.size.get();
        Ok(match find_data(&device.path, size) {
            Ok(None) => Content::Blank,
            Ok(Some(at)) => Content::Unknown(format!("it holds data at byte {at}, but no signature that is known")),
            Err(error) => Content::Unreadable(format!("it cannot be read: {error}")),
        })
    })
    .await
}

/// The place of the first byte that is not zero, of those looked at.
fn find_data(path: &std::path::Path, size: u64) -> io::Result<Option<u64>> {
    let mut file = File::open(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    if size == 0 || length != size {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("it has {length} bytes where the kernel promised {size}"),
        ));
    }
    // Read what is asked for and no more: the places are far apart.
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM)?;
    let mut buffer = vec![0; WINDOW];
    for (start, count) in regions(size) {
        let Some(window) = usize::try_from(count).ok().and_then(|count| buffer.get_mut(..count)) else { continue };
        file.read_exact_at(window, start)?;
        if let Some(place) = window.iter().position(|byte| *byte != 0) {
            return Ok(Some(start.saturating_add(u64::try_from(place).unwrap_or_default())));
        }
    }
    Ok(None)
}

/// A stretch of a device in parts that fit into memory.
fn windows(start: u64, length: u64) -> Vec<(u64, u64)> {
    let step = u64::try_from(WINDOW).unwrap_or(u64::MAX);
    (0..length.div_ceil(step))
        .map(|number| number * step)
        .map(|from| (start + from, (length - from).min(step)))
        .collect()
}

/// The parts of a device that are read, as start and length; all within the device.
fn regions(size: u64) -> Vec<(u64, u64)> {
    let (head, tail) = (HEAD.min(size), TAIL.min(size));
    let mut regions = windows(0, head);
    regions.extend(windows(size.saturating_sub(tail), tail));
    // The quarters, where XFS puts its allocation groups, are among them.
    let (part, rest) = (size / SAMPLES, size % SAMPLES);
    let even = (1..SAMPLES).map(|number| (part * number + rest * number / SAMPLES) / SAMPLE * SAMPLE);
    let inner = even.chain(COPIES).filter(|start| start.checked_add(SAMPLE).is_some_and(|end| end <= size));
    regions.extend(inner.map(|start| (start, SAMPLE)));
    regions
}

#[cfg(test)]
mod tests {
    use super::{Content, Tools, probe, regions, signature};
    use crate::call::Call;
    use crate::exec::scripted::ScriptedExec;
    use crate::model::Bytes;
    use crate::node::device::{Device, DeviceNumber};
    use proptest::prelude::{any, proptest};
    use std::fs::OpenOptions;
    use std::os::unix::fs::FileExt;
    use std::time::Duration;

    const SIZE: u64 = 1 << 30;

    struct Bench {
        file: tempfile::NamedTempFile,
        exec: ScriptedExec,
        size: u64,
    }

    impl Bench {
        fn new(code: i32, stdout: &str) -> Self {
            let file = tempfile::NamedTempFile::new().unwrap();
            file.as_file().set_len(SIZE).unwrap();
            let exec = ScriptedExec::new();
            exec.always("blkid -p -o export", code, stdout, "");
            Self { file, exec, size: SIZE }
        }

        async fn probe(&self) -> Content {
            let device = Device {
                name: "vdb".to_owned(),
                path: self.file.path().to_owned(),
                number: DeviceNumber { major: 252, minor: 16 },
                size: Bytes::new(self.size),
                sequence: None,
                read_only: false,
                wwid: None,
            };
            let call = Call::lasting(Duration::from_secs(20));
            probe(&Tools { exec: &self.exec, call: &call }, &device).await.unwrap()
        }
    }

    #[tokio::test]
    async fn zeros_all_over_are_blank() {
        assert_eq!(Bench::new(2, "").probe().await, Content::Blank);
    }

    #[tokio::test]
    async fn a_single_byte_at_start_end_or_in_a_copy_is_not_blank() {
        for place in [0, 1, 4095, (4 << 20) - 1, 64 << 20, 128 << 20, SIZE / 2, SIZE - (1 << 20), SIZE - 1] {
            let bench = Bench::new(2, "");
            bench.file.as_file().write_all_at(b"x", place).unwrap();
            let content = bench.probe().await;
            assert!(matches!(&content, Content::Unknown(why) if why.contains(&place.to_string())), "{content:?}");
        }
    }

    #[tokio::test]
    async fn a_device_that_cannot_be_read_is_not_blank() {
        let mut bench = Bench::new(2, "");
        for size in [0, SIZE + 512, SIZE - 512] {
            bench.size = size;
            assert!(matches!(bench.probe().await, Content::Unreadable(_)), "{size}");
        }
        bench.size = SIZE;
        OpenOptions::new().write(true).open(bench.file.path()).unwrap().set_len(SIZE / 2).unwrap();
        assert!(matches!(bench.probe().await, Content::Unreadable(_)), "short");
        std::fs::remove_file(bench.file.path()).unwrap();
        assert!(matches!(bench.probe().await, Content::Unreadable(_)), "vanished");
    }

    #[tokio::test]
    async fn whatever_else_blkid_says_is_not_blank() {
        for code in [1, 4, 8, 16, 127] {
            assert!(matches!(Bench::new(code, "").probe().await, Content::Unreadable(_)), "exit code {code}");
        }
        assert!(matches!(Bench::new(0, "").probe().await, Content::Unreadable(_)), "success without a word");
    }

    #[test]
    fn signatures_are_told_apart() {
        let xfs = Content::Filesystem { kind: "xfs".to_owned(), uuid: Some("1-2".to_owned()) };
        assert_eq!(signature("DEVNAME=/dev/vdb\nUUID=1-2\nTYPE=xfs\nUSAGE=filesystem\n"), xfs);
        assert_eq!(signature("DEVNAME=/dev/vdb\nPTTYPE=gpt\n"), Content::Other("a partition table (gpt)".to_owned()));
        for (kind, usage) in [("crypto_LUKS", "crypto"), ("LVM2_member", "raid"), ("linux_raid_member", "raid")] {
            let content = signature(&format!("TYPE={kind}\nUSAGE={usage}\n"));
            assert_eq!(content, Content::Other(format!("{kind} ({usage})")));
        }
    }

    proptest! {
        #[test]
        fn all_regions_are_within_the_device(size in 1_u64..) {
            for (start, count) in regions(size) {
                assert!(count > 0 && start.checked_add(count).is_some_and(|end| end <= size));
            }
        }

        #[test]
        fn no_answer_of_blkid_panics(text in any::<String>()) {
            assert_ne!(signature(&text), Content::Blank);
        }
    }
}
