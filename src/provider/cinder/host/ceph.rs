//! What Cinder leaves out of connections to Ceph: the user's key, and the monitors' newer addresses.

use crate::model::{CephClient, Secrets};
use serde_json::{Map, Value};
use std::net::SocketAddr;

/// Cinder's `driver_volume_type`.
const KIND: &str = "rbd";

/// The name under which a node finds the key.
const KEYRING: &str = "keyring";

/// Completes a connection with what the operator configured; gives the secrets. Without a key the secret of the class may
/// have one, which only the node can see.
pub(super) fn complete(info: &mut Map<String, Value>, clients: &[CephClient]) -> Secrets {
    let text = |key: &str| info.get(key).and_then(Value::as_str);
    if !text("driver_volume_type").is_some_and(|kind| kind.eq_ignore_ascii_case(KIND)) {
        return Secrets::new();
    }
    // A cluster's id is its secret's, unless the operator of Cinder chose another one.
    let (user, fsid) = (text("auth_username"), text("secret_uuid"));
    let of_user = || clients.iter().filter(|client| Some(client.user.as_str()) == user);
    let exact = of_user()
        .find(|client| client.fsid.as_deref().is_some_and(|id| fsid.is_some_and(|is| is.eq_ignore_ascii_case(id))));
    let Some(client) = exact.or_else(|| of_user().find(|client| client.fsid.is_none())) else { return Secrets::new() };
    let monitors: Vec<SocketAddr> = client.monitors.iter().filter_map(|address| address.parse().ok()).collect();
    if !monitors.is_empty() {
        info.insert("hosts".to_owned(), monitors.iter().map(|address| address.ip().to_string()).collect());
        info.insert("ports".to_owned(), monitors.iter().map(|address| address.port().to_string()).collect());
    }
    if let Some(mode) = &client.ms_mode {
        info.insert("ms_mode".to_owned(), mode.clone().into());
    }
    client.key.iter().map(|key| (KEYRING.to_owned(), key.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::complete;
    use crate::model::{CephClient, Secrets};
    use secrecy::ExposeSecret;
    use serde_json::{Map, Value, json};

    const FSID: &str = "7c9e6679-7425-40de-944b-e07fc1f90ae7";

    fn client(user: &str, fsid: Option<&str>, key: &str) -> CephClient {
        CephClient {
            user: user.to_owned(),
            fsid: fsid.map(str::to_owned),
            key: Some(key.into()),
            monitors: Vec::new(),
            ms_mode: None,
        }
    }

    fn info() -> Map<String, Value> {
        json!({"driver_volume_type": "rbd", "name": "volumes/volume-1", "hosts": ["127.0.0.1"], "ports": ["6789"],
               "auth_username": "cinder", "secret_uuid": FSID})
        .as_object()
        .cloned()
        .unwrap()
    }

    fn key(secrets: &Secrets) -> Option<&str> {
        secrets.get("keyring").map(|key| key.expose_secret())
    }

    #[test]
    fn the_key_is_that_of_the_user_and_cluster() {
        let clients =
            [client("cinder", None, "any"), client("cinder", Some(FSID), "this"), client("x", Some(FSID), "no")];
        assert_eq!(key(&complete(&mut info(), &clients)), Some("this"));
        assert_eq!(key(&complete(&mut info(), &clients[..1])), Some("any"));
        assert_eq!(key(&complete(&mut info(), &clients[2..])), None);
        assert_eq!(key(&complete(&mut info(), &[client("cinder", Some("other"), "no")])), None);
        let mut other = json!({"driver_volume_type": "iscsi", "auth_username": "cinder"}).as_object().cloned().unwrap();
        assert_eq!(key(&complete(&mut other, &clients)), None);
    }

    #[test]
    fn monitors_of_the_operator_count_more() {
        let monitors = vec!["10.0.0.1:3300".to_owned(), "[fd00::1]:3300".to_owned()];
        let client = CephClient { monitors, ms_mode: Some("secure".to_owned()), ..client("cinder", None, "k") };
        let mut info = info();
        complete(&mut info, &[client]);
        assert_eq!(info["hosts"], json!(["10.0.0.1", "fd00::1"]));
        assert_eq!((&info["ports"], &info["ms_mode"]), (&json!(["3300", "3300"]), &json!("secure")));
    }
}
