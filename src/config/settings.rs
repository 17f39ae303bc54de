//! What is said about one cloud, whichever source it is from: keys, values, and where each was read.
//!
//! cloud.conf, clouds.yaml and the environment say the same things under different names. Each is read into
//! [`Settings`]; these are merged, and `super::login` makes a validated [`Cloud`](crate::openstack::cloud::Cloud) of them.

use crate::error::{Error, Result};
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;
use std::fmt::{self, Write};

/// Everything that can be said about a cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    AuthType,
    AuthUrl,
    UserId,
    Username,
    Password,
    ProjectId,
    ProjectName,
    TrustId,
    TrusteeId,
    TrusteePassword,
    DomainId,
    DomainName,
    ProjectDomainId,
    ProjectDomainName,
    UserDomainId,
    UserDomainName,
    DefaultDomain,
    Token,
    ApplicationCredentialId,
    ApplicationCredentialName,
    ApplicationCredentialSecret,
    Region,
    Interface,
    CaFile,
    ClientCertFile,
    ClientKeyFile,
    Insecure,
    Verify,
    BlockStorageEndpoint,
    ComputeEndpoint,
    SharedFileSystemEndpoint,
    UseClouds,
    CloudsFile,
    Cloud,
}

/// How a key is spelled in each source; the first name is the one that messages use.
pub(super) struct Names {
    pub(super) key: Key,
    pub(super) cloud_conf: &'static [&'static str],
    /// The variable of the environment is `OS_` and this in capitals.
    pub(super) clouds_yaml: &'static [&'static str],
}

const fn names(key: Key, cloud_conf: &'static [&'static str], clouds_yaml: &'static [&'static str]) -> Names {
    Names { key, cloud_conf, clouds_yaml }
}

/// Every key with its names. cinder-csi's names for cloud.conf, openstacksdk's for the others.
pub(super) const NAMES: [Names; 34] = [
    names(Key::AuthType, &[], &["auth_type"]),
    names(Key::AuthUrl, &["auth-url"], &["auth_url"]),
    names(Key::UserId, &["user-id"], &["user_id"]),
    names(Key::Username, &["username"], &["username", "user_name"]),
    names(Key::Password, &["password"], &["password"]),
    names(Key::ProjectId, &["tenant-id"], &["project_id", "tenant_id"]),
    names(Key::ProjectName, &["tenant-name"], &["project_name", "tenant_name"]),
    names(Key::TrustId, &["trust-id"], &["trust_id"]),
    names(Key::TrusteeId, &["trustee-id"], &[]),
    names(Key::TrusteePassword, &["trustee-password"], &[]),
    names(Key::DomainId, &["domain-id"], &["domain_id"]),
    names(Key::DomainName, &["domain-name"], &["domain_name"]),
    names(Key::ProjectDomainId, &["tenant-domain-id"], &["project_domain_id"]),
    names(Key::ProjectDomainName, &["tenant-domain-name"], &["project_domain_name"]),
    names(Key::UserDomainId, &["user-domain-id"], &["user_domain_id"]),
    names(Key::UserDomainName, &["user-domain-name"], &["user_domain_name"]),
    names(Key::DefaultDomain, &[], &["default_domain"]),
    names(Key::Token, &["token"], &["token", "auth_token"]),
    names(Key::ApplicationCredentialId, &["application-credential-id"], &["application_credential_id"]),
    names(Key::ApplicationCredentialName, &["application-credential-name"], &["application_credential_name"]),
    names(Key::ApplicationCredentialSecret, &["application-credential-secret"], &["application_credential_secret"]),
    names(Key::Region, &["region"], &["region_name"]),
    names(Key::Interface, &["os-endpoint-type"], &["interface", "endpoint_type"]),
    names(Key::CaFile, &["ca-file"], &["cacert"]),
    names(Key::ClientCertFile, &["cert-file"], &["cert"]),
    names(Key::ClientKeyFile, &["key-file"], &["key"]),
    names(Key::Insecure, &["tls-insecure"], &["insecure"]),
    names(Key::Verify, &[], &["verify"]),
    names(
        Key::BlockStorageEndpoint,
        &["block-storage-endpoint-override"],
        &[
            "block_storage_endpoint_override",
            "volume_endpoint_override",
            "volumev3_endpoint_override",
            "block_store_endpoint_override",
        ],
    ),
    names(Key::ComputeEndpoint, &["compute-endpoint-override"], &["compute_endpoint_override"]),
    names(
        Key::SharedFileSystemEndpoint,
        &["shared-file-system-endpoint-override"],
        &["shared_file_system_endpoint_override", "sharev2_endpoint_override", "share_endpoint_override"],
    ),
    names(Key::UseClouds, &["use-clouds"], &[]),
    names(Key::CloudsFile, &["clouds-file"], &[]),
    names(Key::Cloud, &["cloud"], &[]),
];

/// How keys are spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    CloudConf,
    CloudsYaml,
    Environment,
}

impl Dialect {
    /// What a key is called here.
    pub(super) fn name_of(self, key: Key) -> String {
        let names = NAMES.iter().find(|names| names.key == key);
        let first = |spellings: &[&'static str]| spellings.first().copied().unwrap_or("?");
        match (self, names) {
            (_, None) => format!("{key:?}"),
            (Self::CloudConf, Some(names)) => first(names.cloud_conf).to_owned(),
            (Self::CloudsYaml, Some(names)) => first(names.clouds_yaml).to_owned(),
            (Self::Environment, Some(names)) => variable(first(names.clouds_yaml)),
        }
    }
}

/// The environment's name for a key of clouds.yaml.
pub(super) fn variable(clouds_yaml: &str) -> String {
    format!("OS_{}", clouds_yaml.to_ascii_uppercase())
}

impl Key {
    /// Whether its value is never shown.
    fn is_secret(self) -> bool {
        matches!(self, Self::Password | Self::TrusteePassword | Self::Token | Self::ApplicationCredentialSecret)
    }
}

/// A value and where it was read.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    /// The value.
    pub(super) value: SecretString,
    /// The file, line and section, or the variable: `/etc/cloud.conf:3: [Global] auth-url`.
    pub(super) place: String,
}

impl Setting {
    pub(super) fn text(&self) -> &str {
        self.value.expose_secret()
    }

    /// An error about this value, which is shown.
    pub(super) fn wrong(&self, why: impl fmt::Display) -> Error {
        Error::invalid(format!("{} = {:?}: {why}", self.place, self.text()))
    }

    /// An error about this value, which is not shown.
    pub(super) fn wrong_secret(&self, why: impl fmt::Display) -> Error {
        Error::invalid(format!("{}: {why}", self.place))
    }

    /// As a boolean, in the words of gcfg.
    pub(super) fn boolean(&self) -> Result<bool> {
        match self.text().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => Err(self.wrong("this is neither true nor false")),
        }
    }
}

/// What one source, or several merged ones, say about a cloud.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// The source as a whole, for messages about what is missing: `/etc/cloud.conf [Global]`.
    pub(super) origin: String,
    /// How that source spells keys.
    pub(super) dialect: Dialect,
    values: BTreeMap<Key, Setting>,
}

impl Settings {
    pub(super) fn new(origin: impl Into<String>, dialect: Dialect) -> Self {
        Self { origin: origin.into(), dialect, values: BTreeMap::new() }
    }

    /// Says something; the last word counts. Empty takes back what was said, as with cinder-csi.
    pub(super) fn set(&mut self, key: Key, setting: Setting) {
        self.values.insert(key, setting);
    }

    /// Says something unless it is said already.
    pub(super) fn fill(&mut self, key: Key, setting: Setting) {
        if self.get(key).is_none() {
            self.set(key, setting);
        }
    }

    /// Says everything that another source says and this one does not.
    pub(super) fn fill_from(&mut self, other: Self) {
        for (key, setting) in other.values {
            self.fill(key, setting);
        }
    }

    /// What is said; an empty value is as good as none.
    pub(super) fn get(&self, key: Key) -> Option<&Setting> {
        self.values.get(&key).filter(|setting| !setting.text().is_empty())
    }

    /// The text of what is said.
    pub(super) fn text(&self, key: Key) -> Option<&str> {
        self.get(key).map(Setting::text)
    }

    /// A boolean; false where nothing is said.
    pub(super) fn boolean(&self, key: Key) -> Result<bool> {
        self.get(key).map_or(Ok(false), Setting::boolean)
    }

    /// An error about a value that is there.
    pub(super) fn wrong(&self, key: Key, why: impl fmt::Display) -> Error {
        match self.get(key) {
            Some(setting) if key.is_secret() => setting.wrong_secret(why),
            Some(setting) => setting.wrong(why),
            None => Error::invalid(format!("{}: {}: {why}", self.origin, self.dialect.name_of(key))),
        }
    }

    /// An error about what is not said: the keys of which one is needed, and why.
    pub(super) fn missing(&self, keys: &[Key], why: &str) -> Error {
        let mut message = format!("{}: {why}: add ", self.origin);
        for (index, key) in keys.iter().enumerate() {
            let separator = if index == 0 { "" } else { " or " };
            // Writing to a string cannot fail.
            let _ = write!(message, "{separator}{}", self.dialect.name_of(*key));
        }
        Error::invalid(message)
    }
}

#[cfg(test)]
mod tests {
    use super::{Dialect, Key, NAMES, Setting, Settings};
    use secrecy::SecretString;
    use std::collections::BTreeSet;

    fn setting(value: &str) -> Setting {
        Setting { value: SecretString::from(value), place: "c:1: [Global] x".to_owned() }
    }

    #[test]
    fn every_key_has_its_row_and_no_name_stands_for_two() {
        let keys: BTreeSet<Key> = NAMES.iter().map(|names| names.key).collect();
        assert_eq!(keys.len(), NAMES.len());
        for spellings in [|n: &super::Names| n.cloud_conf, |n: &super::Names| n.clouds_yaml] {
            let all: Vec<&str> = NAMES.iter().flat_map(spellings).copied().collect();
            assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        }
        assert_eq!(Dialect::Environment.name_of(Key::ProjectName), "OS_PROJECT_NAME");
    }

    #[test]
    fn an_empty_value_is_as_good_as_none() {
        let mut settings = Settings::new("c [Global]", Dialect::CloudConf);
        settings.set(Key::Region, setting("a"));
        settings.set(Key::Region, setting(""));
        assert!(settings.get(Key::Region).is_none());
        settings.fill(Key::Region, setting("b"));
        settings.fill(Key::Region, setting("c"));
        assert_eq!(settings.text(Key::Region), Some("b"));
    }

    #[test]
    fn errors_show_values_but_no_secrets() {
        let mut settings = Settings::new("c [Global]", Dialect::CloudConf);
        settings.set(Key::Region, setting("north"));
        settings.set(Key::Password, setting("hunter2"));
        assert_eq!(settings.wrong(Key::Region, "no").to_string(), "c:1: [Global] x = \"north\": no");
        assert_eq!(settings.wrong(Key::Password, "no").to_string(), "c:1: [Global] x: no");
        assert_eq!(
            settings.missing(&[Key::UserId, Key::Username], "nobody").to_string(),
            "c [Global]: nobody: add user-id or username"
        );
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    #[test]
    fn booleans_are_those_of_gcfg() {
        for (text, expected) in [("true", true), ("Yes", true), ("ON", true), ("1", true), ("off", false), ("0", false)]
        {
            assert_eq!(setting(text).boolean().unwrap(), expected);
        }
        assert!(setting("maybe").boolean().unwrap_err().to_string().contains("\"maybe\""));
    }
}
