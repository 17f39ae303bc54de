//! One operation at a time on a target: several volumes may come by the same one, and whether it can be dropped depends
//! on all of them.

use crate::call::Call;
use crate::error::Result;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// The locks of a connector, by the names of its targets.
#[derive(Debug, Clone, Default)]
pub(super) struct Locks {
    by_name: Arc<Mutex<HashMap<String, Weak<AsyncMutex<()>>>>>,
}

/// Locks that are held until the last clone of this is gone.
#[derive(Debug, Clone)]
pub(super) struct Held {
    _guards: Arc<Vec<OwnedMutexGuard<()>>>,
}

impl Locks {
    /// Waits until nobody else works on any of these targets.
    ///
    /// # Errors
    /// `Deadline`: an earlier operation takes longer than the call lasts.
    pub(super) async fn hold(&self, call: &Call, names: impl IntoIterator<Item = String>) -> Result<Held> {
        let mut names: Vec<String> = names.into_iter().collect();
        // Always in the same order, so that two that want the same ones never wait for each other.
        names.sort();
        names.dedup();
        let mut guards = Vec::new();
        for name in names {
            let lock = self.lock_of(&name);
            guards.push(call.bound(&format!("wait for an earlier operation on {name}"), lock.lock_owned()).await?);
        }
        Ok(Held { _guards: Arc::new(guards) })
    }

    fn lock_of(&self, name: &str) -> Arc<AsyncMutex<()>> {
        let mut locks = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = locks.get(name).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(AsyncMutex::new(()));
        locks.insert(name.to_owned(), Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use super::Locks;
    use crate::call::Call;
    use crate::error::Kind;
    use std::time::Duration;

    #[tokio::test]
    async fn a_target_is_held_until_the_last_who_works_on_it_is_done() {
        let locks = Locks::default();
        let names = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let call = Call::lasting(Duration::from_secs(20));
        let held = locks.hold(&call, names(&["b", "a", "b"])).await.unwrap();
        let worker = held.clone();
        drop(held);
        let short = Call::lasting(Duration::from_millis(30));
        let error = locks.hold(&short, names(&["c", "a"])).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Deadline);
        assert!(error.to_string().contains("operation on a"), "{error}");
        drop(locks.hold(&call, names(&["c"])).await.unwrap());
        drop(worker);
        drop(locks.hold(&call, names(&["a", "b"])).await.unwrap());
        assert!(locks.by_name.lock().unwrap().len() <= 3);
    }
}
