//! Clients of Ceph, from sections `[Ceph "user"]` and `[Ceph "user@fsid"]` of cloud.conf.
//!
//! Cinder does not send a volume's key (OSSN-0085), and it knows the monitors' older addresses only; so the controller is told
//! here, and hands it to the nodes that need it, sealed.

use super::files::Reader;
use super::settings::Setting;
use crate::error::Result;
use crate::model::CephClient;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;
use std::path::Path;

pub(super) const KEY: &str = "key";
pub(super) const KEYRING_FILE: &str = "keyring-file";
pub(super) const MONITORS: &str = "monitors";
pub(super) const MS_MODE: &str = "ms-mode";

/// Every key of a section.
pub(super) const KEYS: [&str; 4] = [KEY, KEYRING_FILE, MONITORS, MS_MODE];

/// What the kernel's client can do on the wire.
const MS_MODES: [&str; 5] = ["legacy", "crc", "secure", "prefer-crc", "prefer-secure"];

/// The settings of one section.
pub(super) type Section = BTreeMap<&'static str, Setting>;

/// A client, from what its section says.
pub(super) fn client(name: &str, section: &Section, reader: &mut Reader) -> Result<CephClient> {
    let (user, fsid) = match name.split_once('@') {
        Some((user, fsid)) => (user, Some(fsid.to_ascii_lowercase())),
        None => (name, None),
    };
    let key = match (section.get(KEY), section.get(KEYRING_FILE)) {
        (Some(key), _) => Some(checked(&key.value, key)?),
        (None, Some(file)) => Some(checked(&from_keyring(user, file, reader)?, file)?),
        (None, None) => None,
    };
    let monitors = section.get(MONITORS).map(monitors).transpose()?.unwrap_or_default();
    let ms_mode = match section.get(MS_MODE) {
        Some(setting) if !MS_MODES.contains(&setting.text()) => {
            return Err(setting.wrong(format!("this is none of {}", MS_MODES.join(", "))));
        }
        other => other.map(|setting| setting.text().to_owned()),
    };
    Ok(CephClient { user: user.to_owned(), fsid, key, monitors, ms_mode })
}

/// A key is base64: anything else would end up in a line that the kernel takes apart at commas and blanks.
fn checked(key: &SecretString, setting: &Setting) -> Result<SecretString> {
    let key = key.expose_secret().trim();
    if key.is_empty() || STANDARD.decode(key).is_err() {
        return Err(setting.wrong_secret("this is not a key of Ceph, which is base64"));
    }
    Ok(key.into())
}

/// The key of a user in a keyring, as `ceph auth get client.<user>` writes it.
fn from_keyring(user: &str, file: &Setting, reader: &mut Reader) -> Result<SecretString> {
    let text = reader.read(Path::new(file.text())).map_err(|error| error.during(&file.place))?;
    let wanted = format!("[client.{user}]");
    let mut is_here = false;
    for line in text.expose_secret().lines().map(str::trim) {
        if line.starts_with('[') {
            is_here = line == wanted;
        } else if is_here
            && let Some((name, key)) = line.split_once('=')
            && name.trim() == "key"
        {
            return Ok(key.trim_start().trim_start_matches('"').trim_end_matches('"').into());
        }
    }
    Err(file.wrong(format!("this file has no key of {wanted}")))
}

/// `address:port`, separated by commas.
fn monitors(setting: &Setting) -> Result<Vec<String>> {
    let addresses = setting.text().split(',').map(str::trim).filter(|address| !address.is_empty());
    addresses
        .map(|address| match address.parse::<std::net::SocketAddr>() {
            Ok(parsed) => Ok(parsed.to_string()),
            Err(_) => Err(setting.wrong(format!("{address:?} is not an IP address and a port, such as 10.0.0.1:3300"))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::config::{Environment, Source};
    use crate::error::Result;
    use crate::model::CephClient;
    use secrecy::ExposeSecret;
    use std::fs;

    const FSID: &str = "7c9e6679-7425-40de-944b-e07fc1f90ae7";

    fn read(more: &str) -> Result<Vec<CephClient>> {
        let directory = tempfile::tempdir().unwrap();
        let (conf, keyring) = (directory.path().join("cloud.conf"), directory.path().join("keyring"));
        fs::write(
            &keyring,
            "[client.admin]\n\tkey = YWRtaW4=\n[client.cinder]\n\tkey = Y2luZGVy\n\tcaps mon = \"x\"\n",
        )
        .unwrap();
        let global = "[Global]\nauth-url = http://127.0.0.1:1/v3\nusername = u\npassword = p\ndomain-name = d\ntenant-name = p\n";
        let more = more.replace("KEYRING", &keyring.display().to_string());
        fs::write(&conf, format!("{global}{more}")).unwrap();
        let environment = Environment::default();
        let config = Source { cloud_config: vec![conf], cloud_names: Vec::new(), environment }.load()?;
        assert_eq!(config.warnings, Vec::<String>::new());
        Ok(config.ceph)
    }

    #[test]
    fn clients_are_read_with_their_keys() {
        let clients = read(&format!(
            "[Ceph \"cinder\"]\nkeyring-file = KEYRING\n[Ceph \"cinder@{FSID}\"]\nkey = b3RoZXI=\n\
             monitors = 10.0.0.1:3300, [fd00::1]:3300\nms-mode = prefer-crc\n"
        ))
        .unwrap();
        let key = |client: &CephClient| client.key.as_ref().map(|key| key.expose_secret().to_owned()).unwrap();
        assert_eq!((clients[0].user.as_str(), key(&clients[0]).as_str()), ("cinder", "Y2luZGVy"));
        assert_eq!((clients[0].fsid.as_deref(), clients[0].monitors.len()), (None, 0));
        assert_eq!((clients[1].fsid.as_deref(), key(&clients[1]).as_str()), (Some(FSID), "b3RoZXI="));
        assert_eq!(clients[1].monitors, ["10.0.0.1:3300", "[fd00::1]:3300"]);
        assert!(!format!("{clients:?}").contains("Y2luZGVy"));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_place_and_without_the_key() {
        for (section, words) in [
            ("key = not,a,key", "base64"),
            ("key = ", "base64"),
            ("keyring-file = /nowhere", "keyring-file"),
            ("keyring-file = KEYRING\nmonitors = ceph1", "ceph1"),
            ("keyring-file = KEYRING\nms-mode = fast", "prefer-crc"),
        ] {
            let error = read(&format!("[Ceph \"cinder\"]\n{section}\n")).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("cloud.conf:"), "{error}");
            assert!(!error.contains("not,a,key"), "{error}");
        }
        let error = read("[Ceph \"glance\"]\nkeyring-file = KEYRING\n").unwrap_err().to_string();
        assert!(error.contains("[client.glance]"), "{error}");
    }
}
