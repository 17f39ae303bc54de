//! Waiting for many objects with few requests.
//!
//! Callers wait for a predicate on one object ([`Watch::until`]); while anybody waits, one task polls for all of them.
//! One waiter: the object itself is fetched. Several: one list. Nobody: no task, no timer, no request.

use crate::call::Call;
use crate::error::{Error, Result};
use async_trait::async_trait;
use std::marker::PhantomData;

/// What a [`Watch`] looks at.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// The objects.
    type Object: Clone + Send + Sync + 'static;

    /// What they are called in messages, such as `volume`.
    fn noun(&self) -> &'static str;

    /// One object; none when it is not there.
    ///
    /// # Errors
    /// As the service gives them.
    async fn one(&self, call: &Call, id: &str) -> Result<Option<Self::Object>>;

    /// The present state of these objects, by as few requests as can be: those it could see, with their ids. An id
    /// that is left out was not seen to change since the last look; the watch asks for it with [`Source::one`] now and
    /// then. `None` as an object says that it is gone.
    ///
    /// # Errors
    /// As the service gives them.
    async fn many(&self, call: &Call, ids: &[String]) -> Result<Vec<(String, Option<Self::Object>)>>;
}

/// Polls one kind of object for all who wait. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Watch<S: Source> {
    source: PhantomData<S>,
}

impl<S: Source> Watch<S> {
    /// A watch over this source.
    #[must_use]
    pub fn new(_source: S) -> Self {
        Self { source: PhantomData }
    }

    /// Waits until `done` says `Some`; it is shown every state that is seen, `None` for an object that is gone.
    /// `doing` names the kind of change, such as `"create volume"`: how long such a change usually takes is learned per
    /// name, so that the looks come when the answer is likely.
    ///
    /// # Errors
    /// Those of `done`; `Deadline` when the call is over; a lasting error of the service.
    pub async fn until<T: Send + 'static>(
        &self,
        _call: &Call,
        _doing: &'static str,
        _id: &str,
        _done: impl FnMut(Option<&S::Object>) -> Result<Option<T>> + Send + 'static,
    ) -> Result<T> {
        Err(Error::internal("not there yet"))
    }
}
