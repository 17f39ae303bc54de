//! The OpenStack APIs: sessions, requests, typed calls, and waiting for changes.
//!
//! [`session`] keeps the token and the catalogue, [`client`] sends one request with all that that takes (microversion,
//! retry, back-off, errors), [`cinder`], [`manila`] and [`nova`] are the typed calls, [`watch`] waits for many objects with few
//! requests. This layer knows neither CSI nor Kubernetes.

pub mod cinder;
pub mod client;
pub mod cloud;
pub mod crowd;
mod gate;
mod keystone;
pub mod manila;
mod meter;
pub mod notes;
pub mod nova;
pub mod objects;
pub mod offer;
mod pace;
mod refusal;
mod route;
mod service;
pub mod session;
mod transport;
pub mod watch;
