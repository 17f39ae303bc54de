//! The node without a machine: scripted programs, a mount table in memory, disks that are files.

mod crash;
mod forgotten;
mod publishing;
mod shares;
mod staging;
mod world;
