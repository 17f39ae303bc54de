//! What those who wait know about an object, and what helps to look at many with few requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is known about the objects that are waited for.
#[derive(Debug, Default)]
pub struct Notes {
    being_made: Mutex<HashMap<String, String>>,
    leaving: Mutex<HashMap<String, usize>>,
}

impl Notes {
    /// Says that an object is being made under a name: while the guard lives, looks at it also show its namesakes.
    pub fn being_made(self: &Arc<Self>, id: &str, name: &str) -> Noted {
        lock(&self.being_made).insert(id.to_owned(), name.to_owned());
        Noted { notes: Arc::clone(self), id: id.to_owned(), what: What::BeingMade }
    }

    /// Says that the service has agreed to delete an object: while the guard lives, its absence is looked for.
    pub fn leaving(self: &Arc<Self>, id: &str) -> Noted {
        *lock(&self.leaving).entry(id.to_owned()).or_default() += 1;
        Noted { notes: Arc::clone(self), id: id.to_owned(), what: What::Leaving }
    }

    /// The name under which an object is being made.
    pub(super) fn name_of(&self, id: &str) -> Option<String> {
        lock(&self.being_made).get(id).cloned()
    }

    /// Whether an object is being deleted.
    pub(super) fn is_leaving(&self, id: &str) -> bool {
        lock(&self.leaving).contains_key(id)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
enum What {
    BeingMade,
    Leaving,
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
            What::Leaving => {
                let mut leaving = lock(&self.notes.leaving);
                if let Some(count) = leaving.get_mut(&self.id) {
                    *count -= 1;
                    if *count == 0 {
                        leaving.remove(&self.id);
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
        let named = notes.being_made("v", "pvc-1");
        assert_eq!(notes.name_of("v").as_deref(), Some("pvc-1"));
        drop(named);
        assert_eq!(notes.name_of("v"), None);
    }
}
