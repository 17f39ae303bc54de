//! The one error type of the driver.
//!
//! An [`Error`] carries a [`Kind`] (what the caller can do about it), a context (what failed, on which object, and
//! what to do) and its cause. Kinds become gRPC codes in exactly one place, `csi::status`. Secrets never get into an
//! error: messages are made from ids, names, states and OpenStack's own words.

use std::error::Error as StdError;
use std::fmt;

/// What kind of failure it is: that is, what the orchestrator should do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The object does not exist. gRPC `NOT_FOUND`.
    NotFound,
    /// An object of that name exists and is incompatible. gRPC `ALREADY_EXISTS`.
    Conflict,
    /// The request can never work as it is. gRPC `INVALID_ARGUMENT`.
    InvalidArgument,
    /// The object is in a state that somebody has to change first. gRPC `FAILED_PRECONDITION`.
    WrongState,
    /// An operation on this object is in flight; repeat. gRPC `ABORTED`.
    Busy,
    /// A quota or an attach limit is used up. gRPC `RESOURCE_EXHAUSTED`.
    Exhausted,
    /// A size or range that cannot be had. gRPC `OUT_OF_RANGE`.
    OutOfRange,
    /// The service is away or overloaded; repeat later. gRPC `UNAVAILABLE`.
    Unavailable,
    /// The credential is valid and not allowed to do this. gRPC `PERMISSION_DENIED`.
    Denied,
    /// The credential is refused. gRPC `UNAUTHENTICATED`.
    Unauthenticated,
    /// Neither the driver nor this cloud can do this. gRPC `UNIMPLEMENTED`.
    Unsupported,
    /// The caller's time is up; the operation may go on in the cloud. gRPC `DEADLINE_EXCEEDED`.
    Deadline,
    /// A page token is no longer valid; start the list again. gRPC `ABORTED`.
    StaleToken,
    /// A bug, or what OpenStack itself calls an internal error. gRPC `INTERNAL`.
    Internal,
}

/// The result of everything that can fail in the driver.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure: its kind, what failed on which object, and why.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    context: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Makes an error from its kind and a message that names the object and the remedy.
    pub fn new(kind: Kind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Puts what was being done in front: `"attach volume X to server Y: <the old message>"`.
    #[must_use]
    pub fn during(mut self, doing: impl fmt::Display) -> Self {
        self.context = format!("{doing}: {}", self.context);
        self
    }

    /// The same failure, seen as another kind.
    #[must_use]
    pub fn as_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether this is a failure of that kind.
    #[must_use]
    pub fn is(&self, kind: Kind) -> bool {
        self.kind == kind
    }

    /// The cause, if it is (or wraps) an error of this type.
    #[must_use]
    pub fn cause<T: StdError + 'static>(&self) -> Option<&T> {
        let mut next: Option<&(dyn StdError + 'static)> = self.source();
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }
}

/// The context, then each cause that says something new, joined by `: `.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)?;
        let mut next = self.source();
        let mut said = self.context.clone();
        while let Some(error) = next {
            let text = error.to_string();
            if !said.contains(&text) {
                write!(f, ": {text}")?;
                said = text;
            }
            next = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// Shorthands for the commonest kinds.
impl Error {
    /// [`Kind::NotFound`]
    pub fn not_found(context: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, context)
    }
    /// [`Kind::InvalidArgument`]
    pub fn invalid(context: impl Into<String>) -> Self {
        Self::new(Kind::InvalidArgument, context)
    }
    /// [`Kind::Busy`]
    pub fn busy(context: impl Into<String>) -> Self {
        Self::new(Kind::Busy, context)
    }
    /// [`Kind::WrongState`]
    pub fn wrong_state(context: impl Into<String>) -> Self {
        Self::new(Kind::WrongState, context)
    }
    /// [`Kind::Unsupported`]
    pub fn unsupported(context: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, context)
    }
    /// [`Kind::Internal`]
    pub fn internal(context: impl Into<String>) -> Self {
        Self::new(Kind::Internal, context)
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, Kind};

    #[test]
    fn display_joins_context_and_new_causes_once() {
        let io = std::io::Error::other("disk on fire");
        let error = Error::internal("read /dev/sda").because(io).during("stage volume v");
        assert_eq!(error.to_string(), "stage volume v: read /dev/sda: disk on fire");
        let twice = Error::internal("disk on fire").because(std::io::Error::other("disk on fire"));
        assert_eq!(twice.to_string(), "disk on fire");
    }

    #[test]
    fn a_cause_is_found_by_its_type() {
        let error = Error::new(Kind::Unavailable, "x").because(std::io::Error::other("y"));
        assert!(error.cause::<std::io::Error>().is_some());
        assert!(error.cause::<std::fmt::Error>().is_none());
    }
}
