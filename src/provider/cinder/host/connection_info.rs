//! From Cinder's `connection_info` to what a node is told: without what nobody needs there, and with every secret sealed.
//!
//! What a secret is, its name says: Cinder has no other mark, and third parties add fields of their own. A name that only
//! looks like one costs nothing but a few bytes.

use crate::error::{Error, Result};
use crate::initiator::Initiator;
use crate::model::{Bytes, Connection, Secrets, VolumeId};
use crate::seal::{Binding, seal};
use serde_json::{Map, Value};

/// Fields that say nothing about the way to the volume, or that are said elsewhere.
const NOISE: [&str; 9] = [
    "access_mode",
    "attachment_id",
    "cacheable",
    "driver_volume_type",
    "encrypted",
    "qos_specs",
    "target_discovered",
    "volume_id",
    "backing_file",
];

/// Parts of names of secrets, and names that have one without being one.
const SECRET_WORDS: [&str; 6] = ["password", "passwd", "secret", "keyring", "token", "private_key"];
const NO_SECRETS: [&str; 2] = ["secret_type", "secret_uuid"];

/// The plural fields of targets, and the singular ones that repeat their first entry.
const PLURALS: [(&str, &str); 4] = [
    ("target_portals", "target_portal"),
    ("target_iqns", "target_iqn"),
    ("target_luns", "target_lun"),
    ("target_wwns", "target_wwn"),
];

/// What a node is told.
pub(super) struct Told<'a> {
    pub(super) volume: &'a VolumeId,
    pub(super) host: &'a Initiator,
    pub(super) size: Bytes,
    pub(super) read_only: bool,
    /// Secrets that Cinder does not send.
    pub(super) more_secrets: Secrets,
}

impl Told<'_> {
    /// Makes a connection of what Cinder said.
    ///
    /// # Errors
    /// `Internal`: it is not what Cinder says, or too large for CSI. `Unsupported`: the volume is encrypted.
    pub(super) fn about(self, mut info: Map<String, Value>) -> Result<Connection> {
        // Some drivers and the older API have the fields one level deeper.
        if let Some(Value::Object(data)) = info.remove("data") {
            info.extend(data);
        }
        let kind = match info.get("driver_volume_type") {
            Some(Value::String(kind)) if !kind.is_empty() => kind.to_ascii_lowercase(),
            _ => return Err(Error::internal("Cinder's connection_info has no driver_volume_type")),
        };
        if info.get("encrypted").and_then(Value::as_bool).unwrap_or_default() {
            return Err(Error::unsupported(
                "the volume is of an encrypted type: hosts that are no instances of Nova would see its ciphertext only; use \
                 another volume type",
            ));
        }
        let mut secrets = self.more_secrets;
        take_secrets(&mut info, "", &mut secrets);
        compact(&mut info, self.host);
        let sealed = if secrets.is_empty() {
            None
        } else {
            let binding = Binding { volume: self.volume, host: &self.host.host };
            Some(seal(&self.host.public_key, binding, &secrets)?)
        };
        let connection =
            Connection { kind, data: Value::Object(info), size: Some(self.size), read_only: self.read_only, sealed };
        // What does not fit must be found out before the attachment is complete.
        connection.to_context()?;
        Ok(connection)
    }
}

/// Moves every secret out, by its path: `auth_password`, or `nodes/0/password` where it is deeper.
fn take_secrets(object: &mut Map<String, Value>, path: &str, secrets: &mut Secrets) {
    object.retain(|name, value| {
        let path = format!("{path}{name}");
        match value {
            Value::String(text) if is_secret(name) => {
                secrets.insert(path, std::mem::take(text).into());
                false
            }
            other => {
                take_secrets_within(other, &path, secrets);
                true
            }
        }
    });
}

fn take_secrets_within(value: &mut Value, path: &str, secrets: &mut Secrets) {
    match value {
        Value::Object(object) => take_secrets(object, &format!("{path}/"), secrets),
        Value::Array(values) => {
            for (at, value) in values.iter_mut().enumerate() {
                take_secrets_within(value, &format!("{path}/{at}"), secrets);
            }
        }
        _ => {}
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    !NO_SECRETS.contains(&name.as_str()) && SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// Leaves out what the node does not need.
fn compact(info: &mut Map<String, Value>, host: &Initiator) {
    info.retain(|name, value| !NOISE.contains(&name.as_str()) && !value.is_null());
    for (plural, singular) in PLURALS {
        if info.get(plural).and_then(Value::as_array).is_some_and(|values| !values.is_empty()) {
            info.remove(singular);
        }
    }
    // Of the zoning, only what concerns the node's own ports.
    if let Some(Value::Object(map)) = info.get_mut("initiator_target_map") {
        map.retain(|port, _| {
            crate::initiator::Wwn::parse(&port.replace(':', "")).is_none_or(|port| host.wwpns.contains(&port))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::Told;
    use crate::error::{Kind, Result};
    use crate::initiator::{Initiator, Wwn};
    use crate::model::{Bytes, Connection, Secrets};
    use crate::seal::{Binding, PrivateKey, open};
    use proptest::prelude::proptest;
    use secrecy::ExposeSecret;
    use serde_json::{Map, Value, json};

    fn host(key: &PrivateKey) -> Initiator {
        Initiator {
            public_key: key.public(),
            host: "n1".to_owned(),
            ip: None,
            iqn: None,
            nqn: None,
            nvme_host_id: None,
            wwpns: vec![Wwn::parse("10000000c9a1b2c3").unwrap()],
            wwnns: Vec::new(),
            multipath: false,
            system_uuid: None,
        }
    }

    fn told(key: &PrivateKey, info: &Value, more: Secrets) -> Result<Connection> {
        let told = Told {
            volume: &"v".parse().unwrap(),
            host: &host(key),
            size: Bytes::from_gib(1).unwrap(),
            read_only: false,
            more_secrets: more,
        };
        told.about(info.as_object().cloned().unwrap_or_else(Map::new))
    }

    #[test]
    fn secrets_travel_sealed_and_noise_not_at_all() {
        let key = PrivateKey::generate();
        let info = json!({
            "driver_volume_type": "iSCSI", "target_portal": "10.0.0.1:3260", "target_iqn": "iqn.x", "target_lun": 1,
            "target_portals": ["10.0.0.1:3260", "10.0.1.1:3260"], "target_iqns": ["iqn.x", "iqn.x"], "target_luns": [1, 1],
            "auth_method": "CHAP", "auth_username": "u", "auth_password": "geheim", "encrypted": false, "qos_specs": null,
            "access_mode": "rw", "attachment_id": "a", "volume_id": "v", "cacheable": false, "enforce_multipath": false,
            "nodes": [{"ip": "1", "apiToken": "auch geheim"}],
        });
        let connection = told(&key, &info, Secrets::from([("keyring".to_owned(), "K==".into())])).unwrap();
        assert_eq!(connection.kind, "iscsi");
        assert_eq!(
            connection.data,
            json!({"target_portals": ["10.0.0.1:3260", "10.0.1.1:3260"], "target_iqns": ["iqn.x", "iqn.x"],
                   "target_luns": [1, 1], "auth_method": "CHAP", "auth_username": "u", "enforce_multipath": false,
                   "nodes": [{"ip": "1"}]})
        );
        let text = format!("{:?}", connection.to_context().unwrap());
        assert!(!text.contains("geheim") && !text.contains("K=="), "{text}");
        let volume = "v".parse().unwrap();
        let opened =
            open(&[key], Binding { volume: &volume, host: "n1" }, connection.sealed.as_deref().unwrap()).unwrap();
        let opened: Vec<_> = opened.iter().map(|(name, value)| (name.as_str(), value.expose_secret())).collect();
        let expected = [("auth_password", "geheim"), ("keyring", "K=="), ("nodes/0/apiToken", "auch geheim")];
        assert_eq!(opened, expected);
    }

    #[test]
    fn only_the_zoning_of_the_nodes_own_ports_is_kept() {
        let info = json!({"driver_volume_type": "fibre_channel", "target_wwn": ["5001"], "target_lun": 2,
            "initiator_target_map": {"10:00:00:00:c9:a1:b2:c3": ["5001"], "10000000c9ffffff": ["5002"]}});
        let connection = told(&PrivateKey::generate(), &info, Secrets::new()).unwrap();
        assert_eq!(connection.data["initiator_target_map"], json!({"10:00:00:00:c9:a1:b2:c3": ["5001"]}));
        assert_eq!(connection.sealed, None);
    }

    #[test]
    fn what_a_node_cannot_use_is_refused() {
        let key = PrivateKey::generate();
        let refused = |info: Value| told(&key, &info, Secrets::new()).unwrap_err().kind();
        assert_eq!(refused(json!({})), Kind::Internal);
        assert_eq!(refused(json!({"driver_volume_type": 7})), Kind::Internal);
        assert_eq!(refused(json!({"driver_volume_type": "rbd", "encrypted": true})), Kind::Unsupported);
        let large = json!({"driver_volume_type": "iscsi", "target_iqns": ["x".repeat(5000)]});
        assert_eq!(refused(large), Kind::Internal);
    }

    #[test]
    fn the_nested_form_is_understood() {
        let info = json!({"driver_volume_type": "local", "data": {"device_path": "/dev/loop1", "encrypted": false}});
        let connection = told(&PrivateKey::generate(), &info, Secrets::new()).unwrap();
        assert_eq!(connection.data, json!({"device_path": "/dev/loop1"}));
    }

    proptest! {
        #[test]
        fn no_password_is_ever_in_the_clear(name in "[a-zA-Z_]{0,8}[pP]assword[a-zA-Z_]{0,8}", deep in 0_usize..4) {
            let mut info = json!({ name: "geheim" });
            for level in 0..deep {
                info = if level % 2 == 0 { json!({"list": [info]}) } else { json!({"object": info}) };
            }
            let mut info = info.as_object().cloned().unwrap();
            info.insert("driver_volume_type".to_owned(), json!("x"));
            let connection = told(&PrivateKey::generate(), &Value::Object(info), Secrets::new()).unwrap();
            assert!(!connection.data.to_string().contains("geheim"));
            assert!(connection.sealed.is_some());
        }
    }
}
