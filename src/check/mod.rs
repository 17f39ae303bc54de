//! `fuxi-csi check`: is this machine, and is the cloud, ready for the driver? Says in words what is wrong and what to do.
//!
//! It only looks: nothing is made, mounted or changed, except that a file is made and removed in the node's directory.

mod cloud;
mod machine;
mod node;
mod report;
mod shares;

use crate::cli::Check;
use crate::config::{Config, NodeConfig, Source};
use crate::error::{Error, Result};
use report::{Cause, Finding, Report};
use std::io::Write;
use std::process::ExitCode;

/// Runs `fuxi-csi check` and says how the process should end. Lines go to standard output.
pub async fn run(options: &Check) -> ExitCode {
    ExitCode::from(with(options, Box::new(std::io::stdout())).await)
}

async fn with(options: &Check, out: Box<dyn Write + Send>) -> u8 {
    let mut report = Report::new(out);
    let source = Source::new(options.files.cloud_config.clone(), options.cloud.cloud_name.clone());
    let mut read = None;
    if options.role.has_controller()
        && let Some(config) = configuration(source.clone(), &mut report).await
    {
        for cloud in config.clouds.iter() {
            cloud::look(cloud, options, &config.block_storage, &mut report).await;
        }
        read = Some((config.block_storage, config.metadata));
    }
    if options.role.has_node() {
        let of_node = match read {
            Some(read) => Some(read),
            // What is wrong with it has been said already.
            None if options.role.has_controller() => None,
            None => node_configuration(source, &mut report).await,
        };
        let (block_storage, metadata) = of_node.unwrap_or_default();
        node::look(options, &block_storage, &metadata, &mut report).await;
    }
    report.conclude()
}

/// Reads what a controller reads.
async fn configuration(source: Source, report: &mut Report) -> Option<Config> {
    match reading(move || source.load()).await {
        Ok(config) => {
            let names: Vec<_> = config.clouds.iter().map(|cloud| cloud.origin.clone()).collect();
            report.add(&Finding::ok("configuration", format!("read; clouds: {}", names.join(", "))));
            warn(&config.warnings, report);
            Some(config)
        }
        Err(error) => {
            report.add(&Finding::error(Cause::Configuration, "configuration", error.to_string()));
            None
        }
    }
}

/// Reads what a node reads.
async fn node_configuration(
    source: Source,
    report: &mut Report,
) -> Option<(crate::config::BlockStorageOptions, crate::config::MetadataOptions)> {
    match reading(move || source.load_for_node()).await {
        Ok(NodeConfig { block_storage, metadata, warnings, .. }) => {
            report.add(&Finding::ok("configuration", "read, as far as a node needs it"));
            warn(&warnings, report);
            Some((block_storage, metadata))
        }
        Err(error) => {
            report.add(&Finding::error(Cause::Configuration, "configuration", error.to_string()));
            None
        }
    }
}

async fn reading<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let broken = |error| Error::internal("read the configuration").because(error);
    tokio::task::spawn_blocking(work).await.map_err(broken)?
}

fn warn(warnings: &[String], report: &mut Report) {
    for warning in warnings {
        report.add(&Finding::warning("configuration", warning));
    }
}
