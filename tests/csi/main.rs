//! The real server on a real socket, with volumes in memory, seen by a gRPC client.

mod arguments;
mod deadlines;
mod driver;
mod fuzz;
mod gated;
mod lists;
mod process;
mod shutdown;
mod volumes;
