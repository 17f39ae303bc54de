//! The few numbers of a superblock that are worth reading without a program: how large the file system is, and whether
//! an XFS was made to its end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where a superblock is, and what marks it.
struct Layout {
    start: u64,
    magic_at: usize,
    magic: &'static [u8],
}

const EXT: Layout = Layout { start: 1024, magic_at: 0x38, magic: &[0x53, 0xef] };
const XFS: Layout = Layout { start: 0, magic_at: 0, magic: b"XFSB" };
const BTRFS: Layout = Layout { start: 64 << 10, magic_at: 0x40, magic: b"_BHRfS_M" };

/// The length that is read of a superblock.
const LENGTH: usize = 1024;

/// The largest block of ext, as a power of two above 1 KiB.
const LARGEST_EXT_BLOCK: u32 = 6;

/// The size of an ext2, ext3 or ext4.
///
/// # Errors
/// The device cannot be read, or holds none.
pub fn ext_size(device: &Path) -> io::Result<u64> {
    let block = read(device, &EXT)?;
    let has_64bit = le32(&block, 0x60)? & 0x80 != 0;
    let high = if has_64bit { le32(&block, 0x150)? } else { 0 };
    let blocks = (u64::from(high) << 32) | u64::from(le32(&block, 0x04)?);
    let shift = le32(&block, 0x18)?;
    if shift > LARGEST_EXT_BLOCK {
        return Err(strange());
    }
    blocks.checked_mul(1024 << shift).ok_or_else(strange)
}

/// The size of an XFS's data section.
///
/// # Errors
/// The device cannot be read, or holds none.
pub fn xfs_size(device: &Path) -> io::Result<u64> {
    let block = read(device, &XFS)?;
    let size = u32::from_be_bytes(bytes(&block, 4)?);
    u64::from_be_bytes(bytes(&block, 8)?).checked_mul(u64::from(size)).ok_or_else(strange)
}

/// Whether mkfs.xfs began here and did not end: it sets this mark first and clears it last, and nobody can mount it before.
///
/// # Errors
/// The device cannot be read.
pub fn is_unfinished_xfs(device: &Path) -> io::Result<bool> {
    match read(device, &XFS) {
        Ok(block) => Ok(bytes::<1>(&block, 126)? != [0]),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(false),
        Err(error) => Err(error),
    }
}

/// The size of a btrfs's part on this device.
///
/// # Errors
/// The device cannot be read, or holds none.
pub fn btrfs_size(device: &Path) -> io::Result<u64> {
    Ok(u64::from_le_bytes(bytes(&read(device, &BTRFS)?, 0xd1)?))
}

/// Whether a btrfs has a log that is to be replayed when it is mounted.
///
/// # Errors
/// The device cannot be read, or holds none.
pub fn has_btrfs_log(device: &Path) -> io::Result<bool> {
    Ok(bytes::<8>(&read(device, &BTRFS)?, 0x60)? != [0; 8])
}

fn read(device: &Path, layout: &Layout) -> io::Result<Vec<u8>> {
    let mut block = vec![0; LENGTH];
    File::open(device)?.read_exact_at(&mut block, layout.start)?;
    let end = layout.magic_at.saturating_add(layout.magic.len());
    if block.get(layout.magic_at..end) == Some(layout.magic) { Ok(block) } else { Err(strange()) }
}

fn le32(block: &[u8], at: usize) -> io::Result<u32> {
    bytes(block, at).map(u32::from_le_bytes)
}

fn bytes<const N: usize>(block: &[u8], at: usize) -> io::Result<[u8; N]> {
    block.get(at..at.saturating_add(N)).and_then(|slice| slice.try_into().ok()).ok_or_else(strange)
}

fn strange() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not the superblock that was expected")
}

#[cfg(test)]
mod tests {
    use super::{btrfs_size, ext_size, is_unfinished_xfs, xfs_size};
    use proptest::prelude::{any, prop, proptest};
    use std::io::{ErrorKind, Write};

    fn device(at: usize, content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut bytes = vec![0; at];
        bytes.extend(content);
        bytes.resize(128 << 10, 0);
        file.write_all(&bytes).unwrap();
        file
    }

    #[test]
    fn sizes_are_read_from_superblocks() {
        let mut ext = vec![0; 1024];
        ext[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
        ext[0x04..0x08].copy_from_slice(&262_144_u32.to_le_bytes());
        ext[0x18] = 2;
        assert_eq!(ext_size(device(1024, &ext).path()).unwrap(), 1 << 30);
        ext[0x150] = 1;
        assert_eq!(ext_size(device(1024, &ext).path()).unwrap(), 1 << 30, "without 64bit the high half is not there");
        ext[0x60] = 0x80;
        assert_eq!(ext_size(device(1024, &ext).path()).unwrap(), (1 << 44) + (1 << 30));

        let mut xfs = vec![0; 512];
        xfs[..4].copy_from_slice(b"XFSB");
        xfs[4..8].copy_from_slice(&4096_u32.to_be_bytes());
        xfs[8..16].copy_from_slice(&131_072_u64.to_be_bytes());
        assert_eq!(xfs_size(device(0, &xfs).path()).unwrap(), 512 << 20);
        assert!(!is_unfinished_xfs(device(0, &xfs).path()).unwrap());
        xfs[126] = 1;
        assert!(is_unfinished_xfs(device(0, &xfs).path()).unwrap());
        assert!(!is_unfinished_xfs(device(0, &[]).path()).unwrap());
    }

    proptest! {
        #[test]
        fn no_content_panics(content in prop::collection::vec(any::<u8>(), 0..2048), magic in any::<bool>()) {
            let mut content = content;
            if magic && content.len() > 0x3a {
                content[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
            }
            for size in [ext_size(device(1024, &content).path()), btrfs_size(device(0, &content).path())] {
                assert!(size.is_ok() || size.is_err_and(|error| error.kind() == ErrorKind::InvalidData));
            }
        }
    }
}
