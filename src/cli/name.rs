//! Names that the orchestrator sees: the driver's, and the topology's.

use crate::error::{Error, Result};
use crate::model::Topology;
use std::fmt;
use std::str::FromStr;

/// The longest driver name, topology key part and topology value.
const LONGEST: usize = 63;

/// What our driver names end with.
const DOMAIN: &str = "fuxi.openstack.org";

/// The name of a provider of volumes: `cinder`, `manila`, or one of a plug-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderName(String);

impl ProviderName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The driver's name where none is given: `cinder.fuxi.openstack.org`.
    #[must_use]
    pub fn default_driver_name(&self) -> DriverName {
        DriverName(format!("{}.{DOMAIN}", self.0))
    }
}

impl fmt::Display for ProviderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ProviderName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        if !is_label(text) || text.chars().any(|c| c.is_ascii_uppercase()) || text.len() + DOMAIN.len() >= LONGEST {
            return Err(Error::invalid(format!(
                "{text:?} is not the name of a provider: it has small letters, digits and hyphens, such as cinder"
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The name under which the driver is known to the orchestrator (CSI `GetPluginInfo.name`, Kubernetes `CSIDriver`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DriverName(String);

impl DriverName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DriverName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A domain name of at most 63 characters, as the CSI specification and Kubernetes ask.
impl FromStr for DriverName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        if text.len() > LONGEST || !text.split('.').all(is_label) {
            return Err(Error::invalid(format!(
                "{text:?} is not the name of a driver: it is a domain name of at most {LONGEST} letters, digits, hyphens \
                 and dots, such as cinder.fuxi.openstack.org"
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The value of one topology segment, such as a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologyValue(String);

impl TopologyValue {
    /// The value.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TopologyValue {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        if !is_word(text) {
            return Err(Error::invalid(format!(
                "{text:?} cannot be a topology value: it has 1 to {LONGEST} letters, digits, hyphens, underscores and \
                 dots, and begins and ends with a letter or digit"
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

/// One segment of a topology: `topology.kubernetes.io/region=north`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologySegment {
    /// The key: a name, after an optional domain and a slash.
    pub key: String,
    /// The value.
    pub value: TopologyValue,
}

impl TopologySegment {
    /// All segments as one place.
    ///
    /// # Errors
    /// [`Kind::InvalidArgument`](crate::error::Kind::InvalidArgument) when a key has two values; CSI keys do not
    /// differ by case alone.
    pub fn place(segments: &[Self]) -> Result<Topology> {
        let mut place = Topology::new();
        for segment in segments {
            let twin = place.iter().find(|(key, _)| key.eq_ignore_ascii_case(&segment.key));
            if let Some((key, value)) = twin
                && (key != &segment.key || value != segment.value.as_str())
            {
                return Err(Error::invalid(format!(
                    "--topology: {key}={value} and {}={} contradict each other; give the key once",
                    segment.key,
                    segment.value.as_str()
                )));
            }
            place.insert(segment.key.clone(), segment.value.as_str().to_owned());
        }
        Ok(place)
    }
}

impl FromStr for TopologySegment {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let KeyValue { key, value } = text.parse()?;
        let good = match key.split_once('/') {
            Some((domain, name)) => domain.len() <= LONGEST && domain.split('.').all(is_label) && is_word(name),
            None => is_word(&key),
        };
        if !good {
            return Err(Error::invalid(format!(
                "{key:?} cannot be a topology key: write for example topology.kubernetes.io/region=north"
            )));
        }
        Ok(Self { key, value: value.parse()? })
    }
}

/// `KEY=VALUE`, the value being anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// What stands before the first `=`.
    pub key: String,
    /// What stands behind it.
    pub value: String,
}

impl FromStr for KeyValue {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self { key: key.to_owned(), value: value.to_owned() }),
            _ => Err(Error::invalid(format!("{text:?} is not KEY=VALUE"))),
        }
    }
}

/// A label of a domain name.
fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= LONGEST
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        && has_firm_ends(text)
}

/// A value of a Kubernetes label that is not empty.
fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= LONGEST
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && has_firm_ends(text)
}

fn has_firm_ends(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.ends_with(|c: char| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::{DriverName, ProviderName, TopologySegment, TopologyValue};

    #[test]
    fn driver_names_are_domain_names() {
        for good in ["cinder.fuxi.openstack.org", "cinder.csi.openstack.org", "a", "A-1.b"] {
            assert_eq!(good.parse::<DriverName>().unwrap().as_str(), good);
        }
        let long = format!("a.{}", "b".repeat(62));
        for bad in ["", ".", "a.", ".a", "a..b", "-a", "a-", "a.-b", "a_b", "a/b", "ä", long.as_str()] {
            assert!(bad.parse::<DriverName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_provider_gives_the_driver_its_default_name() {
        let cinder: ProviderName = "cinder".parse().unwrap();
        let name = cinder.default_driver_name();
        assert_eq!(name.as_str(), "cinder.fuxi.openstack.org");
        assert_eq!(name.as_str().parse::<DriverName>().unwrap(), name);
        for bad in ["", "Cinder", "a.b", "-", &"x".repeat(60)] {
            assert!(bad.parse::<ProviderName>().is_err(), "{bad}");
        }
        let longest: ProviderName = "x".repeat(44).parse().unwrap();
        assert!(longest.default_driver_name().as_str().parse::<DriverName>().is_ok());
    }

    #[test]
    fn topology_segments_follow_the_rules_of_csi() {
        let good: TopologySegment = "topology.kubernetes.io/region=north-1".parse().unwrap();
        assert_eq!((good.key.as_str(), good.value.as_str()), ("topology.kubernetes.io/region", "north-1"));
        assert!("rack=r_1.2".parse::<TopologySegment>().is_ok());
        for bad in ["", "=", "rack", "rack=", "rack=-a", "rack=a b", "a/b/c=d", "/b=c", "a..b/c=d", "a/=b"] {
            assert!(bad.parse::<TopologySegment>().is_err(), "{bad}");
        }
        assert!("x".repeat(63).parse::<TopologyValue>().is_ok());
        assert!("x".repeat(64).parse::<TopologyValue>().is_err());
    }

    #[test]
    fn a_topology_key_has_one_value() {
        let segments =
            |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<TopologySegment>>();
        let place = TopologySegment::place(&segments(&["a=1", "b=2", "a=1"])).unwrap();
        assert_eq!(place.len(), 2);
        for contradiction in [["a=1", "a=2"], ["a=1", "A=1"]] {
            assert!(TopologySegment::place(&segments(&contradiction)).is_err());
        }
    }
}
