//! From what is said about a cloud to a validated [`Cloud`].
//!
//! Where cloud.conf leaves it open which credential is meant, the order is that of the more specific: an application
//! credential, a token, a password; a trust is always used with a password. `auth_type` of clouds.yaml decides it.

use super::files::Reader;
use super::settings::{Key, Settings};
use super::spelling;
use crate::error::{Error, Result};
use crate::openstack::cloud::{
    ApplicationCredentialId, Auth, ClientCertificate, Cloud, Domain, Interface, Scope, Tls, User,
};
use secrecy::{ExposeSecret, SecretString};
use std::path::PathBuf;
use url::Url;

/// Makes a cloud of what is said about it. `reader` is for the files that it names.
pub(super) fn cloud(name: &str, settings: &Settings, reader: &mut Reader, warnings: &mut Vec<String>) -> Result<Cloud> {
    let method = Method::of(settings)?;
    let auth = method.auth(settings)?;
    for key in method.unused() {
        if let Some(setting) = settings.get(*key) {
            warnings.push(format!("{}: this is not used, since {} is", setting.place, method.words()));
        }
    }
    Ok(Cloud {
        name: name.to_owned(),
        auth_url: auth_url(settings)?,
        auth,
        scope: method.scope(settings)?,
        region: settings.text(Key::Region).map(str::to_owned),
        interface: interface(settings)?,
        endpoint_overrides: endpoint_overrides(settings)?,
        tls: tls(settings, reader)?,
        origin: settings.origin.clone(),
    })
}

/// How one logs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Password,
    Trust,
    ApplicationCredential,
    Token,
}

/// The values of `auth_type` that are known, and what they stand for.
const AUTH_TYPES: [(&str, Method); 5] = [
    ("password", Method::Password),
    ("v3password", Method::Password),
    ("v3applicationcredential", Method::ApplicationCredential),
    ("token", Method::Token),
    ("v3token", Method::Token),
];

impl Method {
    fn of(settings: &Settings) -> Result<Self> {
        let has = |key| settings.get(key).is_some();
        let method = match settings.text(Key::AuthType) {
            Some(auth_type) => AUTH_TYPES
                .iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(auth_type))
                .map(|(_, method)| *method)
                .ok_or_else(|| {
                    let known = AUTH_TYPES.map(|(name, _)| name);
                    let suggestion = spelling::suggestion(auth_type, known);
                    settings.wrong(Key::AuthType, format!("use one of {}{suggestion}", known.join(", ")))
                })?,
            None if has(Key::ApplicationCredentialId) || has(Key::ApplicationCredentialName) => {
                Self::ApplicationCredential
            }
            None if has(Key::TrustId) => Self::Trust,
            None if has(Key::Token) => Self::Token,
            None => Self::Password,
        };
        Ok(if method == Self::Password && has(Key::TrustId) { Self::Trust } else { method })
    }

    fn words(self) -> &'static str {
        match self {
            Self::Password => "a password",
            Self::Trust => "a trust",
            Self::ApplicationCredential => "an application credential",
            Self::Token => "a token",
        }
    }

    /// What might be thought to matter and does not.
    fn unused(self) -> &'static [Key] {
        match self {
            Self::Password => &[Key::ApplicationCredentialSecret, Key::Token],
            Self::Trust => &[Key::ApplicationCredentialSecret, Key::Token],
            Self::ApplicationCredential => &[Key::Password, Key::Token, Key::TrustId],
            Self::Token => &[Key::ApplicationCredentialSecret, Key::Password, Key::TrustId],
        }
    }

    fn auth(self, settings: &Settings) -> Result<Auth> {
        match self {
            Self::Password => {
                Ok(Auth::Password { user: user(settings, NOBODY)?, password: secret(settings, &[Key::Password])? })
            }
            Self::Trust => Ok(Auth::Password {
                user: match settings.text(Key::TrusteeId) {
                    Some(id) => User::Id(id.to_owned()),
                    None => user(settings, NOBODY)?,
                },
                password: secret(settings, &[Key::TrusteePassword, Key::Password])?,
            }),
            Self::ApplicationCredential => Ok(Auth::ApplicationCredential {
                id: application_credential(settings)?,
                secret: secret(settings, &[Key::ApplicationCredentialSecret])?,
            }),
            Self::Token => Ok(Auth::Token(secret(settings, &[Key::Token])?)),
        }
    }

    fn scope(self, settings: &Settings) -> Result<Scope> {
        let project = || match (settings.text(Key::ProjectId), settings.text(Key::ProjectName)) {
            (Some(id), _) => Ok(Scope::ProjectId(id.to_owned())),
            (None, Some(name)) => {
                let domain = domain(settings, Key::ProjectDomainId, Key::ProjectDomainName).ok_or_else(|| {
                    let keys = [Key::ProjectDomainName, Key::ProjectDomainId];
                    settings.missing(&keys, "a project's name is unique in its domain only")
                })?;
                Ok(Scope::ProjectName { name: name.to_owned(), domain })
            }
            (None, None) => Ok(Scope::Implied),
        };
        match self {
            Self::Password | Self::Token => project(),
            Self::Trust => Ok(Scope::Trust(required(settings, &[Key::TrustId], "a trust is used")?)),
            Self::ApplicationCredential => Ok(Scope::Implied),
        }
    }
}

const NOBODY: &str = "there is nobody to log in as";

/// The text of the first of these keys that is said.
fn required(settings: &Settings, keys: &[Key], why: &str) -> Result<String> {
    keys.iter().find_map(|key| settings.text(*key)).map(str::to_owned).ok_or_else(|| settings.missing(keys, why))
}

fn secret(settings: &Settings, keys: &[Key]) -> Result<SecretString> {
    keys.iter()
        .find_map(|key| settings.get(*key))
        .map(|setting| setting.value.clone())
        .ok_or_else(|| settings.missing(keys, "there is nothing to log in with"))
}

fn user(settings: &Settings, why: &str) -> Result<User> {
    if let Some(id) = settings.text(Key::UserId) {
        return Ok(User::Id(id.to_owned()));
    }
    let name = required(settings, &[Key::Username, Key::UserId], why)?;
    let domain = domain(settings, Key::UserDomainId, Key::UserDomainName).ok_or_else(|| {
        let keys = [Key::UserDomainName, Key::UserDomainId];
        settings.missing(&keys, "a user's name is unique in its domain only")
    })?;
    Ok(User::Name { name, domain })
}

fn application_credential(settings: &Settings) -> Result<ApplicationCredentialId> {
    if let Some(id) = settings.text(Key::ApplicationCredentialId) {
        return Ok(ApplicationCredentialId::Id(id.to_owned()));
    }
    let keys = [Key::ApplicationCredentialId, Key::ApplicationCredentialName];
    let name = required(settings, &keys, "an application credential is used")?;
    let user = user(settings, "an application credential's name is unique to its user only")?;
    Ok(ApplicationCredentialId::Name { name, user })
}

/// The domain of a user or project: its own, else the general one.
fn domain(settings: &Settings, id: Key, name: Key) -> Option<Domain> {
    let by_id = |key| settings.text(key).map(|text| Domain::Id(text.to_owned()));
    let by_name = |key| settings.text(key).map(|text| Domain::Name(text.to_owned()));
    by_id(id)
        .or_else(|| by_name(name))
        .or_else(|| by_id(Key::DomainId))
        .or_else(|| by_name(Key::DomainName))
        .or_else(|| by_id(Key::DefaultDomain))
}

fn auth_url(settings: &Settings) -> Result<Url> {
    if settings.get(Key::AuthUrl).is_none() {
        return Err(settings.missing(&[Key::AuthUrl], "it is not said where Keystone is"));
    }
    let url = url(settings, Key::AuthUrl, "https://cloud.example.org:5000/v3")?;
    if url.path().trim_end_matches('/').ends_with("/v2.0") {
        return Err(settings.wrong(Key::AuthUrl, "version 2.0 of the Identity API is gone; write /v3, or no version"));
    }
    Ok(url)
}

/// A URL that requests can go to. One with a password in it is not shown.
fn url(settings: &Settings, key: Key, example: &str) -> Result<Url> {
    let text = settings.text(key).unwrap_or_default();
    let wrong = |why: &str| {
        let why = format!("{why}; write for example {example}");
        match settings.get(key) {
            Some(setting) if text.contains('@') => setting.wrong_secret(why),
            _ => settings.wrong(key, why),
        }
    };
    let url = Url::parse(text.trim()).map_err(|error| wrong(&format!("this is not a URL ({error})")))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong("this is not a URL of http or https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("there is no place for a user or password in this URL"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("this URL has no place for ? or #"));
    }
    Ok(url)
}

fn interface(settings: &Settings) -> Result<Interface> {
    let Some(text) = settings.text(Key::Interface) else { return Ok(Interface::default()) };
    match text.to_ascii_lowercase().trim_end_matches("url") {
        "public" => Ok(Interface::Public),
        "internal" => Ok(Interface::Internal),
        "admin" => Ok(Interface::Admin),
        _ => Err(settings.wrong(Key::Interface, "use public, internal or admin")),
    }
}

fn endpoint_overrides(settings: &Settings) -> Result<Vec<(String, Url)>> {
    [
        (Key::BlockStorageEndpoint, "block-storage", "https://cloud.example.org:8776/v3"),
        (Key::ComputeEndpoint, "compute", "https://cloud.example.org:8774/v2.1"),
        (Key::SharedFileSystemEndpoint, "shared-file-system", "https://cloud.example.org:8786/v2"),
    ]
    .into_iter()
    .filter(|(key, _, _)| settings.get(*key).is_some())
    .map(|(key, service, example)| Ok((service.to_owned(), url(settings, key, example)?)))
    .collect()
}

fn tls(settings: &Settings, reader: &mut Reader) -> Result<Tls> {
    let ca_file = pem_file(settings, Key::CaFile, "CERTIFICATE-----", reader)?;
    let cert_file = pem_file(settings, Key::ClientCertFile, "CERTIFICATE-----", reader)?;
    let key_file = pem_file(settings, Key::ClientKeyFile, "PRIVATE KEY-----", reader)?;
    let client = match (cert_file, key_file) {
        (Some(cert_file), Some(key_file)) => Some(ClientCertificate { cert_file, key_file }),
        (None, None) => None,
        (Some(_), None) => {
            return Err(settings.missing(&[Key::ClientKeyFile], "a certificate is of no use without its key"));
        }
        (None, Some(_)) => {
            return Err(settings.missing(&[Key::ClientCertFile], "a key is of no use without its certificate"));
        }
    };
    Ok(Tls { ca_file, client, insecure: insecure(settings)? })
}

/// Whether certificates are not verified. What is said directly counts more than `verify` of a clouds.yaml.
fn insecure(settings: &Settings) -> Result<bool> {
    match (settings.get(Key::Insecure), settings.get(Key::Verify)) {
        (Some(insecure), _) => insecure.boolean(),
        (None, Some(verify)) => Ok(!verify.boolean()?),
        (None, None) => Ok(false),
    }
}

/// A file that has to be there and to look like what it should be.
fn pem_file(settings: &Settings, key: Key, marker: &str, reader: &mut Reader) -> Result<Option<PathBuf>> {
    let Some(text) = settings.text(key) else { return Ok(None) };
    let path = PathBuf::from(text);
    let wrong = |error: Error| {
        let place = settings.get(key).map_or(settings.origin.as_str(), |setting| setting.place.as_str());
        error.during(place)
    };
    let content = reader.read(&path).map_err(wrong)?;
    if !content.expose_secret().contains(marker) {
        let what = if marker.starts_with("CERT") { "certificate" } else { "private key" };
        return Err(settings.wrong(key, format!("there is no {what} in PEM form (-----BEGIN …) in this file")));
    }
    Ok(Some(path))
}

#[cfg(test)]
mod tests;
