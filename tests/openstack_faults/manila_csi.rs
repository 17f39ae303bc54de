//! In the place of manila-csi 1.36: its PersistentVolumes, written by hand and not, its classes, secrets and runtime
//! config.

use crate::driver::{Driver, Setup};
use crate::manila::node;
use crate::proto;
use crate::sidecar::{Sidecar, create_request, mounted};
use crate::standin::Standin;
use std::collections::BTreeMap;
use tonic::{Code, Status};

const NAME: &str = "nfs.manila.csi.openstack.org";

fn setup(more: &[&str]) -> Setup {
    let arguments = ["--driver-name", NAME].iter().chain(more).map(|argument| (*argument).to_owned()).collect();
    Setup { provider: Some("manila"), arguments, ..Setup::default() }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// ControllerPublishVolume with what the PersistentVolume says.
async fn publish(
    driver: &Driver,
    handle: &str,
    node: &str,
    context: &[(&str, &str)],
) -> Result<BTreeMap<String, String>, Status> {
    let request = proto::ControllerPublishVolumeRequest {
        volume_id: handle.to_owned(),
        node_id: node.to_owned(),
        volume_capability: Some(mounted()),
        volume_context: map(context),
        ..Default::default()
    };
    Ok(driver.controller().controller_publish_volume(request).await?.into_inner().publish_context)
}

fn let_in(standin: &Standin) -> Vec<String> {
    standin.cloud(|cloud| cloud.manila.rules.iter().map(|rule| rule.to.clone()).collect())
}

fn add_share(standin: &Standin, name: &str) -> String {
    standin.cloud(|cloud| {
        let now = cloud.stamp();
        cloud.manila.add_share(name, now)
    })
}

fn metadata_of(standin: &Standin, share: &str) -> serde_json::Value {
    standin.cloud(|cloud| cloud.manila.shares.iter().find(|one| one.id == share).unwrap().metadata.clone())
}

#[tokio::test]
async fn a_volume_written_by_hand_is_the_share_that_its_context_names_whatever_its_handle() {
    let standin = Standin::start();
    let driver = Driver::start_with(&standin, setup(&[])).await;
    let sidecar = Sidecar::new(&driver);
    let share = add_share(&standin, "by-hand");
    let (one, two) = (node(1), node(2));
    let uuid = "0f8fad5b-d9cb-469f-a165-70867728950e";
    for handle in ["my-data", "default/my-data", uuid] {
        for context in [[("shareID", share.as_str())], [("shareName", "by-hand")]] {
            let said = publish(&driver, handle, &one, &context).await.unwrap();
            assert!(said["data"].contains(&share), "{said:?}");
            assert_eq!(publish(&driver, handle, &one, &context).await.unwrap(), said, "the same again");
            publish(&driver, handle, &two, &context).await.unwrap();
            assert_eq!(let_in(&standin), ["10.0.0.1", "10.0.0.2"]);
            if handle != uuid {
                assert_eq!(sidecar.get(handle).await.unwrap().volume.unwrap().volume_id, handle);
            }
            sidecar.unpublish(handle, &one).await.unwrap();
            assert_eq!(let_in(&standin), ["10.0.0.2"]);
            sidecar.unpublish(handle, &one).await.unwrap();
            sidecar.unpublish(handle, &two).await.unwrap();
            sidecar.unpublish(handle, &two).await.unwrap();
            assert!(let_in(&standin).is_empty());
            assert_eq!(metadata_of(&standin, &share), serde_json::json!({}), "{handle}: nothing is left in the share");
        }
    }
    sidecar.delete("my-data").await.unwrap();
    assert_eq!(standin.cloud(|cloud| cloud.manila.shares.len()), 1, "as with manila-csi, such a share stays");
}

#[tokio::test]
async fn a_volume_written_by_hand_grows_and_has_snapshots_while_it_is_published() {
    let standin = Standin::start();
    let driver = Driver::start_with(&standin, setup(&[])).await;
    let sidecar = Sidecar::new(&driver);
    let share = add_share(&standin, "by-hand");
    let one = node(1);
    publish(&driver, "my-data", &one, &[("shareID", &share)]).await.unwrap();
    assert_eq!(sidecar.expand("my-data", 2).await.unwrap(), 2 << 30);
    let snapshot = sidecar.snapshot("s", "my-data", false).await.unwrap();
    assert_eq!(snapshot.source_volume_id, "my-data");
    sidecar.delete_snapshot(&snapshot.snapshot_id).await.unwrap();
    sidecar.unpublish("my-data", "").await.unwrap();
    sidecar.unpublish("my-data", &one).await.unwrap();
    assert_eq!(sidecar.expand("my-data", 3).await.unwrap_err().code(), Code::NotFound, "nothing says what it is");
}

#[tokio::test]
async fn what_a_volume_written_by_hand_says_wrong_is_named() {
    let standin = Standin::start();
    let driver = Driver::start_with(&standin, setup(&[])).await;
    for _ in 0..2 {
        add_share(&standin, "twice");
    }
    let missing = "0f8fad5b-d9cb-469f-a165-70867728950e";
    for (context, code, words) in [
        (&[("shareID", missing), ("shareName", "twice")][..], Code::InvalidArgument, "exclude each other"),
        (&[("shareID", "my-share")], Code::InvalidArgument, "no id of a share"),
        (&[("shareID", missing)], Code::NotFound, missing),
        (&[("shareName", "nowhere")], Code::NotFound, "nowhere"),
        (&[("shareName", "twice")], Code::FailedPrecondition, "shareID instead"),
        (&[], Code::NotFound, "my-data"),
    ] {
        let error = publish(&driver, "my-data", &node(1), context).await.unwrap_err();
        assert_eq!(error.code(), code, "{context:?}: {error}");
        assert!(error.message().contains(words), "{context:?}: {error}");
    }
    assert!(let_in(&standin).is_empty());
}

#[tokio::test]
async fn volumes_that_are_the_same_share_share_its_rule_until_the_last_leaves() {
    let standin = Standin::start();
    let driver = Driver::start_with(&standin, setup(&[])).await;
    let sidecar = Sidecar::new(&driver);
    let share = sidecar.create("pvc-1", 1).await.unwrap().volume_id;
    let node = node(1);
    publish(&driver, &share, &node, &[]).await.unwrap();
    publish(&driver, "alias", &node, &[("shareID", &share)]).await.unwrap();
    publish(&driver, "other", &node, &[("shareID", &share)]).await.unwrap();
    assert_eq!(let_in(&standin), ["10.0.0.1"]);
    sidecar.unpublish(&share, &node).await.unwrap();
    sidecar.unpublish(&share, &node).await.unwrap();
    assert_eq!(let_in(&standin), ["10.0.0.1"], "two others need it");
    sidecar.unpublish("alias", &node).await.unwrap();
    assert_eq!(let_in(&standin), ["10.0.0.1"], "one other needs it");
    sidecar.unpublish("other", &node).await.unwrap();
    assert!(let_in(&standin).is_empty());
}

#[tokio::test]
async fn a_volume_that_manila_csi_made_gets_rules_of_its_own_and_keeps_the_old_one() {
    let standin = Standin::start();
    let driver = Driver::start_with(&standin, setup(&[])).await;
    let sidecar = Sidecar::new(&driver);
    let share = add_share(&standin, "pvc-old");
    standin.cloud(|cloud| cloud.manila.add_rule(&share, "0.0.0.0/0"));
    let rule = standin.cloud(|cloud| cloud.manila.rules[0].id.clone());
    let context = [
        ("shareID", share.as_str()),
        ("shareAccessIDs", rule.as_str()),
        ("cephfs-mounter", "fuse"),
        ("storage.kubernetes.io/csiProvisionerIdentity", "1-2-nfs.manila.csi.openstack.org"),
    ];
    let one = node(1);
    let said = publish(&driver, &share, &one, &context).await.unwrap();
    assert!(said["data"].contains(&share));
    assert_eq!(let_in(&standin), ["0.0.0.0/0", "10.0.0.1"]);
    assert_eq!(metadata_of(&standin, &share), serde_json::json!({}), "its handle says the share");
    sidecar.unpublish(&share, &one).await.unwrap();
    assert_eq!(let_in(&standin), ["0.0.0.0/0"]);
    assert_eq!(sidecar.expand(&share, 2).await.unwrap(), 2 << 30);
    sidecar.delete(&share).await.unwrap();
}

#[tokio::test]
async fn a_class_that_opens_shares_to_networks_gets_one_rule_for_all_nodes() {
    let standin = Standin::start();
    let driver = Driver::start_with(&standin, setup(&[])).await;
    let sidecar = Sidecar::new(&driver);
    let parameters = map(&[("type", "default"), ("nfs-shareClient", "192.168.0.0/16,10.0.0.0/24"), ("colour", "red")]);
    let request = proto::CreateVolumeRequest { parameters, ..create_request("pvc-1", 1) };
    let volume = sidecar.create_as(request).await.unwrap();
    assert_eq!(volume.volume_context.get("shareID"), Some(&volume.volume_id));
    for number in [1, 2] {
        publish(&driver, &volume.volume_id, &node(number), &[]).await.unwrap();
    }
    assert_eq!(let_in(&standin), ["10.0.0.0/24"], "the one of the networks in which the nodes are");
    sidecar.unpublish(&volume.volume_id, &node(1)).await.unwrap();
    assert_eq!(let_in(&standin), ["10.0.0.0/24"], "it lives as long as the share");
    sidecar.delete(&volume.volume_id).await.unwrap();
}

#[tokio::test]
async fn secrets_with_credentials_are_for_the_configured_account_or_refused() {
    let standin = Standin::start();
    let driver = Driver::start_with(&standin, setup(&[])).await;
    let sidecar = Sidecar::new(&driver);
    let url = standin.auth_url();
    let create = |name: &str, more: &[(&str, &str)]| {
        let mut secrets = map(&[("os-authURL", &url), ("os-userName", "u"), ("os-password", "geheim")]);
        secrets.extend(map(more));
        sidecar.create_as(proto::CreateVolumeRequest { secrets, ..create_request(name, 1) })
    };
    create("pvc-1", &[]).await.unwrap();
    create("pvc-2", &[("os-projectName", "demo")]).await.unwrap();
    for wrong in [("os-projectName", "other"), ("os-authURL", "http://127.0.0.1:1/v3")] {
        let error = create("pvc-3", &[wrong]).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.message().contains(wrong.1) && !error.message().contains("geheim"), "{error}");
    }
    assert!(!driver.log().contains("geheim"));
}

#[tokio::test]
async fn the_runtime_config_says_which_export_is_used_and_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("runtime-config.json");
    let standin = Standin::start();
    let driver = Driver::start_with(&standin, setup(&["--runtime-config-file", file.to_str().unwrap()])).await;
    let sidecar = Sidecar::new(&driver);
    let share = sidecar.create("pvc-1", 1).await.unwrap().volume_id;
    let server = async |network: Option<&str>| {
        if let Some(network) = network {
            std::fs::write(&file, format!("{{\"nfs\": {{\"matchExportLocationAddress\": \"{network}\"}}}}")).unwrap();
        }
        let said = publish(&driver, &share, &node(1), &[]).await?;
        let data: serde_json::Value = serde_json::from_str(&said["data"]).unwrap();
        Ok::<_, Status>(data["server"].as_str().unwrap().to_owned())
    };
    assert_eq!(server(None).await.unwrap(), "127.0.0.1", "a file that is not there says nothing");
    assert_eq!(server(Some("10.9.0.0/16")).await.unwrap(), "10.9.0.1");
    assert_eq!(server(Some("127.0.0.1")).await.unwrap(), "127.0.0.1");
    for (network, words) in [("10.8.0.0/16", "matchExportLocationAddress"), ("nonsense", "nonsense")] {
        let error = server(Some(network)).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
        assert!(error.message().contains(words), "{error}");
    }
}

#[tokio::test]
async fn under_the_name_of_cephfs_shares_are_of_cephfs_and_each_node_has_a_ceph_user() {
    let standin = Standin::start();
    let arguments = vec!["--driver-name".to_owned(), "cephfs.manila.csi.openstack.org".to_owned()];
    let setup = Setup { provider: Some("manila"), arguments, ..Setup::default() };
    let driver = Driver::start_with(&standin, setup).await;
    let parameters = map(&[("cephfs-clientID", "one,two"), ("cephfs-mounter", "kernel")]);
    let request = proto::CreateVolumeRequest { parameters, ..create_request("pvc-1", 1) };
    let volume = Sidecar::new(&driver).create_as(request).await.unwrap();
    let said = publish(&driver, &volume.volume_id, &node(1), &[]).await.unwrap();
    assert_eq!(said.get("kind").map(String::as_str), Some("cephfs"));
    assert!(!format!("{said:?}").contains("QVFCZ2VoZWlt"), "the key travels sealed");
    let user = let_in(&standin).remove(0);
    assert!(user.starts_with("csi-node-1-"), "not the user that the class says: {user}");
}
