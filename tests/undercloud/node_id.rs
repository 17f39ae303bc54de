//! `fuxi-csi node-id`: what this host is to the storage, and what the id of another node means.

use crate::machine::{Kernel, Machine, said};
use crate::plugin::Plugin;
use fuxi_csi::initiator::{Initiator, Uuid, Wwn};
use fuxi_csi::node::keychain;
use fuxi_csi::seal::{PrivateKey, PublicKey};
use std::fs::File;
use std::process::{Command, Stdio};

const SYSTEM: &str = "4c4c4544-0043-3010-8052-b4c04f4d4e31";
const HERE: [&str; 5] = ["node-id", "--plugin-dir", "/plugin", "--storage-address", "10.1.2.3"];
const KEYS: &str = "/plugin/node-keys";

/// What a wrong configuration ends with.
const CONFIGURATION: Option<i32> = Some(78);

/// A host with everything that storage may know of one.
fn host() -> Option<Machine> {
    let machine = Machine::new(Kernel::Files)?;
    for (path, content) in [
        ("proc/sys/kernel/hostname", "rack7-12\n"),
        ("proc/net/unix", "ffff: 00000002 00000000 00010000 0001 01 3 @/org/kernel/linux/storage/multipathd\n"),
        ("sys/class/dmi/id/product_uuid", "4C4C4544-0043-3010-8052-B4C04F4D4E31\n"),
        ("sys/class/fc_host/host3/port_name", "0x10000000c9a1b2c3\n"),
        ("sys/class/fc_host/host3/node_name", "0x20000000c9a1b2c3\n"),
        ("sys/class/fc_host/host3/port_state", "Online\n"),
    ] {
        machine.write(path, content, 0o644);
    }
    Some(machine)
}

fn run(machine: &Machine, more: &[&str]) -> (Option<i32>, String, String) {
    let arguments: Vec<&str> = HERE.iter().chain(more).copied().collect();
    said(&machine.run("/fuxi-csi", &arguments, ""))
}

/// Of which no machine of its own is needed.
fn decode(id: &str) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_fuxi-csi"))
        .args(["node-id", "--decode", id])
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap();
    said(&output)
}

/// What the first line of an answer says.
fn unpack(answer: &str) -> Initiator {
    Initiator::unpack(&answer.lines().next().unwrap().parse().unwrap()).unwrap()
}

fn facts(public_key: PublicKey) -> Initiator {
    Initiator {
        public_key,
        host: "rack7-12".to_owned(),
        ip: Some("10.1.2.3".parse().unwrap()),
        iqn: Some("iqn.1993-08.org.debian:01:5a1b2c3d4e5f".to_owned()),
        nqn: Some(format!("nqn.2014-08.org.nvmexpress:uuid:{SYSTEM}")),
        nvme_host_id: Uuid::parse(SYSTEM),
        wwpns: vec![Wwn::parse("10000000c9a1b2c3").unwrap()],
        wwnns: vec![Wwn::parse("20000000c9a1b2c3").unwrap()],
        multipath: true,
        system_uuid: Uuid::parse(SYSTEM),
    }
}

#[test]
fn the_id_is_made_of_the_host_and_the_second_time_it_is_the_same() {
    let Some(machine) = host() else { return };
    let (code, first, log) = run(&machine, &["--log-level", "trace"]);
    assert_eq!(code, Some(0), "{log}");
    let id = unpack(&first);
    assert_eq!(id, facts(id.public_key));
    for fact in [
        "host                 rack7-12",
        "storage address      10.1.2.3",
        "iSCSI initiator      iqn.1993-08.org.debian:01:5a1b2c3d4e5f",
        "NVMe host NQN        nqn.2014-08.org.nvmexpress:uuid:4c4c4544-0043-3010-8052-b4c04f4d4e31",
        "NVMe host id         4c4c4544-0043-3010-8052-b4c04f4d4e31",
        "FC ports             10000000c9a1b2c3",
        "FC nodes             20000000c9a1b2c3",
        "multipath            yes",
        "system UUID          4c4c4544-0043-3010-8052-b4c04f4d4e31",
    ] {
        assert!(first.contains(fact), "{fact:?} is not in\n{first}");
    }

    // The key: made once, for root only, the half that is told belongs to it, and the other half is told to nobody.
    assert_eq!((machine.mode(KEYS), machine.mode("/plugin")), (0o600, 0o700));
    let keys = machine.read(KEYS);
    let secret = keys.trim();
    assert_eq!(keys.lines().count(), 1);
    assert_eq!(PrivateKey::from_text(secret).unwrap().public(), id.public_key);
    assert_eq!(machine.names("/plugin"), [keychain::FILE]);
    for text in [&first, &log] {
        assert!(!text.contains(secret), "the private key is shown");
    }

    // What was made is kept: the key, and the NVMe names.
    assert_eq!(machine.names("/etc/nvme"), ["hostid", "hostnqn"]);
    let (code, second, log) = run(&machine, &[]);
    assert_eq!((code, second.as_str()), (Some(0), first.as_str()), "{log}");
    assert_eq!(machine.read(KEYS), keys);
}

#[tokio::test]
async fn it_is_the_id_that_the_node_plugin_has() {
    let Some(machine) = Machine::new(Kernel::Host) else { return };
    // As the plugin is started.
    let arguments = ["--host-name", "rack-1", "--multipath", "false"];
    let (code, answer, log) = run(&machine, &arguments);
    assert_eq!(code, Some(0), "{log}");
    let plugin = Plugin::start(machine, &[]).await;
    assert_eq!(plugin.node_id().await.unwrap(), answer.lines().next().unwrap());
}

#[test]
fn decoding_shows_what_was_packed_and_makes_nothing() {
    let Some(machine) = host() else { return };
    let (_, made, _) = run(&machine, &[]);
    let id = made.lines().next().unwrap();
    let elsewhere = Machine::new(Kernel::Files).unwrap();
    let (code, told, log) = run(&elsewhere, &["--decode", id]);
    assert_eq!((code, told.as_str()), (Some(0), made.as_str()), "{log}");
    assert!(!elsewhere.path("/plugin").exists() && !elsewhere.path("/etc/nvme").exists());
}

#[test]
fn decoding_needs_no_privilege_and_no_file() {
    let key = PrivateKey::generate().public();
    let bare = Initiator {
        ip: None,
        iqn: None,
        nqn: None,
        nvme_host_id: None,
        wwpns: Vec::new(),
        wwnns: Vec::new(),
        multipath: false,
        system_uuid: None,
        ..facts(key)
    };
    for packed in [facts(key), bare] {
        let id = packed.pack().unwrap();
        let (code, told, log) = decode(id.as_str());
        assert_eq!((code, told), (Some(0), format!("{id}\n{packed}")), "{log}");
    }
}

#[test]
fn an_id_that_cannot_be_is_refused_with_its_reason_and_nothing_is_told() {
    let id = facts(PrivateKey::generate().public()).pack().unwrap().to_string();
    let (start, end) = id.split_at(60);
    let changed = format!("{start}{}{}", if end.starts_with('A') { 'B' } else { 'A' }, &end[1..]);
    // Whole, and of a version that is still to come.
    let newer = {
        use base64::Engine as _;
        let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let mut bytes = engine.decode(&id).unwrap();
        bytes.truncate(bytes.len() - 4);
        bytes[0] = 2;
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        engine.encode(bytes)
    };
    let advice = "`fuxi-csi node-id` prints it on the host";
    for (what, id, words) in [
        ("changed", changed.as_str(), &["its checksum is wrong", advice][..]),
        ("cut", &id[..id.len() / 8 * 4], &["its checksum is wrong", advice]),
        ("cut in the midst of a byte", &id[..id.len() / 8 * 4 + 1], &["it is not base64url", advice]),
        ("very short", "AQ", &["it is too short", advice]),
        ("a Nova server", "5d0cf0b7-3c7b-4b7e-9d63-0cb7f8c0a2e1", &["its checksum is wrong", "a server of Nova"]),
        ("a host name", "rack7-12.example.org", &["it is not base64url", advice]),
        ("newer", &newer, &["it is of another version", "the same version of the driver everywhere"]),
    ] {
        let (code, told, log) = decode(id);
        assert_eq!((code, told.as_str()), (CONFIGURATION, ""), "{what}: {log}");
        for words in words.iter().copied().chain([id]) {
            assert!(log.contains(words), "{what}: {words:?} is not in {log}");
        }
    }
    for (id, words) in [("", "node_id is missing"), ("a\nb", "a\\nb"), (&"A".repeat(300), "AAAA")] {
        let (code, told, log) = decode(id);
        assert_eq!((code.is_some_and(|code| code != 0), told.as_str()), (true, ""), "{id:?}: {log}");
        assert!(log.contains(words) && !log.contains("panicked"), "{id:?}: {log}");
    }
}

#[test]
fn a_new_key_stands_before_the_earlier_ones() {
    let Some(machine) = host() else { return };
    let (_, first, _) = run(&machine, &[]);
    let before = machine.read(KEYS);
    let (code, second, log) = run(&machine, &["--new-key"]);
    assert_eq!(code, Some(0), "{log}");
    let keys = machine.read(KEYS);
    assert_eq!((machine.mode(KEYS), keys.lines().count()), (0o600, 2));
    assert!(keys.ends_with(&before));
    assert_ne!(unpack(&first).public_key, unpack(&second).public_key);
    assert_eq!(PrivateKey::from_text(keys.lines().next().unwrap()).unwrap().public(), unpack(&second).public_key);
    assert!(keys.lines().all(|secret| !second.contains(secret) && !log.contains(secret)));
    let (_, again, _) = run(&machine, &[]);
    assert_eq!(again, second);
    // The two make no sense together.
    let (code, told, log) = run(&machine, &["--new-key", "--decode", "AQ"]);
    assert_eq!((code, told.as_str()), (Some(2), ""), "{log}");
    assert_eq!(machine.read(KEYS), keys);
}

#[test]
fn a_key_that_others_can_read_or_that_is_none_is_never_replaced() {
    let Some(machine) = host() else { return };
    for (content, mode, words) in [
        ("something else\n", 0o600, "something else than the node's keys"),
        ("", 0o600, "holds no key"),
        ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n", 0o644, "can be read by others (mode 644): make it 0600"),
    ] {
        machine.write(KEYS, content, mode);
        for more in [&[][..], &["--new-key"]] {
            let (code, told, log) = run(&machine, more);
            assert_eq!((code, told.as_str()), (Some(1), ""), "{words}: {log}");
            assert!(log.contains(words) && log.contains(KEYS), "{words:?} is not in {log}");
            assert_eq!((machine.read(KEYS).as_str(), machine.mode(KEYS)), (content, mode));
        }
    }
    // A place that cannot be a directory.
    machine.write("/etc/file", "", 0o644);
    let (code, told, log) = said(&machine.run("/fuxi-csi", &["node-id", "--plugin-dir", "/etc/file/plugin"], ""));
    assert_eq!((code, told.as_str()), (Some(1), ""), "{log}");
    assert!(log.contains("/etc/file/plugin"), "{log}");
}

#[test]
fn a_fact_that_cannot_be_is_refused_with_its_place() {
    let Some(machine) = host() else { return };
    for (path, content, words) in [
        ("/etc/iscsi/initiatorname.iscsi", "InitiatorName=bad name\n".to_owned(), "/etc/iscsi/initiatorname.iscsi"),
        ("/etc/nvme/hostnqn", "nqn.x,traddr=1.2.3.4\n".to_owned(), "/etc/nvme/hostnqn"),
        ("/proc/sys/kernel/hostname", "localhost\n".to_owned(), "--host-name"),
        (
            "/etc/iscsi/initiatorname.iscsi",
            format!("InitiatorName=iqn.2020-01.org.example:{}\n", "x".repeat(120)),
            "initiator name 144 bytes",
        ),
    ] {
        let before = machine.path(path).exists().then(|| machine.read(path));
        machine.write(path, content, 0o644);
        let (code, told, log) = run(&machine, &[]);
        assert_eq!((code, told.as_str()), (CONFIGURATION, ""), "{path}: {log}");
        assert!(log.contains(words), "{words:?} is not in {log}");
        match before {
            Some(before) => machine.write(path, before, 0o644),
            None => std::fs::remove_file(machine.path(path)).unwrap(),
        }
    }
    assert_eq!(run(&machine, &[]).0, Some(0));
}

#[test]
fn an_answer_that_cannot_be_written_is_a_failure() {
    let id = facts(PrivateKey::generate().public()).pack().unwrap().to_string();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_fuxi-csi"))
        .args(["node-id", "--decode", &id])
        .env_clear()
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let (code, _, log) = said(&output);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("write to standard output"), "{log}");
}
