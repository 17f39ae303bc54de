//! The kernel's control files: writing into them is how targets are connected, scanned and dropped.
//!
//! A [`Kernel`] is this machine's, or a script of one in a test. A write may take as long as the storage takes to answer,
//! and what it does goes on when nobody waits for it any more; so it holds its lock ([`Held`]) until it is done, and the
//! next operation on that target finds a finished state, never one in the making.

use super::lock::Held;
use crate::call::Call;
use crate::error::{Error, Result};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Takes commands.
pub(super) trait Kernel: fmt::Debug + Send + Sync {
    /// Writes a command into a control file.
    ///
    /// # Errors
    /// What the kernel answers to it.
    fn tell(&self, file: &Path, command: &[u8]) -> io::Result<()>;

    /// Writes a command, and reads what the same open file then says.
    ///
    /// # Errors
    /// What the kernel answers to it.
    fn ask(&self, file: &Path, command: &[u8]) -> io::Result<String>;
}

/// The kernel of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SystemKernel;

impl Kernel for SystemKernel {
    fn tell(&self, file: &Path, command: &[u8]) -> io::Result<()> {
        write_at_once(&mut OpenOptions::new().write(true).open(file)?, command)
    }

    fn ask(&self, file: &Path, command: &[u8]) -> io::Result<String> {
        let mut open = OpenOptions::new().read(true).write(true).open(file)?;
        write_at_once(&mut open, command)?;
        // A control device gives its answer in one read; there is no end of file to wait for.
        let mut answer = vec![0; 4096];
        let count = open.read(&mut answer)?;
        answer.truncate(count);
        Ok(String::from_utf8_lossy(&answer).trim().to_owned())
    }
}

/// A control file takes a command in one write or not at all.
fn write_at_once(file: &mut fs::File, command: &[u8]) -> io::Result<()> {
    let count = file.write(command)?;
    if count == command.len() { Ok(()) } else { Err(io::Error::new(io::ErrorKind::WriteZero, "a part was taken only")) }
}

/// Tells the kernel, on a thread of its own.
///
/// # Errors
/// `Deadline`: the call is over first; the command goes on and keeps its lock. What the kernel answers is the inner result.
pub(super) async fn tell(
    kernel: &Arc<dyn Kernel>,
    call: &Call,
    held: &Held,
    doing: &str,
    file: PathBuf,
    command: impl Into<Vec<u8>>,
) -> Result<io::Result<()>> {
    let (kernel, held, command) = (Arc::clone(kernel), held.clone(), command.into());
    call.step(doing);
    tracing::debug!(file = %file.display(), doing, "telling the kernel");
    let work = tokio::task::spawn_blocking(move || {
        let _held = held;
        kernel.tell(&file, &command)
    });
    call.bound(doing, work)
        .await?
        .map_err(|error| Error::internal(format!("{doing}: the work was aborted")).because(error))
}

/// Tells the kernel something about an object that may be gone at this moment; then there is nothing to tell.
///
/// # Errors
/// As [`tell`]; `Internal`: the kernel refuses.
pub(super) async fn tell_if_there(
    kernel: &Arc<dyn Kernel>,
    call: &Call,
    held: &Held,
    doing: &str,
    file: PathBuf,
    command: impl Into<Vec<u8>>,
) -> Result<()> {
    match tell(kernel, call, held, doing, file, command).await? {
        Err(error) if !is_gone(&error) => Err(Error::internal(doing.to_owned()).because(error)),
        _ => Ok(()),
    }
}

/// Whether an error means that the object is not there (any more).
pub(super) fn is_gone(error: &io::Error) -> bool {
    const ENXIO: i32 = nix::errno::Errno::ENXIO as i32;
    const ENODEV: i32 = nix::errno::Errno::ENODEV as i32;
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || matches!(error.raw_os_error(), Some(ENXIO | ENODEV))
}

/// The names in a directory of sysfs, sorted; none if there is no such directory (any more).
pub(super) fn names_in(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => names.push(entry.file_name().to_string_lossy().into_owned()),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    names.sort();
    Ok(names)
}

/// sysfs said something unheard of, or cannot be read.
pub(super) fn unreadable(error: io::Error) -> Error {
    Error::internal("read sysfs: are /sys and the host's /dev mounted into the driver's container?").because(error)
}

/// A kernel of a test.
#[cfg(test)]
pub(super) mod scripted {
    use super::Kernel;
    use std::fmt;
    use std::io;
    use std::path::Path;

    /// What a scripted kernel does with a command for a file; what it returns is what the file says then.
    type Answer = dyn Fn(&Path, &str) -> io::Result<String> + Send + Sync;

    /// A kernel that does what a test says.
    pub(in crate::node::connector) struct Scripted(Box<Answer>);

    impl Scripted {
        pub(in crate::node::connector) fn new(
            answer: impl Fn(&Path, &str) -> io::Result<String> + Send + Sync + 'static,
        ) -> Self {
            Self(Box::new(answer))
        }
    }

    impl fmt::Debug for Scripted {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Scripted")
        }
    }

    impl Kernel for Scripted {
        fn tell(&self, file: &Path, command: &[u8]) -> io::Result<()> {
            self.ask(file, command).map(drop)
        }

        fn ask(&self, file: &Path, command: &[u8]) -> io::Result<String> {
            (self.0)(file, std::str::from_utf8(command).unwrap())
        }
    }
}
