//! The node without a machine: scripted programs, a mount table in memory, disks that are files.

mod crash;
mod publishing;
mod staging;
mod world;
