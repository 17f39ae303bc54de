//! The real binary as a node that attaches its volumes itself, in a root directory of its own, seen by a gRPC client.
//!
//! [`machine`] is that root, which shares programs, devices and kernel with this host, but no file of `/etc` or `/var` and no mount
//! point: nothing that the driver makes is left here. The rest are tests by subject.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may panic")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests report")]
#![allow(clippy::disallowed_methods, reason = "a test starts processes of its own")]

mod connections;
mod example;
mod machine;
mod node_id;
mod plugin;
mod program_faults;
mod programs;

use fuxi_csi::csi::proto;
