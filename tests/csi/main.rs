//! The real server on a real socket, with volumes in memory, seen by a gRPC client.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may panic")]
#![allow(clippy::disallowed_methods, reason = "a test starts processes of its own")]

mod arguments;
mod deadlines;
mod driver;
mod fuzz;
mod gated;
mod lists;
mod process;
mod shutdown;
mod volumes;
