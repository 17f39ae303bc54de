//! A scripted kernel that maps images, and what is hostile and wrong in a connection.

use super::image::{Image, Location, Name, key};
use super::{Rbd, Times};
use crate::call::Call;
use crate::error::{Kind, Result};
use crate::exec::SystemExec;
use crate::model::{AccessMode, Bytes, Connection, Secrets};
use crate::node::connector::kernel::scripted::Scripted;
use crate::node::connector::{Connector, Link, Source};
use crate::node::device::{Device, Host, fake};
use nix::errno::Errno;
use proptest::prelude::{any, proptest};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const KEY: &str = "AQDpvwFrFzBWGxAAAKKg7zdltAYT+u9dLAatmw==";

fn data() -> Value {
    json!({"name": "volumes/volume-x", "hosts": ["10.0.0.1", "fd00::1"], "ports": ["6789", 6789], "cluster_name": "ceph",
        "auth_enabled": true, "auth_username": "cinder"})
}

fn link(data: Value) -> Link {
    Link {
        volume: "v".parse().unwrap(),
        connection: Connection {
            kind: "rbd".to_owned(),
            data,
            size: Some(Bytes::new(1 << 20)),
            read_only: false,
            sealed: None,
        },
        secrets: Secrets::from([("keyring".to_owned(), KEY.into())]),
        mode: AccessMode::SingleNodeWriter,
        device: None,
    }
}

/// A machine whose kernel maps any image, and what it was told. `has_lock`: whether images can be mapped exclusively.
fn machine(root: &Path, has_lock: bool, size: u64) -> (Rbd, Arc<Mutex<Vec<String>>>) {
    let bus = root.join("sys/bus/rbd");
    fs::create_dir_all(bus.join("devices")).unwrap();
    fs::write(bus.join("add_single_major"), "").unwrap();
    fs::write(bus.join("remove_single_major"), "").unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let (log, host, root) = (told.clone(), Host::below(root), root.to_owned());
    let kernel = Scripted::new(move |file, command| {
        log.lock().unwrap().push(command.to_owned());
        let device = bus.join("devices/0");
        if file.ends_with("refresh") {
            return Ok(String::new());
        }
        if file.ends_with("remove_single_major") {
            fs::remove_dir_all(device)?;
            let disk = Host::below(&root).device("rbd0")?.unwrap();
            fake::remove_disk(&root, &disk);
            return Ok(String::new());
        }
        let words: Vec<_> = command.split(' ').collect();
        if words[1].contains("exclusive") && !has_lock {
            return Err(io::Error::from_raw_os_error(Errno::EINVAL as i32));
        }
        fs::create_dir_all(&device)?;
        let files = [
            ("pool", words[2]),
            ("name", words[3]),
            ("current_snap", words[4]),
            ("pool_ns", ""),
            ("cluster_fsid", "f"),
            ("pool_id", "2"),
            ("image_id", "1a2b"),
            ("config_info", command),
        ];
        for (name, text) in files {
            fs::write(device.join(name), format!("{text}\n"))?;
        }
        fake::add_disk(&root, "rbd0", 0, size, None);
        Ok(String::new())
    });
    let mut connector = Rbd::new(host, Arc::new(SystemExec::new(["/nowhere"])));
    connector.kernel = Arc::new(kernel);
    let short = Duration::from_millis(40);
    connector.times = Times { appearance: short, growth: short, peeking: short };
    (connector, told)
}

async fn attach(connector: &Rbd, link: &Link) -> Result<Device> {
    match connector.connect(&Call::lasting(Duration::from_secs(20)), link).await? {
        Source::Block(device) => Ok(device),
        Source::Share(share) => panic!("{share:?}"),
    }
}

#[tokio::test]
async fn an_image_is_mapped_once_and_unmapped() {
    let root = tempfile::tempdir().unwrap();
    let (connector, told) = machine(root.path(), true, 1 << 20);
    let disk = attach(&connector, &link(data())).await.unwrap();
    assert_eq!(disk.wwid.as_deref(), Some("rbd:f/2/1a2b"));
    assert_eq!(attach(&connector, &link(data())).await.unwrap(), disk);
    assert_eq!(
        told.lock().unwrap().as_slice(),
        [format!("10.0.0.1:6789,[fd00::1]:6789 rw,name=cinder,secret={KEY} volumes volume-x -")]
    );
    let mut known = link(data());
    known.device = Some(Device { wwid: Some("rbd:f/2/other".to_owned()), ..disk });
    assert_eq!(attach(&connector, &known).await.unwrap_err().kind(), Kind::WrongState);
    let call = Call::lasting(Duration::from_secs(20));
    connector.disconnect(&call, &link(data())).await.unwrap();
    assert_eq!(connector.locate(&call, &link(data())).await.unwrap(), None);
    connector.disconnect(&call, &link(data())).await.unwrap();
    assert_eq!(told.lock().unwrap().last().unwrap(), "0");
}

#[tokio::test]
async fn a_lock_is_held_where_there_is_one_and_wanted() {
    for has_lock in [true, false] {
        let root = tempfile::tempdir().unwrap();
        let (connector, told) = machine(root.path(), has_lock, 1 << 20);
        let mut data = data();
        data["exclusive"] = json!(true);
        attach(&connector, &link(data)).await.unwrap();
        let told = told.lock().unwrap();
        assert!(told[0].contains(" rw,exclusive,"), "{told:?}");
        assert_eq!(told.len(), if has_lock { 1 } else { 2 });
    }
}

#[tokio::test]
async fn an_image_smaller_than_promised_is_unmapped_again() {
    let root = tempfile::tempdir().unwrap();
    let (connector, _) = machine(root.path(), true, 1 << 19);
    assert_eq!(attach(&connector, &link(data())).await.unwrap_err().kind(), Kind::WrongState);
    assert!(!root.path().join("sys/bus/rbd/devices/0").exists());
}

#[test]
fn nonsense_is_refused_before_anything_is_done() {
    assert!(Image::of(&link(data())).is_ok());
    let wrong = [
        ("name", json!("volumes")),
        ("name", json!("a/b/c/d")),
        ("name", json!("volumes/x -")),
        ("name", json!("volumes/-")),
        ("name", json!("volumes/x\n")),
        ("name", json!("../x,y/z")),
        ("hosts", json!(["10.0.0.1"])),
        ("hosts", json!(["10.0.0.1 name=admin", "10.0.0.2"])),
        ("ports", json!(["6789", "0"])),
        ("auth_username", json!("cinder,secret=x")),
        ("auth_username", json!(null)),
        ("ms_mode", json!("secure,noshare")),
    ];
    for (field, value) in wrong {
        let mut data = data();
        data[field] = value;
        assert_eq!(Image::of(&link(data.clone())).unwrap_err().kind(), Kind::InvalidArgument, "{data}");
    }
}

#[test]
fn a_key_is_taken_from_a_keyring_too_and_never_shown() {
    let user: Name = "cinder".parse().unwrap();
    let of = |secret: &str| {
        let mut link = link(data());
        link.secrets.insert("keyring".to_owned(), secret.to_owned().into());
        key(&link, &user)
    };
    assert_eq!(of(&format!("[client.cinder]\n\tkey = {KEY}\n\tcaps mon = x\n")).unwrap().expose_secret(), KEY);
    for wrong in ["", "short", "AQDpvwFrFzBWGxAAAKKg7z dltAYT", "AQDpvwFrFzBWGxAAAKKg7zd,noshare"] {
        let error = of(wrong).unwrap_err();
        assert!(wrong.is_empty() || !error.to_string().contains(wrong), "{error}");
    }
}

proptest! {
    #[test]
    fn no_name_begins_another_word_or_option(text in any::<String>(), tail in "[ -~]{0,20}") {
        for text in [text, tail] {
            if let Ok(location) = text.parse::<Location>() {
                for name in [&location.pool, &location.image] {
                    assert!(!name.as_str().contains([' ', ',', '=', '\n', '/', '@']), "{name}");
                }
            }
        }
    }
}
