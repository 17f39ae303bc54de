//! Where a request goes.

use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;
use url::Url;

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
    pub(super) template: &'static str,
    ids: Vec<String>,
    query: Vec<(&'static str, String)>,
    pub(super) microversion: Option<Microversion>,
    pub(super) experimental: bool,
}

impl Route {
    /// A path below the service's endpoint; each `{}` stands for an id.
    #[must_use]
    pub fn new(template: &'static str) -> Self {
        Self { template, ids: Vec::new(), query: Vec::new(), microversion: None, experimental: false }
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

    /// Asks for an API that Manila calls experimental.
    #[must_use]
    pub fn experimental(mut self) -> Self {
        self.experimental = true;
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

    /// The whole URL below a service's endpoint.
    pub(super) fn url(&self, endpoint: &Url) -> Url {
        let mut url = endpoint.clone();
        url.set_path(&format!("{}{}", endpoint.path().trim_end_matches('/'), self.path()));
        url.set_query(None);
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        url
    }
}

#[cfg(test)]
mod tests {
    use super::{Microversion, Route};
    use url::Url;

    #[test]
    fn microversions_are_ordered_by_number() {
        let parse = |text: &str| text.parse::<Microversion>().unwrap();
        assert!(parse("3.9") < parse("3.60"));
        assert!("3".parse::<Microversion>().is_err() && "3.x".parse::<Microversion>().is_err());
    }

    #[test]
    fn an_id_cannot_leave_its_place() {
        let endpoint = Url::parse("http://c/volume/v3/p/").unwrap();
        let route = Route::new("/volumes/{}").id("../../x?y=z").query("name", "a b&c");
        assert_eq!(route.url(&endpoint).as_str(), "http://c/volume/v3/p/volumes/..%2F..%2Fx%3Fy%3Dz?name=a+b%26c");
    }
}
