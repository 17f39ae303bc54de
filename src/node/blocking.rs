//! System calls that may block: run on a thread of their own, waited for only so long.
//!
//! A file system whose device or server is gone can hold a system call for ever. Such a thread cannot be ended; what
//! can be done is not to wait for it, and not to send a second one after it ([`Patience`]).

use crate::call::Call;
use crate::error::{Error, Kind, Result};
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Runs something that blocks for a short time only, such as reading sysfs.
///
/// # Errors
/// `Deadline`: the call is over first. Otherwise what the work returns.
pub async fn run<T: Send + 'static>(
    call: &Call,
    doing: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    call.bound(doing, tokio::task::spawn_blocking(work)).await?.map_err(|error| broken(doing, error))?
}

/// Runs system calls that touch a path which may hang, each for a limited time; one at a time for a path that hangs.
#[derive(Debug, Clone, Default)]
pub struct Patience {
    hung: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Patience {
    /// Runs `work` on `path` for at most `limit`, even when a caller goes away: what it does is then known.
    ///
    /// # Errors
    /// `Unavailable`: it hangs, or an earlier one still does. `Internal`, with the system's error as its cause.
    pub async fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        doing: &str,
        path: &Path,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.lock().contains(path) {
            return Err(Error::new(
                Kind::Unavailable,
                format!("{doing}: an earlier attempt still hangs: the device or server behind it does not answer"),
            ));
        }
        let mut task = tokio::task::spawn_blocking(work);
        match tokio::time::timeout(limit, &mut task).await {
            Ok(Ok(result)) => result.map_err(|error| Error::internal(doing.to_owned()).because(error)),
            Ok(Err(error)) => Err(broken(doing, error)),
            Err(_) => {
                self.lock().insert(path.to_owned());
                let (patience, path) = (self.clone(), path.to_owned());
                tokio::spawn(async move {
                    // The result comes too late for anyone; what counts is that the path answers again.
                    drop(task.await);
                    patience.lock().remove(&path);
                });
                Err(Error::new(
                    Kind::Unavailable,
                    format!("{doing}: no answer within {limit:?}: the device or server behind it does not answer"),
                ))
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.hung.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn broken(doing: &str, error: tokio::task::JoinError) -> Error {
    Error::internal(format!("{doing}: the work was aborted")).because(error)
}

#[cfg(test)]
mod tests {
    use super::Patience;
    use crate::error::Kind;
    use std::path::Path;
    use std::sync::mpsc;
    use std::time::Duration;

    #[tokio::test]
    async fn a_hung_path_is_not_waited_for_and_gets_no_second_thread() {
        let patience = Patience::default();
        let (release, hang) = mpsc::channel::<()>();
        let path = Path::new("/hung");
        let limit = Duration::from_millis(30);
        let first = patience.run(limit, "stat /hung", path, move || {
            let _ = hang.recv();
            Ok(())
        });
        assert_eq!(first.await.unwrap_err().kind(), Kind::Unavailable);
        let error = patience.run(limit, "stat /hung", path, || Ok(())).await.unwrap_err();
        assert!(error.to_string().contains("still hangs"), "{error}");
        patience.run(limit, "stat /fine", Path::new("/fine"), || Ok(())).await.unwrap();

        release.send(()).unwrap();
        for _ in 0..100 {
            if patience.run(limit, "stat /hung", path, || Ok(())).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("a path that answers again is still taken for hung");
    }
}
