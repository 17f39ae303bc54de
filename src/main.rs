//! The `fuxi-csi` program.

use clap::Parser as _;
use fuxi_csi::app::{self, Registry};
use fuxi_csi::cli::Cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    app::run(&Cli::parse(), Registry::standard())
}
