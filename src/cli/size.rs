//! Sizes as Kubernetes writes them: `1Gi`, `500M`, `1073741824`.

use crate::error::{Error, Result};
use crate::model::Bytes;

/// Binary and decimal suffixes, and how many bytes they stand for.
const UNITS: [(&str, u64); 8] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
];

/// Parses a size: a whole number of bytes, or of one of the units of Kubernetes (`Ki` to `Ti`, `k` to `T`).
///
/// # Errors
/// [`Kind::InvalidArgument`](crate::error::Kind::InvalidArgument) for anything else, for zero, and for what CSI cannot
/// say in 63 bits.
pub fn parse(text: &str) -> Result<Bytes> {
    let refuse =
        || Error::invalid(format!("{text:?} is not a size: write for example 1Gi, 500M or 1073741824 (bytes)"));
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = match unit {
        "" => 1,
        _ => UNITS.iter().find(|(name, _)| *name == unit).map(|(_, bytes)| *bytes).ok_or_else(refuse)?,
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or_else(refuse)?;
    if bytes == 0 || i64::try_from(bytes).is_err() {
        return Err(refuse());
    }
    Ok(Bytes::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::parse;
    use proptest::prelude::{any, proptest};

    #[test]
    fn sizes_are_read_as_kubernetes_writes_them() {
        for (text, bytes) in [("1", 1), ("1Gi", 1 << 30), ("500M", 500_000_000), ("2Ki", 2048), ("3k", 3000)] {
            assert_eq!(parse(text).unwrap().get(), bytes, "{text}");
        }
        for text in ["", "0", "0Gi", "Gi", "1GiB", "1 Gi", "-1", "1.5Gi", "9223372036854775808", "99999999999Ti"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_a_size_never_panics(text in any::<String>()) {
            let _ = parse(&text);
        }
    }
}
