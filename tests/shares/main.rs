//! Shares of a real Manila on a real Ceph, native and through NFS, mounted by the node plug-in with the kernel of guests.
//!
//! `tests/guest/manila` starts Ceph, Manila, a controller and two guests with a node plug-in each, and runs this with the
//! way to them. Elsewhere the tests are ignored. Each is one story for one protocol; what stories share is in [`world`].

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may panic")]
#![allow(clippy::print_stdout, reason = "tests report")]
#![allow(clippy::disallowed_methods, reason = "the tests run programs, here and in the guests")]

mod access;
mod pods;
mod secrets;
mod size;
mod trouble;
mod world;
