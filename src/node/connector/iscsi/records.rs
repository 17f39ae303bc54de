//! iscsid's records of targets: text files below `/etc/iscsi` or `/var/lib/iscsi`, as the distribution has it.
//!
//! Programs take a CHAP password as an argument only, which every user of the machine sees. So iscsiadm makes a record
//! without one, and what we want is written into the file, which only root can read.

use super::target::{Chap, Target};
use crate::node::connector::kernel::names_in;
use crate::node::device::Host;
use crate::node::record::digest;
use secrecy::ExposeSecret;
use secrecy::zeroize::Zeroizing;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where records may be.
const DATABASES: [&str; 2] = ["/etc/iscsi", "/var/lib/iscsi"];

/// The files with the record of a target at a portal; empty if there is none.
pub(super) fn files(host: &Host, target: &Target) -> io::Result<Vec<PathBuf>> {
    let name = format!("{},{}", target.portal.address, target.portal.port);
    let mut found = Vec::new();
    for database in DATABASES {
        let directory = host.path(database).join("nodes").join(target.iqn.as_str());
        for entry in names_in(&directory)? {
            // `address,port` as a file, or `address,port,group` with a file for each interface.
            if entry != name && !entry.starts_with(&format!("{name},")) {
                continue;
            }
            let path = directory.join(entry);
            if path.is_dir() {
                found.extend(names_in(&path)?.into_iter().map(|interface| path.join(interface)));
            } else {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// Writes into a record how to log in: as whom, by hand only (a node that was restarted must not log in to what it may
/// no longer own), without a scan for LUNs (others may be just being unmapped), and without trying for minutes.
pub(super) fn prepare(file: &Path, chap: Option<&Chap>) -> io::Result<()> {
    clear_unfinished(file)?;
    let text = Zeroizing::new(fs::read_to_string(file)?);
    let secret = chap.map(|chap| chap.password.expose_secret());
    let settings = [
        ("node.startup", Some("manual")),
        ("node.session.scan", Some("manual")),
        ("node.session.initial_login_retry_max", Some("2")),
        ("node.session.auth.authmethod", Some(if chap.is_some() { "CHAP" } else { "None" })),
        ("node.session.auth.username", chap.map(|chap| chap.user.as_str())),
        ("node.session.auth.password", secret),
    ];
    let changed = Zeroizing::new(with(&text, &settings));
    if *changed == *text {
        return Ok(());
    }
    replace(file, &changed)
}

/// A record with these settings; one without a value is taken out.
fn with(text: &str, settings: &[(&str, Option<&str>)]) -> String {
    let is_set =
        |line: &str| settings.iter().any(|(key, _)| line.split_once('=').is_some_and(|(k, _)| k.trim() == *key));
    let mut changed = String::with_capacity(text.len() + 512);
    let mut lines: Vec<&str> = text.lines().filter(|line| !is_set(line)).collect();
    let end = if lines.last().is_some_and(|line| line.starts_with("# END")) { lines.pop() } else { None };
    for line in lines {
        changed.push_str(line);
        changed.push('\n');
    }
    for (key, value) in settings {
        if let Some(value) = value {
            changed.push_str(&format!("{key} = {value}\n"));
        }
    }
    changed.push_str(end.unwrap_or("# END RECORD"));
    changed.push('\n');
    changed
}

/// Where a record is written before it takes the place of the old one: always at the same place, so that what a killed
/// driver left there, with the password in it, is found. Not beside it, where iscsiadm would take it for a record.
fn unfinished(file: &Path) -> io::Result<PathBuf> {
    let database = file.ancestors().find(|path| path.ends_with("nodes")).and_then(Path::parent);
    let directory = database.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no record of iscsid"))?;
    Ok(directory.join(format!(".record-{:016x}", digest(file.as_os_str().as_bytes()))))
}

/// Removes what a driver left that was killed while it wrote this record.
pub(super) fn clear_unfinished(file: &Path) -> io::Result<()> {
    match fs::remove_file(unfinished(file)?) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// In one step: iscsiadm never reads half a record.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let new = unfinished(file)?;
    let write = || {
        let mut open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        open.write_all(text.as_bytes())?;
        open.sync_all()?;
        fs::rename(&new, file)
    };
    write().inspect_err(|_| drop(fs::remove_file(&new)))
}

#[cfg(test)]
mod tests {
    use super::{clear_unfinished, files, prepare, unfinished};
    use crate::node::connector::iscsi::target::{Chap, Target};
    use crate::node::device::Host;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    const RECORD: &str = "# BEGIN RECORD 2.1.8\nnode.name = iqn.x:y\nnode.startup = automatic\n\
        node.session.auth.authmethod = None\nnode.session.scan = auto\n# END RECORD\n";

    #[test]
    fn a_record_gets_the_password_and_is_readable_by_root_only() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::below(root.path());
        let target = Target {
            iqn: "iqn.x:y".parse().unwrap(),
            portal: "[fd00::1]:3260".parse().unwrap(),
            lun: "1".parse().unwrap(),
        };
        assert!(files(&host, &target).unwrap().is_empty());
        let directory = root.path().join("etc/iscsi/nodes/iqn.x:y");
        fs::create_dir_all(directory.join("fd00::1,3260,1")).unwrap();
        fs::write(directory.join("fd00::1,3260,1/default"), RECORD).unwrap();
        fs::write(directory.join("fd00::1,32601"), RECORD).unwrap();
        let found = files(&host, &target).unwrap();
        assert_eq!(found, [directory.join("fd00::1,3260,1/default")]);

        let chap = Chap { user: "u".to_owned(), password: "geheim".into() };
        prepare(&found[0], Some(&chap)).unwrap();
        let text = fs::read_to_string(&found[0]).unwrap();
        assert!(text.contains("node.session.auth.authmethod = CHAP\n"), "{text}");
        assert!(text.contains("node.session.auth.password = geheim\n") && text.ends_with("# END RECORD\n"), "{text}");
        assert!(text.contains("node.startup = manual\n") && !text.contains("automatic"), "{text}");
        assert_eq!(fs::metadata(&found[0]).unwrap().permissions().mode() & 0o777, 0o600);

        prepare(&found[0], None).unwrap();
        let text = fs::read_to_string(&found[0]).unwrap();
        assert!(!text.contains("geheim") && text.contains("authmethod = None"), "{text}");
        assert_eq!(text.lines().count(), RECORD.lines().count() + 1);
        assert_eq!(fs::read_dir(root.path().join("etc/iscsi")).unwrap().count(), 1, "nothing else is left");
    }
    #[test]
    fn what_a_killed_driver_left_of_a_record_goes() {
        let root = tempfile::tempdir().unwrap();
        let nodes = root.path().join("etc/iscsi/nodes/iqn.x:y");
        fs::create_dir_all(&nodes).unwrap();
        let file = nodes.join("10.0.0.1,3260");
        let chap = Chap { user: "u".to_owned(), password: "geheim".into() };
        fs::write(&file, RECORD).unwrap();
        // The second time, the record has all that is wanted already.
        for _ in 0..2 {
            fs::write(unfinished(&file).unwrap(), "node.session.auth.password = geh").unwrap();
            prepare(&file, Some(&chap)).unwrap();
            assert_eq!(fs::read_dir(root.path().join("etc/iscsi")).unwrap().count(), 1);
        }
        fs::write(unfinished(&file).unwrap(), "node.session.auth.password = geh").unwrap();
        clear_unfinished(&file).unwrap();
        assert!(!unfinished(&file).unwrap().exists());
        assert!(clear_unfinished(root.path()).is_err());
    }
}
