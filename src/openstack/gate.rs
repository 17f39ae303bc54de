//! How many requests to one service may be in flight.
//!
//! Waiting is fair (first come, first served). After a 429 or 503 fewer are let in, and the number grows back with
//! every answer that shows no overload. A `Retry-After` holds up everybody, not only the request that was told so.

use crate::call::Call;
use crate::error::Result;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// The longest hold-up that a service can impose.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Halving the width again before the first halving had time to work would overreact.
const BETWEEN_HALVINGS: Duration = Duration::from_secs(1);

/// The gate of one service.
#[derive(Debug)]
pub(super) struct Gate {
    slots: Arc<Semaphore>,
    width: Mutex<Width>,
    /// Slots to be taken away as soon as they come free.
    surplus: AtomicUsize,
}

#[derive(Debug)]
struct Width {
    widest: usize,
    now: usize,
    good_answers: usize,
    halved: Option<Instant>,
    closed_until: Option<Instant>,
}

/// The right to have one request in flight.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    gate: &'a Gate,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let taken = self
            .gate
            .surplus
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |surplus| surplus.checked_sub(1))
            .is_ok();
        if let (true, Some(permit)) = (taken, self.permit.take()) {
            permit.forget();
        }
    }
}

impl Gate {
    /// A gate that is at most this wide.
    pub(super) fn new(widest: usize) -> Self {
        let widest = widest.max(1);
        Self {
            slots: Arc::new(Semaphore::new(widest)),
            width: Mutex::new(Width { widest, now: widest, good_answers: 0, halved: None, closed_until: None }),
            surplus: AtomicUsize::new(0),
        }
    }

    /// Waits for the right to send one request.
    pub(super) async fn enter(&self, call: &Call) -> Result<Pass<'_>> {
        let permit = call.bound("wait for a turn at the service", Arc::clone(&self.slots).acquire_owned()).await?;
        while let Some(until) = self.closed_until() {
            call.bound("wait for an overloaded service", tokio::time::sleep_until(until)).await?;
        }
        // The semaphore is never closed; were it, requests would just go unlimited.
        Ok(Pass { gate: self, permit: permit.ok() })
    }

    /// Notes an answer that shows no overload.
    pub(super) fn went_well(&self) {
        let mut width = self.lock();
        width.good_answers += 1;
        if width.now < width.widest && width.good_answers >= width.now {
            width.good_answers = 0;
            width.now += 1;
            let owed = self.surplus.fetch_update(Ordering::AcqRel, Ordering::Acquire, |surplus| surplus.checked_sub(1));
            if owed.is_err() {
                self.slots.add_permits(1);
            }
        }
    }

    /// Notes that the service is overloaded, and for how long it wants to be left alone.
    pub(super) fn overloaded(&self, pause: Option<Duration>) {
        let now = Instant::now();
        let mut width = self.lock();
        if let Some(pause) = pause {
            let until = now + pause.min(LONGEST_PAUSE);
            width.closed_until = Some(width.closed_until.map_or(until, |old| old.max(until)));
        }
        if width.halved.is_none_or(|then| now.duration_since(then) >= BETWEEN_HALVINGS) {
            let fewer = (width.now / 2).max(1);
            self.surplus.fetch_add(width.now - fewer, Ordering::AcqRel);
            width.now = fewer;
            width.good_answers = 0;
            width.halved = Some(now);
        }
    }

    fn closed_until(&self) -> Option<Instant> {
        self.lock().closed_until.filter(|until| *until > Instant::now())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Width> {
        self.width.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::Gate;
    use crate::call::Call;
    use std::time::Duration;

    async fn in_flight_at_most(gate: &Gate) -> usize {
        let call = Call::lasting(Duration::from_millis(50));
        let mut passes = Vec::new();
        while let Ok(pass) = gate.enter(&call).await {
            passes.push(pass);
        }
        passes.len()
    }

    #[tokio::test(start_paused = true)]
    async fn overload_narrows_the_gate_and_success_widens_it_again() {
        let gate = Gate::new(8);
        assert_eq!(in_flight_at_most(&gate).await, 8);
        gate.overloaded(None);
        gate.overloaded(None);
        // The surplus slots go as they come free.
        in_flight_at_most(&gate).await;
        assert_eq!(in_flight_at_most(&gate).await, 4);
        for _ in 0..100 {
            gate.went_well();
        }
        assert_eq!(in_flight_at_most(&gate).await, 8);
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_holds_up_everybody() {
        let gate = Gate::new(2);
        gate.overloaded(Some(Duration::from_secs(5)));
        let started = tokio::time::Instant::now();
        let pass = gate.enter(&Call::lasting(Duration::from_secs(60))).await.unwrap();
        assert!(started.elapsed() >= Duration::from_secs(5));
        drop(pass);
        gate.overloaded(Some(Duration::from_secs(30)));
        assert!(gate.enter(&Call::lasting(Duration::from_secs(1))).await.is_err());
    }
}
