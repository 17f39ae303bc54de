//! The `fuxi-csi` program.

fn main() {}
