//! What those who wait know about an object, and what helps to look at many with few requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The status that an object passes through, and how many wait for its end.
#[derive(Debug)]
struct Passing {
    status: &'static str,
    waiters: usize,
}

/// What is known about the objects that are waited for.
#[derive(Debug, Default)]
pub struct Notes {
    being_made: Mutex<HashMap<String, String>>,
    passing: Mutex<HashMap<String, Passing>>,
}

impl Notes {
    /// Says that an object is being made under a name: while the guard lives, looks at it also show its namesakes.
    pub fn being_made(self: &Arc<Self>, id: &str, name: &str) -> Noted {
        lock(&self.being_made).insert(id.to_owned(), name.to_owned());
        Noted { notes: Arc::clone(self), id: id.to_owned(), what: What::BeingMade }
    }

    /// Says that the service has agreed to delete an object: while the guard lives, its absence is looked for.
    pub fn leaving(self: &Arc<Self>, id: &str) -> Noted {
        self.passing(id, DELETING)
    }

    /// Says that an object is in a status that will pass: while the guard lives and the object is listed in that status,
    /// nothing has changed.
    pub fn passing(self: &Arc<Self>, id: &str, status: &'static str) -> Noted {
        let mut passing = lock(&self.passing);
        let entry = passing.entry(id.to_owned()).or_insert(Passing { status, waiters: 0 });
        entry.status = status;
        entry.waiters += 1;
        Noted { notes: Arc::clone(self), id: id.to_owned(), what: What::Passing }
    }

    /// The name under which an object is being made.
    pub(super) fn name_of(&self, id: &str) -> Option<String> {
        lock(&self.being_made).get(id).cloned()
    }

    /// The status that an object passes through.
    pub(super) fn status_of(&self, id: &str) -> Option<&'static str> {
        lock(&self.passing).get(id).map(|passing| passing.status)
    }

    /// Whether an object is being deleted.
    pub(super) fn is_leaving(&self, id: &str) -> bool {
        self.status_of(id) == Some(DELETING)
    }
}

/// The status of objects that are being deleted.
const DELETING: &str = "deleting";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
enum What {
    BeingMade,
    Passing,
}

/// A note that lasts as long as this lives.
#[derive(Debug)]
#[must_use]
pub struct Noted {
    notes: Arc<Notes>,
    id: String,
    what: What,
}

impl Drop for Noted {
    fn drop(&mut self) {
        match self.what {
            What::BeingMade => {
                lock(&self.notes.being_made).remove(&self.id);
            }
            What::Passing => {
                let mut passing = lock(&self.notes.passing);
                if let Some(entry) = passing.get_mut(&self.id) {
                    entry.waiters -= 1;
                    if entry.waiters == 0 {
                        passing.remove(&self.id);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Notes;
    use std::sync::Arc;

    #[test]
    fn notes_last_as_long_as_their_guards() {
        let notes = Arc::new(Notes::default());
        let first = notes.leaving("v");
        let second = notes.leaving("v");
        drop(first);
        assert!(notes.is_leaving("v"));
        drop(second);
        assert!(!notes.is_leaving("v"));
        let growing = notes.passing("v", "extending");
        assert_eq!((notes.status_of("v"), notes.is_leaving("v")), (Some("extending"), false));
        drop(growing);
        assert_eq!(notes.status_of("v"), None);
        let named = notes.being_made("v", "pvc-1");
        assert_eq!(notes.name_of("v").as_deref(), Some("pvc-1"));
        drop(named);
        assert_eq!(notes.name_of("v"), None);
    }
}
