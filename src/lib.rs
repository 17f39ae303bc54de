//! Fuxi CSI: OpenStack storage for containers.
//!
//! # The layers
//!
//! Dependencies point down only; `tests/layers.rs` holds that.
//!
//! | layer | what it knows |
//! | --- | --- |
//! | [`app`] | everything: the only place that names concrete types and wires them |
//! | [`cli`], [`server`], [`observe`] | options; the socket; logs and metrics |
//! | [`csi`] | gRPC: turns messages into domain types and errors into codes |
//! | [`provider`] | where volumes come from: naming, waiting, idempotency; one module per service |
//! | [`openstack`] | typed calls of the OpenStack APIs, tokens, retries, polling; knows no CSI |
//! | [`node`] | stage, publish, expand on this machine; knows no OpenStack |
//! | [`config`] | cloud.conf, clouds.yaml, environment: read, merged, validated |
//! | [`exec`] | external programs |
//! | [`model`], [`error`], [`call`] | the nouns that all share; no I/O |
//!
//! A newcomer reads `app.rs`, `csi/controller/volume.rs`, `provider/mod.rs`, `provider/cinder/`, `openstack/cinder.rs`.
//!
//! # For authors of plug-ins
//!
//! A crate of your own may implement [`provider::Provider`] or [`node::connector::Connector`]; [`model`], [`error`] and
//! [`call`] are what they speak, and [`app`] makes a program of them. `docs/plugins.md` shows both, `examples/loop-files` is a whole one.

pub mod app;
pub mod call;
pub mod check;
pub mod cli;
pub mod config;
pub mod csi;
pub mod error;
pub mod exec;
pub mod initiator;
pub mod model;
pub mod node;
pub mod observe;
pub mod openstack;
pub mod provider;
pub mod seal;
pub mod server;
pub mod trial;
