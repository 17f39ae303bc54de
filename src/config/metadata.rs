//! Where a node learns which server it is: the options of that search.

use crate::error::Error;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A place where a Nova server finds its own id and zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MetadataSource {
    /// The small disk labelled `config-2` that Nova can attach.
    ConfigDrive,
    /// The HTTP service on the link-local address.
    MetadataService,
    /// What cloud-init left in `/run/cloud-init/instance-data.json`.
    CloudInit,
    /// The firmware's tables: the id only, no zone.
    Dmi,
}

impl MetadataSource {
    /// Every source, in the default order.
    pub const ALL: [Self; 4] = [Self::ConfigDrive, Self::MetadataService, Self::CloudInit, Self::Dmi];

    /// Its name in options and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConfigDrive => "config-drive",
            Self::MetadataService => "metadata-service",
            Self::CloudInit => "cloud-init",
            Self::Dmi => "dmi",
        }
    }

    /// A comma-separated list; blanks around the names do not matter, and a source named twice is looked at once.
    ///
    /// # Errors
    /// [`Kind::InvalidArgument`](crate::error::Kind::InvalidArgument) naming the word that is not a source.
    pub fn list(text: &str) -> Result<Vec<Self>, Error> {
        let mut sources = Vec::new();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let source = word.parse()?;
            if !sources.contains(&source) {
                sources.push(source);
            }
        }
        Ok(sources)
    }
}

impl fmt::Display for MetadataSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Our spelling (`config-drive`) or cinder-csi's (`configDrive`), in any case.
impl FromStr for MetadataSource {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let folded: String = text.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect();
        Self::ALL.into_iter().find(|source| source.as_str().replace('-', "") == folded).ok_or_else(|| {
            Error::invalid(format!(
                "{text:?} is not a source of metadata: use config-drive, metadata-service, cloud-init or dmi"
            ))
        })
    }
}

/// Options of the search, from `[Metadata]` of cloud.conf.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetadataOptions {
    /// Where to look, in this order; empty for the default order, [`MetadataSource::ALL`].
    pub search_order: Vec<MetadataSource>,
    /// How long one request to the metadata service may take; none for the default.
    pub request_timeout: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::MetadataSource::{CloudInit, ConfigDrive, Dmi, MetadataService};
    use super::*;

    #[test]
    fn both_spellings_of_a_source_are_read() {
        assert_eq!(MetadataSource::list("configDrive,metadataService").unwrap(), [ConfigDrive, MetadataService]);
        assert_eq!(
            MetadataSource::list(" dmi, cloud-init ,METADATA-SERVICE,config_drive,dmi,").unwrap(),
            [Dmi, CloudInit, MetadataService, ConfigDrive]
        );
        assert_eq!(MetadataSource::list("").unwrap(), []);
        for source in MetadataSource::ALL {
            assert_eq!(source.as_str().parse::<MetadataSource>().unwrap(), source);
        }
    }

    #[test]
    fn a_wrong_source_is_named() {
        let message = MetadataSource::list("dmi,configdisk").unwrap_err().to_string();
        assert!(message.contains("\"configdisk\"") && message.contains("config-drive"), "{message}");
    }
}
