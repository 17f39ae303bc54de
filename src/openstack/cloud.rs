//! What is needed to talk to one cloud: where Keystone is, who we are, and how the connection is made safe.
//!
//! `config` makes these from cloud.conf, clouds.yaml and the environment; [`super::session`] uses them. They are plain
//! validated data: a [`Cloud`] that exists can be logged in to, as far as a look without network can tell.

use secrecy::SecretString;
use std::path::PathBuf;
use url::Url;

/// Everything about one cloud.
#[derive(Debug, Clone)]
pub struct Cloud {
    /// The name by which classes and, unless it is the default cloud, volume handles refer to it: that of its
    /// `[Global "name"]` or of its entry in clouds.yaml. Only the default cloud's name may be empty.
    pub name: String,
    /// Keystone's URL, with or without `/v3`.
    pub auth_url: Url,
    /// Who we are.
    pub auth: Auth,
    /// For what.
    pub scope: Scope,
    /// The region; none takes the only (or first) one of the catalogue.
    pub region: Option<String>,
    /// Which endpoints of the catalogue are used.
    pub interface: Interface,
    /// Endpoints that are not taken from the catalogue: service type (`block-storage`, `compute`,
    /// `shared-file-system`) and URL.
    pub endpoint_overrides: Vec<(String, Url)>,
    /// How TLS connections are made.
    pub tls: Tls,
    /// Where this was read from, for error messages: `cloud.conf [Global "east"]`.
    pub origin: String,
}

/// How we prove who we are.
#[derive(Debug, Clone)]
pub enum Auth {
    /// A user and a password.
    Password {
        /// The user.
        user: User,
        /// The password.
        password: SecretString,
    },
    /// An application credential; it brings its own scope.
    ApplicationCredential {
        /// By id, or by name and user.
        id: ApplicationCredentialId,
        /// Its secret.
        secret: SecretString,
    },
    /// A token that somebody else got. It cannot be renewed past its expiry.
    Token(SecretString),
}

/// A user, by id or by name within a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum User {
    /// By id.
    Id(String),
    /// By name and domain.
    Name {
        /// The name.
        name: String,
        /// The domain.
        domain: Domain,
    },
}

/// An application credential, by id or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApplicationCredentialId {
    /// By id.
    Id(String),
    /// By name; names are unique per user only.
    Name {
        /// The name.
        name: String,
        /// Whose.
        user: User,
    },
}

/// A domain, by id or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Domain {
    /// By id.
    Id(String),
    /// By name.
    Name(String),
}

/// What the token is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Whatever the credential implies.
    Implied,
    /// A project by id.
    ProjectId(String),
    /// A project by name within a domain.
    ProjectName {
        /// The name.
        name: String,
        /// The domain.
        domain: Domain,
    },
    /// A trust.
    Trust(String),
}

/// Which of a service's endpoints is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Interface {
    /// For users.
    #[default]
    Public,
    /// For services.
    Internal,
    /// For administrators.
    Admin,
}

impl Interface {
    /// As the catalogue spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Admin => "admin",
        }
    }
}

/// How TLS connections are made. The files are read again whenever they change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// More certificate authorities, PEM.
    pub ca_file: Option<PathBuf>,
    /// Our certificate and key, PEM.
    pub client: Option<ClientCertificate>,
    /// Whether the server's certificate is not verified.
    pub insecure: bool,
}

/// The files of a client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
}
