//! The services of OpenStack that the driver uses: how catalogues name them, and how their APIs are versioned.

use super::route::Microversion;
use serde::Deserialize;
use url::Url;

/// The services that this driver uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServiceKind {
    /// Cinder.
    BlockStorage,
    /// Nova.
    Compute,
    /// Manila.
    SharedFileSystem,
}

impl ServiceKind {
    /// The types under which catalogues list it, the commonest first.
    #[must_use]
    pub fn types(self) -> &'static [&'static str] {
        match self {
            Self::BlockStorage => &["volumev3", "block-storage", "block-store", "volume"],
            Self::Compute => &["compute"],
            Self::SharedFileSystem => &["sharev2", "shared-file-system", "share"],
        }
    }

    /// What people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BlockStorage => "cinder",
            Self::Compute => "nova",
            Self::SharedFileSystem => "manila",
        }
    }

    /// The path segment of the API version that this driver speaks.
    fn version_segment(self) -> &'static str {
        match self {
            Self::BlockStorage => "v3",
            Self::Compute => "v2.1",
            Self::SharedFileSystem => "v2",
        }
    }

    /// From which microversion on URLs need no project id.
    pub(super) fn projectless_from(self) -> Microversion {
        match self {
            Self::BlockStorage => Microversion(3, 67),
            Self::Compute => Microversion(2, 18),
            Self::SharedFileSystem => Microversion(2, 60),
        }
    }

    pub(super) fn microversion_header(self, version: Microversion) -> (&'static str, String) {
        match self {
            Self::BlockStorage => ("openstack-api-version", format!("volume {version}")),
            Self::Compute => ("openstack-api-version", format!("compute {version}")),
            Self::SharedFileSystem => ("x-openstack-manila-api-version", version.to_string()),
        }
    }

    /// The URL up to and with the API version, ending in a slash, and whether a project id follows it.
    pub(super) fn version_root(self, endpoint: &Url) -> (Url, bool) {
        let mut root = endpoint.clone();
        let mut kept = Vec::new();
        let mut segments = endpoint.path().split('/').filter(|segment| !segment.is_empty());
        for segment in segments.by_ref() {
            kept.push(segment);
            if is_version(segment) {
                let rest = segments.next().is_some();
                root.set_path(&format!("/{}/", kept.join("/")));
                return (root, rest);
            }
        }
        kept.push(self.version_segment());
        root.set_path(&format!("/{}/", kept.join("/")));
        (root, false)
    }

    /// The highest microversion in a version document of its API.
    pub(super) fn highest_in(self, body: &[u8]) -> Option<Microversion> {
        let versions: Versions = serde_json::from_slice(body).ok()?;
        let major = self.version_segment().split('.').next()?;
        versions
            .versions
            .into_iter()
            .chain(versions.version)
            .filter(|version| version.id.split('.').next() == Some(major))
            .filter_map(|version| version.version.parse().ok())
            .max()
    }
}

#[derive(Deserialize)]
struct Versions {
    #[serde(default)]
    versions: Vec<Version>,
    version: Option<Version>,
}

#[derive(Deserialize)]
struct Version {
    id: String,
    #[serde(default)]
    version: String,
}

/// `v3`, `v2.1`, `v2`.
fn is_version(segment: &str) -> bool {
    segment.strip_prefix('v').is_some_and(|rest| {
        rest.starts_with(|c: char| c.is_ascii_digit()) && rest.chars().all(|c| c.is_ascii_digit() || c == '.')
    })
}

#[cfg(test)]
mod tests {
    use super::ServiceKind;
    use crate::openstack::route::Microversion;
    use url::Url;

    #[test]
    fn endpoints_with_and_without_version_and_project_are_understood() {
        for (service, given, root, has_project) in [
            (ServiceKind::BlockStorage, "http://c:8776/v3/0a1b", "http://c:8776/v3/", true),
            (ServiceKind::BlockStorage, "http://c:8776/v3", "http://c:8776/v3/", false),
            (ServiceKind::BlockStorage, "http://c:8776/v3/", "http://c:8776/v3/", false),
            (ServiceKind::BlockStorage, "https://c/volume", "https://c/volume/v3/", false),
            (ServiceKind::BlockStorage, "https://c/volume/v3/AUTH_x", "https://c/volume/v3/", true),
            (ServiceKind::Compute, "http://n:8774/v2.1", "http://n:8774/v2.1/", false),
            (ServiceKind::Compute, "http://n:8774", "http://n:8774/v2.1/", false),
            (ServiceKind::SharedFileSystem, "http://m/v2/p", "http://m/v2/", true),
        ] {
            let (found, project) = service.version_root(&Url::parse(given).unwrap());
            assert_eq!((found.as_str(), project), (root, has_project), "{given}");
        }
    }

    #[test]
    fn the_highest_microversion_is_that_of_our_major_version() {
        let cinder = br#"{"versions": [{"id": "v2.0", "version": ""}, {"id": "v3.0", "version": "3.71", "min_version": "3.0"}]}"#;
        assert_eq!(ServiceKind::BlockStorage.highest_in(cinder), Some(Microversion(3, 71)));
        let nova = br#"{"version": {"id": "v2.1", "version": "2.104"}}"#;
        assert_eq!(ServiceKind::Compute.highest_in(nova), Some(Microversion(2, 104)));
        assert_eq!(ServiceKind::Compute.highest_in(b"<html>"), None);
    }
}
