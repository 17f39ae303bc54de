//! What is hostile, what is wrong, and what the kernel is told.

use super::NvmeOverFabrics;
use super::opening::instance;
use super::target::{NamespaceId, Nqn, Target, Transport};
use crate::call::Call;
use crate::error::Kind;
use crate::exec::SystemExec;
use crate::model::{AccessMode, Connection, Secrets};
use crate::node::connector::{Connector, Link};
use crate::node::device::Host;
use proptest::prelude::{any, proptest};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const UUID: &str = "86F7E437-faa5-47fc-815d-1ddcb9eaeaea";

fn link(data: Value) -> Link {
    Link {
        volume: "v".parse().unwrap(),
        connection: Connection { kind: "nvmeof".to_owned(), data, size: None, read_only: false, sealed: None },
        secrets: Secrets::new(),
        mode: AccessMode::SingleNodeWriter,
        device: None,
    }
}

#[test]
fn both_forms_of_a_connection_are_read() {
    let v1 = json!({"nqn": "nqn.2014-08.org:x", "target_portal": "10.0.0.1", "target_port": "4420",
        "transport_type": "RoCEv2", "ns_id": "10", "volume_nguid": null});
    let target = Target::of(&link(v1)).unwrap();
    assert_eq!(target.namespace, NamespaceId::Number(10));
    assert_eq!(
        (target.paths[0].transport, target.paths[0].portal.to_string()),
        (Transport::Rdma, "10.0.0.1:4420".to_owned())
    );
    let v2 = json!({"target_nqn": "nqn.2014-08.org:x", "vol_uuid": UUID, "ns_id": 3,
        "portals": [["[fd00::1]", 4420, "tcp"], ["10.0.0.1", "8009", "NVMe/TCP"], ["10.0.0.1", 8009, "tcp"]]});
    let target = Target::of(&link(v2)).unwrap();
    assert_eq!(target.paths.len(), 2, "the same way twice is one");
    assert!(matches!(target.namespace, NamespaceId::Uuid(id) if id.to_string() == "86f7e437faa547fc815d1ddcb9eaeaea"));
}

#[test]
fn nonsense_is_refused_before_anything_is_done() {
    let good = json!({"target_nqn": "nqn.2014-08.org:x", "vol_uuid": UUID, "portals": [["10.0.0.1", 4420, "tcp"]]});
    assert!(Target::of(&link(good.clone())).is_ok());
    let wrong = [
        ("target_nqn", json!("nqn.x,hostnqn=nqn.other")),
        ("target_nqn", json!("nqn.x\n")),
        ("target_nqn", json!("nqn.x y")),
        ("target_nqn", json!(null)),
        ("target_nqn", json!(["nqn.x"])),
        ("portals", json!([["10.0.0.1,host_traddr=1.2.3.4", 4420, "tcp"]])),
        ("portals", json!([["10.0.0.1", 0, "tcp"]])),
        ("portals", json!([["10.0.0.1", 65536, "tcp"]])),
        ("portals", json!([["10.0.0.1", 4420, "fc"]])),
        ("portals", json!([["10.0.0.1", 4420]])),
        ("portals", json!("10.0.0.1")),
        ("vol_uuid", json!("00000000-0000-0000-0000-000000000000")),
        ("vol_uuid", json!("86f7e437")),
        ("host_nqn", json!("nqn.x,y")),
    ];
    for (key, value) in wrong {
        let mut data = good.clone();
        data[key] = value;
        assert_eq!(Target::of(&link(data.clone())).unwrap_err().kind(), Kind::InvalidArgument, "{data}");
    }
    let mut nameless = good.clone();
    nameless["vol_uuid"] = json!(null);
    for number in [json!(null), json!(0), json!(-1), json!(u32::MAX)] {
        nameless["ns_id"] = number;
        assert_eq!(Target::of(&link(nameless.clone())).unwrap_err().kind(), Kind::InvalidArgument, "{nameless}");
    }
    let mut replicated = good;
    replicated["volume_replicas"] = json!([{"target_nqn": "nqn.x"}]);
    assert_eq!(Target::of(&link(replicated)).unwrap_err().kind(), Kind::Unsupported);
}

proptest! {
    #[test]
    fn no_name_begins_another_option(text in any::<String>(), tail in "[ -~]{0,40}") {
        for text in [text, format!("nqn.{tail}")] {
            if let Ok(nqn) = text.parse::<Nqn>() {
                assert!(!nqn.as_str().contains([',', '=', ' ', '\n', '\t', '"']), "{nqn}");
            }
        }
    }
}

#[tokio::test]
async fn a_host_without_a_name_and_one_with_another_name_are_told_so() {
    let root = tempfile::tempdir().unwrap();
    let connector = NvmeOverFabrics::new(Host::below(root.path()), Arc::new(SystemExec::new(["/nowhere"])));
    let call = Call::lasting(Duration::from_secs(20));
    let mut data = json!({"nqn": "nqn.2014-08.org:x", "target_portal": "127.0.0.1", "ns_id": 1});
    let error = connector.connect(&call, &link(data.clone())).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState);
    assert!(error.to_string().contains("/etc/nvme/hostnqn"), "{error}");

    std::fs::create_dir_all(root.path().join("etc/nvme")).unwrap();
    std::fs::write(root.path().join("etc/nvme/hostnqn"), "nqn.2014-08.org.nvmexpress:uuid:mine\n").unwrap();
    std::fs::write(root.path().join("etc/nvme/hostid"), format!("{UUID}\n")).unwrap();
    data["host_nqn"] = json!("nqn.2014-08.org.nvmexpress:uuid:other");
    let error = connector.connect(&call, &link(data)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongState);
    assert!(error.to_string().contains("uuid:other"), "{error}");
}

#[test]
fn the_number_of_a_new_controller_is_read() {
    assert_eq!(instance("instance=3,cntlid=1"), Some(3));
    assert_eq!(instance("cntlid=1"), None);
    assert_eq!(instance("instance=-1"), None);
}
