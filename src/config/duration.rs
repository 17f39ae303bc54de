//! Durations as people write them: `30`, `30s`, `1m30s`, `500ms`.

use std::time::Duration;

/// The longest duration that is taken: a day. Longer ones are slips of the pen.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Parses a duration: a bare number of seconds, or numbers with the units `h`, `m`, `s`, `ms` as Go writes them.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse(text: &str) -> Result<Duration, String> {
    let expected = || format!("{text:?} is not a duration: write seconds, or for example 30s, 1m30s or 500ms");
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(expected());
    }
    if let Ok(seconds) = trimmed.parse::<u64>() {
        return bounded(Duration::from_secs(seconds), text);
    }
    let mut total = Duration::ZERO;
    let mut rest = trimmed;
    while !rest.is_empty() {
        let (number, after) = split_where(rest, |c| !c.is_ascii_digit());
        let (unit, after) = split_where(after, |c| c.is_ascii_digit());
        let number: u64 = number.parse().map_err(|_| expected())?;
        let milliseconds = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1_000,
            "ms" => 1,
            _ => return Err(expected()),
        };
        let part = number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(expected)?;
        total = total.checked_add(part).ok_or_else(expected)?;
        rest = after;
    }
    bounded(total, text)
}

fn split_where(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

fn bounded(duration: Duration, text: &str) -> Result<Duration, String> {
    if duration > LONGEST { Err(format!("{text:?} is more than 24h")) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use proptest::prelude::{any, proptest};
    use std::time::Duration;

    #[test]
    fn durations_are_read_as_go_and_people_write_them() {
        for (text, milliseconds) in
            [("0", 0), ("30", 30_000), ("30s", 30_000), ("1m30s", 90_000), ("500ms", 500), (" 2h ", 7_200_000)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "s", "-1", "1x", "1.5s", "1s1", "s1", "25h", "99999999999999999999", "18446744073709551615h"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_a_duration_never_panics(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn seconds_come_back(seconds in 0_u64..=86_400) {
            assert_eq!(parse(&format!("{seconds}s")), Ok(Duration::from_secs(seconds)));
        }
    }
}
