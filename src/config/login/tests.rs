use super::super::files::Reader;
use super::super::settings::{Dialect, Key, Setting, Settings};
use super::cloud;
use crate::error::Kind;
use crate::openstack::cloud::{ApplicationCredentialId, Auth, Cloud, Domain, Interface, Scope, User};
use secrecy::{ExposeSecret, SecretString};
use std::fs;

const PASSWORD: [(Key, &str); 4] =
    [(Key::AuthUrl, "https://cloud:5000/v3"), (Key::UserId, "u1"), (Key::Password, "hunter2"), (Key::ProjectId, "p1")];

fn settings(values: &[(Key, &str)]) -> Settings {
    let mut settings = Settings::new("c [Global]", Dialect::CloudConf);
    for (key, value) in values {
        let place = format!("c:1: [Global] {}", Dialect::CloudConf.name_of(*key));
        settings.set(*key, Setting { value: SecretString::from(*value), place });
    }
    settings
}

fn with(base: &[(Key, &'static str)], more: &[(Key, &'static str)]) -> Vec<(Key, &'static str)> {
    base.iter().chain(more).copied().collect()
}

fn read(values: &[(Key, &str)]) -> Result<(Cloud, Vec<String>), String> {
    let mut warnings = Vec::new();
    match cloud("east", &settings(values), &mut Reader::default(), &mut warnings) {
        Ok(cloud) => Ok((cloud, warnings)),
        Err(error) => {
            assert_eq!(error.kind(), Kind::InvalidArgument);
            let message = error.to_string();
            assert!(message.starts_with("c ") || message.starts_with("c:1: "), "{message}");
            assert!(!message.contains("hunter2"), "{message}");
            Err(message)
        }
    }
}

fn good(values: &[(Key, &str)]) -> Cloud {
    let (cloud, warnings) = read(values).unwrap();
    assert_eq!(warnings, [""; 0]);
    assert!(!format!("{cloud:?}").contains("hunter2"));
    cloud
}

#[test]
fn a_password_with_ids_is_enough() {
    let cloud = good(&PASSWORD);
    assert_eq!((cloud.name.as_str(), cloud.origin.as_str()), ("east", "c [Global]"));
    assert_eq!(cloud.auth_url.as_str(), "https://cloud:5000/v3");
    assert_eq!(cloud.scope, Scope::ProjectId("p1".to_owned()));
    assert_eq!((cloud.interface, cloud.region), (Interface::Public, None));
    let Auth::Password { user, password } = cloud.auth else { panic!("not a password") };
    assert_eq!(user, User::Id("u1".to_owned()));
    assert_eq!(password.expose_secret(), "hunter2");
}

#[test]
fn names_need_domains_and_take_the_general_one_last() {
    let names =
        [(Key::AuthUrl, "https://c"), (Key::Username, "me"), (Key::Password, "hunter2"), (Key::ProjectName, "demo")];
    assert!(read(&names).unwrap_err().ends_with("add user-domain-name or user-domain-id"));
    let half = with(&names, &[(Key::UserDomainName, "Users")]);
    assert!(read(&half).unwrap_err().ends_with("add tenant-domain-name or tenant-domain-id"));
    for (more, user_domain, project_domain) in [
        (vec![(Key::DomainId, "d")], Domain::Id("d".to_owned()), Domain::Id("d".to_owned())),
        (
            vec![(Key::DefaultDomain, "x"), (Key::DomainName, "D")],
            Domain::Name("D".to_owned()),
            Domain::Name("D".to_owned()),
        ),
        (
            vec![(Key::UserDomainId, "u"), (Key::DefaultDomain, "x")],
            Domain::Id("u".to_owned()),
            Domain::Id("x".to_owned()),
        ),
        (
            vec![(Key::UserDomainName, "U"), (Key::ProjectDomainName, "P"), (Key::DomainId, "x")],
            Domain::Name("U".to_owned()),
            Domain::Name("P".to_owned()),
        ),
    ] {
        let cloud = good(&with(&names, &more));
        let Auth::Password { user, .. } = cloud.auth else { panic!("not a password") };
        assert_eq!(user, User::Name { name: "me".to_owned(), domain: user_domain });
        assert_eq!(cloud.scope, Scope::ProjectName { name: "demo".to_owned(), domain: project_domain });
    }
}

#[test]
fn a_password_without_a_project_has_the_scope_it_implies() {
    assert_eq!(good(&PASSWORD[..3]).scope, Scope::Implied);
}

#[test]
fn an_application_credential_is_taken_by_id_or_by_name_and_user() {
    let base = [(Key::AuthUrl, "https://c"), (Key::ApplicationCredentialSecret, "hunter2")];
    let by_id = good(&with(&base, &[(Key::ApplicationCredentialId, "a"), (Key::ProjectId, "ignored")]));
    assert_eq!(by_id.scope, Scope::Implied);
    let Auth::ApplicationCredential { id, secret } = by_id.auth else { panic!("not an application credential") };
    assert_eq!(id, ApplicationCredentialId::Id("a".to_owned()));
    assert_eq!(secret.expose_secret(), "hunter2");

    let name = with(&base, &[(Key::ApplicationCredentialName, "n")]);
    assert!(read(&name).unwrap_err().contains("add username or user-id"));
    let Auth::ApplicationCredential { id, .. } = good(&with(&name, &[(Key::UserId, "u")])).auth else {
        panic!("not an application credential")
    };
    assert_eq!(id, ApplicationCredentialId::Name { name: "n".to_owned(), user: User::Id("u".to_owned()) });
    assert!(
        read(&[(Key::AuthUrl, "https://c"), (Key::ApplicationCredentialId, "a")])
            .unwrap_err()
            .ends_with("add application-credential-secret")
    );
}

#[test]
fn a_trust_prefers_the_trustee() {
    let trust = with(&PASSWORD, &[(Key::TrustId, "t")]);
    let cloud = good(&trust);
    assert_eq!(cloud.scope, Scope::Trust("t".to_owned()));
    let trustee = with(&trust, &[(Key::TrusteeId, "t1"), (Key::TrusteePassword, "hunter22")]);
    let Auth::Password { user, password } = good(&trustee).auth else { panic!("not a password") };
    assert_eq!((user, password.expose_secret()), (User::Id("t1".to_owned()), "hunter22"));
}

#[test]
fn a_token_counts_more_than_a_password_and_that_is_said() {
    let (cloud, warnings) = read(&with(&PASSWORD, &[(Key::Token, "hunter2t")])).unwrap();
    assert!(matches!(cloud.auth, Auth::Token(token) if token.expose_secret() == "hunter2t"));
    assert_eq!(warnings, ["c:1: [Global] password: this is not used, since a token is"]);
}

#[test]
fn the_type_of_login_can_be_said() {
    let both = with(
        &PASSWORD,
        &[
            (Key::Token, "hunter2t"),
            (Key::ApplicationCredentialId, "a"),
            (Key::ApplicationCredentialSecret, "hunter2s"),
        ],
    );
    for (auth_type, expected) in [
        ("password", "Password"),
        ("v3password", "Password"),
        ("token", "Token"),
        ("v3token", "Token"),
        ("v3applicationcredential", "ApplicationCredential"),
    ] {
        let (cloud, _) = read(&with(&both, &[(Key::AuthType, auth_type)])).unwrap();
        assert!(format!("{:?}", cloud.auth).starts_with(expected), "{auth_type}");
    }
    let message = read(&with(&both, &[(Key::AuthType, "v3applicationcredentials")])).unwrap_err();
    assert!(message.contains("did you mean \"v3applicationcredential\"?"), "{message}");
    assert!(read(&with(&both, &[(Key::AuthType, "v3oidcpassword")])).is_err());
}

#[test]
fn what_is_missing_is_named() {
    assert!(read(&[]).unwrap_err().ends_with("add username or user-id"));
    assert!(read(&PASSWORD[1..]).unwrap_err().ends_with("add auth-url"));
    assert!(read(&PASSWORD[..2]).unwrap_err().ends_with("add password"));
}

#[test]
fn wrong_urls_are_refused_and_those_with_passwords_are_not_shown() {
    for (url, why) in [
        ("cloud:5000", "not a URL of http"),
        ("/v3", "not a URL"),
        ("ftp://c", "http or https"),
        ("https://", "not a URL"),
        ("https://c/?x", "no place for ?"),
        ("https://c/identity/v2.0/", "version 2.0"),
        ("https://me:hunter2@c/v3", "no place for a user or password"),
        ("ftp://me:hunter2@c/v3", "not a URL of http"),
    ] {
        let message = read(&with(&PASSWORD, &[(Key::AuthUrl, url)])).unwrap_err();
        assert!(message.starts_with("c:1: [Global] auth-url") && message.contains(why), "{url}: {message}");
    }
}

#[test]
fn interfaces_have_two_spellings() {
    for (text, expected) in [
        ("public", Interface::Public),
        ("publicURL", Interface::Public),
        ("Internal", Interface::Internal),
        ("internalURL", Interface::Internal),
        ("admin", Interface::Admin),
    ] {
        assert_eq!(good(&with(&PASSWORD, &[(Key::Interface, text)])).interface, expected);
    }
    assert!(read(&with(&PASSWORD, &[(Key::Interface, "private")])).unwrap_err().contains("= \"private\""));
}

#[test]
fn endpoints_can_be_overridden() {
    let cloud = good(&with(
        &PASSWORD,
        &[(Key::BlockStorageEndpoint, "https://v/v3"), (Key::SharedFileSystemEndpoint, "http://s")],
    ));
    let services: Vec<&str> = cloud.endpoint_overrides.iter().map(|(service, _)| service.as_str()).collect();
    assert_eq!(services, ["block-storage", "shared-file-system"]);
    assert!(
        read(&with(&PASSWORD, &[(Key::ComputeEndpoint, "nova")])).unwrap_err().contains("compute-endpoint-override")
    );
}

#[test]
fn tls_is_verified_unless_somebody_says_otherwise() {
    assert!(!good(&PASSWORD).tls.insecure);
    for (key, value, insecure) in [
        (Key::Insecure, "true", true),
        (Key::Insecure, "no", false),
        (Key::Verify, "false", true),
        (Key::Verify, "True", false),
    ] {
        assert_eq!(good(&with(&PASSWORD, &[(key, value)])).tls.insecure, insecure);
    }
    assert!(!good(&with(&PASSWORD, &[(Key::Insecure, "false"), (Key::Verify, "false")])).tls.insecure);
    assert!(read(&with(&PASSWORD, &[(Key::Insecure, "perhaps")])).is_err());
}

#[test]
fn certificates_are_looked_at_and_watched() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    fs::write(path("ca"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    fs::write(path("key"), "-----BEGIN EC PRIVATE KEY-----\n").unwrap();
    let (ca, key, absent) = (path("ca"), path("key"), path("absent"));
    let both = |cert: &str, key: &str| {
        let mut values: Vec<(Key, &str)> = PASSWORD.to_vec();
        values.extend([(Key::CaFile, ca.as_str()), (Key::ClientCertFile, cert), (Key::ClientKeyFile, key)]);
        let mut reader = Reader::default();
        cloud("", &settings(&values), &mut reader, &mut Vec::new())
            .map(|cloud| (cloud, reader.into_fingerprint()))
            .map_err(|error| error.to_string())
    };
    let (cloud, fingerprint) = both(&ca, &key).unwrap();
    assert!(cloud.tls.client.is_some() && cloud.tls.ca_file.is_some());
    assert!(fingerprint.is_current());
    assert_eq!(fingerprint.files().count(), 2);
    fs::write(&ca, "-----BEGIN CERTIFICATE-----\nnew").unwrap();
    assert!(!fingerprint.is_current());

    for (cert, key, why) in [
        (ca.as_str(), "", "add key-file"),
        ("", key.as_str(), "add cert-file"),
        (absent.as_str(), key.as_str(), "no such file"),
        (key.as_str(), key.as_str(), "no certificate in PEM form"),
        (ca.as_str(), ca.as_str(), "no private key in PEM form"),
    ] {
        let message = both(cert, key).unwrap_err();
        assert!(message.contains(why), "{message}");
    }
}
