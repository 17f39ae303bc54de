//! The clouds of a provider, and which of them a class or a handle means.

use super::handle::check_cloud_name;
use crate::error::{Error, Result};
use crate::model::Secrets;
use secrecy::ExposeSecret;
use std::collections::BTreeMap;

/// The key of a class's secret that says in which cloud it is.
pub(crate) const CLOUD_SECRET: &str = "cloud";

/// Clouds by name; the default one's name is empty.
#[derive(Debug)]
pub(crate) struct Clouds<C>(BTreeMap<String, C>);

impl<C> Clouds<C> {
    /// These clouds, made of their names and parts.
    ///
    /// # Errors
    /// `InvalidArgument`: no cloud, two of one name, or one whose name handles cannot hold.
    pub(crate) fn new(clouds: impl IntoIterator<Item = (String, C)>) -> Result<Self> {
        let mut by_name = BTreeMap::new();
        for (name, cloud) in clouds {
            check_cloud_name(&name)?;
            if by_name.insert(name.clone(), cloud).is_some() {
                return Err(Error::invalid(format!("two clouds are called {name:?}")));
            }
        }
        if by_name.is_empty() {
            return Err(Error::invalid("no cloud is configured"));
        }
        Ok(Self(by_name))
    }

    /// The cloud that a class's secret names; without one, the default cloud.
    pub(crate) fn of_class(&self, secrets: &Secrets) -> Result<&C> {
        let name = secrets.get(CLOUD_SECRET).map_or("", |secret| secret.expose_secret());
        self.named(name).ok_or_else(|| {
            Error::invalid(format!(
                "the secret of the class says cloud {name:?}, which is not configured; the clouds are {}",
                self.names()
            ))
        })
    }

    /// The cloud of a handle. A name that is not configured is no proof that the object does not exist.
    pub(crate) fn of_handle(&self, name: &str) -> Result<&C> {
        self.named(name).ok_or_else(|| {
            Error::wrong_state(format!(
                "the handle names cloud {name:?}, which is not configured; the clouds are {}: add its section to cloud.conf",
                self.names()
            ))
        })
    }

    /// All clouds, in the order of their names.
    pub(crate) fn all(&self) -> impl Iterator<Item = &C> {
        self.0.values()
    }

    /// The names of all clouds, in order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// A cloud by name. Where there is only one and it has a name, it is the default as well.
    fn named(&self, name: &str) -> Option<&C> {
        self.0.get(name).or_else(|| match name {
            "" if self.0.len() == 1 => self.0.values().next(),
            _ => None,
        })
    }

    fn names(&self) -> String {
        self.0.keys().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::{CLOUD_SECRET, Clouds};
    use crate::error::Kind;
    use crate::model::Secrets;

    fn clouds(names: &[&str]) -> Clouds<String> {
        Clouds::new(names.iter().map(|name| ((*name).to_owned(), format!("cloud {name}")))).unwrap()
    }

    #[test]
    fn a_class_without_a_cloud_is_of_the_default_one() {
        let of = |names: &[&str], secrets: &Secrets| clouds(names).of_class(secrets).cloned();
        let east = Secrets::from([(CLOUD_SECRET.to_owned(), "east".into())]);
        assert_eq!(of(&["", "east"], &Secrets::new()).unwrap(), "cloud ");
        assert_eq!(of(&["", "east"], &east).unwrap(), "cloud east");
        assert_eq!(of(&["east"], &Secrets::new()).unwrap(), "cloud east");
        assert_eq!(of(&["", "west"], &east).unwrap_err().kind(), Kind::InvalidArgument);
        assert_eq!(of(&["east", "west"], &Secrets::new()).unwrap_err().kind(), Kind::InvalidArgument);
    }

    #[test]
    fn a_cloud_that_is_not_configured_proves_nothing_about_a_handle() {
        let error = clouds(&["", "east"]).of_handle("west").cloned().unwrap_err();
        assert_eq!(error.kind(), Kind::WrongState);
        assert!(error.to_string().contains("\"east\""), "{error}");
    }

    #[test]
    fn clouds_that_cannot_be_told_apart_are_refused() {
        for names in [&["a", "a"][..], &["backup"], &[]] {
            let clouds = Clouds::new(names.iter().map(|name| ((*name).to_owned(), ())));
            assert_eq!(clouds.unwrap_err().kind(), Kind::InvalidArgument, "{names:?}");
        }
    }
}
