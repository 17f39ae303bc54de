//! How many volumes a node takes: what its disk bus holds, less the disks that are not ours.
//!
//! The bus is that of the disks which are there, since a server's volumes use the bus of its other disks. On virtio-blk each disk
//! is a PCI device: 26 in all was Nova's own limit for years and is what machine types with 32 slots hold beside the network
//! and the rest. On SCSI libvirt gives one controller 256 targets. Where neither is seen nothing is said, and the
//! orchestrator's default counts; zero, which would mean "no limit", is never said.

use crate::call::Call;
use crate::error::{Error, Result};
use crate::node::blocking;
use crate::node::device::Host;
use crate::node::record::Record;
use std::num::NonZeroU32;

/// Kinds of disks by the start of their names, and how many of them a server can have.
const BUSES: [(&str, u32); 2] = [("vd", 26), ("sd", 256)];

/// What the disks suggest. `reserved`: how many places are kept for disks that are not ours, whatever is there now.
///
/// # Errors
/// `Internal`: sysfs cannot be read.
pub async fn of_disks(
    call: &Call,
    host: &Host,
    records: &[Record],
    reserved: Option<u32>,
) -> Result<Option<NonZeroU32>> {
    let host = host.clone();
    let ours: Vec<String> =
        records.iter().filter_map(|record| record.device.as_ref()).map(|device| device.name.clone()).collect();
    blocking::run(call, "count the disks", move || {
        let is_on_bus = |name: &str| BUSES.iter().any(|(start, _)| name.starts_with(start));
        let disks = host.disks(is_on_bus).map_err(|error| Error::internal("read the disks in sysfs").because(error))?;
        Ok(suggest(&disks, &ours, reserved))
    })
    .await
}

fn suggest(disks: &[String], ours: &[String], reserved: Option<u32>) -> Option<NonZeroU32> {
    let count = |start: &str| disks.iter().filter(|name| name.starts_with(start)).count();
    // A stray disk, such as a config drive, may be on another bus than the volumes.
    let (start, most) =
        BUSES.into_iter().filter(|(start, _)| count(start) > 0).max_by_key(|(start, _)| count(start))?;
    let others = disks.iter().filter(|name| name.starts_with(start) && !ours.contains(name)).count();
    let left = most.saturating_sub(reserved.unwrap_or_else(|| u32::try_from(others).unwrap_or(u32::MAX)));
    Some(NonZeroU32::new(left).unwrap_or(NonZeroU32::MIN))
}

#[cfg(test)]
mod tests {
    use super::suggest;
    use proptest::prelude::{prop, proptest};

    fn limit(disks: &[&str], ours: &[&str]) -> Option<u32> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        suggest(&owned(disks), &owned(ours), None).map(std::num::NonZeroU32::get)
    }

    #[test]
    fn the_bus_of_the_disks_sets_the_limit_and_foreign_disks_count() {
        assert_eq!(limit(&["vda"], &[]), Some(25));
        assert_eq!(limit(&["vda", "vdb", "vdc"], &["vdb", "vdc"]), Some(25));
        assert_eq!(limit(&["vda", "vdb"], &[]), Some(24));
        assert_eq!(limit(&["sda", "sr0", "loop0"], &[]), Some(255));
        assert_eq!(limit(&["loop0", "nvme0n1"], &[]), None);
    }

    proptest! {
        #[test]
        fn the_limit_is_never_zero(count in 0_usize..600, ours in prop::collection::vec(0_usize..600, 0..9),
            reserved in prop::option::of(0_u32..900)) {
            let disks: Vec<String> = (0..count).map(|number| format!("vd{number}")).collect();
            let ours: Vec<String> = ours.into_iter().map(|number| format!("vd{number}")).collect();
            assert_eq!(suggest(&disks, &ours, reserved).is_some(), count > 0);
        }
    }
}
