//! What is hostile and what is wrong in a connection; and a login that nobody waits for any more.

use super::Iscsi;
use super::target::{Chap, Iqn, Target};
use crate::call::Call;
use crate::error::{Kind, Result};
use crate::exec::{Command, Exec, Output};
use crate::model::{AccessMode, Connection, Secrets};
use crate::node::connector::{Connector, Link};
use crate::node::device::Host;
use async_trait::async_trait;
use proptest::prelude::{any, proptest};
use serde_json::{Value, json};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};

fn link(data: Value) -> Link {
    Link {
        volume: "v".parse().unwrap(),
        connection: Connection { kind: "iscsi".to_owned(), data, size: None, read_only: false, sealed: None },
        secrets: Secrets::new(),
        mode: AccessMode::SingleNodeWriter,
        device: None,
    }
}

#[test]
fn single_and_plural_targets_are_read() {
    let single = json!({"target_portal": "10.0.0.1:3260", "target_iqn": "iqn.2010-10.org.openstack:volume-x", "target_lun": "1"});
    assert_eq!(
        Target::all(&link(single)).unwrap()[0].to_string(),
        "iqn.2010-10.org.openstack:volume-x at 10.0.0.1:3260"
    );
    let plural = json!({"target_portals": ["10.0.0.1:3260", "[fd00::1]:3260"], "target_iqns": ["iqn.x:a", "iqn.x:b"],
        "target_luns": [1, 300], "addressing_mode": "SAM2"});
    let all = Target::all(&link(plural)).unwrap();
    assert_eq!(all.iter().map(|target| target.lun.to_string()).collect::<Vec<_>>(), ["1", "16684"]);
}

#[test]
fn nonsense_is_refused_before_anything_is_done() {
    let good = json!({"target_portal": "10.0.0.1:3260", "target_iqn": "iqn.x:a", "target_lun": 1});
    let wrong = [
        ("target_portal", json!("host:3260")),
        ("target_portal", json!("10.0.0.1:3260,1")),
        ("target_iqn", json!("iqn.x:a/../../b")),
        ("target_iqn", json!("-o delete")),
        ("target_iqn", json!("iqn.x:a\nnode.startup = automatic")),
        ("target_lun", json!("0 - -")),
        ("target_lun", json!(-1)),
        ("target_lun", json!(null)),
        ("target_luns", json!([1, 2])),
        ("addressing_mode", json!("SAM9")),
    ];
    for (key, value) in wrong {
        let mut data = good.clone();
        data[key] = value;
        assert_eq!(Target::all(&link(data.clone())).unwrap_err().kind(), Kind::InvalidArgument, "{data}");
    }
}

#[test]
fn a_password_is_one_word_and_comes_as_a_secret() {
    let chap = |user: &str, password: Option<&str>| {
        let mut link = link(json!({"auth_method": "CHAP", "auth_username": user}));
        link.secrets.extend(password.map(|password| ("auth_password".to_owned(), password.into())));
        Chap::of(&link).map(|chap| chap.unwrap().user)
    };
    assert_eq!(chap("user", Some("secret")).unwrap(), "user");
    assert_eq!(chap("user", None).unwrap_err().kind(), Kind::WrongState);
    for password in ["", "two words", "line\nbreak", "x\u{7f}", "#comment"] {
        let error = chap("user", Some(password)).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument, "{password:?}");
        assert!(password.is_empty() || !error.to_string().contains(password), "{error}");
    }
    assert!(Chap::of(&link(json!({}))).unwrap().is_none());
    assert!(Chap::of(&link(json!({"auth_method": "KRB5", "auth_username": "u"}))).is_err());
}

proptest! {
    #[test]
    fn no_name_leaves_its_directory_or_begins_an_option(text in any::<String>(), tail in "[ -~]{0,40}") {
        for text in [text, format!("iqn.{tail}")] {
            if let Ok(iqn) = text.parse::<Iqn>() {
                assert!(!iqn.as_str().contains(['/', ' ', '\n', ',', '=']) && !iqn.as_str().starts_with('-'), "{iqn}");
            }
        }
    }
}

/// An iscsiadm whose login takes as long as the test wants.
#[derive(Debug)]
struct SlowLogin {
    has_begun: Notify,
    may_end: Semaphore,
    has_ended: AtomicBool,
}

#[async_trait]
impl Exec for SlowLogin {
    async fn run(&self, _call: &Call, command: Command) -> Result<Output> {
        if command.to_string().ends_with("--login") {
            self.has_begun.notify_one();
            self.may_end.acquire().await.unwrap().forget();
            self.has_ended.store(true, Ordering::SeqCst);
        }
        Ok(Output::of(&command, 0, "", ""))
    }

    fn finds(&self, _program: &str) -> bool {
        true
    }
}

#[tokio::test]
async fn a_login_that_began_goes_on_and_keeps_its_lock_whatever_happens_to_the_call() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for second_has_record in [true, false] {
        let root = tempfile::tempdir().unwrap();
        for iqn in ["iqn.x:a", "iqn.x:b"].iter().take(if second_has_record { 2 } else { 1 }) {
            let nodes = root.path().join("etc/iscsi/nodes").join(iqn);
            fs::create_dir_all(&nodes).unwrap();
            fs::write(nodes.join(format!("{},{}", address.ip(), address.port())), "# END RECORD\n").unwrap();
        }
        let exec = Arc::new(SlowLogin {
            has_begun: Notify::new(),
            may_end: Semaphore::new(0),
            has_ended: AtomicBool::new(false),
        });
        let connector = Iscsi::new(Host::below(root.path()), exec.clone());
        let portal = address.to_string();
        let link = link(json!({"target_portals": [portal, portal], "target_iqns": ["iqn.x:a", "iqn.x:b"],
            "target_luns": [1, 1]}));
        let targets = Target::all(&link).unwrap();
        let call = Call::lasting(Duration::from_secs(60));
        let connecting = tokio::spawn({
            let (connector, call) = (connector.clone(), call.clone());
            async move { connector.connect(&call, &link).await.unwrap_err().kind() }
        });
        exec.has_begun.notified().await;
        if second_has_record {
            call.gone().cancel();
        }
        let expected = if second_has_record { Kind::Deadline } else { Kind::WrongState };
        assert_eq!(connecting.await.unwrap(), expected);
        // What follows waits until the session is there, and ends it.
        let held = connector.hold(&Call::lasting(Duration::from_millis(50)), &targets).await;
        assert_eq!(held.unwrap_err().kind(), Kind::Deadline);
        exec.may_end.add_permits(targets.len());
        connector.hold(&Call::lasting(Duration::from_secs(60)), &targets).await.unwrap();
        assert!(exec.has_ended.load(Ordering::SeqCst));
    }
}
