//! What the kernel says about this process, read at each scrape.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Memory, open files and start time, under the names that all programs give them.
#[derive(Debug)]
pub(super) struct Process {
    started: Duration,
}

impl Process {
    /// Of a process that starts now.
    pub(super) fn new() -> Self {
        Self { started: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut tell = |name: &str, help: &str, unit: Option<Unit>, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, unit.as_ref(), gauge.metric_type())?)
        };
        tell(
            "process_start_time",
            "When the process started, since 1970",
            Some(Unit::Seconds),
            self.started.as_secs_f64(),
        )?;
        if let Some(bytes) = resident_bytes() {
            tell("process_resident_memory", "Memory that is resident", Some(Unit::Bytes), bytes)?;
        }
        if let Some(files) = open_files() {
            tell("process_open_fds", "Open file descriptors", None, files)?;
        }
        Ok(())
    }
}

/// The `VmRSS` line of `/proc/self/status`. Files in `/proc` come from memory: reading them does not block.
fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

fn open_files() -> Option<f64> {
    let count = std::fs::read_dir("/proc/self/fd").ok()?.count();
    u32::try_from(count).ok().map(f64::from)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_knows_our_memory_and_files() {
        assert!(super::resident_bytes().unwrap() > 100_000.0);
        assert!(super::open_files().unwrap() >= 3.0);
    }
}
