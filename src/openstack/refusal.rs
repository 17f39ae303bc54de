//! What OpenStack says when it does not do what it was asked: parsing, and which [`Kind`] of error it is.

use crate::error::{Error, Kind, Result};
use serde_json::Value;
use std::error::Error as _;
use std::fmt;
use std::time::Duration;

/// The longest message that is taken over from an answer, in bytes.
const LONGEST_MESSAGE: usize = 600;

/// What OpenStack answered when it refused a request. Find it in an [`Error`] with `error.cause::<Refusal>()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// OpenStack's message.
    pub message: String,
    /// OpenStack's request id.
    pub request_id: Option<String>,
}

impl Refusal {
    /// Reads an answer's body: OpenStack's `{"someFault": {"message": …}}`, Keystone's and Placement's forms, or text.
    #[must_use]
    pub fn parse(status: u16, request_id: Option<String>, body: &[u8]) -> Self {
        let message = serde_json::from_slice(body).ok().and_then(|value| message_of(&value)).unwrap_or_else(|| {
            let text = String::from_utf8_lossy(body);
            let text = text.trim();
            if text.starts_with('<') || text.is_empty() {
                // A proxy's HTML page says nothing that the status does not.
                http::StatusCode::from_u16(status)
                    .ok()
                    .and_then(|code| code.canonical_reason())
                    .unwrap_or("no message")
                    .to_owned()
            } else {
                text.to_owned()
            }
        });
        Self { status, message: shorten(message), request_id }
    }

    /// Whether a quota, not a rate limit, is what a 413 (or Manila's 403) speaks of.
    #[must_use]
    pub fn is_quota(&self) -> bool {
        let text = self.message.to_lowercase();
        matches!(self.status, 413 | 403)
            && ["quota", "limitexceeded", "sizeexceeds", "exceeds allowed", "maximum number of", "over limit for"]
                .iter()
                .any(|word| text.contains(word))
    }

    /// The kind of error that this refusal is as long as policy knows no better.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.status {
            400 => Kind::InvalidArgument,
            401 => Kind::Unauthenticated,
            403 | 413 if self.is_quota() => Kind::Exhausted,
            403 => Kind::Denied,
            404 => Kind::NotFound,
            406 => Kind::Unsupported,
            409 => Kind::Conflict,
            500 => Kind::Internal,
            300..=399 => Kind::InvalidArgument,
            413 | 408 | 429 | 501.. => Kind::Unavailable,
            _ => Kind::Internal,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {}: {}", self.status, self.message)?;
        match &self.request_id {
            Some(id) => write!(f, " ({id})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refusal {}

fn message_of(value: &Value) -> Option<String> {
    let object = value.as_object()?;
    if let Some(text) = object.get("message").and_then(Value::as_str) {
        return Some(text.to_owned());
    }
    if let Some(first) = object.get("errors").and_then(Value::as_array).and_then(|errors| errors.first()) {
        let detail = first.get("detail").or_else(|| first.get("title")).and_then(Value::as_str);
        return detail.map(str::to_owned);
    }
    object.values().find_map(|inner| inner.get("message").and_then(Value::as_str)).map(str::to_owned)
}

fn shorten(mut message: String) -> String {
    if message.len() > LONGEST_MESSAGE {
        let end = (0..=LONGEST_MESSAGE).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

/// A 404 is an answer: there is no such object. Every other error is an error.
///
/// # Errors
/// All but `NotFound`.
pub fn found<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is(Kind::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The id that a service gave the request.
pub(super) fn request_id(headers: &http::HeaderMap) -> Option<String> {
    ["x-openstack-request-id", "x-compute-request-id"]
        .iter()
        .find_map(|name| headers.get(*name))
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned)
}

/// How long the service wants to be left alone: seconds, or a date relative to the answer's own `Date`.
pub(super) fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    let text = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text: &str| jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp());
    let now = headers.get(http::header::DATE).and_then(|value| value.to_str().ok()).and_then(date)?;
    Duration::try_from(date(text)?.duration_since(now)).ok()
}

/// A request that got no answer, in words. The URL is left out: it may hold ids, never help.
pub(super) fn describe_transport(error: &reqwest::Error) -> Error {
    let what = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "cannot connect"
    } else if error.is_body() || error.is_decode() {
        "the answer broke off"
    } else {
        "the connection broke"
    };
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if causes.last() != Some(&text) {
            causes.push(text);
        }
        next = cause.source();
    }
    Error::new(Kind::Unavailable, std::iter::once(what.to_owned()).chain(causes).collect::<Vec<_>>().join(": "))
}

#[cfg(test)]
mod tests {
    use super::{Refusal, retry_after};
    use crate::error::Kind;
    use http::HeaderMap;
    use proptest::prelude::{any, proptest};
    use std::time::Duration;

    #[test]
    fn every_shape_of_message_is_found() {
        for (status, body, message, kind) in [
            (
                404,
                r#"{"itemNotFound": {"code": 404, "message": "Volume x could not be found."}}"#,
                "Volume x could not be found.",
                Kind::NotFound,
            ),
            (
                413,
                r#"{"overLimit": {"code": 413, "message": "VolumeLimitExceeded: Maximum number of volumes allowed (10) exceeded for quota 'volumes'.", "retryAfter": "0"}}"#,
                "VolumeLimitExceeded: Maximum number of volumes allowed (10) exceeded for quota 'volumes'.",
                Kind::Exhausted,
            ),
            (
                413,
                r#"{"overLimit": {"code": 413, "message": "This request was rate-limited."}}"#,
                "This request was rate-limited.",
                Kind::Unavailable,
            ),
            (
                401,
                r#"{"error": {"code": 401, "message": "The request you have made requires authentication.", "title": "Unauthorized"}}"#,
                "The request you have made requires authentication.",
                Kind::Unauthenticated,
            ),
            (
                409,
                r#"{"errors": [{"status": 409, "detail": "resource provider in use", "title": "Conflict"}]}"#,
                "resource provider in use",
                Kind::Conflict,
            ),
            (503, "<html><body>oops</body></html>", "Service Unavailable", Kind::Unavailable),
            (500, "", "Internal Server Error", Kind::Internal),
            (403, r#"{"forbidden": {"message": "Policy doesn't allow it"}}"#, "Policy doesn't allow it", Kind::Denied),
        ] {
            let refusal = Refusal::parse(status, None, body.as_bytes());
            assert_eq!((refusal.message.as_str(), refusal.kind()), (message, kind), "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_body_is_too_strange(status in 100u16..700, body in any::<Vec<u8>>()) {
            let refusal = Refusal::parse(status, None, &body);
            assert!(refusal.message.len() <= super::LONGEST_MESSAGE + '…'.len_utf8());
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let headers = |after: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", after.parse().unwrap());
            headers.insert("date", "Wed, 21 Oct 2015 07:28:00 GMT".parse().unwrap());
            headers
        };
        assert_eq!(retry_after(&headers("7")), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(&headers("Wed, 21 Oct 2015 07:28:30 GMT")), Some(Duration::from_secs(30)));
        assert_eq!(retry_after(&headers("soon")), None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
