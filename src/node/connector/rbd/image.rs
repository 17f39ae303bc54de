//! What a `connection_info` says about an image. All of it ends up between blanks and commas in a control file, so
//! nothing passes that could begin another word or option.

use crate::error::{Error, Result};
use crate::node::connector::Link;
use crate::node::connector::field::Fields;
use crate::node::connector::portal::Portal;
use secrecy::{ExposeSecret, SecretString};
use std::fmt;
use std::str::FromStr;

/// The longest name of a pool, namespace, image or user that is taken.
const LONGEST_NAME: usize = 128;

/// The secrets that may hold the key: as the controller seals it, and as a class has it that was made for Ceph's own driver.
const KEY_NAMES: [&str; 3] = ["keyring", "userKey", "key"];

/// A name of Ceph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(String);

impl Name {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+:~".contains(&byte);
        // A lone `-` means "no snapshot" to the kernel.
        if !text.is_empty() && text.len() <= LONGEST_NAME && text.bytes().all(is_plain) && text != "-" {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("has {text:?}, which is no name of Ceph that the kernel's control file takes"))
        }
    }
}

/// Where an image is: `pool/image` or `pool/namespace/image`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) pool: Name,
    pub(super) namespace: Option<Name>,
    pub(super) image: Name,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}/{namespace}/{}", self.pool, self.image),
            None => write!(f, "{}/{}", self.pool, self.image),
        }
    }
}

impl FromStr for Location {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split('/').collect::<Vec<_>>().as_slice() {
            [pool, image] => Ok(Self { pool: pool.parse()?, namespace: None, image: image.parse()? }),
            [pool, "", image] => Ok(Self { pool: pool.parse()?, namespace: None, image: image.parse()? }),
            [pool, namespace, image] => {
                Ok(Self { pool: pool.parse()?, namespace: Some(namespace.parse()?), image: image.parse()? })
            }
            _ => Err(format!("is {text:?}, which is neither pool/image nor pool/namespace/image")),
        }
    }
}

/// How the kernel speaks to the monitors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Messenger {
    Legacy,
    Crc,
    Secure,
    PreferCrc,
    PreferSecure,
}

impl Messenger {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Crc => "crc",
            Self::Secure => "secure",
            Self::PreferCrc => "prefer-crc",
            Self::PreferSecure => "prefer-secure",
        }
    }
}

impl FromStr for Messenger {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Legacy, Self::Crc, Self::Secure, Self::PreferCrc, Self::PreferSecure]
            .into_iter()
            .find(|mode| mode.word() == text)
            .ok_or_else(|| format!("is {text:?}, and not legacy, crc, secure, prefer-crc or prefer-secure"))
    }
}

/// An image, its cluster, and as whom to go there.
#[derive(Debug, Clone)]
pub(super) struct Image {
    pub(super) location: Location,
    pub(super) monitors: Vec<Portal>,
    pub(super) messenger: Option<Messenger>,
    pub(super) user: Option<Name>,
    /// Whether Ceph is to keep other writers off.
    pub(super) exclusive: bool,
}

impl Image {
    /// What a connection says.
    ///
    /// # Errors
    /// `InvalidArgument`: it makes no sense.
    pub(super) fn of(link: &Link) -> Result<Self> {
        let fields = Fields::of(link);
        let hosts: Vec<String> = fields.list("hosts")?;
        let ports: Vec<String> = fields.list("ports")?;
        if hosts.len() != ports.len() || hosts.is_empty() {
            return Err(fields.wrong("hosts", "has not as many entries as ports, or none"));
        }
        let mut monitors = Vec::new();
        for (host, port) in hosts.iter().zip(&ports) {
            let address = Portal::address(host).map_err(|error| fields.wrong("hosts", &error.to_string()))?;
            let port = port.parse().ok().and_then(|port| Portal::new(address, port));
            monitors.push(port.ok_or_else(|| fields.wrong("ports", "has an entry that is no port"))?);
        }
        let is_authenticated = fields.value("auth_enabled").is_none_or(|value| value != false && value != "false");
        let user: Option<String> = fields.optional("auth_username")?;
        let user = user
            .map(|user| user.strip_prefix("client.").unwrap_or(&user).parse())
            .transpose()
            .map_err(|why: String| fields.wrong("auth_username", &why))?;
        if is_authenticated && user.is_none() {
            return Err(fields.wrong("auth_username", "is missing"));
        }
        Ok(Self {
            location: fields.required("name")?,
            monitors,
            messenger: fields.optional("ms_mode")?,
            user: user.filter(|_| is_authenticated),
            exclusive: fields.value("exclusive").is_some_and(|value| *value == true || value == "true"),
        })
    }
}

/// The cephx key among the secrets of a link.
///
/// # Errors
/// `WrongState`: there is none, or it is none. Never says what it is instead.
pub(super) fn key(link: &Link, user: &Name) -> Result<SecretString> {
    let secret = KEY_NAMES.iter().find_map(|name| link.secrets.get(*name)).ok_or_else(|| {
        Error::wrong_state(format!(
            "volume {} needs the cephx key of client.{user}, which Cinder does not give: put it into the controller's \
             configuration ([Ceph]), or as `keyring` into the class's node-stage secret",
            link.volume
        ))
    })?;
    let text = secret.expose_secret().trim();
    // A whole keyring, as some back ends give it, has the key in a line of its own.
    let in_keyring = text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == "key").then(|| value.trim())
    });
    let key = in_keyring.unwrap_or(text);
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
    if (16..=256).contains(&key.len()) && key.bytes().all(is_base64) {
        Ok(key.to_owned().into())
    } else {
        Err(Error::wrong_state(format!(
            "volume {}: the secret for client.{user} is no cephx key (base64, as `ceph auth print-key client.{user}` \
             prints it)",
            link.volume
        )))
    }
}
