//! Log lines, on standard error, as text for people or as JSON for machines.

use crate::error::{Error, Result};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// For people; coloured on a terminal.
    Text,
    /// For machines: one object per line.
    Json,
}

/// Starts logging for the whole process. `filter` is that of `RUST_LOG`.
///
/// # Errors
/// `InvalidArgument`: the filter is malformed. `Internal`: logging was started before.
pub fn start(format: Format, filter: &str) -> Result<()> {
    let is_terminal = std::io::stderr().is_terminal();
    tracing::subscriber::set_global_default(subscriber(format, filter, is_terminal, std::io::stderr)?)
        .map_err(|error| Error::internal("start logging").because(error))
}

/// What takes log lines and writes them.
///
/// # Errors
/// `InvalidArgument`: the filter is malformed.
pub fn subscriber<W>(
    format: Format,
    filter: &str,
    colours: bool,
    writer: W,
) -> Result<Box<dyn tracing::Subscriber + Send + Sync>>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .parse(filter)
        .map_err(|error| Error::invalid(format!("log filter {filter:?}")).because(error))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(writer);
    Ok(match format {
        Format::Text => Box::new(builder.finish()),
        Format::Json => Box::new(builder.json().flatten_event(true).with_current_span(false).finish()),
    })
}
