//! Wiring: the only place that names concrete types.
//!
//! [`run`] takes the command line and a [`Registry`] of what the process may be made of. A crate of your own adds a
//! provider or a connector and calls [`run`] from its own `main`; `examples/loop-files` is a whole one.
//!
//! ```no_run
//! # use fuxi_csi::app::{self, Abilities, ProviderEntry, Registry};
//! # use fuxi_csi::cli::{Cli, Defaults};
//! # use fuxi_csi::provider::memory::MemoryProvider;
//! # const ABILITIES: Abilities = Abilities::BASIC;
//! fn main() -> std::process::ExitCode {
//!     let mine = ProviderEntry::new(ABILITIES, |_setup| Ok(MemoryProvider::default()));
//!     let registry = Registry::standard().with_provider("mine", mine);
//!     let defaults = Defaults { provider: "mine", driver_name: "mine.example.org" };
//!     app::run(&defaults.parse::<Cli>(), registry)
//! }
//! ```

mod connect;
mod machine;
mod registry;
mod reload;
mod serve;
mod signals;
mod standard;

pub use crate::csi::abilities::Abilities;
pub use registry::{ConnectorSetup, Delivery, ProviderEntry, ProviderSetup, Registry};

use crate::check;
use crate::cli::{Cli, Command, LogFormat, LogOptions};
use crate::error::{Error, Kind, Result};
use crate::observe::logs;
use crate::trial;
use serve::Plan;
use std::process::ExitCode;

/// Something failed that is no matter of configuration.
const FAILURE: u8 = 1;

/// `EX_CONFIG` of sysexits.h: the configuration is wrong, and a restart will not help.
const CONFIGURATION: u8 = 78;

/// Two threads: the driver waits, it does not compute.
const THREADS: usize = 2;

/// Does what the command line says; returns when that is done.
#[must_use]
pub fn run(cli: &Cli, registry: Registry) -> ExitCode {
    match start(cli, registry) {
        Ok(code) => code,
        Err(error) => {
            let code = exit_code(error.kind());
            tracing::error!(%error, exit_code = code, "fuxi-csi ends");
            ExitCode::from(code)
        }
    }
}

fn start(cli: &Cli, registry: Registry) -> Result<ExitCode> {
    start_logging(cli.command.log())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .map_err(|error| Error::internal("start the runtime").because(error))?;
    let serve = |plan| runtime.block_on(serve::serve(plan, registry)).map(|()| ExitCode::SUCCESS);
    let result = match &cli.command {
        Command::Controller(options) => serve(Plan::controller(options)),
        Command::Node(options) => serve(Plan::node(options)),
        Command::All(options) => serve(Plan::all(options)),
        Command::Check(options) => Ok(runtime.block_on(check::run(options))),
        Command::NodeId(options) => machine::print_node_id(options).map(|()| ExitCode::SUCCESS),
        Command::Try(options) => Ok(runtime.block_on(trial::run(options))),
    };
    // A system call that hangs (a dead mount, say) does not keep the process.
    runtime.shutdown_background();
    result
}

/// Log lines go to standard error. Should that fail, its error has no other way to the user.
fn start_logging(options: &LogOptions) -> Result<()> {
    let format = match options.log_format {
        LogFormat::Text => logs::Format::Text,
        LogFormat::Json => logs::Format::Json,
    };
    logs::start(format, &options.log_level)
}

impl Command {
    fn log(&self) -> &LogOptions {
        match self {
            Self::Controller(options) => &options.log,
            Self::Node(options) => &options.log,
            Self::All(options) => &options.log,
            Self::Check(options) => &options.log,
            Self::NodeId(options) => &options.log,
            Self::Try(options) => &options.log,
        }
    }
}

/// Whether a failure of this kind, at start, means that the configuration is wrong; otherwise what is needed is merely
/// away.
fn is_configuration(kind: Kind) -> bool {
    matches!(kind, Kind::InvalidArgument | Kind::Unauthenticated | Kind::Denied | Kind::NotFound | Kind::Unsupported)
}

fn exit_code(kind: Kind) -> u8 {
    if is_configuration(kind) { CONFIGURATION } else { FAILURE }
}
