use super::super::environment::Environment;
use super::super::files::Reader;
use super::super::settings::{Key, Settings};
use super::CloudsYaml;
use crate::error::Kind;
use proptest::prelude::proptest;
use std::fs;
use std::path::Path;

/// A home directory with these files in `.config/openstack`.
struct Home(tempfile::TempDir);

impl Home {
    fn with(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join(".config/openstack");
        fs::create_dir_all(&config).unwrap();
        for (name, text) in files {
            fs::write(config.join(name), text).unwrap();
        }
        Self(directory)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(".config/openstack").join(name).display().to_string()
    }

    fn environment(&self, more: &[(&str, &str)]) -> Environment {
        let home = self.0.path().display().to_string();
        Environment::from_variables(more.iter().copied().chain([("HOME", home.as_str())]))
    }

    fn load(&self) -> Result<CloudsYaml, String> {
        CloudsYaml::load(None, &self.environment(&[]), &mut Reader::default()).map_err(|error| {
            assert_eq!(error.kind(), Kind::InvalidArgument);
            error.to_string()
        })
    }

    fn settings(&self, region: Option<&str>) -> (Settings, Vec<String>) {
        let mut warnings = Vec::new();
        let clouds = self.load().unwrap();
        (clouds.settings("east", region, &mut warnings).unwrap(), warnings)
    }
}

const EAST: &str = "
clouds:
  east:
    auth:
      auth_url: https://east:5000/v3
      username: me
      password: 0123
      project-name: demo
      user_domain_name: Default
    tenant_id: old
    region_name: north
    interface: internal
    verify: false
    cacert: ~/ca.pem
    volume_api_version: 3
    volumev3_endpoint_override: https://v
    image_endpoint_override: https://i
";

#[test]
fn a_cloud_is_read_with_its_spellings() {
    let home = Home::with(&[("clouds.yaml", EAST)]);
    let (settings, warnings) = home.settings(None);
    assert_eq!(warnings, [""; 0]);
    let ca = home.0.path().join("ca.pem").display().to_string();
    for (key, expected) in [
        (Key::AuthUrl, "https://east:5000/v3"),
        (Key::Password, "0123"),
        (Key::ProjectName, "demo"),
        (Key::ProjectId, "old"),
        (Key::Region, "north"),
        (Key::Interface, "internal"),
        (Key::Verify, "false"),
        (Key::CaFile, ca.as_str()),
        (Key::BlockStorageEndpoint, "https://v"),
    ] {
        assert_eq!(settings.text(key), Some(expected), "{key:?}");
    }
    assert_eq!(
        settings.get(Key::Password).unwrap().place,
        format!("{}: clouds.east.auth.password", home.path("clouds.yaml"))
    );
}

#[test]
fn every_scalar_is_taken_as_it_is_written() {
    for scalar in ["123", "0123", "0x1F", "1e5", "true", "no", "1_000", "2020-01-01", "'12 3'", "\"a\\tb\"", "a#b"] {
        let text = format!("clouds: {{east: {{auth: {{password: {scalar}}}}}}}");
        let (settings, _) = Home::with(&[("clouds.yaml", &text)]).settings(None);
        let expected = scalar.trim_matches(['"', '\'']).replace("\\t", "\t");
        assert_eq!(settings.text(Key::Password), Some(expected.as_str()));
    }
    for nothing in ["", "~", "null", "''"] {
        let text = format!("clouds: {{east: {{auth: {{password: {nothing}}}}}}}");
        let (settings, _) = Home::with(&[("clouds.yaml", &text)]).settings(None);
        assert_eq!(settings.text(Key::Password), None, "{nothing}");
    }
}

#[test]
fn secure_yaml_lies_over_and_a_profile_under() {
    let home = Home::with(&[
        ("clouds.yml", "clouds:\n  east:\n    profile: vendor\n    auth: {username: me, password: wrong}\n"),
        ("secure.yaml", "clouds:\n  east: {auth: {password: right}}\n  west:\n"),
        (
            "clouds-public.yaml",
            "public-clouds:\n  vendor: {auth: {auth_url: https://v, username: nobody}, region_name: r}\n",
        ),
    ]);
    let (settings, warnings) = home.settings(None);
    assert_eq!(warnings, [""; 0]);
    assert_eq!(settings.text(Key::Password), Some("right"));
    assert_eq!(settings.text(Key::Username), Some("me"));
    assert_eq!(settings.text(Key::AuthUrl), Some("https://v"));
    assert_eq!(settings.text(Key::Region), Some("r"));
}

#[test]
fn a_profile_that_is_not_there_is_warned_about() {
    let (_, warnings) = Home::with(&[("clouds.yaml", "clouds: {east: {cloud: ovh}}")]).settings(None);
    assert!(warnings[0].contains("no profile \"ovh\""), "{warnings:?}");
}

#[test]
fn regions_are_chosen_and_bring_their_values() {
    let text = "clouds:\n  east:\n    interface: public\n    regions:\n    - plain\n    - name: special\n      values: \
                {interface: admin, auth: {project_id: p}}\n";
    let home = Home::with(&[("clouds.yaml", text)]);
    for (wanted, region, interface, project) in [
        (None, Some("plain"), Some("public"), None),
        (Some("plain"), Some("plain"), Some("public"), None),
        (Some("special"), Some("special"), Some("admin"), Some("p")),
        (Some("elsewhere"), None, Some("public"), None),
    ] {
        let (settings, _) = home.settings(wanted);
        assert_eq!(settings.text(Key::Region), region, "{wanted:?}");
        assert_eq!(settings.text(Key::Interface), interface, "{wanted:?}");
        assert_eq!(settings.text(Key::ProjectId), project, "{wanted:?}");
    }
}

#[test]
fn anchors_and_merge_keys_work() {
    let text = "x: &auth {auth_url: https://a, username: me}\nclouds: {east: {auth: {<<: *auth, password: p}}}";
    let (settings, _) = Home::with(&[("clouds.yaml", text)]).settings(None);
    assert_eq!(settings.text(Key::Username), Some("me"));
}

#[test]
fn slips_of_the_pen_are_warned_about() {
    let text =
        "clouds: {east: {auth: {usrname: me, passcode: x}, regoin_name: r, floating_ip_source: None, networks: [a]}}";
    let (_, warnings) = Home::with(&[("clouds.yaml", text)]).settings(None);
    let ends: Vec<&str> = warnings.iter().map(|warning| warning.split_once("clouds.east.").unwrap().1).collect();
    assert_eq!(
        ends,
        [
            "auth.passcode: this key is not known and ignored",
            "auth.usrname: this key is not known and ignored; did you mean \"username\"?",
            "regoin_name: this key is not known and ignored; did you mean \"region_name\"?",
        ]
    );
}

#[test]
fn the_cloud_is_the_wanted_one_or_the_only_one() {
    let one = Home::with(&[("clouds.yaml", EAST), ("secure.yaml", "clouds: {east: {auth: {password: x}}}")]);
    assert_eq!(one.load().unwrap().name(None).unwrap(), "east");
    assert_eq!(one.load().unwrap().name(Some("east")).unwrap(), "east");
    let unknown = one.load().unwrap().name(Some("eats")).unwrap_err().to_string();
    assert!(unknown.contains("no cloud \"eats\"; did you mean \"east\"?"), "{unknown}");
    let two = Home::with(&[("clouds.yaml", "clouds: {a: {}, b: }")]);
    let several = two.load().unwrap().name(None).unwrap_err().to_string();
    assert!(several.contains("--cloud-name") && several.ends_with("a, b"), "{several}");
    for empty in ["", "clouds:", "clouds: {}", "other: 1"] {
        let message = Home::with(&[("clouds.yaml", empty)]).load().unwrap().name(None).unwrap_err().to_string();
        assert!(message.contains("there is no cloud in it"), "{message}");
    }
}

#[test]
fn files_are_looked_for_in_order_and_where_the_environment_says() {
    let home = Home::with(&[("clouds.yaml", EAST), ("other.yaml", "clouds: {other: {}}")]);
    let mut reader = Reader::default();
    let named = home.environment(&[("OS_CLIENT_CONFIG_FILE", &home.path("other.yaml"))]);
    assert_eq!(CloudsYaml::load(None, &named, &mut reader).unwrap().name(None).unwrap(), "other");
    let given = home.path("clouds.yaml");
    let clouds = CloudsYaml::load(Some(Path::new(&given)), &named, &mut reader).unwrap();
    assert_eq!(clouds.name(None).unwrap(), "east");

    let absent = home.environment(&[("OS_CLIENT_CONFIG_FILE", "/nowhere/clouds.yaml")]);
    let message = CloudsYaml::load(None, &absent, &mut Reader::default()).unwrap_err().to_string();
    assert_eq!(message, "OS_CLIENT_CONFIG_FILE: /nowhere/clouds.yaml: there is no such file");

    let xdg = home.environment(&[("XDG_CONFIG_HOME", "/nowhere")]);
    let mut reader = Reader::default();
    if CloudsYaml::find(None, &xdg, &mut reader).unwrap().is_none() {
        let message = CloudsYaml::load(None, &xdg, &mut reader).unwrap_err().to_string();
        assert!(message.contains("/nowhere/openstack/clouds.yaml"), "{message}");
    }
}

#[test]
fn a_secure_file_may_be_named_and_must_then_be_there() {
    let home = Home::with(&[("clouds.yaml", EAST), ("keys.yaml", "clouds: {east: {auth: {password: named}}}")]);
    let named = home.environment(&[("OS_CLIENT_SECURE_FILE", &home.path("keys.yaml"))]);
    let clouds = CloudsYaml::load(None, &named, &mut Reader::default()).unwrap();
    assert_eq!(clouds.settings("east", None, &mut Vec::new()).unwrap().text(Key::Password), Some("named"));
    let absent = home.environment(&[("OS_CLIENT_SECURE_FILE", "/nowhere")]);
    assert!(CloudsYaml::load(None, &absent, &mut Reader::default()).is_err());
}

/// Documents that are wrong right beside a password.
const BROKEN: [&str; 12] = [
    "clouds: {east: {auth: {password: hunter2",
    "clouds:\n  east:\n    auth:\n      password: hunter2\n     x: y",
    "clouds:\n\teast: hunter2",
    "clouds: hunter2",
    "clouds: [hunter2]",
    "clouds: {east: hunter2}",
    "clouds: {east: {auth: hunter2}}",
    "clouds: {east: {auth: {password: [hunter2]}}}",
    "clouds: {east: {auth: {password: {a: hunter2}}}}",
    "clouds: {east: {auth: {password: \"hunter2}}}",
    "clouds: {east: {auth: {password: hunter2, password: hunter2}}}",
    "clouds: {east: {auth: {password: \"hunter2\\q\"}}}",
];

#[test]
fn broken_files_are_errors_with_file_and_line_and_without_secrets() {
    for text in BROKEN {
        let home = Home::with(&[("clouds.yaml", text)]);
        let message = home.load().unwrap_err();
        assert!(message.starts_with(&home.path("clouds.yaml")) && message.contains("line "), "{text:?}: {message}");
        assert!(!message.contains("hunter2"), "{text:?}: {message}");
    }
}

#[test]
fn nothing_shows_a_password() {
    let text = "clouds: {east: {auth: {password: hunter2, usrname: hunter2}, token: hunter2}}";
    let home = Home::with(&[("clouds.yaml", text)]);
    let clouds = home.load().unwrap();
    assert!(!format!("{clouds:?}").contains("hunter2"));
    let (settings, warnings) = home.settings(None);
    assert!(!format!("{settings:?}{warnings:?}").contains("hunter2"));
}

proptest! {
    #[test]
    fn parsing_never_panics_and_shows_no_secret(
        before in "[a-z:{}\\[\\]\"'&*!|>#\n -]{0,20}",
        after in "[a-z:{}\\[\\]\"'&*!|>#\n -]{0,20}",
    ) {
        let text = secrecy::SecretString::from(format!("clouds: {{east: {{auth: {{password: {before}hunter2{after}}}}}}}"));
        match super::File::parse("c".into(), &text, super::Section::Clouds) {
            Ok(file) => assert!(!format!("{:?}", file.entries.values().map(|entry| &entry.auth).collect::<Vec<_>>()).contains("\": SecretBox<str>(hunter2")),
            Err(error) => assert!(!error.to_string().contains("hunter2"), "{error}"),
        }
    }
}
