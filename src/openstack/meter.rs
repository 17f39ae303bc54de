//! What requests cost, for whoever counts them.

use std::time::Duration;

/// One request, for the metrics.
#[derive(Debug)]
pub struct Usage {
    /// The service, such as `cinder`.
    pub service: &'static str,
    /// The method.
    pub method: &'static str,
    /// The path with `{}` for ids.
    pub template: &'static str,
    /// The HTTP status; 0 where there was no answer.
    pub status: u16,
    /// How long it took.
    pub took: Duration,
}

/// Counts requests. Implemented by the metrics.
pub trait Meter: Send + Sync + 'static {
    /// A request was made, repeats included.
    fn request(&self, usage: &Usage);
    /// A request is going to be repeated.
    fn retry(&self, service: &'static str);
    /// A login was tried.
    fn login(&self, succeeded: bool);
}

/// Counts nothing.
impl Meter for () {
    fn request(&self, _: &Usage) {}
    fn retry(&self, _: &'static str) {}
    fn login(&self, _: bool) {}
}
