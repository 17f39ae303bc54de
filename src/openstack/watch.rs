//! Waiting for many objects with few requests.
//!
//! Callers wait for a predicate on one object ([`Watch::until`]); while anybody waits, one task looks for all of them.
//! Few waiters: each object is fetched by itself, when its change is likely over (see `pace`). A crowd: one list per
//! tick serves all. Nobody: no task, no timer, no request.

use super::pace::Pace;
use crate::call::Call;
use crate::error::{Error, Result};
use async_trait::async_trait;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// From this many waiters on, a list is cheaper than looking at each.
const CROWD: usize = 4;

/// How often a crowd's list is fetched: at first, and at the most patient.
const FIRST_TICK: Duration = Duration::from_millis(250);
const LONGEST_TICK: Duration = Duration::from_millis(1500);

/// A list that takes long is fetched less often: this part of the time it took lies between two, so that the service
/// always has less than one worker busy with them.
const PAUSE_SHARE: u32 = 4;

/// A list that is under way for longer than a tick is followed by the next one, which has only what changed after the
/// first was asked for; so many at once at most.
const MOST_LISTS: usize = 2;

/// An object that no list shows is looked at by itself after this time, and then ever more rarely.
const FIRST_DOUBT: Duration = Duration::from_secs(4);
const LONGEST_DOUBT: Duration = Duration::from_secs(60);

/// So many lists must have failed to show it finished before; unless they take so long.
const LISTS_BEFORE_DOUBT: u32 = 2;
const LONGEST_WITHOUT_LIST: Duration = Duration::from_secs(15);

/// The time between two such looks, as long as lists can be trusted: in a large crowd lists take long, and much is late
/// without being lost. Lists are not trusted once such a look has found something finished and the next list nothing.
const BETWEEN_DOUBTS: Duration = Duration::from_millis(50);

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
    state: Mutex<State<S::Object>>,
    wake: Notify,
}

struct State<T> {
    by_id: HashMap<String, Vec<Waiter<T>>>,
    waiters: usize,
    next_key: u64,
    /// Whether the looking task runs.
    looking: bool,
    tick: Duration,
    next_list: Instant,
    listing: usize,
    /// No doubtful object is looked at before this.
    doubts_from: Instant,
    /// Since when such looks find objects finished, if they do.
    missed: Option<Instant>,
    lists_are_trusted: bool,
    /// When the last list was asked for.
    listed: Option<Instant>,
    pace: Pace,
}

struct Waiter<T> {
    key: u64,
    call: Call,
    doing: &'static str,
    never_before: Option<Duration>,
    since: Instant,
    /// Whether a list was asked for since.
    listed: bool,
    /// The last look that showed it unfinished.
    seen: Option<Instant>,
    next_look: Instant,
    /// How many lists have been asked for since, and did not show it finished.
    lists: u32,
    doubt: Duration,
    next_doubt: Instant,
    being_looked_at: bool,
    /// Whether it waited in a crowd: its duration then says nothing about an object alone.
    crowded: bool,
    ask: Box<dyn Ask<T>>,
}

impl<T> Waiter<T> {
    /// When to look at its object by itself although lists should show it.
    fn doubtful_from(&self) -> Instant {
        match self.lists {
            LISTS_BEFORE_DOUBT.. => self.next_doubt,
            _ => self.next_doubt.max(self.since + LONGEST_WITHOUT_LIST),
        }
    }
}

/// A predicate and the caller who waits for it.
trait Ask<T>: Send {
    /// Shows a state; whether the wait is over.
    fn show(&mut self, seen: Option<&T>) -> bool;
    /// Ends the wait with an error.
    fn fail(&mut self, error: Error);
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

/// What the looking task does next.
enum Step {
    /// Nobody waits.
    End,
    Sleep(Instant),
    One(String, Call),
    List(Vec<String>, Duration),
}

impl<S: Source> Watch<S> {
    /// A watch over this source.
    #[must_use]
    pub fn new(source: S) -> Self {
        let state = State {
            by_id: HashMap::new(),
            waiters: 0,
            next_key: 0,
            looking: false,
            tick: FIRST_TICK,
            next_list: Instant::now(),
            listing: 0,
            doubts_from: Instant::now(),
            missed: None,
            lists_are_trusted: true,
            listed: None,
            pace: Pace::default(),
        };
        Self(Arc::new(Inner { source, state: Mutex::new(state), wake: Notify::new() }))
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
        self.until_not_before(call, doing, None, id, done).await
    }

    /// The same for a change that is never over before some time: a look before that would cost a request and show
    /// nothing.
    ///
    /// # Errors
    /// As [`Watch::until`].
    pub async fn until_not_before<T: Send + 'static>(
        &self,
        call: &Call,
        doing: &'static str,
        never_before: Option<Duration>,
        id: &str,
        done: impl FnMut(Option<&S::Object>) -> Result<Option<T>> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let key = self.add(call, doing, never_before, id, Box::new(Asked { answer: Some(answer), done }));
        let _registration = Registration { inner: &self.0, id, key };
        call.bound(doing, answered).await?.map_err(|_| Error::internal(format!("{doing} {id}: the watch has ended")))?
    }

    fn add(
        &self,
        call: &Call,
        doing: &'static str,
        never_before: Option<Duration>,
        id: &str,
        ask: Box<dyn Ask<S::Object>>,
    ) -> u64 {
        let now = Instant::now();
        let mut state = self.0.lock();
        let key = state.next_key;
        state.next_key += 1;
        if state.waiters == 0 {
            state.tick = FIRST_TICK;
            state.listed = None;
            state.next_list = now + FIRST_TICK;
        }
        let next_look = now + state.pace.next_look(doing, Duration::ZERO, never_before);
        let waiter = Waiter {
            key,
            call: call.clone(),
            doing,
            never_before,
            since: now,
            listed: false,
            seen: None,
            next_look,
            lists: 0,
            doubt: FIRST_DOUBT,
            next_doubt: now + FIRST_DOUBT,
            being_looked_at: false,
            crowded: false,
            ask,
        };
        state.by_id.entry(id.to_owned()).or_default().push(waiter);
        state.waiters += 1;
        if state.looking {
            // A crowd is served by the next tick anyway.
            let is_crowd = state.waiters > CROWD;
            drop(state);
            if !is_crowd {
                self.0.wake.notify_one();
            }
        } else {
            state.looking = true;
            drop(state);
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
    fn lock(&self) -> MutexGuard<'_, State<S::Object>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn plan(&mut self, now: Instant, has_list: bool) -> Step {
        if self.waiters == 0 {
            self.looking = false;
            self.by_id = HashMap::new();
            return Step::End;
        }
        if has_list && self.waiters >= CROWD { self.plan_list(now) } else { self.plan_one(now) }
    }

    fn plan_one(&mut self, now: Instant) -> Step {
        let mut earliest = now + LONGEST_DOUBT;
        for (id, waiters) in &mut self.by_id {
            if waiters.iter().any(|waiter| waiter.being_looked_at) {
                continue;
            }
            let Some(first) = waiters.iter().min_by_key(|waiter| waiter.next_look) else { continue };
            if first.next_look > now {
                earliest = earliest.min(first.next_look);
                continue;
            }
            let call = first.call.clone();
            waiters.iter_mut().for_each(|waiter| waiter.being_looked_at = true);
            return Step::One(id.clone(), call);
        }
        Step::Sleep(earliest)
    }

    fn plan_list(&mut self, now: Instant) -> Step {
        let earliest = match self.plan_doubt(now) {
            Ok((id, call)) => return Step::One(id, call),
            Err(next_doubt) => next_doubt,
        };
        if self.listing >= MOST_LISTS {
            return Step::Sleep(earliest.max(now + FIRST_TICK));
        }
        if self.next_list > now {
            return Step::Sleep(earliest.min(self.next_list));
        }
        self.listing += 1;
        self.next_list = now + self.tick;
        // All changes since the list before, and since the first wait that no list covers yet.
        let mut since = self.listed.unwrap_or(now);
        for waiter in self.by_id.values_mut().flatten().filter(|waiter| !waiter.listed) {
            waiter.listed = true;
            since = since.min(waiter.since);
        }
        self.listed = Some(now);
        Step::List(self.by_id.keys().cloned().collect(), now.saturating_duration_since(since))
    }

    /// The object that has been unseen for longest, if it is time to look at it by itself; else that time.
    fn plan_doubt(&mut self, now: Instant) -> std::result::Result<(String, Call), Instant> {
        let mut first: Option<(Instant, &String)> = None;
        for (id, waiters) in &mut self.by_id {
            for waiter in waiters.iter_mut() {
                waiter.crowded = true;
                let due = waiter.doubtful_from();
                if !waiter.being_looked_at && first.is_none_or(|(earliest, _)| due < earliest) {
                    first = Some((due, id));
                }
            }
        }
        let Some((due, id)) = first.map(|(due, id)| (due, id.clone())) else { return Err(now + LONGEST_DOUBT) };
        let time = due.max(self.doubts_from);
        if time > now {
            return Err(time);
        }
        self.doubts_from = if self.lists_are_trusted { now + BETWEEN_DOUBTS } else { now };
        let mut call = None;
        for waiter in self.by_id.get_mut(&id).into_iter().flatten() {
            waiter.being_looked_at = true;
            waiter.doubt = (waiter.doubt * 2).min(LONGEST_DOUBT);
            waiter.next_doubt = now + waiter.doubt;
            call = Some(waiter.call.clone());
        }
        call.map(|call| (id, call)).ok_or(time)
    }

    fn saw_one(&mut self, id: &str, asked: Instant, outcome: Result<Option<T>>) {
        match outcome {
            Ok(object) => {
                let was_crowded = self.by_id.get(id).is_some_and(|waiters| waiters.iter().any(|waiter| waiter.crowded));
                self.show(id, object.as_ref(), asked);
                if was_crowded && !self.by_id.contains_key(id) {
                    self.missed.get_or_insert(asked);
                }
            }
            Err(error) => {
                for mut waiter in self.take(id) {
                    if waiter.being_looked_at {
                        waiter.ask.fail(repeated(&error));
                    } else {
                        self.put(id, waiter);
                    }
                }
            }
        }
    }

    fn saw_many(&mut self, asked: Instant, outcome: Result<Vec<(String, Option<T>)>>) {
        let now = Instant::now();
        self.listing = self.listing.saturating_sub(1);
        let took = now.saturating_duration_since(asked);
        match outcome {
            Ok(objects) => {
                let before = self.waiters;
                for (id, object) in objects {
                    self.show(&id, object.as_ref(), asked);
                }
                if self.waiters < before {
                    // More may be about to end.
                    self.tick = FIRST_TICK;
                    (self.lists_are_trusted, self.missed) = (true, None);
                } else if self.missed.is_some_and(|missed| missed <= asked) {
                    self.lists_are_trusted = false;
                }
                // What the list did not show has not changed; but it has been covered.
                for waiter in self.by_id.values_mut().flatten().filter(|waiter| waiter.since <= asked) {
                    waiter.seen = Some(asked);
                    waiter.lists += 1;
                }
            }
            Err(error) => {
                let ids: Vec<String> = self.by_id.keys().cloned().collect();
                for id in ids {
                    for mut waiter in self.take(&id) {
                        waiter.ask.fail(repeated(&error));
                    }
                }
            }
        }
        if self.listing == 0 {
            self.next_list = self.next_list.max(now + took / PAUSE_SHARE);
        }
        self.tick = (self.tick * 5 / 4).min(LONGEST_TICK);
    }

    /// Shows a state that was true at `when` or later to all who wait for that object since before: to whoever has just
    /// changed something, an answer that was on its way would show the state before.
    fn show(&mut self, id: &str, object: Option<&T>, when: Instant) {
        for mut waiter in self.take(id) {
            if waiter.since > when {
                self.put(id, waiter);
                continue;
            }
            if waiter.ask.show(object) {
                if !waiter.crowded {
                    let until = when.saturating_duration_since(waiter.since);
                    let from = waiter.seen.map_or(Duration::ZERO, |seen| seen.saturating_duration_since(waiter.since));
                    self.pace.learn(waiter.doing, from, until);
                }
                continue;
            }
            waiter.being_looked_at = false;
            waiter.seen = Some(when);
            let waited = when.saturating_duration_since(waiter.since).max(Duration::from_millis(1));
            waiter.next_look = waiter.since + self.pace.next_look(waiter.doing, waited, waiter.never_before);
            self.put(id, waiter);
        }
    }

    fn take(&mut self, id: &str) -> Vec<Waiter<T>> {
        let taken = self.by_id.remove(id).unwrap_or_default();
        self.waiters -= taken.len();
        taken
    }

    fn put(&mut self, id: &str, waiter: Waiter<T>) {
        self.by_id.entry(id.to_owned()).or_default().push(waiter);
        self.waiters += 1;
    }

    fn remove(&mut self, id: &str, key: u64) {
        let Some(waiters) = self.by_id.get_mut(id) else { return };
        let before = waiters.len();
        waiters.retain(|waiter| waiter.key != key);
        self.waiters -= before - waiters.len();
        if waiters.is_empty() {
            self.by_id.remove(id);
        }
    }
}

/// The same error once more: each waiter gets its own.
fn repeated(error: &Error) -> Error {
    Error::new(error.kind(), error.to_string())
}

#[cfg(test)]
mod tests {
    use super::{Source, Watch};
    use crate::call::Call;
    use crate::error::{Error, Kind, Result};
    use async_trait::async_trait;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;
    use tokio::time::Instant;

    /// Objects that are finished at a certain time, and a count of requests.
    #[derive(Clone)]
    struct Clockwork {
        finished_at: Instant,
        looks: Arc<AtomicUsize>,
        lists: Arc<AtomicUsize>,
        shown_by_list: bool,
        list_takes: Duration,
        broken: bool,
    }

    impl Clockwork {
        fn finishing_in(time: Duration) -> Self {
            Self {
                finished_at: Instant::now() + time,
                looks: Arc::default(),
                lists: Arc::default(),
                shown_by_list: true,
                list_takes: Duration::ZERO,
                broken: false,
            }
        }
    }

    #[async_trait]
    impl Source for Clockwork {
        type Object = bool;
        async fn one(&self, _: &Call, id: &str) -> Result<Option<bool>> {
            self.looks.fetch_add(1, Ordering::Relaxed);
            if id == "hung" {
                std::future::pending::<()>().await;
            }
            if self.broken {
                return Err(Error::new(Kind::Unavailable, "broken"));
            }
            Ok((id != "gone").then(|| Instant::now() >= self.finished_at))
        }
        async fn many(&self, _: &Call, ids: &[String], _: Duration) -> Result<Vec<(String, Option<bool>)>> {
            self.lists.fetch_add(1, Ordering::Relaxed);
            let done = Instant::now() >= self.finished_at;
            tokio::time::sleep(self.list_takes).await;
            Ok(if self.shown_by_list { ids.iter().map(|id| (id.clone(), Some(done))).collect() } else { Vec::new() })
        }
    }

    fn finished(seen: Option<&bool>) -> Result<Option<()>> {
        match seen {
            Some(true) => Ok(Some(())),
            Some(false) => Ok(None),
            None => Err(Error::not_found("gone")),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_waiter_looks_at_its_object() {
        let source = Clockwork::finishing_in(Duration::from_secs(2));
        let watch = Watch::new(source.clone());
        watch.until(&Call::lasting(Duration::from_secs(60)), "finish", "a", finished).await.unwrap();
        assert_eq!(source.lists.load(Ordering::Relaxed), 0);
        assert!(source.looks.load(Ordering::Relaxed) <= 7);
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(source.looks.load(Ordering::Relaxed) <= 7, "nobody waits, nobody looks");
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_shares_one_list_per_tick() {
        let source = Clockwork::finishing_in(Duration::from_secs(3));
        let watch = Watch::new(source.clone());
        let waits: Vec<_> = (0..1000)
            .map(|n| {
                let watch = watch.clone();
                tokio::spawn(async move {
                    watch.until(&Call::lasting(Duration::from_secs(60)), "finish", &n.to_string(), finished).await
                })
            })
            .collect();
        for wait in waits {
            wait.await.unwrap().unwrap();
        }
        assert_eq!(source.looks.load(Ordering::Relaxed), 0);
        assert!(source.lists.load(Ordering::Relaxed) <= 9, "{}", source.lists.load(Ordering::Relaxed));
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_list_shows_is_looked_at_by_itself() {
        let source = Clockwork { shown_by_list: false, ..Clockwork::finishing_in(Duration::from_secs(1)) };
        let watch = Watch::new(source.clone());
        let waits: Vec<_> = (0..10)
            .map(|n| {
                let watch = watch.clone();
                tokio::spawn(async move {
                    watch.until(&Call::lasting(Duration::from_secs(60)), "finish", &n.to_string(), finished).await
                })
            })
            .collect();
        for wait in waits {
            wait.await.unwrap().unwrap();
        }
        assert_eq!(source.looks.load(Ordering::Relaxed), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_crowd_that_lists_show_late_is_not_looked_at_one_by_one() {
        let source =
            Clockwork { list_takes: Duration::from_secs(2), ..Clockwork::finishing_in(Duration::from_secs(5)) };
        let watch = Watch::new(source.clone());
        let waits: Vec<_> = (0..1000)
            .map(|n| {
                let watch = watch.clone();
                tokio::spawn(async move {
                    watch.until(&Call::lasting(Duration::from_secs(60)), "finish", &n.to_string(), finished).await
                })
            })
            .collect();
        let started = Instant::now();
        for wait in waits {
            wait.await.unwrap().unwrap();
        }
        assert!(source.looks.load(Ordering::Relaxed) < 100, "{}", source.looks.load(Ordering::Relaxed));
        assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_crowd_that_no_list_shows_is_served_all_the_same() {
        let source = Clockwork { shown_by_list: false, ..Clockwork::finishing_in(Duration::from_secs(1)) };
        let watch = Watch::new(source.clone());
        let waits: Vec<_> = (0..2000)
            .map(|n| {
                let watch = watch.clone();
                tokio::spawn(async move {
                    watch.until(&Call::lasting(Duration::from_secs(60)), "finish", &n.to_string(), finished).await
                })
            })
            .collect();
        let started = Instant::now();
        for wait in waits {
            wait.await.unwrap().unwrap();
        }
        assert_eq!(source.looks.load(Ordering::Relaxed), 2000);
        assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn errors_and_gone_objects_end_the_wait_and_so_does_the_deadline() {
        let call = || Call::lasting(Duration::from_secs(5));
        let watch = Watch::new(Clockwork::finishing_in(Duration::from_secs(3600)));
        assert_eq!(watch.until(&call(), "x", "gone", finished).await.unwrap_err().kind(), Kind::NotFound);
        assert_eq!(watch.until(&call(), "x", "slow", finished).await.unwrap_err().kind(), Kind::Deadline);
        let broken = Watch::new(Clockwork { broken: true, ..Clockwork::finishing_in(Duration::ZERO) });
        assert_eq!(broken.until(&call(), "x", "a", finished).await.unwrap_err().kind(), Kind::Unavailable);
        assert_eq!(watch.0.lock().waiters, 0);
        assert_eq!(broken.0.lock().waiters, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hung_look_holds_up_no_other() {
        let watch = Watch::new(Clockwork::finishing_in(Duration::from_secs(1)));
        let hung = watch.clone();
        let hung =
            tokio::spawn(
                async move { hung.until(&Call::lasting(Duration::from_secs(900)), "x", "hung", finished).await },
            );
        tokio::time::sleep(Duration::from_millis(300)).await;
        let started = Instant::now();
        watch.until(&Call::lasting(Duration::from_secs(60)), "x", "a", finished).await.unwrap();
        assert!(started.elapsed() < Duration::from_secs(3));
        hung.abort();
    }
}
