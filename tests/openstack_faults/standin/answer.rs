//! What a service answers, in the words of the real ones.

use serde_json::{Value, json};

/// An answer: status, body, headers beyond the usual.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Body,
    pub(crate) headers: Vec<(&'static str, String)>,
}

/// What is in it.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    Nothing,
    Json(Value),
    /// Cinder's own 404 of an unknown path, for example, is no JSON.
    Text(&'static str),
}

impl Answer {
    pub(crate) fn json(status: u16, body: Value) -> Self {
        Self { status, body: Body::Json(body), headers: Vec::new() }
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self { status, body: Body::Nothing, headers: Vec::new() }
    }

    pub(crate) fn text(status: u16, text: &'static str) -> Self {
        Self { status, body: Body::Text(text), headers: Vec::new() }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Cinder's and Nova's envelope of an error.
    pub(crate) fn fault(envelope: &str, status: u16, message: impl Into<String>) -> Self {
        Self::json(status, json!({ envelope: { "code": status, "message": message.into() } }))
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::fault("badRequest", 400, message)
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::fault("forbidden", 403, message)
    }

    pub(crate) fn not_found(what: &str, id: &str) -> Self {
        Self::fault("itemNotFound", 404, format!("{what} {id} could not be found."))
    }

    /// A method that this microversion does not have yet.
    pub(crate) fn no_such_resource() -> Self {
        Self::fault("itemNotFound", 404, "The resource could not be found.")
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::fault("conflictingRequest", 409, message)
    }

    /// A quota: 413, and a `Retry-After: 0` that must not be believed.
    pub(crate) fn over_quota(message: impl Into<String>) -> Self {
        let body = json!({ "overLimit": { "code": 413, "message": message.into(), "retryAfter": "0" } });
        Self::json(413, body).header("retry-after", "0")
    }

    /// The answer of the token middleware.
    pub(crate) fn unauthorized(keystone: &str) -> Self {
        let message = "The request you have made requires authentication.";
        let body = json!({ "error": { "code": 401, "title": "Unauthorized", "message": message } });
        Self::json(401, body).header("www-authenticate", format!("Keystone uri=\"{keystone}\""))
    }

    /// The status as an injected fault, in the envelope that the services use for it.
    pub(crate) fn injected(status: u16) -> Self {
        let (envelope, message) = match status {
            400 => ("badRequest", "Injected fault."),
            403 => ("forbidden", "Policy doesn't allow this to be performed."),
            404 => ("itemNotFound", "The resource could not be found."),
            409 => ("conflictingRequest", "Injected conflict."),
            429 => ("overLimit", "This request was rate-limited."),
            503 => ("serviceUnavailable", "The service is currently unable to handle the request."),
            _ => ("computeFault", "The server has either erred or is incapable of performing the requested operation."),
        };
        Self::fault(envelope, status, message)
    }
}
