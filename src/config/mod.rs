//! The configuration: cloud.conf, clouds.yaml and the environment, read, merged and validated.

pub mod duration;
pub mod metadata;

pub use metadata::{MetadataOptions, MetadataSource};
