//! A path that the orchestrator named: what it really is, made, cleared of mounts, removed.

use super::{Mounter, Pulse, Unmount};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::node::blocking;
use crate::node::device::Host;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The most mounts that are taken from one path: more than any mishap stacks.
const DEEPEST_STACK: usize = 256;

/// How often a busy mount is tried again: whoever used it may be just going.
const TRIES: u32 = 5;

/// The first pause between these tries; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// What a path is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A directory, for a file system.
    Directory,
    /// An empty file, for a device.
    File,
}

/// The path as the mount table has it: without symbolic links on the way. The path itself is not looked at, since what is
/// mounted on it may hang.
///
/// # Errors
/// `InvalidArgument`: it is not absolute, or has no name. `Internal`: a directory on the way cannot be read.
pub async fn resolve(call: &Call, path: &Path) -> Result<PathBuf> {
    let Some((parent, name)) = path.parent().zip(path.file_name()).filter(|_| path.is_absolute()) else {
        return Err(Error::invalid(format!(
            "path {:?} is not an absolute path to a file or directory",
            path.display()
        )));
    };
    let (path, parent, name) = (path.to_owned(), parent.to_owned(), name.to_owned());
    blocking::run(call, "resolve a path", move || match fs::canonicalize(&parent) {
        Ok(parent) => Ok(parent.join(name)),
        // Then nothing is there or mounted there.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(path),
        Err(error) => Err(Error::internal(format!("resolve {}", parent.display())).because(error)),
    })
    .await
}

/// Makes the path what it is to be, and says whether it was not there.
///
/// # Errors
/// `WrongState`: it is something else. `Internal`: it cannot be made.
pub async fn make(call: &Call, path: &Path, shape: Shape) -> Result<bool> {
    let path = path.to_owned();
    call.step(&format!("make {}", path.display()));
    blocking::run(call, &format!("make {}", path.display()), move || {
        if let Some(parent) = path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o750).create(parent);
            made.map_err(|error| Error::internal(format!("make {}", parent.display())).because(error))?;
        }
        let made = match shape {
            Shape::Directory => DirBuilder::new().mode(0o750).create(&path),
            Shape::File => OpenOptions::new().write(true).create_new(true).mode(0o660).open(&path).map(drop),
        };
        match made {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let is_right = fs::symlink_metadata(&path).is_ok_and(|metadata| match shape {
                    Shape::Directory => metadata.is_dir(),
                    Shape::File => metadata.is_file(),
                });
                if is_right {
                    Ok(false)
                } else {
                    Err(Error::wrong_state(format!("{} is there already and is no {shape:?}", path.display())))
                }
            }
            Err(error) => Err(Error::internal(format!("make {}", path.display())).because(error)),
        }
    })
    .await
}

/// Removes an empty directory or file; success if there is none. Whatever has content stays: it is not ours.
///
/// # Errors
/// `WrongState`: it is not empty. `Internal`: it cannot be removed.
pub async fn remove(call: &Call, path: &Path) -> Result<()> {
    let path = path.to_owned();
    call.step(&format!("remove {}", path.display()));
    blocking::run(call, &format!("remove {}", path.display()), move || {
        let failed = |error| Error::internal(format!("remove {}", path.display())).because(error);
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Err(error) => return Err(failed(error)),
        };
        let not_empty = || {
            Error::wrong_state(format!(
                "{} is not empty although nothing is mounted there: look at what it holds and move it away",
                path.display()
            ))
        };
        let removed = if metadata.is_dir() {
            fs::remove_dir(&path)
        } else if metadata.is_file() && metadata.len() > 0 {
            return Err(not_empty());
        } else {
            fs::remove_file(&path)
        };
        match removed {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Err(not_empty()),
            Err(error) => Err(failed(error)),
        }
    })
    .await
}

/// Takes all mounts from a path, and says how many there were.
///
/// # Errors
/// `Busy`: one is in use. Others as the mounter has them.
pub async fn unmount_all(mounter: &dyn Mounter, host: &Host, call: &Call, path: &Path) -> Result<usize> {
    let mut count = 0;
    while count < DEEPEST_STACK {
        let table = mounter.table(call).await?;
        let Some(entry) = table.top(path) else { return Ok(count) };
        let is_gone = match entry.block {
            Some(number) => is_gone(host, call, number).await?,
            // What has no device of its own is a file server's, or a device node.
            None => mounter.pulse(call, path).await.is_ok_and(|pulse| pulse == Pulse::Hung),
        };
        if is_gone {
            // Nothing can be written back any more, and its users would keep it for ever.
            mounter.unmount(call, path, Unmount::Detach).await?;
        } else {
            unmount_patiently(mounter, call, path).await?;
        }
        count += 1;
    }
    Err(Error::internal(format!("{} still has mounts after {count} were taken away", path.display())))
}

async fn is_gone(host: &Host, call: &Call, number: crate::node::device::DeviceNumber) -> Result<bool> {
    let host = host.clone();
    blocking::run(call, "look for the mounted device", move || {
        let found = host.numbered(number);
        found.map(|found| found.is_none()).map_err(|error| Error::internal("read sysfs").because(error))
    })
    .await
}

async fn unmount_patiently(mounter: &dyn Mounter, call: &Call, path: &Path) -> Result<()> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..TRIES {
        match mounter.unmount(call, path, Unmount::Unused).await {
            Err(error) if error.is(Kind::Busy) => call.sleep(&format!("unmount {}", path.display()), pause).await?,
            other => return other,
        }
        pause = pause.saturating_mul(2);
    }
    let last = mounter.unmount(call, path, Unmount::Unused).await;
    last.map_err(
        |error| if error.is(Kind::Busy) { error.during("a process on this node still uses it") } else { error },
    )
}

#[cfg(test)]
mod tests {
    use super::{Shape, make, remove, resolve, unmount_all};
    use crate::call::Call;
    use crate::error::Kind;
    use crate::node::device::{Host, fake};
    use crate::node::mount::Mounter;
    use crate::node::mount::memory::MemoryMounter;
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    fn call() -> Call {
        Call::lasting(Duration::from_secs(20))
    }

    #[tokio::test]
    async fn symbolic_links_on_the_way_are_resolved_and_the_end_is_not_touched() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        fs::create_dir(root.join("real")).unwrap();
        std::os::unix::fs::symlink("real", root.join("link")).unwrap();
        assert_eq!(resolve(&call(), &root.join("link/x")).await.unwrap(), root.join("real/x"));
        assert_eq!(resolve(&call(), Path::new("/nowhere/at/all")).await.unwrap(), Path::new("/nowhere/at/all"));
        for path in ["relative/path", "/", ""] {
            assert_eq!(resolve(&call(), Path::new(path)).await.unwrap_err().kind(), Kind::InvalidArgument);
        }
    }

    #[tokio::test]
    async fn making_and_removing_can_be_repeated_and_spare_what_has_content() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("a/b");
        assert!(make(&call(), &directory, Shape::Directory).await.unwrap());
        assert!(!make(&call(), &directory, Shape::Directory).await.unwrap());
        assert_eq!(make(&call(), &directory, Shape::File).await.unwrap_err().kind(), Kind::WrongState);
        let file = directory.join("file");
        assert!(make(&call(), &file, Shape::File).await.unwrap());
        assert_eq!(remove(&call(), &directory).await.unwrap_err().kind(), Kind::WrongState);
        fs::write(&file, "data").unwrap();
        assert_eq!(remove(&call(), &file).await.unwrap_err().kind(), Kind::WrongState);
        fs::write(&file, "").unwrap();
        for path in [&file, &file, &directory, &directory] {
            remove(&call(), path).await.unwrap();
        }
        assert!(!directory.exists());
    }

    #[tokio::test]
    async fn all_stacked_mounts_go_and_a_busy_one_stays() {
        let root = tempfile::tempdir().unwrap();
        let device = fake::add_disk(root.path(), "vdb", 16, 1 << 20, None);
        let target = root.path().join("target");
        fs::create_dir(&target).unwrap();
        let mounter = MemoryMounter::new();
        mounter.set_device(&device.path, Some(device.number));
        for _ in 0..3 {
            mounter.bind(&call(), &device.path, &target).await.unwrap();
        }
        mounter.set_busy(&target, true);
        let host = Host::below(root.path());
        let error = unmount_all(&mounter, &host, &call(), &target).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Busy);
        mounter.set_busy(&target, false);
        assert_eq!(unmount_all(&mounter, &host, &call(), &target).await.unwrap(), 3);
        assert_eq!(unmount_all(&mounter, &host, &call(), &target).await.unwrap(), 0);
    }
}
