//! How long an RPC may take: the `grpc-timeout` of its caller.

use std::time::Duration;
use tonic::metadata::MetadataMap;

/// The longest time that any caller gets; longer wishes (the header allows 11,000 years) are cut to this.
pub const LONGEST: Duration = Duration::from_secs(3600);

/// The time that the caller gave, if it gave any that can be read.
#[must_use]
pub fn from_metadata(metadata: &MetadataMap) -> Option<Duration> {
    metadata.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(parse)
}

/// Reads the value of a `grpc-timeout` header: at most eight digits and a unit.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    let time = match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    };
    Some(time.min(LONGEST))
}

/// How much earlier than the caller's own clock the work ends, so that the caller gets our answer and not its own
/// timeout: a twentieth, at most half a second.
#[must_use]
pub fn margin(time: Duration) -> Duration {
    (time / 20).min(Duration::from_millis(500))
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, margin, parse};
    use proptest::prelude::{any, proptest};
    use std::time::Duration;

    #[test]
    fn every_unit_is_understood() {
        let table = [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("15S", Some(Duration::from_secs(15))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("0n", Some(Duration::ZERO)),
            ("99999999H", Some(LONGEST)),
            ("", None),
            ("S", None),
            ("5", None),
            ("5s", None),
            ("-1S", None),
            ("+1S", None),
            ("123456789S", None),
            ("1ä", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_margin_is_small() {
        assert_eq!(margin(Duration::from_secs(1)), Duration::from_millis(50));
        assert_eq!(margin(Duration::from_secs(600)), Duration::from_millis(500));
    }

    proptest! {
        #[test]
        fn no_header_panics(text in any::<String>()) {
            let _ = parse(&text);
        }
    }
}
