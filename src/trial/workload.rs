//! What a container would do with its volume: write, read, look how large it is.

use super::pattern::{BLOCK, Pattern};
use crate::error::{Error, Kind, Result};
use async_trait::async_trait;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How much is written at one place: 8 MiB.
const BLOCKS: u64 = 2048;

/// The name of the file on a mounted volume.
const FILE: &str = "fuxi-try.data";

/// A published volume, as its workload sees it.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// Where it is published.
    pub(super) path: PathBuf,
    /// Whether it is a raw block device.
    pub(super) block: bool,
    /// How large the volume was when it was made: the end of a block device is written to as well.
    pub(super) first_size: u64,
}

/// A workload with a volume.
#[async_trait]
pub(super) trait Workload: Send + Sync {
    /// Writes, and returns when it is on the volume.
    async fn write(&self, view: &View, pattern: Pattern) -> Result<()>;

    /// Reads from the volume, not from memory, and compares.
    async fn verify(&self, view: &View, pattern: Pattern) -> Result<()>;

    /// The size of the file system, or of the device.
    async fn size(&self, view: &View) -> Result<u64>;
}

/// Files and devices of this machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Machine {
    /// How long one access may take: a device that is gone may hang for ever.
    pub(super) limit: Duration,
}

#[async_trait]
impl Workload for Machine {
    async fn write(&self, view: &View, pattern: Pattern) -> Result<()> {
        self.access(view, "write to", move |view| write(view, pattern)).await
    }

    async fn verify(&self, view: &View, pattern: Pattern) -> Result<()> {
        self.access(view, "read back from", move |view| verify(view, pattern)).await
    }

    async fn size(&self, view: &View) -> Result<u64> {
        self.access(view, "measure", size).await
    }
}

impl Machine {
    async fn access<T: Send + 'static>(
        &self,
        view: &View,
        doing: &str,
        work: impl FnOnce(&View) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let context = format!("{doing} {}", view.path.display());
        let view = view.clone();
        let task = tokio::task::spawn_blocking(move || {
            is_published(&view).map_err(Error::wrong_state)?;
            work(&view).map_err(|error| Error::internal("it failed").because(error))
        });
        match tokio::time::timeout(self.limit, task).await {
            Ok(Ok(outcome)) => outcome.map_err(|error| error.during(context)),
            Ok(Err(error)) => Err(Error::internal(context).because(error)),
            Err(_) => Err(Error::new(Kind::Deadline, format!("{context}: not done after {:?}; it hangs", self.limit))),
        }
    }
}

/// Says why this process does not see the volume, if so. Without this look, data would go into the directory below.
fn is_published(view: &View) -> Result<(), String> {
    let elsewhere = "the node service works in another mount namespace, or did nothing: run `try` where it runs, as \
                     root, or name a directory that both see with --work-dir (such as one below /var/lib/kubelet)";
    let metadata = std::fs::metadata(&view.path)
        .map_err(|error| format!("after NodePublishVolume there is nothing to be seen here ({error}): {elsewhere}"))?;
    if view.block {
        let found = metadata.file_type();
        return if found.is_block_device() {
            Ok(())
        } else {
            Err(format!("after NodePublishVolume this is no block device but {found:?}: {elsewhere}"))
        };
    }
    if is_mount_point(&view.path, metadata.dev()).map_err(|error| format!("{error}: {elsewhere}"))? {
        Ok(())
    } else {
        Err(format!("after NodePublishVolume this is not a mount point: {elsewhere}"))
    }
}

/// A mount point is on another device than the directory above it.
fn is_mount_point(path: &Path, device: u64) -> io::Result<bool> {
    let above = path.parent().unwrap_or(path);
    Ok(std::fs::metadata(above)?.dev() != device)
}

fn write(view: &View, pattern: Pattern) -> io::Result<()> {
    for (start, places) in extents(view) {
        let mut file = open(view, OpenOptions::new().write(true).create(!view.block).truncate(false))?;
        file.seek(SeekFrom::Start(start))?;
        let mut buffered = io::BufWriter::with_capacity(1 << 20, file);
        pattern.write(&mut buffered, places)?;
        let file = buffered.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        // So that reading back asks the device.
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    }
    if !view.block {
        File::open(&view.path)?.sync_all()?;
    }
    Ok(())
}

fn verify(view: &View, pattern: Pattern) -> io::Result<()> {
    for (start, places) in extents(view) {
        let mut file = open(view, OpenOptions::new().read(true))?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        file.seek(SeekFrom::Start(start))?;
        pattern.verify(&mut io::BufReader::with_capacity(1 << 20, file), places)?;
    }
    Ok(())
}

fn size(view: &View) -> io::Result<u64> {
    if view.block {
        return open(view, OpenOptions::new().read(true))?.seek(SeekFrom::End(0));
    }
    let found = nix::sys::statvfs::statvfs(&view.path)?;
    Ok(found.blocks() * found.fragment_size())
}

/// Where data goes, in bytes, and which blocks: into one file, or to both ends of the device.
fn extents(view: &View) -> Vec<(u64, Range<u64>)> {
    if !view.block {
        return vec![(0, 0..BLOCKS)];
    }
    let block = BLOCK as u64;
    let all = view.first_size / block;
    let end = all.saturating_sub(BLOCKS).max(BLOCKS.min(all));
    vec![(0, 0..BLOCKS.min(all)), (end * block, end..all)]
}

fn open(view: &View, options: &OpenOptions) -> io::Result<File> {
    if view.block { options.open(&view.path) } else { options.open(view.path.join(FILE)) }
}

#[cfg(test)]
mod tests {
    use super::{BLOCKS, Machine, View, Workload, extents, verify, write};
    use crate::trial::pattern::Pattern;
    use std::path::PathBuf;
    use std::time::Duration;

    const PATTERN: Pattern = Pattern { seed: 3, generation: 1 };

    fn view(path: PathBuf) -> View {
        View { path, block: false, first_size: 1 << 30 }
    }

    #[test]
    fn a_file_is_written_over_and_compared() {
        let directory = tempfile::tempdir().unwrap();
        let view = view(directory.path().to_owned());
        write(&view, PATTERN).unwrap();
        verify(&view, PATTERN).unwrap();
        let second = Pattern { generation: 2, ..PATTERN };
        assert!(verify(&view, second).unwrap_err().to_string().contains("version 1"));
        write(&view, second).unwrap();
        verify(&view, second).unwrap();
    }

    #[test]
    fn both_ends_of_a_device_are_used_and_never_more_than_it_has() {
        let device = |first_size| View { path: PathBuf::new(), block: true, first_size };
        assert_eq!(extents(&device(1 << 30)), [(0, 0..BLOCKS), ((1 << 30) - (8 << 20), 262_144 - BLOCKS..262_144)]);
        assert_eq!(extents(&device(12 << 20)), [(0, 0..BLOCKS), (8 << 20, BLOCKS..3072)]);
        assert_eq!(extents(&device(4096)), [(0, 0..1), (4096, 1..1)]);
        assert_eq!(extents(&device(0)), [(0, 0..0), (0, 0..0)]);
    }

    #[tokio::test]
    async fn a_path_on_which_nothing_is_mounted_is_not_written_to() {
        let directory = tempfile::tempdir().unwrap();
        let machine = Machine { limit: Duration::from_secs(5) };
        let error = machine.write(&view(directory.path().to_owned()), PATTERN).await.unwrap_err();
        assert!(error.to_string().contains("not a mount point"), "{error}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let device = View { block: true, ..view(directory.path().to_owned()) };
        assert!(machine.size(&device).await.unwrap_err().to_string().contains("no block device"));
        assert!(
            machine.size(&view("/nowhere/at/all".into())).await.unwrap_err().to_string().contains("nothing to be seen")
        );
    }
}
