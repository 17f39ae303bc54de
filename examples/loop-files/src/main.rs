//! A CSI driver made with the `fuxi-csi` library, without OpenStack: each volume is a file in a directory, and a loop
//! device on the node that uses it.
//!
//! It shows what a third party writes: a [`provider::LoopFiles`] (where volumes come from), a
//! [`connector::LoopDevice`] (how they get to a node), and this `main`. Everything else is the library's: the CSI
//! services, file systems, mounts, records, metrics, the command line. `docs/plugins.md` goes through it.

mod connector;
mod provider;
mod shelf;
mod sparse;
mod store;

use clap::Parser;
use connector::LoopDevice;
use fuxi_csi::app::{self, ProviderEntry, Registry};
use fuxi_csi::cli::{Cli, Defaults};
use provider::LoopFiles;
use std::path::PathBuf;
use std::process::ExitCode;
use store::Store;

/// What `--provider` and `--driver-name` are, where they are not given.
const DEFAULTS: Defaults = Defaults { provider: "loop-files", driver_name: "loop-files.example.org" };

/// Files as volumes: a CSI driver without a cloud
#[derive(Debug, Parser)]
#[command(name = "loop-files-csi", version)]
struct Options {
    /// Where the volumes are: a directory that the controller and all nodes see
    #[arg(long, global = true, value_name = "DIRECTORY", default_value = "/var/lib/loop-files", env = "LOOP_FILES")]
    directory: PathBuf,

    #[command(flatten)]
    driver: Cli,
}

fn main() -> ExitCode {
    let Options { directory, driver } = DEFAULTS.parse();
    let store = Store::new(directory);
    let of_nodes = store.clone();
    let registry = Registry::empty()
        .of_version(env!("CARGO_PKG_VERSION"))
        .with_provider(
            DEFAULTS.provider,
            ProviderEntry::new(provider::ABILITIES, move |_| Ok(LoopFiles::new(store.clone()))),
        )
        .with_connector(move |setup| Ok(LoopDevice::new(of_nodes.clone(), setup)));
    app::run(&driver, registry)
}
