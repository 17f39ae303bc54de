//! Sizes between OpenStack, which counts in GiB, and CSI, which counts in bytes.

use super::Room;
use crate::error::{Error, Result};
use crate::model::Bytes;

/// The largest size that is ever reported, where nothing bounds it: what fits into an `int64` of bytes.
pub(super) const LARGEST_GIB: u64 = (i64::MAX as u64) / Bytes::GIB;

/// A size that the service gave.
pub(super) fn gib(gib: u64) -> Result<Bytes> {
    Bytes::from_gib(gib).ok_or_else(|| Error::internal(format!("OpenStack says a size of {gib} GiB")))
}

/// Room of so many GiB in all, and for one volume.
pub(super) fn room_of(available: u64, largest: Option<u64>) -> Result<Room> {
    let bytes = |gib: u64| Bytes::from_gib(gib.min(LARGEST_GIB)).ok_or_else(|| Error::internal("a size over 8 EiB"));
    Ok(Room { available: bytes(available)?, largest: largest.map(bytes).transpose()?, smallest: Bytes::from_gib(1) })
}

#[cfg(test)]
mod tests {
    use super::{LARGEST_GIB, room_of};

    #[test]
    fn no_bound_is_the_largest_number_there_is() {
        let all = room_of(u64::MAX, None).unwrap();
        assert_eq!(all.available.gib_floor(), LARGEST_GIB);
        assert!(i64::try_from(all.available.get()).is_ok());
    }
}
