//! Volumes, snapshots and backups as something to wait for: which requests show the state of many at once.

use super::{Backup, Cinder, Listing, Snapshot, TIME_FILTER, Volume};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::openstack::watch::Source;
use async_trait::async_trait;
use jiff::Timestamp;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;

/// How much further back than asked a look at changes reaches: a change may become visible a little after its stamp, and
/// the clocks of the services differ a little.
const OVERLAP: Duration = Duration::from_secs(3);

/// A volume, and others of the same name that the same look showed.
#[derive(Debug, Clone)]
pub struct SeenVolume {
    /// The volume.
    pub volume: Volume,
    /// Others of its name; only for volumes that are being made (see [`VolumeNotes::being_made`]).
    pub namesakes: Vec<Volume>,
}

/// What a [`VolumeSource`] should know about the volumes that are waited for.
#[derive(Debug, Default)]
pub struct VolumeNotes {
    being_made: Mutex<HashMap<String, String>>,
    leaving: Mutex<HashMap<String, usize>>,
}

impl VolumeNotes {
    /// Says that a volume is being made under a name: while the guard lives, looks at it also show its namesakes.
    pub fn being_made(self: &Arc<Self>, id: &str, name: &str) -> Noted {
        lock(&self.being_made).insert(id.to_owned(), name.to_owned());
        Noted { notes: Arc::clone(self), id: id.to_owned(), what: What::BeingMade }
    }

    /// Says that Cinder has agreed to delete a volume: while the guard lives, its absence is looked for.
    pub fn leaving(self: &Arc<Self>, id: &str) -> Noted {
        *lock(&self.leaving).entry(id.to_owned()).or_default() += 1;
        Noted { notes: Arc::clone(self), id: id.to_owned(), what: What::Leaving }
    }

    fn name_of(&self, id: &str) -> Option<String> {
        lock(&self.being_made).get(id).cloned()
    }

    fn is_leaving(&self, id: &str) -> bool {
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
    notes: Arc<VolumeNotes>,
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

/// Volumes. One: `GET /volumes/{id}`, or for one that is being made the list by its name, which costs the same and
/// shows twins. Many: those changed since the last look, and for those being deleted the list of those still
/// `deleting`.
#[derive(Debug)]
pub struct VolumeSource {
    cinder: Cinder,
    notes: Arc<VolumeNotes>,
}

impl VolumeSource {
    /// Over this service, with these notes.
    #[must_use]
    pub fn new(cinder: Cinder, notes: Arc<VolumeNotes>) -> Self {
        Self { cinder, notes }
    }

    /// The volumes that changed so long ago or later.
    async fn changed(&self, call: &Call, since: Duration) -> Result<Vec<Volume>> {
        // The stamps are made by the service's clock; where that is not known, ours has to do.
        let now = self.cinder.client().service_time().unwrap_or_else(Timestamp::now);
        let since = now.saturating_sub(since.saturating_add(OVERLAP)).unwrap_or(Timestamp::MIN);
        if self.cinder.has(call, TIME_FILTER).await? {
            self.cinder.all_volumes(call, Listing::all().changed_since(since)).await
        } else {
            self.latest_changes(call, since).await
        }
    }

    /// The same for services without [`TIME_FILTER`]: the list in order of change, as far as needed.
    async fn latest_changes(&self, call: &Call, since: Timestamp) -> Result<Vec<Volume>> {
        const PAGE: u32 = 200;
        let mut all: Vec<Volume> = Vec::new();
        loop {
            let listing = Listing::all().latest_change_first().at_most(PAGE);
            let part = self.cinder.volumes(call, listing.after(all.last().map(|volume| volume.id.as_str()))).await?;
            let reached = part.items.iter().any(|volume| volume.updated_at.is_some_and(|time| time < since));
            let is_last = reached || !part.more || part.items.is_empty();
            all.extend(part.items);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// Those of the volumes being deleted that are gone, or have come back in another status.
    async fn left(&self, call: &Call, leaving: &[&String]) -> Result<Vec<(String, Option<Volume>)>> {
        let still: HashSet<String> = match leaving {
            [] | [_] => HashSet::new(),
            _ => {
                let listing = Listing::all().in_status("deleting");
                self.cinder.all_volumes(call, listing).await?.into_iter().map(|volume| volume.id).collect()
            }
        };
        let mut asking = JoinSet::new();
        for id in leaving.iter().filter(|id| !still.contains(**id)) {
            let (cinder, call, id) = (self.cinder.clone(), call.clone(), (*id).clone());
            asking.spawn(async move {
                let volume = found(cinder.volume(&call, &id).await);
                (id, volume)
            });
        }
        let mut left = Vec::new();
        while let Some(answer) = asking.join_next().await {
            let (id, volume) = answer.map_err(|error| Error::internal("ask for a volume").because(error))?;
            left.push((id, volume?));
        }
        Ok(left)
    }

    /// A volume of a list, with its namesakes of the same list.
    fn with_namesakes(&self, volume: &Volume, listed: &[Volume]) -> SeenVolume {
        let namesakes = match self.notes.name_of(&volume.id) {
            Some(name) => listed.iter().filter(|other| other.name == name && other.id != volume.id).cloned().collect(),
            None => Vec::new(),
        };
        SeenVolume { volume: volume.clone(), namesakes }
    }
}

#[async_trait]
impl Source for VolumeSource {
    type Object = SeenVolume;

    async fn one(&self, call: &Call, id: &str) -> Result<Option<SeenVolume>> {
        if let Some(name) = self.notes.name_of(id) {
            let listed = self.cinder.all_volumes(call, Listing::all().named(&name)).await?;
            if let Some(volume) = listed.iter().find(|volume| volume.id == id) {
                return Ok(Some(self.with_namesakes(volume, &listed)));
            }
        }
        let volume = found(self.cinder.volume(call, id).await)?;
        Ok(volume.map(|volume| SeenVolume { volume, namesakes: Vec::new() }))
    }

    async fn many(&self, call: &Call, ids: &[String], since: Duration) -> Result<Vec<(String, Option<SeenVolume>)>> {
        let (leaving, staying): (Vec<&String>, Vec<&String>) = ids.iter().partition(|id| self.notes.is_leaving(id));
        let mut seen: Vec<_> = self
            .left(call, &leaving)
            .await?
            .into_iter()
            .map(|(id, volume)| (id, volume.map(|volume| SeenVolume { volume, namesakes: Vec::new() })))
            .collect();
        if let [only] = staying.as_slice() {
            seen.push(((*only).clone(), self.one(call, only).await?));
        } else if !staying.is_empty() {
            let wanted: BTreeSet<&str> = staying.iter().map(|id| id.as_str()).collect();
            let listed = self.changed(call, since).await?;
            seen.extend(
                listed
                    .iter()
                    .filter(|volume| wanted.contains(volume.id.as_str()))
                    .map(|volume| (volume.id.clone(), Some(self.with_namesakes(volume, &listed)))),
            );
        }
        Ok(seen)
    }
}

/// How many snapshots or backups one look shows for so many that are waited for: the latest changes are theirs, and
/// those that others made meanwhile.
fn page_for(waited_for: usize) -> u32 {
    u32::try_from(waited_for).unwrap_or(u32::MAX).saturating_mul(2).clamp(50, super::LARGEST_PAGE)
}

macro_rules! by_latest_change {
    ($(#[$doc:meta])* $source:ident, $object:ty, $noun:literal, $one:ident, $list:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $source {
            cinder: Cinder,
        }

        impl $source {
            /// Over this service.
            #[must_use]
            pub fn new(cinder: Cinder) -> Self {
                Self { cinder }
            }
        }

        #[async_trait]
        impl Source for $source {
            type Object = $object;

            async fn one(&self, call: &Call, id: &str) -> Result<Option<$object>> {
                found(self.cinder.$one(call, id).await)
            }

            async fn many(
                &self,
                call: &Call,
                ids: &[String],
                _since: Duration,
            ) -> Result<Vec<(String, Option<$object>)>> {
                let listing = Listing::all().latest_change_first().at_most(page_for(ids.len()));
                let mut missing: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
                let listed = self.cinder.$list(call, listing).await?.items;
                let mut seen: Vec<_> = listed
                    .into_iter()
                    .filter(|object| missing.remove(object.id.as_str()))
                    .map(|object| (object.id.clone(), Some(object)))
                    .collect();
                // Gone, or not changed yet.
                let mut asking = JoinSet::new();
                for id in missing {
                    let (source, call, id) = (self.clone(), call.clone(), id.to_owned());
                    asking.spawn(async move {
                        let object = source.one(&call, &id).await;
                        (id, object)
                    });
                }
                while let Some(answer) = asking.join_next().await {
                    let (id, object) = answer.map_err(|error| Error::internal(concat!("ask for a ", $noun)).because(error))?;
                    seen.push((id, object?));
                }
                Ok(seen)
            }
        }
    };
}

by_latest_change!(
    /// Snapshots. Many: the latest changes, and those that are not among them one by one.
    SnapshotSource, Snapshot, "snapshot", snapshot, snapshots
);
by_latest_change!(
    /// Backups. Many: the latest changes, and those that are not among them one by one.
    BackupSource, Backup, "backup", backup, backups
);

/// A 404 is an answer, every other error is an error.
fn found<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is(Kind::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::{VolumeNotes, page_for};
    use std::sync::Arc;

    #[test]
    fn notes_last_as_long_as_their_guards() {
        let notes = Arc::new(VolumeNotes::default());
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

    #[test]
    fn pages_grow_with_the_number_of_waiters_within_bounds() {
        assert_eq!([1, 25, 26, 400, 5000, usize::MAX].map(page_for), [50, 50, 52, 800, 1000, 1000]);
    }
}
