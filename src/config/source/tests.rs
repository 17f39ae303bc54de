use super::{Environment, Source};
use crate::error::Kind;
use crate::openstack::cloud::{Auth, Scope};
use secrecy::ExposeSecret;
use std::fs;
use std::path::PathBuf;

const LOGIN: &str = "auth-url = https://c\nuser-id = u\npassword = hunter2\ntenant-id = p\n";

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// Nothing of the real environment, and this place for a home.
    fn source(&self, files: &[&PathBuf], names: &[&str], variables: &[(&str, &str)]) -> Source {
        let home = self.0.path().display().to_string();
        Source {
            cloud_config: files.iter().map(|file| (*file).clone()).collect(),
            cloud_names: names.iter().map(|name| (*name).to_owned()).collect(),
            environment: Environment::from_variables(variables.iter().copied().chain([("HOME", home.as_str())])),
        }
    }
}

fn names(source: &Source) -> Vec<String> {
    source.load().unwrap().clouds.iter().map(|cloud| cloud.name.clone()).collect()
}

fn refused(source: &Source) -> String {
    let error = source.load().unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument);
    error.to_string()
}

#[test]
fn clouds_of_cloud_conf_are_chosen_by_name() {
    let place = Place::new();
    let both =
        place.file("both.conf", &format!("[Global]\n{LOGIN}[Global \"east\"]\n{LOGIN}[Global \"west\"]\n{LOGIN}"));
    let named = place.file("named.conf", &format!("[Global \"east\"]\n{LOGIN}"));
    let neither = place.file("neither.conf", &format!("[Global \"east\"]\n{LOGIN}[Global \"west\"]\n{LOGIN}"));
    let empty = place.file("empty.conf", "");
    assert_eq!(names(&place.source(&[&both], &[], &[])), [""]);
    assert_eq!(names(&place.source(&[&both], &["west", "east", "west"], &[])), ["west", "east"]);
    assert_eq!(names(&place.source(&[&both], &["west", ""], &[])), ["", "west"]);
    assert_eq!(names(&place.source(&[&named], &[], &[])), ["east"]);
    let message = refused(&place.source(&[&neither], &[], &[]));
    assert!(message.ends_with("There are: [Global \"east\"], [Global \"west\"]"), "{message}");
    let message = refused(&place.source(&[&both], &["wset"], &[]));
    assert!(message.contains("no [Global \"wset\"]") && message.contains("did you mean \"west\"?"), "{message}");
    assert!(refused(&place.source(&[&named], &[""], &[])).contains("no [Global] without a name"));
    assert!(refused(&place.source(&[&empty], &[], &[])).contains("no section [Global]"));
}

#[test]
fn clouds_are_found_by_name_and_the_empty_name_is_the_default() {
    let place = Place::new();
    let file = place.file("c", &format!("[Global \"east\"]\n{LOGIN}[Global \"west\"]\n{LOGIN}"));
    let clouds = place.source(&[&file], &["west", "east"], &[]).load().unwrap().clouds;
    assert_eq!(clouds.get("").unwrap().name, "west");
    assert_eq!(clouds.get("east").unwrap().name, "east");
    assert!(clouds.get("north").is_none());
}

#[test]
fn a_name_that_cannot_be_in_a_handle_is_for_the_default_cloud_only() {
    let place = Place::new();
    for name in ["a/b", "a b", "backup", &"x".repeat(65)] {
        let file = place.file("c", &format!("[Global \"{name}\"]\n{LOGIN}[Global \"east\"]\n{LOGIN}"));
        assert_eq!(names(&place.source(&[&file], &[name, "east"], &[])), [name, "east"]);
        assert!(refused(&place.source(&[&file], &["east", name], &[])).contains("volume handles"), "{name}");
    }
}

#[test]
fn a_broken_cloud_that_is_not_asked_for_does_no_harm() {
    let place = Place::new();
    let file = place.file("c", &format!("[Global]\n{LOGIN}[Global \"east\"]\nauth-url = x\n"));
    assert_eq!(names(&place.source(&[&file], &[], &[])), [""]);
    assert!(refused(&place.source(&[&file], &["", "east"], &[])).contains("[Global \"east\"]"));
}

#[test]
fn cloud_conf_may_lead_to_clouds_yaml_and_counts_more() {
    let place = Place::new();
    let yaml = "clouds:\n  a: {auth: {auth_url: https://a, user_id: u, password: yaml, project_id: pa}, region_name: ra}\n  \
                b: {auth: {auth_url: https://b, user_id: u, password: yaml, project_id: pb}}\n";
    let clouds = place.file("secret/clouds.yaml", yaml);
    let conf = format!("[Global]\nuse-clouds\nclouds-file = {}\ncloud = a\nregion = conf\n", clouds.display());
    let file = place.file("c", &conf);
    let config = place.source(&[&file], &[], &[]).load().unwrap();
    let cloud = &config.clouds.default;
    assert_eq!((cloud.auth_url.as_str(), cloud.region.as_deref()), ("https://a/", Some("conf")));
    assert_eq!(cloud.scope, Scope::ProjectId("pa".to_owned()));
    assert!(cloud.origin.contains("[Global]") && cloud.origin.contains("clouds.a"), "{}", cloud.origin);
    assert!(config.fingerprint.files().any(|path| path == clouds));

    let vague = place.file("v", &format!("[Global]\nuse-clouds\nclouds-file = {}\n", clouds.display()));
    assert!(refused(&place.source(&[&vague], &[], &[])).contains("several clouds"));
    let by_variable = place.source(&[&vague], &[], &[("OS_CLOUD", "b")]).load().unwrap();
    assert_eq!(by_variable.clouds.default.auth_url.as_str(), "https://b/");

    let gone = place.file("g", "[Global]\nuse-clouds\nclouds-file = /nowhere\n");
    let message = refused(&place.source(&[&gone], &[], &[]));
    assert!(message.contains("[Global] use-clouds: /nowhere: there is no such file"), "{message}");
}

#[test]
fn the_sources_have_an_order() {
    let place = Place::new();
    let variables = [
        ("OS_AUTH_URL", "https://env"),
        ("OS_USER_ID", "u"),
        ("OS_PASSWORD", "hunter2"),
        ("OS_PROJECT_ID", "p"),
        ("OS_CLOUD", "a"),
    ];
    let url = |source: &Source| source.load().unwrap().clouds.default.auth_url.to_string();
    let nothing = place.source(&[], &[], &[]);
    if !std::path::Path::new("/etc/openstack/clouds.yaml").exists() {
        let message = refused(&nothing);
        assert!(message.contains("--cloud-config") && message.contains("OS_CLOUD") && message.contains("OS_AUTH_URL"));
    }
    assert_eq!(url(&place.source(&[], &[], &variables[..4])), "https://env/");

    let login = "{auth_url: https://yaml, user_id: u, password: x, project_id: p}";
    place.file(".config/openstack/clouds.yaml", &format!("clouds: {{a: {{auth: {login}}}, b: {{auth: {login}}}}}"));
    assert_eq!(url(&place.source(&[], &[], &variables[..4])), "https://env/");
    assert_eq!(url(&place.source(&[], &[], &variables)), "https://yaml/");
    assert_eq!(names(&place.source(&[], &["b", ""], &variables)), ["b", "a"]);
    assert!(refused(&place.source(&[], &["c"], &[])).contains("no cloud \"c\""));
    assert!(refused(&nothing).contains("several clouds"));

    let conf = place.file("c", &format!("[Global]\n{LOGIN}"));
    assert_eq!(url(&place.source(&[&conf], &[], &variables)), "https://c/");
}

#[test]
fn the_environment_alone_is_enough_and_warns() {
    let place = Place::new();
    let source = place.source(
        &[],
        &[],
        &[
            ("OS_AUTH_URL", "https://env"),
            ("OS_APPLICATION_CREDENTIAL_ID", "i"),
            ("OS_APPLICATION_CREDENTIAL_SECRET", "hunter2"),
            ("OS_REGION_NAEM", "r"),
        ],
    );
    let config = source.load().unwrap();
    assert!(matches!(config.clouds.default.auth, Auth::ApplicationCredential { .. }));
    assert_eq!(config.clouds.default.origin, "the environment");
    assert_eq!(config.warnings.len(), 1);
    let without_secret =
        place.source(&[], &[], &[("OS_AUTH_URL", "https://env"), ("OS_APPLICATION_CREDENTIAL_ID", "i")]);
    assert_eq!(
        refused(&without_secret),
        "the environment: there is nothing to log in with: add OS_APPLICATION_CREDENTIAL_SECRET"
    );
}

#[test]
fn an_error_brings_along_what_was_not_understood() {
    let place = Place::new();
    let file = place.file("c", "[Global]\nauth-url = https://c\nuser-id = u\npasswort = hunter2\n");
    let message = refused(&place.source(&[&file], &[], &[]));
    assert!(message.starts_with(&format!("{} [Global]: there is nothing to log in with", file.display())), "{message}");
    assert!(message.contains("did you mean \"password\"?") && !message.contains("hunter2"), "{message}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let place = Place::new();
    let absent = place.path("absent.conf");
    assert_eq!(refused(&place.source(&[&absent], &[], &[])), format!("{}: there is no such file", absent.display()));
}

#[test]
fn a_changed_credential_is_noticed_and_read() {
    let place = Place::new();
    let file = place.file("c", &format!("[Global]\n{LOGIN}"));
    let source = place.source(&[&file], &[], &[]);
    let before = source.load().unwrap();
    assert!(before.fingerprint.is_current());
    fs::write(&file, format!("[Global]\n{}", LOGIN.replace("hunter2", "hunter3"))).unwrap();
    assert!(!before.fingerprint.is_current());
    let after = source.load().unwrap();
    let Auth::Password { password, .. } = &after.clouds.default.auth else { panic!("not a password") };
    assert_eq!(password.expose_secret(), "hunter3");
    assert!(after.fingerprint.is_current() && after.fingerprint != before.fingerprint);
}

#[test]
fn a_clouds_yaml_that_appears_earlier_in_the_search_path_is_a_change() {
    let place = Place::new();
    let login = "{auth_url: https://yaml, user_id: u, password: x, project_id: p}";
    let text = format!("clouds: {{a: {{auth: {login}}}}}");
    place.file(".config/openstack/clouds.yml", &text);
    let config = place.source(&[], &["a"], &[]).load().unwrap();
    assert!(config.fingerprint.is_current());
    place.file(".config/openstack/clouds.yaml", &text);
    assert!(!config.fingerprint.is_current());
}

#[test]
fn a_node_reads_its_options_and_no_credential() {
    let place = Place::new();
    let file =
        place.file("c", "[Global]\npassword = hunter2\n[BlockStorage]\nrescan-on-resize\nnode-volume-attach-limit=9\n");
    let absent = place.path("absent");
    let config = place.source(&[&absent, &file], &["east"], &[]).load_for_node().unwrap();
    assert!(config.block_storage.rescan_on_resize);
    assert_eq!(config.block_storage.node_volume_attach_limit.unwrap().get(), 9);
    assert!(config.warnings[0].contains("absent: there is no such file"));
    assert!(!format!("{config:?}").contains("hunter2"));
    assert!(config.fingerprint.is_current());
    place.file("absent", "");
    assert!(!config.fingerprint.is_current());
    assert!(place.source(&[], &[], &[]).load_for_node().unwrap().warnings.is_empty());
    let broken = place.file("b", "[BlockStorage]\nignore-volume-az = x\n");
    assert!(place.source(&[&broken], &[], &[]).load_for_node().is_err());
}

#[test]
fn debug_of_everything_shows_no_secret() {
    let place = Place::new();
    let mut text = String::from("[Global]\nauth-url = https://c\nuser-id = u\ntenant-id = p\ntrust-id = t\n");
    for key in ["password", "token", "trustee-password", "application-credential-secret"] {
        text.push_str(&format!("{key} = hunter2-{key}\n"));
    }
    let file = place.file("c", &text);
    let source = place.source(&[&file], &[], &[("OS_PASSWORD", "hunter2")]);
    let config = source.load().unwrap();
    assert!(!config.warnings.is_empty());
    assert!(!format!("{source:?} {config:?}").contains("hunter2"));
}
