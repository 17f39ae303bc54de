//! Waiting for many objects with few requests.
//!
//! Callers wait for a predicate on one object ([`Watch::until`]); while anybody waits, one task looks for all of them.
//! Few waiters: each object is fetched by itself, when its change is likely over (see `pace`). A crowd: one list per
//! tick serves all, or where there is no list, looks at a few tell when to look at the others (see `scouts`). Nobody: no
//! task, no timer, no request. `schedule` decides what is looked at when.

mod schedule;
mod scouts;
#[cfg(test)]
mod tests;

use crate::call::Call;
use crate::error::{Error, Result};
pub use crate::openstack::pace::FirstLook;
use crate::openstack::pace::{AT_ONCE, FIRST_LOOK};
use async_trait::async_trait;
use schedule::{Ask, Rhythm, Schedule, Step};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// How long a list may take.
const LIST_TIME: Duration = Duration::from_secs(60);

/// What a [`Watch`] looks at.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// The objects.
    type Object: Send + Sync + 'static;

    /// One object; none when it is not there.
    ///
    /// # Errors
    /// As the service gives them.
    async fn one(&self, call: &Call, id: &str) -> Result<Option<Self::Object>>;

    /// Whether [`Source::many`] is cheaper than asking for each.
    fn has_list(&self) -> bool {
        true
    }

    /// The state of these objects as far as few requests can tell: of each that was seen, its id and what it is now,
    /// `None` if it is gone. Objects of other ids may be among them. An id that is left out counts as unchanged; it is
    /// asked for by itself now and then. `since` says how long ago the oldest change of interest can have happened.
    ///
    /// # Errors
    /// As the service gives them.
    async fn many(&self, call: &Call, ids: &[String], since: Duration) -> Result<Vec<(String, Option<Self::Object>)>>;
}

/// Looks at one kind of object for all who wait. Cheap to clone.
pub struct Watch<S: Source>(Arc<Inner<S>>);

impl<S: Source> Clone for Watch<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Source> fmt::Debug for Watch<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

struct Inner<S: Source> {
    source: S,
    schedule: Mutex<Schedule<S::Object>>,
    wake: Notify,
}

struct Asked<R, F> {
    answer: Option<oneshot::Sender<Result<R>>>,
    done: F,
}

impl<T, R: Send, F: FnMut(Option<&T>) -> Result<Option<R>> + Send> Ask<T> for Asked<R, F> {
    fn show(&mut self, seen: Option<&T>) -> bool {
        match (self.done)(seen).transpose() {
            None => false,
            Some(outcome) => {
                if let Some(answer) = self.answer.take() {
                    // A caller who is gone needs no answer.
                    let _ = answer.send(outcome);
                }
                true
            }
        }
    }

    fn fail(&mut self, error: Error) {
        if let Some(answer) = self.answer.take() {
            let _ = answer.send(Err(error));
        }
    }
}

/// Takes the waiter away when its caller is gone.
struct Registration<'a, S: Source> {
    inner: &'a Inner<S>,
    id: &'a str,
    key: u64,
}

impl<S: Source> Drop for Registration<'_, S> {
    fn drop(&mut self) {
        self.inner.lock().remove(self.id, self.key);
    }
}

impl<S: Source> Watch<S> {
    /// A watch over this source.
    #[must_use]
    pub fn new(source: S) -> Self {
        Self::with_rhythm(source, Rhythm::TICKS)
    }

    /// One for [`Watch::now`] alone: nobody who asks how things are waits for a tick.
    #[must_use]
    pub fn at_once(source: S) -> Self {
        Self::with_rhythm(source, Rhythm::AT_ONCE)
    }

    fn with_rhythm(source: S, rhythm: Rhythm) -> Self {
        Self(Arc::new(Inner { source, schedule: Mutex::new(Schedule::new(rhythm)), wake: Notify::new() }))
    }

    /// The source.
    #[must_use]
    pub fn source(&self) -> &S {
        &self.0.source
    }

    /// Waits until `done` says `Some`; it is shown every state that is seen, `None` for an object that is gone.
    /// `doing` names the kind of change, such as `"create volume"`: how long such a change usually takes is learned per
    /// name, so that the looks come when the answer is likely.
    ///
    /// # Errors
    /// Those of `done`; `Deadline` when the call is over; what the service answers to a look, after the client's own
    /// retries.
    pub async fn until<T: Send + 'static>(
        &self,
        call: &Call,
        doing: &'static str,
        id: &str,
        done: impl FnMut(Option<&S::Object>) -> Result<Option<T>> + Send + 'static,
    ) -> Result<T> {
        self.until_from(call, doing, FIRST_LOOK, id, done).await
    }

    /// The same for a change of which is known when to look at it first.
    ///
    /// # Errors
    /// As [`Watch::until`].
    pub async fn until_from<T: Send + 'static>(
        &self,
        call: &Call,
        doing: &'static str,
        first_look: FirstLook,
        id: &str,
        done: impl FnMut(Option<&S::Object>) -> Result<Option<T>> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let key = self.add(call, doing, first_look, id, Box::new(Asked { answer: Some(answer), done }));
        let _registration = Registration { inner: &self.0, id, key };
        call.bound(doing, answered).await?.map_err(|_| Error::internal(format!("{doing} {id}: the watch has ended")))?
    }

    /// The object as it is now; `None` if it is not there. What is looked up while a list is under way is in the next.
    ///
    /// # Errors
    /// As [`Watch::until`].
    pub async fn now(&self, call: &Call, doing: &'static str, id: &str) -> Result<Option<S::Object>>
    where
        S::Object: Clone,
    {
        self.until_from(call, doing, AT_ONCE, id, |seen| Ok(Some(seen.cloned()))).await
    }

    fn add(
        &self,
        call: &Call,
        doing: &'static str,
        first_look: FirstLook,
        id: &str,
        ask: Box<dyn Ask<S::Object>>,
    ) -> u64 {
        let mut schedule = self.0.lock();
        let key = schedule.add(call, doing, first_look, id, ask);
        if schedule.looking {
            // A crowd is served by the next list anyway.
            let needs_a_look = !(self.0.source.has_list() && schedule.has_more_than_a_crowd());
            drop(schedule);
            if needs_a_look {
                self.0.wake.notify_one();
            }
        } else {
            schedule.looking = true;
            drop(schedule);
            tokio::spawn(look(Arc::clone(&self.0)));
        }
        key
    }
}

/// Looks for as long as anybody waits. Looks run in tasks of their own: a slow answer holds up no other.
async fn look<S: Source>(inner: Arc<Inner<S>>) {
    loop {
        let step = inner.lock().plan(Instant::now(), inner.source.has_list());
        match step {
            Step::End => return,
            Step::Sleep(until) => {
                tokio::select! {
                    () = tokio::time::sleep_until(until) => {}
                    () = inner.wake.notified() => {}
                }
            }
            Step::One(id, call) => {
                let inner = Arc::clone(&inner);
                tokio::spawn(async move {
                    let asked = Instant::now();
                    let outcome = inner.source.one(&call, &id).await;
                    inner.lock().saw_one(&id, asked, outcome);
                    inner.wake.notify_one();
                });
            }
            Step::List(ids, since) => {
                let inner = Arc::clone(&inner);
                tokio::spawn(async move {
                    let asked = Instant::now();
                    let outcome = inner.source.many(&Call::lasting(LIST_TIME), &ids, since).await;
                    inner.lock().saw_many(asked, outcome);
                    inner.wake.notify_one();
                });
            }
        }
    }
}

impl<S: Source> Inner<S> {
    fn lock(&self) -> MutexGuard<'_, Schedule<S::Object>> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
