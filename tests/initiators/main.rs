//! The connectors with the real initiators of a real kernel, against real targets: in the guest of `tests/guest`.
//!
//! `tests/guest/initiators` builds this, runs each test in a fresh guest, and sums up. Elsewhere the tests are ignored:
//! they connect and drop devices of the machine they run on.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test that cannot go on should say so and stop"
)]

mod cinder;
mod csi;
mod figures;
mod iscsi;
mod kill;
mod machine;
mod nfs;
mod nvmeof;
mod plugin;
mod rbd;
mod trouble;
