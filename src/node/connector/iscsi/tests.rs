//! What is hostile and what is wrong in a connection.

use super::target::{Chap, Iqn, Target};
use crate::error::Kind;
use crate::model::{AccessMode, Connection, Secrets};
use crate::node::connector::Link;
use proptest::prelude::{any, proptest};
use serde_json::{Value, json};

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
