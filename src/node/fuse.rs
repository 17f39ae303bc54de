//! CephFS by `ceph-fuse`, for classes that ask for it (`cephfs-mounter: fuse`): for nodes whose kernel is too old for
//! what their Ceph can.
//!
//! The program stays as long as the mount, and the mount as long as the program: in a container it ends with the node
//! plug-in. So the kernel mounts where nobody asks, and where the program is not installed.

use super::blocking;
use super::connector::Share;
use super::record::file_name;
use crate::call::Call;
use crate::error::{Error, Result};
use crate::exec::Command;
use crate::model::{StringMap, VolumeId};
use secrecy::ExposeSecret;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The program.
pub(super) const PROGRAM: &str = "ceph-fuse";

/// What the mount table calls its mounts.
pub(super) const FSTYPE: &str = "fuse.ceph-fuse";

/// The keys of the `volume_context` that ask for it, and that have options for it.
const MOUNTER: &str = "cephfs-mounter";
const OPTIONS: &str = "cephfs-fuseMountOptions";

/// The options for it where a volume asks for it.
pub(super) fn asked_for(context: &StringMap) -> Option<String> {
    let is_asked_for = context.get(MOUNTER).is_some_and(|mounter| mounter == "fuse");
    is_asked_for.then(|| context.get(OPTIONS).cloned().unwrap_or_default())
}

/// Whether its options ask for a mount that takes no writes.
pub(super) fn is_read_only(options: &str) -> bool {
    words(options).any(|word| word == "ro")
}

fn words(options: &str) -> impl Iterator<Item = &str> {
    options.split(',').map(str::trim).filter(|word| !word.is_empty())
}

/// How to run it: in the background, which it goes to when the mount is there.
pub(super) fn command(share: &Share, target: &Path, key: &Path, options: &str, read_only: bool) -> Result<Command> {
    let (monitors, path) = share
        .source
        .split_once(":/")
        .ok_or_else(|| Error::internal(format!("{:?} is not where a CephFS is", share.source)))?;
    let option = |name: &str| share.options.iter().find_map(|option| option.strip_prefix(name)?.strip_prefix('='));
    let mut command = Command::new(PROGRAM)
        .args(["-c", "/dev/null", "-m", &monitors.split(',').map(typed).collect::<Vec<_>>().join(","), "-r"])
        .arg(format!("/{path}"))
        .arg(format!("--id={}", option("name").unwrap_or_default()))
        .arg(format!("--keyfile={}", key.display()));
    if let Some(filesystem) = option("mds_namespace") {
        command = command.arg(format!("--client_fs={filesystem}"));
    }
    // What it would leave behind on the node otherwise.
    command = command.args(["--admin_socket=", "--log_file=", "--log_to_stderr=false"]).arg(target);
    let all: Vec<&str> = words(options).chain(read_only.then_some("ro")).collect();
    Ok(if all.is_empty() { command } else { command.arg("-o").arg(all.join(",")) })
}

/// A monitor's address with the protocol that is spoken there: of a port that it does not know, Ceph guesses the wrong one.
fn typed(monitor: &str) -> String {
    let has_port = monitor.rsplit_once(']').map_or(monitor, |(_, rest)| rest).contains(':');
    match monitor.rsplit_once(':') {
        Some((_, "3300")) if has_port => format!("v2:{monitor}"),
        Some(_) if has_port => format!("v1:{monitor}"),
        _ => monitor.to_owned(),
    }
}

/// Where the key of a volume is while it is mounted.
pub(super) fn key_path(plugin_dir: &Path, volume: &VolumeId) -> PathBuf {
    keys(plugin_dir).join(file_name(volume.as_str()))
}

fn keys(plugin_dir: &Path) -> PathBuf {
    plugin_dir.join("keys")
}

/// Removes a volume's key that a driver left which was killed while it mounted.
///
/// # Errors
/// `Internal`: it stays.
pub(super) async fn remove_key(call: &Call, plugin_dir: &Path, volume: &VolumeId) -> Result<()> {
    let path = key_path(plugin_dir, volume);
    blocking::run(call, "remove a key for ceph-fuse", move || match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::internal(format!("remove {}, which holds a Ceph key", path.display())).because(error))
        }
        _ => Ok(()),
    })
    .await
}

/// Removes all keys that were left. For the start of the node, when nothing is being mounted.
///
/// # Errors
/// `Internal`: they stay.
pub(super) async fn remove_all_keys(call: &Call, plugin_dir: &Path) -> Result<()> {
    let path = keys(plugin_dir);
    blocking::run(call, "remove keys for ceph-fuse", move || match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::internal(format!("remove {}, which may hold Ceph keys", path.display())).because(error))
        }
        _ => Ok(()),
    })
    .await
}

/// A file with the key, for the program's eyes only: it takes keys in no other way. Removed when dropped.
#[derive(Debug)]
pub(super) struct KeyFile(PathBuf);

impl KeyFile {
    /// Writes it. Blocks for a moment.
    pub(super) fn write(path: PathBuf, share: &Share) -> io::Result<Self> {
        let secret = share.secret.as_ref().ok_or_else(|| io::Error::other("there is no key"))?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // Left by a process that was killed.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let written = Self(path);
        file.write_all(secret.value().expose_secret().as_bytes())?;
        Ok(written)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "the file with a Ceph key stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{KeyFile, asked_for, command, typed};
    use crate::model::StringMap;
    use crate::node::connector::Share;
    use crate::node::mount::SecretOption;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn share() -> Share {
        Share {
            source: "10.0.0.1:6789,[fd00::2]:6789:/volumes/_nogroup/a".to_owned(),
            fstype: "ceph".to_owned(),
            options: vec!["name=csi-n".to_owned(), "noshare".to_owned(), "mds_namespace=cephfs".to_owned()],
            secret: Some(SecretOption::new("secret", "QUJDgeheim==".to_owned().into())),
            helper: None,
        }
    }

    #[test]
    fn it_is_used_where_it_is_asked_for_only() {
        let context = |pairs: &[(&str, &str)]| -> StringMap {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        assert_eq!(asked_for(&context(&[])), None);
        assert_eq!(asked_for(&context(&[("cephfs-mounter", "kernel"), ("cephfs-fuseMountOptions", "debug")])), None);
        let asked = context(&[("cephfs-mounter", "fuse"), ("cephfs-fuseMountOptions", "debug")]);
        assert_eq!(asked_for(&asked).as_deref(), Some("debug"));
    }

    #[test]
    fn the_command_says_where_and_as_whom_and_not_the_key() {
        let run = |options: &str, read_only| {
            command(&share(), Path::new("/staged"), Path::new("/keys/k"), options, read_only).unwrap().to_string()
        };
        let plain = "ceph-fuse -c /dev/null -m v1:10.0.0.1:6789,v1:[fd00::2]:6789 -r /volumes/_nogroup/a --id=csi-n \
                     --keyfile=/keys/k --client_fs=cephfs --admin_socket= --log_file= --log_to_stderr=false /staged";
        assert_eq!(run("", false), plain);
        assert_eq!(run(" debug,", true), format!("{plain} -o debug,ro"));
    }

    #[test]
    fn monitors_are_asked_in_their_own_protocol() {
        for (monitor, expected) in [
            ("10.0.0.1", "10.0.0.1"),
            ("[fd00::2]", "[fd00::2]"),
            ("10.0.0.1:27789", "v1:10.0.0.1:27789"),
            ("[fd00::2]:3300", "v2:[fd00::2]:3300"),
        ] {
            assert_eq!(typed(monitor), expected);
        }
    }

    #[test]
    fn the_key_is_in_a_file_of_roots_own_for_as_long_as_it_is_needed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys/k");
        for _ in 0..2 {
            let file = KeyFile::write(path.clone(), &share()).unwrap();
            assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "QUJDgeheim==");
            assert_eq!(std::fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
            std::mem::forget(file);
        }
        drop(KeyFile::write(path.clone(), &share()).unwrap());
        assert!(!path.exists());
        assert!(KeyFile::write(path, &Share { secret: None, ..share() }).is_err());
    }
}
