//! Shares, snapshots, backups and access rules as something to wait for: which requests show the state of many at once.

use super::{AccessRule, Listed, Listing, Manila};
use crate::call::Call;
use crate::error::Result;
use crate::openstack::client::found;
use crate::openstack::crowd::{each, page_for};
use crate::openstack::notes::Notes;
use crate::openstack::watch::Source;
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// An object, and others of the same name that the same look showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen<T> {
    /// The object.
    pub object: T,
    /// Others of its name; only for objects that are being made (see [`Notes::being_made`]).
    pub namesakes: Vec<T>,
}

/// Shares, snapshots or backups.
///
/// One: by its id, or for one that is being made the list by its name, which costs the same and shows twins. Many:
/// Manila cannot list by time of change. Those that are passing through a status ([`Notes::passing`]) are in the list of
/// that status or need a look each; the others are likely among the latest, and else need a look each.
#[derive(Debug)]
pub struct ObjectSource<T> {
    manila: Manila,
    notes: Arc<Notes>,
    object: PhantomData<fn() -> T>,
}

impl<T> Clone for ObjectSource<T> {
    fn clone(&self) -> Self {
        Self { manila: self.manila.clone(), notes: Arc::clone(&self.notes), object: PhantomData }
    }
}

impl<T: Listed> ObjectSource<T> {
    /// Over this service, with these notes.
    #[must_use]
    pub fn new(manila: Manila, notes: Arc<Notes>) -> Self {
        Self { manila, notes, object: PhantomData }
    }

    /// The wanted objects of a list, those that are being made with their namesakes of the same list.
    fn pick(&self, listed: &[T], wanted: impl Fn(&T) -> bool) -> Vec<Seen<T>> {
        let mut by_name: HashMap<&str, Vec<&T>> = HashMap::new();
        for object in listed {
            by_name.entry(object.name()).or_default().push(object);
        }
        let namesakes = |object: &T| {
            let Some(name) = self.notes.name_of(object.id()) else { return Vec::new() };
            let others = by_name.get(name.as_str()).into_iter().flatten().filter(|other| other.id() != object.id());
            others.map(|other| (*other).clone()).collect()
        };
        let picked = listed.iter().filter(|object| wanted(object));
        picked.map(|object| Seen { object: object.clone(), namesakes: namesakes(object) }).collect()
    }

    /// Of the objects that pass through a status: those that no longer do, and what to ask for.
    async fn passed(&self, call: &Call, status: &str, ids: BTreeSet<&str>) -> Result<Vec<String>> {
        let mut left = ids;
        if left.len() > 1 {
            for still in self.manila.all::<T>(call, Listing::all().in_status(status)).await? {
                left.remove(still.id());
            }
        }
        Ok(left.into_iter().map(str::to_owned).collect())
    }
}

#[async_trait]
impl<T: Listed> Source for ObjectSource<T> {
    type Object = Seen<T>;

    async fn one(&self, call: &Call, id: &str) -> Result<Option<Seen<T>>> {
        if let Some(name) = self.notes.name_of(id) {
            let listed = self.manila.all(call, Listing::all().named(&name)).await?;
            if let Some(seen) = self.pick(&listed, |object: &T| object.id() == id).pop() {
                return Ok(Some(seen));
            }
        }
        let object = found(self.manila.one(call, id).await)?;
        Ok(object.map(|object| Seen { object, namesakes: Vec::new() }))
    }

    async fn many(&self, call: &Call, ids: &[String], _since: Duration) -> Result<Vec<(String, Option<Seen<T>>)>> {
        let mut passing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut others: BTreeSet<&str> = BTreeSet::new();
        let mut ask: Vec<String> = Vec::new();
        for id in ids {
            match self.notes.status_of(id) {
                Some(status) => passing.entry(status).or_default().insert(id),
                None => others.insert(id),
            };
        }
        for (status, ids) in passing {
            ask.extend(self.passed(call, status, ids).await?);
        }
        let mut seen = Vec::new();
        if others.len() > 1 {
            let latest = Listing::all().latest_first().at_most(page_for(others.len()));
            let listed = T::part(&self.manila, call, latest).await?.items;
            for picked in self.pick(&listed, |object| others.contains(object.id())) {
                others.remove(picked.object.id());
                seen.push((picked.object.id().to_owned(), Some(picked)));
            }
        }
        ask.extend(others.into_iter().map(str::to_owned));
        seen.extend(each(self, call, ask).await?);
        Ok(seen)
    }
}

/// The access rules of shares, by the id of the share: Manila lists the rules of one share at a time, and many nodes that
/// wait for rules of the same share need one look.
#[derive(Debug, Clone)]
pub struct RuleSource {
    manila: Manila,
}

impl RuleSource {
    /// Over this service.
    #[must_use]
    pub fn new(manila: Manila) -> Self {
        Self { manila }
    }
}

#[async_trait]
impl Source for RuleSource {
    type Object = Vec<AccessRule>;

    async fn one(&self, call: &Call, share: &str) -> Result<Option<Vec<AccessRule>>> {
        found(self.manila.rules(call, share).await)
    }

    fn has_list(&self) -> bool {
        false
    }

    async fn many(
        &self,
        call: &Call,
        shares: &[String],
        _since: Duration,
    ) -> Result<Vec<(String, Option<Vec<AccessRule>>)>> {
        each(self, call, shares.iter().cloned()).await
    }
}
