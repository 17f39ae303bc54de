//! What comes before a device is taken away: nobody uses it, and all that was written to it is on the storage.

use super::kernel::is_gone;
use super::lock::Held;
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::node::device::Device;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

/// How long writing everything back may take before the storage is taken for gone.
const FLUSH: Duration = Duration::from_secs(60);

/// How a device was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Everything is written.
    Flushed,
    /// The storage refuses to take anything more: what was not written by now never will be.
    Broken,
    /// There is no such device.
    Gone,
}

/// Makes sure that nobody uses a device, and flushes it.
///
/// # Errors
/// `Busy`: it is mounted, or another device is made of it. `Unavailable`: the storage does not answer.
pub(super) async fn release(call: &Call, held: &Held, device: &Device) -> Result<Left> {
    on_its_thread(call, held, device, FLUSH, |file| file.sync_all()).await
}

/// Makes sure that nobody uses a device whose storage does not answer: without reading or writing.
///
/// # Errors
/// As [`release`].
pub(super) async fn refuse_if_used(call: &Call, held: &Held, device: &Device) -> Result<Left> {
    on_its_thread(call, held, device, Duration::from_secs(10), |_| Ok(())).await
}

async fn on_its_thread(
    call: &Call,
    held: &Held,
    device: &Device,
    time: Duration,
    flush: fn(&File) -> io::Result<()>,
) -> Result<Left> {
    let doing = format!("flush {}", device.path.display());
    call.step(&doing);
    let (path, held) = (device.path.clone(), held.clone());
    let work = tokio::task::spawn_blocking(move || {
        let _held = held;
        flush(&OpenOptions::new().read(true).custom_flags(OFlag::O_EXCL.bits()).open(path)?)
    });
    let Ok(ended) = call.bound(&doing, tokio::time::timeout(time, work)).await? else {
        return Err(Error::new(
            Kind::Unavailable,
            format!("{doing}: no answer within {time:?}: the storage behind it does not answer; it stays connected"),
        ));
    };
    match ended.map_err(|error| Error::internal(format!("{doing}: the work was aborted")).because(error))? {
        Ok(()) => Ok(Left::Flushed),
        Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => Err(Error::busy(format!(
            "{} is in use on this node (mounted, or part of another device: see lsblk); it stays connected",
            device.path.display()
        ))),
        Err(error) if is_gone(&error) => Ok(Left::Gone),
        Err(error) => {
            tracing::warn!(device = %device.path.display(), %error, "cannot be flushed: the storage took it away");
            Ok(Left::Broken)
        }
    }
}
