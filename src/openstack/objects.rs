//! What the services' objects have in common: words for states, metadata, quotas, times, parts of lists.
//!
//! Statuses are enums with an `Unknown` for what a newer or patched service may say, so that a new word is never a
//! parse error.

use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

/// Metadata of an object.
pub type Metadata = BTreeMap<String, String>;

/// An enum of the words of a status.
macro_rules! status {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$word_doc])* #[doc = concat!("`", $word, "`")] $variant,)*
            /// A word that this driver does not know.
            Unknown(String),
        }

        impl $name {
            /// The word that OpenStack uses.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)*
                    Self::Unknown(word) => word,
                }
            }
        }

        impl From<String> for $name {
            fn from(word: String) -> Self {
                match word.as_str() {
                    $($word => Self::$variant,)*
                    _ => Self::Unknown(word),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                // Some statuses are null for a moment after the creation.
                Ok(<Option<String> as serde::Deserialize>::deserialize(deserializer)?.unwrap_or_default().into())
            }
        }
    };
}
pub(super) use status;

/// One quota: how much is allowed, used and reserved. A negative limit means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Quota {
    /// How much is allowed; negative for no limit.
    pub limit: i64,
    /// How much is used.
    #[serde(default)]
    pub in_use: i64,
    /// How much is about to be used.
    #[serde(default)]
    pub reserved: i64,
}

impl Quota {
    /// How much is left; none for no limit.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        if self.limit < 0 {
            return None;
        }
        let left = self.limit.saturating_sub(self.in_use).saturating_sub(self.reserved);
        Some(u64::try_from(left).unwrap_or(0))
    }
}

/// A limit that is not said is none.
pub(super) fn unlimited() -> i64 {
    -1
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Whether there are more.
    pub more: bool,
}

/// `null` where a value is expected, as the services write for what is not set yet.
pub(super) fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// The services' times are UTC without saying so: `2026-11-21T08:54:16.000000`.
pub(super) fn timestamp<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<jiff::Timestamp>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    parse_timestamp(&text).map(Some).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not a time")))
}

fn parse_timestamp(text: &str) -> Option<jiff::Timestamp> {
    if let Ok(timestamp) = text.parse::<jiff::Timestamp>() {
        return Some(timestamp);
    }
    let civil: jiff::civil::DateTime = text.parse().ok()?;
    civil.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::{Quota, parse_timestamp};
    use proptest::prelude::{any, proptest};

    #[test]
    fn what_is_left_of_a_quota() {
        let quota = |limit, in_use, reserved| Quota { limit, in_use, reserved }.left();
        assert_eq!(quota(-1, 5, 5), None);
        assert_eq!(quota(10, 5, 2), Some(3));
        assert_eq!(quota(10, 12, 0), Some(0));
        assert_eq!(quota(i64::MIN, i64::MAX, 0), None);
    }

    proptest! {
        #[test]
        fn any_text_as_time_is_a_time_or_nothing(text in any::<String>()) {
            let _ = parse_timestamp(&text);
        }
    }
}
