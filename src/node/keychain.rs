//! The private keys of this node: what the controller sealed to it is opened with them, and with nothing else.
//!
//! The key is made once and kept in a file that only root can read, since what was sealed to it may be needed after a
//! restart. `fuxi-csi node-id --new-key` puts a new one in front; its predecessors stay behind it and still open what was
//! sealed to them.

use crate::error::{Error, Kind, Result};
use crate::model::{Connection, Secrets, VolumeId};
use crate::seal::{Binding, PrivateKey, PublicKey, open};
use nix::unistd::geteuid;
use secrecy::ExposeSecret;
use secrecy::zeroize::Zeroizing;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file of the keys in the plugin directory: one per line, the present one first.
pub const FILE: &str = "node-keys";

/// So many keys are kept: the present one and its predecessors.
const KEPT: usize = 8;

/// This node's keys, and the host name that secrets are bound to.
#[derive(Debug, Default)]
pub struct Keychain {
    host: String,
    keys: Vec<PrivateKey>,
}

impl Keychain {
    /// Without a key: for a node to which nothing is sealed.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// These keys, the present one first.
    #[must_use]
    pub fn new(host: impl Into<String>, keys: Vec<PrivateKey>) -> Self {
        Self { host: host.into(), keys }
    }

    /// The keys in this directory; makes the first one if there is none. Blocks.
    ///
    /// # Errors
    /// `WrongState`: the file can be read by others, or is none of ours: a lost key is never replaced silently.
    /// `Internal`: it cannot be read or written.
    pub fn load(directory: &Path, host: &str) -> Result<Self> {
        let path = directory.join(FILE);
        let keys = match read(&path)? {
            Some(keys) => keys,
            None => match make_first(directory, &path)? {
                Some(key) => vec![key],
                // Another process was faster.
                None => read(&path)?.unwrap_or_default(),
            },
        };
        if keys.is_empty() {
            return Err(Error::wrong_state(format!("{} holds no key; see docs/undercloud.md", path.display())));
        }
        Ok(Self::new(host, keys))
    }

    /// Puts a new key in front of those in this directory. Blocks.
    ///
    /// # Errors
    /// As [`Keychain::load`]. `Busy`: another process does the same.
    pub fn renew(directory: &Path, host: &str) -> Result<Self> {
        drop(Self::load(directory, host)?);
        // Of two at once, one would lose the other's key, to which something may be sealed soon.
        let turn = File::open(directory).map_err(|error| unwritable(directory, error))?;
        turn.try_lock().map_err(|error| {
            Error::busy(format!("another process makes a key in {}", directory.display())).because(error)
        })?;
        let Self { mut keys, .. } = Self::load(directory, host)?;
        keys.insert(0, PrivateKey::generate());
        keys.truncate(KEPT);
        let path = directory.join(FILE);
        replace(directory, &path, &keys).map_err(|error| unwritable(&path, error))?;
        Ok(Self::new(host, keys))
    }

    /// The public half of the present key.
    #[must_use]
    pub fn public(&self) -> Option<PublicKey> {
        self.keys.first().map(PrivateKey::public)
    }

    /// What the controller sealed into a connection; nothing if it sealed nothing.
    ///
    /// # Errors
    /// `Denied`: it was sealed to another node, key or volume.
    pub fn open(&self, volume: &VolumeId, connection: &Connection) -> Result<Secrets> {
        let Some(sealed) = &connection.sealed else { return Ok(Secrets::new()) };
        if self.keys.is_empty() {
            return Err(Error::new(
                Kind::Denied,
                format!("volume {volume} comes with secrets, and this node has no key: start it with --attach host"),
            ));
        }
        open(&self.keys, Binding { volume, host: &self.host }, sealed)
    }
}

fn read(path: &Path) -> Result<Option<Vec<PrivateKey>>> {
    let unreadable = |error| Error::internal(format!("read the node's keys in {}", path.display())).because(error);
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.uid() != geteuid().as_raw() {
        return Err(Error::wrong_state(format!(
            "the node's keys in {} belong to user {}, who can read them: move the file away to have a new key made",
            path.display(),
            metadata.uid()
        )));
    }
    let mode = metadata.mode();
    if mode & 0o077 != 0 {
        return Err(Error::wrong_state(format!(
            "the node's keys in {} can be read by others (mode {:o}): make it 0600, and the keys new with \
             `fuxi-csi node-id --new-key`",
            path.display(),
            mode & 0o777
        )));
    }
    let mut text = Zeroizing::new(String::new());
    file.read_to_string(&mut text).map_err(unreadable)?;
    let keys = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(PrivateKey::from_text);
    keys.collect::<Result<Vec<_>>>().map(Some).map_err(|error| {
        error.as_kind(Kind::WrongState).during(format!(
            "{} holds something else than the node's keys: restore it, or move it away to have a new key made; volumes \
             that are attached now then have to be detached and attached again",
            path.display()
        ))
    })
}

/// Makes the first key; none if a file is there meanwhile.
fn make_first(directory: &Path, path: &Path) -> Result<Option<PrivateKey>> {
    let key = PrivateKey::generate();
    let staged = stage(directory, std::slice::from_ref(&key)).map_err(|error| unwritable(path, error))?;
    let linked = fs::hard_link(&staged, path);
    let made = match linked {
        Ok(()) => Ok(Some(key)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(unwritable(path, error)),
    };
    fs::remove_file(&staged).and_then(|()| File::open(directory)?.sync_all()).map_err(|e| unwritable(path, e))?;
    made
}

fn replace(directory: &Path, path: &Path, keys: &[PrivateKey]) -> io::Result<()> {
    fs::rename(stage(directory, keys)?, path)?;
    File::open(directory)?.sync_all()
}

/// Writes keys beside their place, durably; returns where.
fn stage(directory: &Path, keys: &[PrivateKey]) -> io::Result<PathBuf> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let path = directory.join(format!("{FILE}.{:08x}.new", fastrand::u32(..)));
    let mut text = Zeroizing::new(String::new());
    for key in keys {
        text.push_str(key.to_text().expose_secret());
        text.push('\n');
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    if let Err(error) = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()) {
        // Half a key is not left about; the error that counts is the first.
        drop(fs::remove_file(&path));
        return Err(error);
    }
    Ok(path)
}

fn unwritable(path: &Path, error: io::Error) -> Error {
    Error::internal(format!("keep the node's keys in {}", path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use super::{FILE, Keychain};
    use crate::error::Kind;
    use crate::model::{Connection, Secrets, VolumeId};
    use crate::seal::{Binding, seal};
    use secrecy::ExposeSecret;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn sealed(keychain: &Keychain, volume: &VolumeId) -> Connection {
        let secrets = Secrets::from([("auth_password".to_owned(), "geheim".into())]);
        let sealed = seal(&keychain.public().unwrap(), Binding { volume, host: "n1" }, &secrets).unwrap();
        Connection {
            kind: "iscsi".to_owned(),
            data: serde_json::json!({}),
            size: None,
            read_only: false,
            sealed: Some(sealed),
        }
    }

    #[test]
    fn a_node_started_again_opens_what_was_sealed_before_and_after_a_new_key_too() {
        let directory = tempfile::tempdir().unwrap();
        let plugin_dir = directory.path().join("plugin");
        let volume: VolumeId = "v".parse().unwrap();
        let first = Keychain::load(&plugin_dir, "n1").unwrap();
        let connection = sealed(&first, &volume);
        let again = Keychain::load(&plugin_dir, "n1").unwrap();
        assert_eq!(again.public(), first.public());
        assert_eq!(again.open(&volume, &connection).unwrap()["auth_password"].expose_secret(), "geheim");

        let renewed = Keychain::renew(&plugin_dir, "n1").unwrap();
        assert_ne!(renewed.public(), first.public());
        assert!(renewed.open(&volume, &connection).is_ok());
        let again = Keychain::load(&plugin_dir, "n1").unwrap();
        assert_eq!(again.public(), renewed.public());
        assert!(again.open(&volume, &connection).is_ok());
        let mode = fs::metadata(plugin_dir.join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(&plugin_dir).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn keys_that_others_can_read_or_that_are_broken_are_refused_and_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        Keychain::load(directory.path(), "n1").unwrap();
        let path = directory.path().join(FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(Keychain::load(directory.path(), "n1").unwrap_err().kind(), Kind::WrongState);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "nonsense\n").unwrap();
        assert_eq!(Keychain::load(directory.path(), "n1").unwrap_err().kind(), Kind::WrongState);
        fs::write(&path, "").unwrap();
        assert_eq!(Keychain::load(directory.path(), "n1").unwrap_err().kind(), Kind::WrongState);
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn of_many_new_keys_at_once_none_is_lost() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let first = Keychain::load(path, "n1").unwrap().public();
        let made: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| Keychain::renew(path, "n1"))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let kept = fs::read_to_string(path.join(FILE)).unwrap().lines().count();
        assert_eq!(kept, 1 + made.iter().filter(|made| made.is_ok()).count());
        for refused in made.iter().filter_map(|made| made.as_ref().err()) {
            assert_eq!(refused.kind(), Kind::Busy);
        }
        assert_ne!(Keychain::load(path, "n1").unwrap().public(), first);
    }

    #[test]
    fn neither_keys_nor_secrets_show_in_debug() {
        let directory = tempfile::tempdir().unwrap();
        let keychain = Keychain::load(directory.path(), "n1").unwrap();
        let text = fs::read_to_string(directory.path().join(FILE)).unwrap();
        assert!(text.trim().len() > 20 && !format!("{keychain:?}").contains(text.trim()));
    }

    #[test]
    fn two_that_start_at_once_have_one_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let keys: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..2).map(|_| scope.spawn(|| Keychain::load(path, "n1").unwrap().public())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(keys[0], Keychain::load(path, "n1").unwrap().public());
        assert_eq!(keys[0], keys[1]);
    }

    #[test]
    fn a_node_without_a_key_opens_nothing_but_needs_none_for_nothing() {
        let volume: VolumeId = "v".parse().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let connection = sealed(&Keychain::load(directory.path(), "n1").unwrap(), &volume);
        let none = Keychain::none();
        assert_eq!(none.open(&volume, &connection).unwrap_err().kind(), Kind::Denied);
        assert!(none.open(&volume, &Connection { sealed: None, ..connection }).unwrap().is_empty());
    }
}
