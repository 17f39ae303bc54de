//! The `fuxi-csi` program.

use clap::Parser as _;
use fuxi_csi::app::{self, Registry};
use fuxi_csi::cli::Cli;
use std::process::ExitCode;

/// After a storm of calls this allocator gives the memory back, where the system's own keeps it for good. Its settings are
/// in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    app::run(&Cli::parse(), Registry::standard())
}
