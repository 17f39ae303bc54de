//! Volumes, snapshots and backups as something to wait for: which requests show the state of many at once.

use super::{Backup, Cinder, Listing, Snapshot, TIME_FILTER, Volume};
use crate::call::Call;
use crate::error::{Kind, Result};
use crate::openstack::client::found;
use crate::openstack::crowd::{each, page_for};
use crate::openstack::notes::Notes;
use crate::openstack::watch::Source;
use async_trait::async_trait;
use jiff::Timestamp;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How much further back than asked a look at changes reaches: a change becomes visible a little after its stamp. (Stamps
/// may have whole seconds only; so has the time in the filter.)
const OVERLAP: Duration = Duration::from_millis(250);

/// How much further back one reaches from time to time: the clocks of the services' hosts differ a little.
const WIDE_OVERLAP: Duration = Duration::from_secs(10);
const BETWEEN_WIDE_LOOKS: Duration = Duration::from_secs(10);

/// A volume, and others of the same name that the same look showed.
#[derive(Debug, Clone)]
pub struct SeenVolume {
    /// The volume.
    pub volume: Volume,
    /// Others of its name; only for volumes that are being made (see [`Notes::being_made`]).
    pub namesakes: Vec<Volume>,
}

/// Volumes. One: `GET /volumes/{id}`, or for one that is being made the list by its name, which costs the same and
/// shows twins. Many: those changed since the last look, and for those being deleted the list of those still
/// `deleting`.
#[derive(Debug, Clone)]
pub struct VolumeSource {
    cinder: Cinder,
    notes: Arc<Notes>,
    no_time_filter: Arc<AtomicBool>,
    last_wide_look: Arc<Mutex<Option<Instant>>>,
}

impl VolumeSource {
    /// Over this service, with these notes.
    #[must_use]
    pub fn new(cinder: Cinder, notes: Arc<Notes>) -> Self {
        Self { cinder, notes, no_time_filter: Arc::default(), last_wide_look: Arc::default() }
    }

    /// The volumes that changed so long ago or later.
    async fn changed(&self, call: &Call, since: Duration) -> Result<Vec<Volume>> {
        // The stamps are made by the service's clock; where that is not known, ours has to do.
        let now = self.cinder.client().service_time().unwrap_or_else(Timestamp::now);
        let since = now.saturating_sub(since.saturating_add(overlap(&self.last_wide_look))).unwrap_or(Timestamp::MIN);
        if self.has_time_filter(call).await? {
            match self.cinder.all_volumes(call, Listing::all().changed_since(since)).await {
                // Operators can take filters away (`resource_filters.json`).
                Err(error) if error.is(Kind::InvalidArgument) => self.no_time_filter.store(true, Ordering::Relaxed),
                listed => return listed,
            }
        }
        self.latest_changes(call, since).await
    }

    async fn has_time_filter(&self, call: &Call) -> Result<bool> {
        Ok(!self.no_time_filter.load(Ordering::Relaxed) && self.cinder.has(call, TIME_FILTER).await?)
    }

    /// The same without [`TIME_FILTER`]: the list in order of change, as far as needed.
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
    async fn left(&self, call: &Call, leaving: &[&String]) -> Result<Vec<(String, Option<SeenVolume>)>> {
        let still: HashSet<String> = match leaving {
            [] | [_] => HashSet::new(),
            _ => {
                let listing = Listing::all().in_status("deleting");
                self.cinder.all_volumes(call, listing).await?.into_iter().map(|volume| volume.id).collect()
            }
        };
        let left = leaving.iter().filter(|id| !still.contains(**id)).map(|id| (*id).clone());
        each(self, call, left).await
    }

    /// The wanted volumes of a list, those that are being made with their namesakes of the same list.
    fn pick(&self, listed: &[Volume], wanted: impl Fn(&Volume) -> bool) -> Vec<SeenVolume> {
        let mut by_name: HashMap<&str, Vec<&Volume>> = HashMap::new();
        for volume in listed {
            by_name.entry(&volume.name).or_default().push(volume);
        }
        let namesakes = |volume: &Volume| {
            let Some(name) = self.notes.name_of(&volume.id) else { return Vec::new() };
            let others = by_name.get(name.as_str()).into_iter().flatten().filter(|other| other.id != volume.id);
            others.map(|other| (*other).clone()).collect()
        };
        let picked = listed.iter().filter(|volume| wanted(volume));
        picked.map(|volume| SeenVolume { volume: volume.clone(), namesakes: namesakes(volume) }).collect()
    }
}

/// How far the next look at changes overlaps with the one before, given the time of the last wide one.
fn overlap(last_wide_look: &Mutex<Option<Instant>>) -> Duration {
    let mut last = last_wide_look.lock().unwrap_or_else(PoisonError::into_inner);
    if last.is_some_and(|last| last.elapsed() < BETWEEN_WIDE_LOOKS) {
        return OVERLAP;
    }
    *last = Some(Instant::now());
    WIDE_OVERLAP
}

#[async_trait]
impl Source for VolumeSource {
    type Object = SeenVolume;

    async fn one(&self, call: &Call, id: &str) -> Result<Option<SeenVolume>> {
        if let Some(name) = self.notes.name_of(id) {
            let listed = self.cinder.all_volumes(call, Listing::all().named(&name)).await?;
            if let Some(seen) = self.pick(&listed, |volume| volume.id == id).pop() {
                return Ok(Some(seen));
            }
        }
        let volume = found(self.cinder.volume(call, id).await)?;
        Ok(volume.map(|volume| SeenVolume { volume, namesakes: Vec::new() }))
    }

    async fn many(&self, call: &Call, ids: &[String], since: Duration) -> Result<Vec<(String, Option<SeenVolume>)>> {
        let (leaving, staying): (Vec<&String>, Vec<&String>) = ids.iter().partition(|id| self.notes.is_leaving(id));
        let mut seen = self.left(call, &leaving).await?;
        if let [only] = staying.as_slice() {
            seen.push(((*only).clone(), self.one(call, only).await?));
        } else if !staying.is_empty() {
            let wanted: BTreeSet<&str> = staying.iter().map(|id| id.as_str()).collect();
            let listed = self.changed(call, since).await?;
            let picked = self.pick(&listed, |volume| wanted.contains(volume.id.as_str()));
            seen.extend(picked.into_iter().map(|picked| (picked.volume.id.clone(), Some(picked))));
        }
        Ok(seen)
    }
}

macro_rules! by_latest_change {
    ($(#[$doc:meta])* $source:ident, $object:ty, $one:ident, $list:ident) => {
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
                seen.extend(each(self, call, missing.into_iter().map(str::to_owned)).await?);
                Ok(seen)
            }
        }
    };
}

by_latest_change!(
    /// Snapshots. Many: the latest changes, and those that are not among them one by one.
    SnapshotSource, Snapshot, snapshot, snapshots
);
by_latest_change!(
    /// Backups. Many: the latest changes, and those that are not among them one by one.
    BackupSource, Backup, backup, backups
);

#[cfg(test)]
mod tests {
    use super::{WIDE_OVERLAP, overlap};
    use std::sync::Mutex;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_look_reaches_far_back_now_and_then() {
        let last = Mutex::default();
        let mut wide = Vec::new();
        for second in 0..25 {
            if overlap(&last) == WIDE_OVERLAP {
                wide.push(second);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(wide, [0, 10, 20]);
    }
}
