use super::super::metadata::MetadataSource;
use super::{BLOCK_STORAGE_KEYS, CloudConf, CloudsYamlWish, Key, METADATA_KEYS, SECTIONS, keys_of};
use crate::error::Kind;
use proptest::prelude::{any, proptest};
use std::time::Duration;

fn read(files: &[&str]) -> CloudConf {
    let mut cloud_conf = CloudConf::default();
    for (index, text) in files.iter().enumerate() {
        cloud_conf.add(&format!("c{index}"), text).unwrap();
    }
    cloud_conf
}

/// The key table of cinder-csi 1.36.
const CINDER_CSI: [&str; 27] = [
    "auth-url",
    "user-id",
    "username",
    "password",
    "tenant-id",
    "tenant-name",
    "trust-id",
    "trustee-id",
    "trustee-password",
    "domain-id",
    "domain-name",
    "tenant-domain-id",
    "tenant-domain-name",
    "user-domain-id",
    "user-domain-name",
    "region",
    "os-endpoint-type",
    "ca-file",
    "tls-insecure",
    "token",
    "cert-file",
    "key-file",
    "use-clouds",
    "clouds-file",
    "cloud",
    "application-credential-id",
    "application-credential-name",
];

#[test]
fn every_key_of_cinder_csi_is_known_in_any_case() {
    let mut text = String::from("[GLOBAL]\n");
    for key in CINDER_CSI.iter().chain(&["application-credential-secret"]) {
        text.push_str(&format!("{} = x\n", key.to_uppercase()));
    }
    text.push_str("[blockstorage]\nnode-volume-attach-limit=1\nrescan-on-resize\nignore-volume-az\n");
    text.push_str("ignore-volume-microversion\n[metadata]\nsearch-order=\nrequest-timeout=1s\n");
    let cloud_conf = read(&[&text]);
    assert_eq!(cloud_conf.warnings, [""; 0]);
    assert_eq!(cloud_conf.clouds[0].1.text(Key::ProjectName), Some("x"));
}

#[test]
fn the_later_file_wins_key_by_key() {
    let cloud_conf = read(&[
        "[Global]\nregion = a\nusername = u\nregion = b\n[Global \"east\"]\ncloud = e",
        "[global]\nREGION = c\n[Global \"East\"]\ncloud = E\n[Global \"east\"]\ncloud = f",
    ]);
    let names: Vec<&str> = cloud_conf.clouds.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["", "east", "East"]);
    assert_eq!(cloud_conf.clouds[0].1.text(Key::Region), Some("c"));
    assert_eq!(cloud_conf.clouds[0].1.text(Key::Username), Some("u"));
    assert_eq!(cloud_conf.clouds[1].1.text(Key::Cloud), Some("f"));
    assert_eq!(cloud_conf.clouds[0].1.get(Key::Region).unwrap().place, "c1:2: [global] REGION");
    assert_eq!(cloud_conf.clouds[0].1.origin, "c0 [Global]");
}

#[test]
fn what_is_not_known_is_warned_about_with_the_nearest_known() {
    let cloud_conf = read(&[
        "[Global]\nauthurl = x\nfrobnicate = y\n[BlockStorage]\nrescan-on-rezise\nbs-version = v3\n\
                             [Metdata]\nx = y\n[Metadata \"x\"]\n[LoadBalancer]\nlb = x\n[LoadBalancerClass \"a\"]\n[Whatever]\n",
    ]);
    assert_eq!(
        cloud_conf.warnings,
        [
            "c0:2: [Global] authurl: this key is not known and ignored; did you mean \"auth-url\"?",
            "c0:3: [Global] frobnicate: this key is not known and ignored",
            "c0:5: [BlockStorage] rescan-on-rezise: this key is not known and ignored; did you mean \"rescan-on-resize\"?",
            "c0:6: [BlockStorage] bs-version: this key is not known and ignored",
            "c0:7: [Metdata]: this section is not known and ignored; did you mean \"Metadata\"?",
            "c0:9: [Metadata \"x\"]: this section is not known and ignored; [Metadata] has no subsections",
            "c0:13: [Whatever]: this section is not known and ignored",
        ]
    );
}

#[test]
fn options_of_block_storage_have_their_defaults_and_values() {
    let defaults = read(&[""]).block_storage().unwrap();
    assert!(defaults.node_volume_attach_limit.is_none());
    assert!(!defaults.rescan_on_resize && !defaults.ignore_volume_az && !defaults.ignore_volume_microversion);
    let options =
        read(&["[BlockStorage]\nnode-volume-attach-limit = 0x10\nrescan-on-resize\nignore-volume-az = Yes\n\
                          ignore-volume-microversion = off"])
        .block_storage()
        .unwrap();
    assert_eq!(options.node_volume_attach_limit.map(std::num::NonZeroU32::get), Some(16));
    assert!(options.rescan_on_resize && options.ignore_volume_az && !options.ignore_volume_microversion);
}

#[test]
fn a_limit_is_never_zero_and_never_more_than_cinder_csi_takes() {
    for (text, limit, warns) in [
        ("1", Some(1), false),
        ("256", Some(256), false),
        ("257", Some(256), true),
        ("9223372036854775807", Some(256), true),
        ("0", None, true),
        ("-1", None, true),
    ] {
        let mut cloud_conf = read(&[&format!("[BlockStorage]\nnode-volume-attach-limit = {text}")]);
        let options = cloud_conf.block_storage().unwrap();
        assert_eq!(options.node_volume_attach_limit.map(std::num::NonZeroU32::get), limit, "{text}");
        assert_eq!(!cloud_conf.warnings.is_empty(), warns, "{text}");
    }
}

#[test]
fn options_of_metadata_have_their_defaults_and_values() {
    assert_eq!(read(&["[Metadata]\nsearch-order =\nrequest-timeout = 0\n"]).metadata().unwrap(), Default::default());
    let options =
        read(&["[Metadata]\nsearch-order = metadataService,configDrive\nrequest-timeout = 1m30s"]).metadata().unwrap();
    assert_eq!(options.search_order, [MetadataSource::MetadataService, MetadataSource::ConfigDrive]);
    assert_eq!(options.request_timeout, Some(Duration::from_secs(90)));
}

#[test]
fn wrong_values_are_errors_with_file_section_key_and_value() {
    for (text, expected) in [
        ("[BlockStorage]\nrescan-on-resize = maybe", "c0:2: [BlockStorage] rescan-on-resize = \"maybe\": "),
        (
            "[BlockStorage]\nnode-volume-attach-limit = many",
            "c0:2: [BlockStorage] node-volume-attach-limit = \"many\": ",
        ),
        (
            "[BlockStorage]\nnode-volume-attach-limit = 0x+1",
            "c0:2: [BlockStorage] node-volume-attach-limit = \"0x+1\": ",
        ),
        ("[Metadata]\nsearch-order = ec2", "c0:2: [Metadata] search-order = \"ec2\": "),
        ("[Metadata]\nrequest-timeout = soon", "c0:2: [Metadata] request-timeout = \"soon\": "),
    ] {
        let mut cloud_conf = read(&[text]);
        let error = cloud_conf.block_storage().map(drop).and_then(|()| cloud_conf.metadata().map(drop)).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument);
        assert!(error.to_string().starts_with(expected), "{error}");
    }
    let blank = CloudConf::default().add("c", "[Global]\npassword\n").unwrap_err().to_string();
    assert_eq!(blank, "c:2: [Global] password: this key needs = and a value");
}

#[test]
fn a_section_leads_to_clouds_yaml_when_it_says_so_or_names_a_cloud() {
    for (text, leads, warns) in [
        ("[Global]\nregion = x", false, false),
        ("[Global]\nuse-clouds", true, false),
        ("[Global]\nuse-clouds = true\nclouds-file = f", true, false),
        ("[Global]\nuse-clouds = false", false, false),
        ("[Global]\ncloud = east", true, false),
        ("[Global]\nclouds-file = f", false, true),
    ] {
        let mut warnings = Vec::new();
        let cloud_conf = read(&[text]);
        let wish = CloudsYamlWish::of(&cloud_conf.clouds[0].1, &mut warnings).unwrap();
        assert_eq!((wish.is_some(), !warnings.is_empty()), (leads, warns), "{text}");
    }
}

#[test]
fn the_documented_keys_are_those_that_are_read() {
    assert_eq!(SECTIONS.map(keys_of).map(|keys| keys.len()), [31, BLOCK_STORAGE_KEYS.len(), METADATA_KEYS.len()]);
    assert!(keys_of("Nowhere").is_empty());
}

#[test]
fn nothing_shows_a_password() {
    let cloud_conf =
        read(&["[Global]\npassword = hunter2\ntoken = hunter2\n[BlockStorage]\nrescan-on-resize = hunter2"]);
    assert!(!format!("{cloud_conf:?}").contains("hunter2"));
}

proptest! {
    #[test]
    fn reading_never_panics(text in any::<String>(), values in any::<[String; 3]>()) {
        let _ = CloudConf::default().add("c", &text);
        let [limit, order, timeout] = values.map(|value| value.replace(['\n', '"', '\\', '\0'], ""));
        let mut cloud_conf = CloudConf::default();
        let text = format!("[BlockStorage]\nnode-volume-attach-limit=\"{limit}\"\n[Metadata]\nsearch-order=\"{order}\"\n\
                            request-timeout=\"{timeout}\"");
        cloud_conf.add("c", &text).unwrap();
        let _ = cloud_conf.block_storage();
        let _ = cloud_conf.metadata();
    }
}
