//! What this run has made and not yet taken away: the list that undoing works from.
//!
//! An entry is written *before* the RPC that makes the object, since an RPC may succeed and its answer be lost. Entries
//! are taken away when the RPC that removes the object has succeeded. So, whatever step fails or is cut off, the list
//! covers everything that may exist.

use super::proto;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Something that exists, or may exist, because of this run.
#[derive(Debug, Clone)]
pub(super) enum Object {
    /// A directory on this machine, empty unless something is mounted on it.
    Directory(PathBuf),
    /// A volume; without an id, its creation was not answered (yet).
    Volume {
        /// How it was asked for: asking again gives its id.
        request: Box<proto::CreateVolumeRequest>,
        /// Its id.
        id: Option<String>,
    },
    /// A snapshot or backup; without an id, its creation was not answered (yet).
    Snapshot {
        /// How it was asked for: asking again gives its id.
        request: Box<proto::CreateSnapshotRequest>,
        /// Its id.
        id: Option<String>,
    },
    /// A volume published to a node by the controller.
    Attachment {
        /// The volume.
        volume: String,
        /// The node's place among the nodes of this run.
        node: usize,
    },
    /// A volume staged on a node.
    Staging {
        /// The volume.
        volume: String,
        /// The node.
        node: usize,
        /// Where.
        path: PathBuf,
    },
    /// A volume published on a node.
    Publication {
        /// The volume.
        volume: String,
        /// The node.
        node: usize,
        /// Where.
        path: PathBuf,
    },
}

impl Object {
    /// The volume whose removal has to wait until this object is gone.
    pub(super) fn holds(&self) -> Option<&str> {
        match self {
            Self::Attachment { volume, .. } | Self::Staging { volume, .. } | Self::Publication { volume, .. } => {
                Some(volume)
            }
            Self::Snapshot { request, .. } => Some(&request.source_volume_id),
            Self::Volume { id, .. } => id.as_deref(),
            Self::Directory(_) => None,
        }
    }
}

impl Object {
    /// Its id or path, for a step's line.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Directory(path) => path.display().to_string(),
            Self::Volume { request, id } => id.clone().unwrap_or_else(|| request.name.clone()),
            Self::Snapshot { request, id } => id.clone().unwrap_or_else(|| request.name.clone()),
            Self::Attachment { volume, .. } | Self::Staging { volume, .. } | Self::Publication { volume, .. } => {
                volume.clone()
            }
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "directory {}", path.display()),
            Self::Volume { request, id: Some(id) } => write!(f, "volume {id} ({})", request.name),
            Self::Volume { request, id: None } => write!(f, "perhaps a volume named {}", request.name),
            Self::Snapshot { request, id: Some(id) } => write!(f, "snapshot {id} ({})", request.name),
            Self::Snapshot { request, id: None } => write!(f, "perhaps a snapshot named {}", request.name),
            Self::Attachment { volume, node } => write!(f, "volume {volume} published to node {}", node + 1),
            Self::Staging { volume, path, .. } => write!(f, "volume {volume} staged at {}", path.display()),
            Self::Publication { volume, path, .. } => write!(f, "volume {volume} published at {}", path.display()),
        }
    }
}

/// An entry's number: the larger, the later it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Entry(u64);

/// The list. Shared by all lives of a run.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// In the order in which they were made.
    entries: Vec<(Entry, u32, Object)>,
}

impl Ledger {
    /// Notes an object that life `life` is about to make.
    pub(super) fn begin(&self, life: u32, object: Object) -> Entry {
        let mut state = self.lock();
        let entry = Entry(state.next);
        state.next += 1;
        state.entries.push((entry, life, object));
        entry
    }

    /// Notes the id that the driver gave a volume or snapshot.
    pub(super) fn identify(&self, entry: Entry, name: &str) {
        let mut state = self.lock();
        if let Some((_, _, Object::Volume { id, .. } | Object::Snapshot { id, .. })) =
            state.entries.iter_mut().find(|(number, _, _)| *number == entry)
        {
            *id = Some(name.to_owned());
        }
    }

    /// What an entry stands for; none when that is gone.
    pub(super) fn get(&self, entry: Entry) -> Option<Object> {
        self.lock().entries.iter().find(|(number, _, _)| *number == entry).map(|(_, _, object)| object.clone())
    }

    /// Notes that the object is gone.
    pub(super) fn end(&self, entry: Entry) {
        self.lock().entries.retain(|(number, _, _)| *number != entry);
    }

    /// What life `life` has, the latest first.
    pub(super) fn of_life(&self, life: u32) -> Vec<(Entry, Object)> {
        let state = self.lock();
        let own = state.entries.iter().rev().filter(|(_, owner, _)| *owner == life);
        own.map(|(entry, _, object)| (*entry, object.clone())).collect()
    }

    /// Everything that there is, the latest first.
    pub(super) fn all(&self) -> Vec<Object> {
        self.lock().entries.iter().rev().map(|(_, _, object)| object.clone()).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{Ledger, Object};
    use proptest::prelude::{any, prop, proptest};
    use std::path::PathBuf;

    proptest! {
        #[test]
        fn what_is_left_is_what_was_begun_and_not_ended_the_latest_first(
            steps in prop::collection::vec((any::<bool>(), 0_u32..3, any::<prop::sample::Index>()), 0..60),
        ) {
            let ledger = Ledger::default();
            let mut expected = Vec::new();
            for (number, (begins, life, which)) in steps.into_iter().enumerate() {
                if begins || expected.is_empty() {
                    let path = PathBuf::from(format!("/{number}"));
                    let entry = ledger.begin(life, Object::Directory(path.clone()));
                    expected.push((entry, life, path));
                } else {
                    let (entry, _, _) = expected.remove(which.index(expected.len()));
                    ledger.end(entry);
                }
            }
            for life in 0..3 {
                let left: Vec<_> = ledger.of_life(life).into_iter().map(|(entry, _)| entry).collect();
                let wanted: Vec<_> = expected.iter().rev().filter(|e| e.1 == life).map(|e| e.0).collect();
                assert_eq!(left, wanted);
            }
            assert_eq!(ledger.all().len(), expected.len());
        }
    }
}
