//! Which part of which list of Manila.
//!
//! Manila counts (`offset`) instead of knowing markers, so objects that are made or removed between two parts shift
//! what comes after them. [`Listing::by_id`] and [`Listing::after`] make up for it, see
//! `super::Manila::stretch`.

use crate::openstack::client::Route;

/// Which part of which list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    filters: Vec<(&'static str, String)>,
}

impl Listing {
    /// All, from the start.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Those of this name. Some databases ignore case and trailing blanks here: compare again.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        self.with("name", name)
    }

    /// Those in this status.
    #[must_use]
    pub fn in_status(self, status: &str) -> Self {
        self.with("status", status)
    }

    /// Snapshots or backups of this share.
    #[must_use]
    pub fn of_share(self, share: &str) -> Self {
        self.with("share_id", share)
    }

    /// Those with this metadata.
    #[must_use]
    pub fn with_metadata(self, key: &str, value: &str) -> Self {
        self.with("metadata", format!("{{{}: {}}}", python(key), python(value)))
    }

    /// In the order of their ids, which no change disturbs.
    #[must_use]
    pub fn by_id(self) -> Self {
        self.with("sort_key", "id").with("sort_dir", "asc")
    }

    /// Those that were made last come first.
    #[must_use]
    pub fn latest_first(self) -> Self {
        self.with("sort_key", "created_at").with("sort_dir", "desc")
    }

    /// At most so many.
    #[must_use]
    pub fn at_most(self, limit: u32) -> Self {
        self.with("limit", limit)
    }

    /// Without the first so many.
    #[must_use]
    pub fn after(self, count: u64) -> Self {
        if count == 0 { self } else { self.with("offset", count) }
    }

    fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.filters.push((key, value.to_string()));
        self
    }

    pub(super) fn onto(self, route: Route) -> Route {
        self.filters.into_iter().fold(route, |route, (key, value)| route.query(key, value))
    }
}

/// Manila reads metadata filters as literals of Python.
fn python(text: &str) -> String {
    let escaped: String = text
        .chars()
        .flat_map(|c| match c {
            '\'' | '\\' => vec!['\\', c],
            c if c.is_control() => format!("\\U{:08x}", u32::from(c)).chars().collect(),
            c => vec![c],
        })
        .collect();
    format!("'{escaped}'")
}

#[cfg(test)]
mod tests {
    use super::{Listing, python};

    #[test]
    fn metadata_filters_are_literals_of_python() {
        for (text, literal) in [("a/b", "'a/b'"), ("it's", r"'it\'s'"), (r"\", r"'\\'"), ("a\nb", r"'a\U0000000ab'")] {
            assert_eq!(python(text), literal);
        }
        let listing = Listing::all().with_metadata("k", "v");
        assert_eq!(listing.filters, [("metadata", "{'k': 'v'}".to_owned())]);
    }

    #[test]
    fn the_start_of_a_list_needs_no_offset() {
        assert_eq!(Listing::all().after(0), Listing::all());
        assert_eq!(Listing::all().after(7).filters, [("offset", "7".to_owned())]);
    }
}
