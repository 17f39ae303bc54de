//! What a watch looks at when: policy without I/O.

use super::scouts::Scouts;
use crate::call::Call;
use crate::error::{Error, Result};
use crate::openstack::pace::{FirstLook, Pace};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// From this many waiters on, a list is cheaper than looking at each; where there is no list, scouts are (see `scouts`).
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

/// When a crowd's lists are fetched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rhythm {
    first_tick: Duration,
    most_lists: usize,
}

impl Rhythm {
    /// For those who wait for changes.
    pub(super) const TICKS: Self = Self { first_tick: FIRST_TICK, most_lists: MOST_LISTS };
    /// For those who wait for nothing: at once, and then whenever the list before is there.
    pub(super) const AT_ONCE: Self = Self { first_tick: Duration::ZERO, most_lists: 1 };
}

/// An object that no list shows is looked at by itself after this time, and then ever more rarely.
const FIRST_DOUBT: Duration = Duration::from_secs(4);
const LONGEST_DOUBT: Duration = Duration::from_secs(60);

/// So many lists must have failed to show it finished before; unless they take so long.
const LISTS_BEFORE_DOUBT: u32 = 2;
const LONGEST_WITHOUT_LIST: Duration = Duration::from_secs(15);

/// The time between two such looks, as long as lists can be trusted: in a large crowd lists take long, and much is late
/// without being lost. Lists are not trusted once such a look has found something finished and the next list nothing.
const BETWEEN_DOUBTS: Duration = Duration::from_millis(50);

/// Who waits for what, and what is looked at when. Knows neither tasks nor services: it is told the time and what was seen.
pub(super) struct Schedule<T> {
    by_id: HashMap<String, Vec<Waiter<T>>>,
    pub(super) waiters: usize,
    next_key: u64,
    /// Whether the looking task runs.
    pub(super) looking: bool,
    rhythm: Rhythm,
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
    scouts: Scouts,
    pace: Pace,
}

struct Waiter<T> {
    key: u64,
    call: Call,
    doing: &'static str,
    first_look: FirstLook,
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
pub(super) trait Ask<T>: Send {
    /// Shows a state; whether the wait is over.
    fn show(&mut self, seen: Option<&T>) -> bool;
    /// Ends the wait with an error.
    fn fail(&mut self, error: Error);
}

/// What the looking task does next.
pub(super) enum Step {
    /// Nobody waits.
    End,
    Sleep(Instant),
    One(String, Call),
    List(Vec<String>, Duration),
}

impl<T> Schedule<T> {
    /// Nothing to look at yet.
    pub(super) fn new(rhythm: Rhythm) -> Self {
        Self {
            by_id: HashMap::new(),
            waiters: 0,
            next_key: 0,
            looking: false,
            rhythm,
            tick: rhythm.first_tick,
            next_list: Instant::now(),
            listing: 0,
            doubts_from: Instant::now(),
            missed: None,
            lists_are_trusted: true,
            listed: None,
            scouts: Scouts::new(Instant::now()),
            pace: Pace::default(),
        }
    }

    pub(super) fn add(
        &mut self,
        call: &Call,
        doing: &'static str,
        first_look: FirstLook,
        id: &str,
        ask: Box<dyn Ask<T>>,
    ) -> u64 {
        let now = Instant::now();
        let key = self.next_key;
        self.next_key += 1;
        if self.waiters == 0 {
            self.tick = self.rhythm.first_tick;
            self.listed = None;
            self.next_list = now + self.rhythm.first_tick;
            self.scouts = Scouts::new(now);
        }
        let waiter = Waiter {
            key,
            call: call.clone(),
            doing,
            first_look,
            since: now,
            listed: false,
            seen: None,
            next_look: now + self.pace.next_look(doing, Duration::ZERO, first_look),
            lists: 0,
            doubt: FIRST_DOUBT,
            next_doubt: now + FIRST_DOUBT,
            being_looked_at: false,
            crowded: false,
            ask,
        };
        self.put(id, waiter);
        key
    }

    pub(super) fn has_more_than_a_crowd(&self) -> bool {
        self.waiters > CROWD
    }

    pub(super) fn plan(&mut self, now: Instant, has_list: bool) -> Step {
        if self.waiters == 0 {
            self.looking = false;
            self.by_id = HashMap::new();
            return Step::End;
        }
        if has_list && self.waiters >= CROWD {
            return self.plan_list(now);
        }
        let is_crowd = self.by_id.len() >= CROWD;
        self.plan_one(now, is_crowd)
    }

    /// The object whose look is due for longest; in a crowd, as far as there are scouts.
    fn plan_one(&mut self, now: Instant, is_crowd: bool) -> Step {
        let mut first: Option<(Instant, &String)> = None;
        let mut later = now + LONGEST_DOUBT;
        for (id, waiters) in &mut self.by_id {
            waiters.iter_mut().for_each(|waiter| waiter.crowded |= is_crowd);
            if waiters.iter().any(|waiter| waiter.being_looked_at) {
                continue;
            }
            let Some(waiter) = waiters.iter().min_by_key(|waiter| waiter.next_look) else { continue };
            let may_look = waiter.next_look <= now || (is_crowd && self.scouts.expect(waiter.since, now));
            if !may_look {
                later = later.min(waiter.next_look);
            } else if first.is_none_or(|(earliest, _)| waiter.next_look < earliest) {
                first = Some((waiter.next_look, id));
            }
        }
        let Some(id) = first.map(|(_, id)| id.clone()) else {
            return Step::Sleep(if is_crowd { later.min(now + FIRST_TICK) } else { later });
        };
        if is_crowd && let Err(later) = self.scouts.send(now, self.by_id.len()) {
            return Step::Sleep(later);
        }
        let waiters = self.by_id.get_mut(&id).map_or(&mut [][..], Vec::as_mut_slice);
        waiters.iter_mut().for_each(|waiter| waiter.being_looked_at = true);
        longest_call(waiters).map_or(Step::Sleep(now), |call| Step::One(id, call))
    }

    fn plan_list(&mut self, now: Instant) -> Step {
        let earliest = match self.plan_doubt(now) {
            Ok((id, call)) => return Step::One(id, call),
            Err(next_doubt) => next_doubt,
        };
        if self.listing >= self.rhythm.most_lists {
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
        let waiters = self.by_id.get_mut(&id).map_or(&mut [][..], Vec::as_mut_slice);
        for waiter in waiters.iter_mut() {
            waiter.being_looked_at = true;
            waiter.doubt = (waiter.doubt * 2).min(LONGEST_DOUBT);
            waiter.next_doubt = now + waiter.doubt;
        }
        longest_call(waiters).map(|call| (id, call)).ok_or(time)
    }

    pub(super) fn saw_one(&mut self, id: &str, asked: Instant, outcome: Result<Option<T>>) {
        match outcome {
            Ok(object) => {
                let waiters = self.by_id.get(id).map_or(&[][..], Vec::as_slice);
                let crowded_since = waiters.iter().filter(|waiter| waiter.crowded).map(|waiter| waiter.since).min();
                self.show(id, object.as_ref(), asked);
                if let Some(since) = crowded_since.filter(|_| !self.by_id.contains_key(id)) {
                    self.missed.get_or_insert(asked);
                    self.scouts.found(Instant::now(), asked.saturating_duration_since(since));
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

    pub(super) fn saw_many(&mut self, asked: Instant, outcome: Result<Vec<(String, Option<T>)>>) {
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
                    self.tick = self.rhythm.first_tick;
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
            waiter.next_look = waiter.since + self.pace.next_look(waiter.doing, waited, waiter.first_look);
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

    pub(super) fn remove(&mut self, id: &str, key: u64) {
        let Some(waiters) = self.by_id.get_mut(id) else { return };
        let before = waiters.len();
        waiters.retain(|waiter| waiter.key != key);
        self.waiters -= before - waiters.len();
        if waiters.is_empty() {
            self.by_id.remove(id);
        }
    }
}

/// Of those who wait for the same, the call that has the most time left: the look must not end before theirs do.
fn longest_call<T>(waiters: &[Waiter<T>]) -> Option<Call> {
    waiters.iter().map(|waiter| &waiter.call).max_by_key(|call| call.remaining()).cloned()
}

/// The same error once more: each waiter gets its own.
fn repeated(error: &Error) -> Error {
    Error::new(error.kind(), error.to_string())
}
