//! Connections that cannot be made, as they come in a `publish_context`: nothing is done with them, and nothing left.

use crate::machine::{Kernel, Machine};
use crate::plugin::{Plugin, Volume};
use serde_json::{Value, json};
use std::net::TcpListener;
use tonic::Code;

#[tokio::test]
async fn a_host_program_that_is_missing_is_named_with_where_it_was_looked_for() {
    let Some(machine) = Machine::new(Kernel::Host) else { return };
    let plugin = Plugin::start(machine.without("iscsiadm"), &[]).await;
    // A portal that answers: what is missing is on this side.
    let portal = TcpListener::bind("127.0.0.1:0").unwrap();
    let data = json!({
        "target_portal": portal.local_addr().unwrap().to_string(), "target_iqn": "iqn.2010-10.org.openstack:volume-1",
        "target_lun": 1,
    });
    for _ in 0..2 {
        let answer = plugin.stage(&Volume::of("iscsi", data.clone())).await;
        let words = ["program iscsiadm is not on this node", "/usr/sbin", "install it"];
        plugin.assert_refused("no iscsiadm", answer, Code::FailedPrecondition, &words);
    }
}

#[tokio::test]
async fn a_portal_that_nobody_serves_may_be_served_later() {
    let Some(machine) = Machine::new(Kernel::Host) else { return };
    let plugin = Plugin::start(machine, &[]).await;
    // Bound and not listened at, so nobody else gets it.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let portal = socket.local_addr().unwrap().to_string();
    let data = json!({
        "target_portal": portal, "target_iqn": "iqn.2010-10.org.openstack:volume-1", "target_lun": 1,
    });
    let answer = plugin.stage(&Volume::of("iscsi", data)).await;
    plugin.assert_refused("no portal", answer, Code::Unavailable, &[&portal, "iqn.2010-10.org.openstack:volume-1"]);
}

#[tokio::test]
async fn data_that_could_be_anything_else_in_a_path_or_a_command_are_refused() {
    let Some(machine) = Machine::new(Kernel::Host) else { return };
    let plugin = Plugin::start(machine, &[]).await;
    let with = |mut good: Value, key: &str, value: Value| {
        good[key] = value;
        good
    };
    let iscsi = |key: &str, value: Value| {
        let good =
            json!({"target_portal": "127.0.0.1:3260", "target_iqn": "iqn.2010-10.org.openstack:v", "target_lun": 1});
        with(good, key, value)
    };
    let nvmeof = |key: &str, value: Value| {
        let good = json!({
            "target_nqn": "nqn.2014-08.org.example:v", "portals": [["127.0.0.1", 4420, "tcp"]], "vol_uuid": null,
            "ns_id": 1,
        });
        with(good, key, value)
    };
    let rbd = |key: &str, value: Value| {
        let good = json!({
            "name": "volumes/volume-1", "hosts": ["127.0.0.1"], "ports": ["6789"], "auth_username": "cinder",
            "auth_enabled": true, "cluster_name": "ceph",
        });
        with(good, key, value)
    };
    for (kind, data, field) in [
        ("iscsi", iscsi("target_iqn", json!("iqn.x\nnode.startup = automatic")), "target_iqn"),
        ("iscsi", iscsi("target_iqn", json!("iqn.x/../../y")), "target_iqn"),
        ("iscsi", iscsi("target_portal", json!("127.0.0.1:3260 --op delete")), "target_portal"),
        ("iscsi", iscsi("target_lun", json!(-1)), "target_lun"),
        ("iscsi", iscsi("target_luns", json!([1, 2])), "target_portals"),
        ("iscsi", iscsi("auth_method", json!("magic")), "auth_method"),
        ("iscsi", json!({}), "target_portal"),
        ("nvmeof", nvmeof("target_nqn", json!("nqn.x,hostnqn=nqn.y")), "target_nqn"),
        ("nvmeof", nvmeof("portals", json!([["127.0.0.1,trsvcid=1", 4420, "tcp"]])), "portals"),
        ("nvmeof", json!({}), "nqn of the nvmeof connection is missing"),
        ("rbd", rbd("name", json!("volumes/volume-1 noshare")), "name"),
        ("rbd", rbd("hosts", json!(["127.0.0.1,secret=x"])), "hosts"),
        ("local", json!({"device_path": "/etc/passwd"}), "device_path"),
        ("local", json!({"device_path": "/dev/../etc/passwd"}), "device_path"),
        ("local", json!({}), "device_path"),
        ("fibre_channel", json!({"target_wwn": ["not a name"], "target_lun": 1}), "target_wwn"),
    ] {
        let about = format!("{kind} {data}");
        plugin.assert_refused(&about, plugin.stage(&Volume::of(kind, data)).await, Code::InvalidArgument, &[field]);
    }
}

#[tokio::test]
async fn a_context_that_no_controller_writes_is_refused() {
    let Some(machine) = Machine::new(Kernel::Host) else { return };
    let plugin = Plugin::start(machine, &[]).await;
    let local = ("kind", "local");
    for (context, code, words) in [
        (&[local, ("data", "{")][..], Code::InvalidArgument, "publish_context: data is not JSON"),
        (&[local, ("data", "[]")], Code::InvalidArgument, "device_path"),
        (&[local, ("size", "-1")], Code::InvalidArgument, "publish_context: size is not a number of bytes"),
        (&[local, ("readOnly", "maybe")], Code::InvalidArgument, "publish_context: readOnly is \"maybe\""),
        (&[local, ("sealed", "nonsense")], Code::InvalidArgument, "sealed"),
        // A disk of a Nova server, on a host: cinder-csi left it, or the controller took this host for one.
        (&[("DevicePath", "/dev/vdb")], Code::Unimplemented, "no connector for connections of kind \"nova\""),
        (&[("kind", "nfs"), ("data", "{}")], Code::Unimplemented, "no connector for connections of kind \"nfs\""),
    ] {
        plugin.assert_refused(words, plugin.stage_with(context).await, code, &[words]);
    }
}
