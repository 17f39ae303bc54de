//! Copies of files that keep their holes.

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Copies a file, durably. What was at the new path is replaced.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut copy = File::create(to)?;
    let length = source.metadata()?.len();
    copy.set_len(length)?;
    let mut at = 0;
    while let Some(start) = next(&source, at, Whence::SeekData)? {
        let end = next(&source, start, Whence::SeekHole)?.unwrap_or(length);
        source.seek(SeekFrom::Start(start))?;
        copy.seek(SeekFrom::Start(start))?;
        io::copy(&mut (&source).take(end - start), &mut copy)?;
        at = end;
    }
    copy.sync_all()
}

/// Where the next data or the next hole begins; none behind the last.
fn next(file: &File, at: u64, what: Whence) -> io::Result<Option<u64>> {
    let at = i64::try_from(at).map_err(io::Error::other)?;
    match lseek(file, at, what) {
        Ok(found) => u64::try_from(found).map(Some).map_err(io::Error::other),
        Err(Errno::ENXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::copy;
    use std::fs::{self, File};
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn a_copy_has_the_same_bytes_and_the_same_holes() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("a"), directory.path().join("b"));
        let file = File::create(&from).unwrap();
        file.set_len(64 << 20).unwrap();
        for at in [0, 5 << 20, (64 << 20) - 3] {
            file.write_all_at(b"abc", at).unwrap();
        }
        fs::write(&to, "what a crash left").unwrap();
        copy(&from, &to).unwrap();
        assert!(fs::read(&from).unwrap() == fs::read(&to).unwrap());
        assert!(fs::metadata(&to).unwrap().blocks() < 1 << 12, "the holes were filled");
    }

    #[test]
    fn files_without_data_and_without_length_are_copied_too() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("a"), directory.path().join("b"));
        for length in [0, 1 << 20] {
            File::create(&from).unwrap().set_len(length).unwrap();
            copy(&from, &to).unwrap();
            assert_eq!(fs::metadata(&to).unwrap().len(), length);
        }
    }
}
