//! What the driver shows of itself: log lines, metrics, and one layer around every RPC that feeds both.

pub mod http;
pub mod logs;
pub mod metrics;
pub mod process;
pub mod rpc;
