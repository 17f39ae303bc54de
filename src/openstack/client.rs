//! One request to one OpenStack service.

use crate::call::Call;
use crate::error::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::str::FromStr;

/// A microversion, such as 3.60.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Microversion(pub u16, pub u16);

impl fmt::Display for Microversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl FromStr for Microversion {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        text.split_once('.')
            .and_then(|(major, minor)| Some(Self(major.parse().ok()?, minor.parse().ok()?)))
            .ok_or_else(|| Error::internal(format!("{text:?} is not a microversion")))
    }
}

/// Where a request goes: a path template (for metrics), its ids, a query, a microversion.
///
/// ```
/// # use fuxi_csi::openstack::client::{Microversion, Route};
/// let route = Route::new("/volumes/{}/action").id("1f2e").microversion(Microversion(3, 42));
/// assert_eq!(route.path(), "/volumes/1f2e/action");
/// ```
#[derive(Debug, Clone)]
pub struct Route {
    template: &'static str,
    ids: Vec<String>,
    query: Vec<(&'static str, String)>,
    microversion: Option<Microversion>,
}

impl Route {
    /// A path below the service's endpoint; each `{}` stands for an id.
    #[must_use]
    pub fn new(template: &'static str) -> Self {
        Self { template, ids: Vec::new(), query: Vec::new(), microversion: None }
    }

    /// Fills the next `{}`. The id is percent-encoded, so it cannot leave its place in the path.
    #[must_use]
    pub fn id(mut self, id: impl fmt::Display) -> Self {
        self.ids.push(id.to_string());
        self
    }

    /// Adds a query parameter.
    #[must_use]
    pub fn query(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.query.push((key, value.to_string()));
        self
    }

    /// Asks for this microversion; without it, the service's oldest behaviour applies.
    #[must_use]
    pub fn microversion(mut self, version: Microversion) -> Self {
        self.microversion = Some(version);
        self
    }

    /// The path with the ids filled in.
    #[must_use]
    pub fn path(&self) -> String {
        let mut parts = self.template.split("{}");
        let mut path = parts.next().unwrap_or_default().to_owned();
        for (id, part) in self.ids.iter().zip(parts) {
            path.extend(url::form_urlencoded::byte_serialize(id.as_bytes()));
            path.push_str(part);
        }
        path
    }
}

/// What OpenStack answered when it refused a request. Find it in an [`Error`] with `error.cause::<Refusal>()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// OpenStack's message.
    pub message: String,
    /// OpenStack's request id.
    pub request_id: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {}: {}", self.status, self.message)?;
        match &self.request_id {
            Some(id) => write!(f, " ({id})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refusal {}

/// The client of one service in one cloud. Cheap to clone.
///
/// Errors of every method: a refusal (4xx, 5xx) maps to a kind (400 `InvalidArgument`, 401 `Unauthenticated`,
/// 403 `Denied`, 404 `NotFound`, 406 `Unsupported`, 409 `Conflict`, 413 with a quota message `Exhausted`, other 413,
/// 429 and 503 `Unavailable`, 500 `Internal`, other 5xx `Unavailable`) and has a [`Refusal`] as its cause, so policy can
/// tell them apart; a connection that fails is `Unavailable`; a call that is over is `Deadline`.
///
/// GET and DELETE are retried within the call's time. A POST or PUT is repeated only if it surely did not arrive; and
/// once sent it is not cut off when the call ends, so that its outcome is known to this process (bounded by the
/// client's own time limit).
#[derive(Debug, Clone)]
pub struct Client {}

impl Client {
    /// GET.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn get<T: DeserializeOwned>(&self, _call: &Call, _route: Route) -> Result<T> {
        Err(Error::internal("not there yet"))
    }

    /// POST with an answer.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        _call: &Call,
        _route: Route,
        _body: &(impl Serialize + Sync),
    ) -> Result<T> {
        Err(Error::internal("not there yet"))
    }

    /// POST whose answer has no (interesting) body, such as an action.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn act(&self, _call: &Call, _route: Route, _body: &(impl Serialize + Sync)) -> Result<()> {
        Err(Error::internal("not there yet"))
    }

    /// PUT with an answer.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn put<T: DeserializeOwned>(
        &self,
        _call: &Call,
        _route: Route,
        _body: &(impl Serialize + Sync),
    ) -> Result<T> {
        Err(Error::internal("not there yet"))
    }

    /// DELETE.
    ///
    /// # Errors
    /// See [`Client`]; a 404 is an error here, policy decides.
    pub async fn delete(&self, _call: &Call, _route: Route) -> Result<()> {
        Err(Error::internal("not there yet"))
    }

    /// The highest microversion that the service has; asked once.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn highest(&self, _call: &Call) -> Result<Microversion> {
        Err(Error::internal("not there yet"))
    }

    /// The service's own clock as last seen in an answer's `Date` header, for `updated_at` filters.
    #[must_use]
    pub fn service_time(&self) -> Option<jiff::Timestamp> {
        None
    }
}
