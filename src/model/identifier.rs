//! What the orchestrator calls things: checked once, where they come in.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The longest identifier that is taken from an orchestrator, in bytes. The specification promises 128 for strings in
/// general and 256 for node ids.
const LONGEST_ID: usize = 256;

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The identifier as it stands on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                if text.is_empty() {
                    return Err(Error::invalid(concat!($field, " is missing")));
                }
                if text.len() > LONGEST_ID {
                    return Err(Error::invalid(format!(concat!($field, " has {} bytes, more than {}"), text.len(), LONGEST_ID)));
                }
                if text.chars().any(|c| c.is_control()) {
                    return Err(Error::invalid(format!(concat!($field, " {:?} has control characters"), text)));
                }
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

identifier!(
    /// A volume as the orchestrator knows it. Opaque here; a provider gives it its meaning.
    VolumeId,
    "volume_id"
);
identifier!(
    /// A snapshot (or backup) as the orchestrator knows it. Opaque here; a provider gives it its meaning.
    SnapshotId,
    "snapshot_id"
);
identifier!(
    /// A node as the orchestrator knows it: a Nova server's UUID, or packed connector facts.
    NodeId,
    "node_id"
);

#[cfg(test)]
mod tests {
    use super::VolumeId;
    use proptest::prelude::{any, proptest};

    proptest! {
        #[test]
        fn identifiers_never_panic(text in any::<String>()) {
            if let Ok(id) = text.parse::<VolumeId>() {
                assert_eq!(id.as_str(), text);
            }
        }
    }
}
