//! The directory with all volumes and snapshots, and who may change it: one at a time, whichever process and machine it is.

use crate::shelf::{Shelf, failed};
use fuxi_csi::call::Call;
use fuxi_csi::error::Result;
use fuxi_csi::node::blocking;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The pause between two looks whether it is our turn.
const PAUSE: Duration = Duration::from_millis(20);

/// Where everything is.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    directory: PathBuf,
    pub(crate) volumes: Shelf,
    pub(crate) snapshots: Shelf,
}

impl Store {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self {
            volumes: Shelf::new(directory.join("volumes"), "volume"),
            snapshots: Shelf::new(directory.join("snapshots"), "snapshot"),
            directory,
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Reads; what is read is whole, since descriptions are replaced and never changed.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        call: &Call,
        doing: &str,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.clone();
        blocking::run(call, doing, move || work(&store)).await
    }

    /// Changes something while nobody else does. The work goes on to its end even if the caller goes away.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        call: &Call,
        doing: &str,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = self.turn(call).await?;
        call.check(doing)?;
        let store = self.clone();
        blocking::run(call, doing, move || {
            let result = work(&store);
            drop(turn);
            result
        })
        .await
    }

    /// Waits until it is our turn; it ends when the file is dropped.
    async fn turn(&self, call: &Call) -> Result<File> {
        loop {
            let store = self.clone();
            if let Some(turn) = blocking::run(call, "lock the directory", move || store.try_lock()).await? {
                return Ok(turn);
            }
            call.sleep("wait for another operation in the directory", PAUSE).await?;
        }
    }

    fn try_lock(&self) -> Result<Option<File>> {
        let path = self.directory.join("lock");
        let open = || {
            fs::create_dir_all(&self.directory)?;
            File::options().create(true).append(true).open(&path)
        };
        let file = open().map_err(|error| failed("open", &path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed("lock", &path, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Store;
    use fuxi_csi::call::Call;
    use fuxi_csi::error::Kind;
    use std::time::Duration;

    #[tokio::test]
    async fn who_does_not_get_a_turn_in_time_is_told_to_repeat() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (Store::new(directory.path().join("a")), Store::new(directory.path().join("a")));
        let turn = one.turn(&Call::lasting(Duration::from_secs(5))).await.unwrap();
        let soon = || Call::lasting(Duration::from_millis(100));
        let error = other.change(&soon(), "try", |_| Ok(())).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Deadline);
        drop(turn);
        other.change(&Call::lasting(Duration::from_secs(5)), "try", |_| Ok(())).await.unwrap();
    }
}
