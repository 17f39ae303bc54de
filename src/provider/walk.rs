//! The way of one page through the lists of several clouds.
//!
//! Lists go through the clouds by name, and within a cloud through snapshots and then backups. A page token says where
//! to go on: what, in which cloud, after which object.

use super::handle::Uuid;
use crate::error::{Error, Kind, Result};
use crate::model::PageRequest;
use crate::openstack::crowd::LARGEST_PAGE;
use std::num::NonZeroU32;

/// What is listed in one go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Volumes,
    Snapshots,
    Backups,
}

impl What {
    const fn letter(self) -> &'static str {
        match self {
            Self::Volumes => "v",
            Self::Snapshots => "s",
            Self::Backups => "b",
        }
    }
}

/// An object after which a list goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) id: Uuid,
    /// How many objects came before it, where the service counts instead of knowing markers.
    pub(super) position: Option<u64>,
}

impl Marker {
    /// This object at this position; none if it has no proper id.
    pub(super) fn at(id: &str, position: Option<u64>) -> Option<Self> {
        Some(Self { id: Uuid::parse(id)?, position })
    }

    fn write(&self) -> String {
        match self.position {
            Some(position) => format!("{}+{position}", self.id),
            None => self.id.to_string(),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text.split_once('+') {
            Some((id, position)) => Self::at(id, Some(position.parse().ok()?)),
            None => Self::at(text, None),
        }
    }
}

/// Where a list goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) what: What,
    pub(super) cloud: String,
    /// After this object; none for the first.
    pub(super) after: Option<Marker>,
}

impl Place {
    fn write(&self) -> String {
        let after = self.after.as_ref().map(Marker::write).unwrap_or_default();
        format!("{}:{after}:{}", self.what.letter(), self.cloud)
    }

    fn parse(token: &str) -> Option<Self> {
        let (letter, rest) = token.split_once(':')?;
        let (after, cloud) = rest.split_once(':')?;
        let what = [What::Volumes, What::Snapshots, What::Backups].into_iter().find(|what| what.letter() == letter)?;
        let after = if after.is_empty() { None } else { Some(Marker::parse(after)?) };
        Some(Self { what, cloud: cloud.to_owned(), after })
    }
}

/// The way of one page through the lists.
pub(super) struct Walk {
    here: Option<Place>,
    next: std::vec::IntoIter<Place>,
    most: Option<NonZeroU32>,
}

impl Walk {
    /// Begins where the token says, or with the first of these lists.
    pub(super) fn begin(page: &PageRequest, places: Vec<Place>) -> Result<Self> {
        let mut next = places.into_iter();
        let here = match &page.token {
            None => next.next(),
            Some(token) => {
                let begun = Place::parse(token).ok_or_else(|| stale(token))?;
                if !next.any(|place| place.what == begun.what && place.cloud == begun.cloud) {
                    return Err(stale(token));
                }
                Some(begun)
            }
        };
        Ok(Self { here, next, most: page.most })
    }

    /// Where to look now, and for how many; none when the page is full or everything was seen.
    pub(super) fn step(&self, have: usize) -> Option<(Place, u32)> {
        Some((self.here.clone()?, room_left(self.most, have)?))
    }

    /// Goes on after what was seen, and gives it.
    pub(super) fn pass<T>(&mut self, seen: Result<Chunk<T>>) -> Result<Vec<T>> {
        let here = self.here.take();
        let chunk = match (seen, &here) {
            // Not the list is missing but the object that it should go on after.
            (Err(error), Some(place))
                if place.after.is_some() && matches!(error.kind(), Kind::NotFound | Kind::InvalidArgument) =>
            {
                return Err(stale(&place.write()).because(error));
            }
            (seen, _) => seen?,
        };
        let Chunk { items, last } = chunk;
        self.here = match (last, here) {
            (Some(last), Some(here)) => Some(Place { after: Some(last), ..here }),
            _ => self.next.next(),
        };
        Ok(items)
    }

    /// The token of the next page; none after everything.
    pub(super) fn token(&self) -> Option<String> {
        self.here.as_ref().map(Place::write)
    }
}

/// What one request for a part of a list brought.
pub(super) struct Chunk<T> {
    pub(super) items: Vec<T>,
    /// The last object that was looked at, where there are more after it.
    pub(super) last: Option<Marker>,
}

/// How many more entries a page takes; none when it is full.
fn room_left(most: Option<NonZeroU32>, have: usize) -> Option<u32> {
    let Some(most) = most else { return Some(LARGEST_PAGE) };
    let left = most.get().saturating_sub(u32::try_from(have).unwrap_or(u32::MAX));
    (left > 0).then(|| left.min(LARGEST_PAGE))
}

pub(super) fn stale(token: &str) -> Error {
    Error::new(Kind::StaleToken, format!("the page token {token:?} is not valid (any more); start the list again"))
}

#[cfg(test)]
mod tests {
    use super::{Chunk, Marker, Place, Walk, What, room_left};
    use crate::error::{Error, Kind};
    use crate::model::PageRequest;
    use proptest::prelude::{any, proptest};
    use std::num::NonZeroU32;

    #[test]
    fn page_tokens_are_read_back() {
        let id = Marker::at("6c1b7a0e-0f5b-4b07-9f3a-5f6a0a3f9a11", None).unwrap();
        let counted = Marker { position: Some(7), ..id.clone() };
        for (what, cloud, after) in
            [(What::Volumes, "", None), (What::Snapshots, "east", Some(id)), (What::Backups, "a:b", Some(counted))]
        {
            let place = Place { what, cloud: cloud.to_owned(), after };
            assert_eq!(Place::parse(&place.write()), Some(place));
        }
        for token in ["", "v", "v:", "x::", "v:1:", "v:6c1b7a0e-0f5b-4b07-9f3a-5f6a0a3f9a11+x:", "invalid-token"] {
            assert_eq!(Place::parse(token), None, "{token}");
        }
    }

    #[test]
    fn a_page_is_full_when_it_has_what_was_asked_for() {
        let most = NonZeroU32::new;
        assert_eq!(room_left(None, 5000), Some(1000));
        assert_eq!(room_left(most(5), 0), Some(5));
        assert_eq!(room_left(most(5), 4), Some(1));
        assert_eq!(room_left(most(5), 5), None);
        assert_eq!(room_left(most(5), 9), None);
        assert_eq!(room_left(most(5000), 0), Some(1000));
    }

    #[test]
    fn a_list_goes_through_all_its_places_and_stops_when_the_page_is_full() {
        let places = || {
            [(What::Snapshots, "a"), (What::Backups, "a"), (What::Snapshots, "b")]
                .map(|(what, cloud)| Place { what, cloud: cloud.to_owned(), after: None })
                .to_vec()
        };
        let last = "6c1b7a0e-0f5b-4b07-9f3a-5f6a0a3f9a11";
        let mut page = PageRequest { most: NonZeroU32::new(2), token: None };
        let mut walk = Walk::begin(&page, places()).unwrap();
        assert_eq!(walk.step(0).unwrap().1, 2);
        walk.pass(Ok(Chunk { items: vec![1, 2], last: Marker::at(last, None) })).unwrap();
        assert!(walk.step(2).is_none());

        page.token = walk.token();
        let mut walk = Walk::begin(&page, places()).unwrap();
        assert_eq!(walk.step(0).unwrap().0.after.unwrap().id.as_str(), last);
        walk.pass(Ok(Chunk { items: vec![3], last: None })).unwrap();
        let (place, most) = walk.step(1).unwrap();
        assert_eq!((place.what, place.cloud.as_str(), most), (What::Backups, "a", 1));
        walk.pass(Ok(Chunk::<u8> { items: Vec::new(), last: None })).unwrap();
        walk.pass(Ok(Chunk { items: vec![4], last: None })).unwrap();
        assert_eq!(walk.token(), None);
        assert!(walk.step(0).is_none());

        for token in ["nonsense", "v::a", "s::c"] {
            page.token = Some(token.to_owned());
            assert_eq!(Walk::begin(&page, places()).err().unwrap().kind(), Kind::StaleToken);
        }
    }

    #[test]
    fn a_marker_that_is_gone_makes_the_token_stale() {
        let page = PageRequest { most: None, token: Some("v:6c1b7a0e-0f5b-4b07-9f3a-5f6a0a3f9a11:".to_owned()) };
        let places = vec![Place { what: What::Volumes, cloud: String::new(), after: None }];
        let gone = || Err::<Chunk<u8>, _>(Error::not_found("no such marker"));
        assert_eq!(Walk::begin(&page, places.clone()).unwrap().pass(gone()).unwrap_err().kind(), Kind::StaleToken);
        let page = PageRequest::default();
        assert_eq!(Walk::begin(&page, places).unwrap().pass(gone()).unwrap_err().kind(), Kind::NotFound);
    }

    proptest! {
        #[test]
        fn any_text_is_a_token_or_not(token in any::<String>()) {
            let _ = Place::parse(&token);
        }
    }
}
