//! How large things are, and how large they may be.

use crate::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(u64);

impl Bytes {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// One gibibyte, the unit of Cinder and Manila.
    pub const GIB: u64 = 1 << 30;

    /// A number of bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// A number of gibibytes, unless that is more than 2^64 bytes.
    #[must_use]
    pub fn from_gib(gib: u64) -> Option<Self> {
        gib.checked_mul(Self::GIB).map(Self)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The smallest number of gibibytes that holds this size.
    #[must_use]
    pub const fn gib_ceil(self) -> u64 {
        self.0.div_ceil(Self::GIB)
    }

    /// The largest number of gibibytes that this size holds.
    #[must_use]
    pub const fn gib_floor(self) -> u64 {
        self.0 / Self::GIB
    }

    /// From a protobuf `int64`.
    ///
    /// # Errors
    /// `InvalidArgument` for a negative number, naming the field.
    pub fn from_wire(field: &str, bytes: i64) -> Result<Self> {
        u64::try_from(bytes)
            .map(Self)
            .map_err(|_| Error::invalid(format!("{field} is {bytes}: a size cannot be negative")))
    }

    /// As a protobuf `int64`; sizes beyond 8 EiB become the largest one.
    #[must_use]
    pub fn to_wire(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

/// `3 GiB` where that is exact, else the number of bytes.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 != 0 && self.0.is_multiple_of(Self::GIB) {
            write!(f, "{} GiB", self.0 / Self::GIB)
        } else {
            write!(f, "{} bytes", self.0)
        }
    }
}

/// The size that was asked for: at least, and at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SizeRange {
    /// At least this much; zero for no wish.
    pub required: Bytes,
    /// At most this much; none for no bound.
    pub limit: Option<Bytes>,
}

impl SizeRange {
    /// Checks the bounds against each other.
    ///
    /// # Errors
    /// `InvalidArgument` when the limit is below the required size.
    pub fn new(required: Bytes, limit: Option<Bytes>) -> Result<Self> {
        match limit {
            Some(limit) if limit < required => Err(Error::invalid(format!(
                "capacity_range: limit_bytes ({limit}) is less than required_bytes ({required})"
            ))),
            _ => Ok(Self { required, limit }),
        }
    }

    /// The size in whole gibibytes that serves the request: at least `at_least` (a source's size, or a default), rounded up.
    ///
    /// # Errors
    /// `OutOfRange` when rounding up, or the source, exceeds the limit.
    pub fn whole_gib(&self, at_least: u64) -> Result<u64> {
        let gib = self.required.gib_ceil().max(at_least).max(1);
        match self.limit {
            Some(limit) if gib > limit.gib_floor() => Err(Error::new(
                Kind::OutOfRange,
                format!(
                    "capacity_range: {gib} GiB would be needed (sizes are whole GiB), which is over limit_bytes ({limit})"
                ),
            )),
            _ => Ok(gib),
        }
    }

    /// Whether an existing size serves the request.
    #[must_use]
    pub fn allows(&self, size: Bytes) -> bool {
        size >= self.required && self.limit.is_none_or(|limit| size <= limit)
    }
}

#[cfg(test)]
mod tests {
    use super::{Bytes, SizeRange};
    use crate::error::Kind;
    use proptest::prelude::{any, proptest};

    #[test]
    fn sizes_round_up_to_gib_within_both_bounds() {
        let gib = |n| Bytes::from_gib(n).unwrap();
        let range = |required, limit| SizeRange::new(required, limit).unwrap();
        assert_eq!(range(Bytes::ZERO, None).whole_gib(1).unwrap(), 1);
        assert_eq!(range(Bytes::new(1), None).whole_gib(0).unwrap(), 1);
        assert_eq!(range(Bytes::new(Bytes::GIB + 1), None).whole_gib(1).unwrap(), 2);
        assert_eq!(range(gib(2), Some(gib(2))).whole_gib(1).unwrap(), 2);
        assert_eq!(range(gib(1), None).whole_gib(5).unwrap(), 5);
        let error = range(Bytes::new(1), Some(Bytes::new(2))).whole_gib(0).unwrap_err();
        assert_eq!(error.kind(), Kind::OutOfRange);
        assert_eq!(SizeRange::new(gib(2), Some(gib(1))).unwrap_err().kind(), Kind::InvalidArgument);
    }

    proptest! {
        #[test]
        fn gib_ceil_never_loses_a_byte(bytes in any::<u64>()) {
            let size = Bytes::new(bytes);
            let up = u128::from(size.gib_ceil()) * u128::from(Bytes::GIB);
            assert!(up >= u128::from(bytes) && up - u128::from(bytes) < u128::from(Bytes::GIB));
            assert!(size.gib_floor() * Bytes::GIB <= bytes);
        }
    }
}
