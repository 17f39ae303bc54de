//! From where a share is mounted: one of its export locations, and what the node needs to know of it.

use super::client::Network;
use crate::error::{Error, Result};
use crate::openstack::manila::{ExportLocation, Protocol, Share};
use serde_json::{Value, json};
use std::net::IpAddr;

/// Chooses among the export locations of a share: one that is for users and whose address the node can reach, the
/// recommended ones first, else in the order of the service. `within` is where its server must be.
pub(super) fn choose(exports: &[ExportLocation], node: Option<IpAddr>, within: Option<Network>) -> Result<&str> {
    let for_users = exports.iter().filter(|export| !export.is_admin_only && !export.path.trim().is_empty());
    let mut reachable: Vec<&ExportLocation> = for_users
        .filter(|export| is_reachable(&export.path, node))
        .filter(|export| within.is_none_or(|within| is_within(&export.path, within)))
        .collect();
    reachable.sort_by_key(|export| !export.preferred);
    reachable.first().map(|export| export.path.trim()).ok_or_else(|| {
        let all: Vec<&str> = exports.iter().map(|export| export.path.as_str()).collect();
        let node = node.map_or_else(|| "no address".to_owned(), |node| node.to_string());
        let rule =
            if within.is_some() { " or matches nfs.matchExportLocationAddress of the runtime config" } else { "" };
        Error::wrong_state(format!(
            "none of the share's export locations can be reached from the node ({node}){rule}: {}",
            if all.is_empty() { "there are none".to_owned() } else { all.join(", ") }
        ))
    })
}

/// Whether an export has an address of the node's family; names are left to the node to resolve.
fn is_reachable(path: &str, node: Option<IpAddr>) -> bool {
    let Some(node) = node else { return true };
    let Some((servers, _)) = path.split_once(":/") else { return false };
    // CephFS has several monitors, each with a port.
    servers.split(',').any(|server| match address(server) {
        Some(server) => server.is_ipv4() == node.is_ipv4(),
        None => true,
    })
}

fn is_within(path: &str, within: Network) -> bool {
    let server = path.split_once(":/").and_then(|(server, _)| address(server));
    server.is_some_and(|server| within.holds(server))
}

fn address(server: &str) -> Option<IpAddr> {
    let server = server.trim();
    if let Some(bracketed) = server.strip_prefix('[') {
        return bracketed.split(']').next()?.parse().ok();
    }
    server.parse().ok().or_else(|| server.split(':').next()?.parse().ok())
}

/// What the node's connector needs for an export; `user` is the Ceph user.
pub(super) fn data(share: &Share, export: &str, user: &str) -> Result<Value> {
    let (server, path) = export
        .split_once(":/")
        .ok_or_else(|| Error::wrong_state(format!("the export location {export:?} is not of the form server:/path")))?;
    let path = format!("/{path}");
    Ok(match share.share_proto {
        Protocol::Cephfs => {
            let mut data = json!({"monitors": server, "path": path, "user": user});
            if let (Some(filesystem), Some(object)) = (share.mount_option("fs"), data.as_object_mut()) {
                object.insert("filesystem".to_owned(), json!(filesystem));
            }
            data
        }
        _ => json!({"server": server, "path": path}),
    })
}

#[cfg(test)]
mod tests {
    use super::{Network, choose, data};
    use crate::error::Kind;
    use crate::openstack::manila::{ExportLocation, Share};
    use proptest::prelude::{any, proptest};
    use serde_json::json;

    fn export(path: &str, preferred: bool, is_admin_only: bool) -> ExportLocation {
        ExportLocation { path: path.to_owned(), preferred, is_admin_only }
    }

    #[test]
    fn the_recommended_one_of_those_within_reach_is_chosen() {
        let all = [
            export("10.0.0.1:/admin", true, true),
            export("", true, false),
            export("[fd00::1]:/six", true, false),
            export("10.0.0.1:/plain", false, false),
            export("10.0.0.2:/good", true, false),
        ];
        let from = |node: &str| choose(&all, Some(node.parse().unwrap()), None).unwrap();
        assert_eq!(from("10.0.0.9"), "10.0.0.2:/good");
        assert_eq!(from("fd00::9"), "[fd00::1]:/six");
        assert_eq!(choose(&all, None, None).unwrap(), "[fd00::1]:/six");
        assert_eq!(
            choose(&[export("files.example:/a", false, false)], Some("::1".parse().unwrap()), None).unwrap(),
            "files.example:/a"
        );
        let error = choose(&all[..3], Some("10.0.0.9".parse().unwrap()), None).unwrap_err();
        assert_eq!(error.kind(), Kind::WrongState);
        assert!(error.to_string().contains("10.0.0.9") && error.to_string().contains("[fd00::1]:/six"), "{error}");
        assert!(choose(&[], None, None).unwrap_err().to_string().contains("there are none"));
    }

    #[test]
    fn where_an_operator_says_a_network_only_servers_in_it_are_used() {
        let all = [
            export("10.0.0.2:/good", true, false),
            export("10.9.0.2:/other", false, false),
            export("files:/name", true, false),
        ];
        let within = |text: &str| Network::parse(text);
        assert_eq!(choose(&all, None, within("10.9.0.0/16")).unwrap(), "10.9.0.2:/other");
        let error = choose(&all, None, within("10.8.0.1")).unwrap_err();
        assert!(error.is(Kind::WrongState) && error.to_string().contains("matchExportLocationAddress"), "{error}");
    }

    #[test]
    fn cephfs_is_mounted_from_its_monitors_as_the_nodes_user() {
        let share = |protocol: &str| -> Share {
            serde_json::from_value(json!({"id": "s", "status": "available", "share_proto": protocol,
                "metadata": {"__mount_options": "fs=cephfs"}}))
            .unwrap()
        };
        assert_eq!(
            data(&share("CEPHFS"), "10.0.0.1:6789,10.0.0.2:6789:/volumes/_nogroup/a/b", "csi-n").unwrap(),
            json!({"monitors": "10.0.0.1:6789,10.0.0.2:6789", "path": "/volumes/_nogroup/a/b", "user": "csi-n",
                "filesystem": "cephfs"})
        );
        assert_eq!(data(&share("NFS"), "[fd00::1]:/a", "").unwrap(), json!({"server": "[fd00::1]", "path": "/a"}));
        assert_eq!(data(&share("NFS"), "nonsense", "").unwrap_err().kind(), Kind::WrongState);
        assert!(
            choose(&[export("[fd00::1]:6789,[fd00::2]:6789:/v", false, false)], Some("::1".parse().unwrap()), None)
                .is_ok()
        );
    }

    proptest! {
        #[test]
        fn no_export_is_too_strange(path in any::<String>()) {
            let _ = choose(&[export(&path, false, false)], Some("10.0.0.1".parse().unwrap()), None);
        }
    }
}
