//! Zones: which one a new volume goes to, and from where it is reachable.
//!
//! The order: the `availability` parameter; the zone of the source, where that is allowed, since most clouds copy only
//! within a zone; the preferred zones; the requisite ones. Where nothing is said, the service chooses.

use crate::error::{Error, Result};
use crate::model::{Topology, TopologyRequirement};
use std::collections::BTreeSet;

/// How zones are treated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zones {
    /// The key of the zone in topologies.
    pub key: String,
    /// Whether a volume's zone says nothing about the nodes that can use it (`ignore-volume-az`).
    pub ignore_volume_zone: bool,
}

impl Zones {
    /// The zone for a new volume; none lets the service choose.
    ///
    /// # Errors
    /// `InvalidArgument`: the parameter names a zone that the orchestrator does not allow.
    pub fn choose(
        &self,
        availability: Option<&str>,
        source: Option<&str>,
        requirement: Option<&TopologyRequirement>,
    ) -> Result<Option<String>> {
        let allowed = self.allowed(requirement);
        if let Some(zone) = availability {
            if !self.ignore_volume_zone && !allowed.is_empty() && !allowed.contains(zone) {
                return Err(Error::invalid(format!(
                    "parameters: availability is {zone:?}, and the volume must be reachable from {}; change the class, or \
                     set ignore-volume-az if every zone's servers reach it",
                    listed(&allowed)
                )));
            }
            return Ok(Some(zone.to_owned()));
        }
        if let Some(zone) = source
            && (allowed.is_empty() || self.ignore_volume_zone || allowed.contains(zone))
        {
            // The service takes the zone of the source by itself.
            return Ok(None);
        }
        let Some(requirement) = requirement else { return Ok(None) };
        let zones = requirement.preferred.iter().chain(&requirement.requisite);
        Ok(zones.filter_map(|topology| topology.get(&self.key)).find(|zone| !zone.is_empty()).cloned())
    }

    /// From where something in this zone is reachable; empty for everywhere.
    #[must_use]
    pub fn reachable_from(&self, zone: &str, requirement: Option<&TopologyRequirement>) -> Vec<Topology> {
        if self.ignore_volume_zone {
            return requirement.map(|requirement| requirement.preferred.clone()).unwrap_or_default();
        }
        if zone.is_empty() {
            return Vec::new();
        }
        vec![Topology::from([(self.key.clone(), zone.to_owned())])]
    }

    /// Whether something in this zone meets the requirement.
    #[must_use]
    pub fn allows(&self, zone: &str, requirement: Option<&TopologyRequirement>) -> bool {
        let allowed = self.allowed(requirement);
        self.ignore_volume_zone || zone.is_empty() || allowed.is_empty() || allowed.contains(zone)
    }

    /// The zones that are allowed; empty for all.
    #[must_use]
    pub fn allowed<'a>(&self, requirement: Option<&'a TopologyRequirement>) -> BTreeSet<&'a str> {
        let Some(requirement) = requirement else { return BTreeSet::new() };
        requirement.requisite.iter().filter_map(|topology| topology.get(&self.key)).map(String::as_str).collect()
    }

    /// The zone that a topology names.
    #[must_use]
    pub fn zone_of<'a>(&self, topology: Option<&'a Topology>) -> Option<&'a str> {
        topology.and_then(|topology| topology.get(&self.key)).map(String::as_str)
    }
}

/// Zones in words: `a, b`.
#[must_use]
pub fn listed(zones: &BTreeSet<&str>) -> String {
    zones.iter().copied().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::Zones;
    use crate::model::{Topology, TopologyRequirement};

    const KEY: &str = "topology.cinder.fuxi.openstack.org/zone";

    fn zones() -> Zones {
        Zones { key: KEY.to_owned(), ignore_volume_zone: false }
    }

    fn topologies(zones: &[&str]) -> Vec<Topology> {
        zones.iter().map(|zone| Topology::from([(KEY.to_owned(), (*zone).to_owned())])).collect()
    }

    fn requirement(requisite: &[&str], preferred: &[&str]) -> TopologyRequirement {
        TopologyRequirement { requisite: topologies(requisite), preferred: topologies(preferred) }
    }

    #[test]
    fn the_zone_of_a_new_volume() {
        struct Case {
            availability: Option<&'static str>,
            source: Option<&'static str>,
            requirement: Option<TopologyRequirement>,
            zone: Result<Option<&'static str>, ()>,
        }
        let case = |availability, source, requirement, zone| Case { availability, source, requirement, zone };
        let cases = [
            case(None, None, None, Ok(None)),
            case(Some("a"), None, None, Ok(Some("a"))),
            case(Some("a"), None, Some(requirement(&["a", "b"], &["b"])), Ok(Some("a"))),
            case(Some("c"), None, Some(requirement(&["a", "b"], &["b"])), Err(())),
            case(None, None, Some(requirement(&["a", "b"], &["b", "a"])), Ok(Some("b"))),
            case(None, None, Some(requirement(&["a", "b"], &[])), Ok(Some("a"))),
            case(None, None, Some(requirement(&[], &[])), Ok(None)),
            // The service puts it beside its source …
            case(None, Some("a"), Some(requirement(&["a", "b"], &["b"])), Ok(None)),
            case(None, Some("a"), None, Ok(None)),
            // … unless nobody could reach it there.
            case(None, Some("c"), Some(requirement(&["a", "b"], &["b"])), Ok(Some("b"))),
        ];
        for Case { availability, source, requirement, zone } in cases {
            let chosen = zones().choose(availability, source, requirement.as_ref()).map_err(|_| ());
            assert_eq!(
                chosen.as_ref().map(Option::as_deref),
                zone.as_ref().map(|zone| *zone),
                "{availability:?} {source:?} {requirement:?}"
            );
        }
    }

    #[test]
    fn other_keys_say_nothing_about_zones() {
        let foreign = TopologyRequirement {
            requisite: vec![Topology::from([("topology.other/rack".to_owned(), "r1".to_owned())])],
            preferred: Vec::new(),
        };
        assert_eq!(zones().choose(None, None, Some(&foreign)).unwrap(), None);
        assert!(zones().allows("a", Some(&foreign)));
    }

    #[test]
    fn a_volume_is_reachable_from_its_zone() {
        assert_eq!(zones().reachable_from("a", None), topologies(&["a"]));
        assert!(zones().reachable_from("", None).is_empty());
        assert!(zones().allows("a", Some(&requirement(&["a"], &[]))));
        assert!(!zones().allows("c", Some(&requirement(&["a"], &[]))));
    }

    #[test]
    fn where_volume_zones_are_ignored_the_preferred_ones_are_promised() {
        let zones = Zones { ignore_volume_zone: true, ..zones() };
        let requirement = requirement(&["a", "b"], &["b"]);
        assert_eq!(zones.reachable_from("cinder-zone", Some(&requirement)), topologies(&["b"]));
        assert_eq!(
            zones.choose(Some("cinder-zone"), None, Some(&requirement)).unwrap().as_deref(),
            Some("cinder-zone")
        );
        assert!(zones.allows("cinder-zone", Some(&requirement)));
    }
}
