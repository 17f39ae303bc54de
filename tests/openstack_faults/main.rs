//! The real binary on a unix socket over a stand-in for Keystone, Cinder, Nova and Manila, with faults.
//!
//! One crate, so that it links once. [`standin`] is the cloud, [`driver`] the process under test, [`sidecar`] how an
//! orchestrator calls it. The rest are tests by subject; [`matrix`] is the one that kills the driver at every call.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may panic")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests report")]
#![allow(clippy::disallowed_methods, reason = "a test starts processes and threads of its own")]

mod call_counts;
mod cloned_hosts;
mod concurrency;
mod credentials;
mod driver;
mod duplicates;
mod fidelity;
mod hosts;
mod lists;
mod manila;
mod manila_changed_nodes;
mod manila_csi;
mod manila_matrix;
mod manila_refusals;
mod matrix;
mod older_services;
mod overload;
mod secrets;
mod sidecar;
mod standin;
mod start_up;
mod stuck;

use fuxi_csi::csi::proto;
