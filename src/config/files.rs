//! Reading the files of the configuration, and noticing when they change.

use crate::error::{Error, Result};
use secrecy::SecretString;
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The largest file that is read. Real ones have a few KiB.
const LARGEST_FILE: u64 = 1 << 20;

/// Which files a configuration was made of, and what they looked like just before they were read.
///
/// Files that were looked for and not there belong to it as well: it is a change when they appear. Symbolic links are
/// followed, so the swap of `..data`, by which Kubernetes updates a mounted Secret, is seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fingerprint(Vec<(PathBuf, Option<Stamp>)>);

/// What changes when a file is written or replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// None also where the file cannot be reached; reading it then says why.
    fn look(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().as_ref().map(Self::of)
    }
}

impl Fingerprint {
    /// Whether all files still look the same: one `stat` for each, so this is cheap, but it may block.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.0.iter().all(|(path, stamp)| *stamp == Stamp::look(path))
    }

    /// The files that were there, in the order in which they were first read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().filter(|(_, stamp)| stamp.is_some()).map(|(path, _)| path.as_path())
    }
}

/// Reads files and remembers what they looked like.
#[derive(Debug, Default)]
pub(super) struct Reader {
    seen: Fingerprint,
}

impl Reader {
    /// What was read, and what was looked for.
    pub(super) fn into_fingerprint(self) -> Fingerprint {
        self.seen
    }

    /// A file that has to be there. Its text may hold secrets.
    pub(super) fn read(&mut self, path: &Path) -> Result<SecretString> {
        self.look_for(path)?.ok_or_else(|| Error::invalid(format!("{}: there is no such file", path.display())))
    }

    /// A file that may be there.
    pub(super) fn look_for(&mut self, path: &Path) -> Result<Option<SecretString>> {
        // First the look, then the text: a change between the two is seen as one later.
        if !self.seen.0.iter().any(|(seen, _)| seen == path) {
            self.seen.0.push((path.to_owned(), Stamp::look(path)));
        }
        match text_of(path) {
            Ok(text) => Ok(Some(text)),
            Err(Unreadable::Missing) => Ok(None),
            Err(Unreadable::Because(why)) => Err(Error::invalid(format!("{}: {why}", path.display()))),
        }
    }
}

enum Unreadable {
    Missing,
    Because(String),
}

impl From<std::io::Error> for Unreadable {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::Missing,
            ErrorKind::PermissionDenied => Self::Because("this user may not read it".to_owned()),
            _ => Self::Because(error.to_string()),
        }
    }
}

fn text_of(path: &Path) -> Result<SecretString, Unreadable> {
    // A pipe would block, or be empty the next time.
    if !std::fs::metadata(path)?.is_file() {
        return Err(Unreadable::Because("this is not a regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|size| size > LARGEST_FILE) {
        return Err(Unreadable::Because("it has more than 1 MiB, so it is not what it should be".to_owned()));
    }
    String::from_utf8(bytes).map(SecretString::from).map_err(|error| {
        Unreadable::Because(format!("it is not UTF-8 text (byte {})", error.utf8_error().valid_up_to()))
    })
}

#[cfg(test)]
mod tests {
    use super::{Fingerprint, Reader};
    use secrecy::ExposeSecret;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn fingerprint_of(path: &Path) -> Fingerprint {
        let mut reader = Reader::default();
        reader.look_for(path).unwrap();
        reader.into_fingerprint()
    }

    #[test]
    fn a_file_that_is_not_text_or_not_there_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cloud.conf");
        let mut reader = Reader::default();
        let message = reader.read(&path).unwrap_err().to_string();
        assert!(message.starts_with(&path.display().to_string()) && message.contains("no such file"), "{message}");
        fs::write(&path, [b'a', 0xff]).unwrap();
        assert!(reader.read(&path).unwrap_err().to_string().contains("UTF-8 text (byte 1)"));
        fs::write(&path, vec![b'a'; (1 << 20) + 1]).unwrap();
        assert!(reader.read(&path).unwrap_err().to_string().contains("1 MiB"));
        fs::write(&path, vec![b'a'; 1 << 20]).unwrap();
        assert_eq!(reader.read(&path).unwrap().expose_secret().len(), 1 << 20);
        assert!(reader.read(directory.path()).unwrap_err().to_string().contains("not a regular file"));
        assert!(reader.read(&path.join("below")).is_err());
    }

    #[test]
    fn every_kind_of_change_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let absent = fingerprint_of(&path);
        assert!(absent.is_current() && absent.files().next().is_none());
        fs::write(&path, "1").unwrap();
        assert!(!absent.is_current());

        let written = fingerprint_of(&path);
        assert!(written.is_current() && written.files().eq([path.as_path()]));
        fs::write(&path, "22").unwrap();
        assert!(!written.is_current());

        let before_replacement = fingerprint_of(&path);
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let new = directory.path().join("new");
        fs::write(&new, "33").unwrap();
        fs::File::options().write(true).open(&new).unwrap().set_modified(modified).unwrap();
        fs::rename(&new, &path).unwrap();
        assert!(!before_replacement.is_current());

        let before_removal = fingerprint_of(&path);
        fs::remove_file(&path).unwrap();
        assert!(!before_removal.is_current());
    }

    #[test]
    fn the_swap_of_a_mounted_secret_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for version in ["..1", "..2"] {
            fs::create_dir(root.join(version)).unwrap();
            fs::write(root.join(version).join("cloud.conf"), "same").unwrap();
        }
        symlink("..1", root.join("..data")).unwrap();
        symlink("..data/cloud.conf", root.join("cloud.conf")).unwrap();
        let before = fingerprint_of(&root.join("cloud.conf"));
        assert!(before.is_current());
        symlink("..2", root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        assert!(!before.is_current());
        assert!(fingerprint_of(&root.join("cloud.conf")).is_current());
    }
}
