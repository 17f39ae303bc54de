//! The Identity API (Keystone v3): what a login sends and what it brings. No I/O here.

use super::client::ServiceKind;
use super::cloud::{ApplicationCredentialId, Auth, Cloud, Domain, Interface, Scope, User};
use crate::error::{Error, Kind, Result};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use url::Url;

/// The URL that tokens are made at: `…/v3/auth/tokens`, whether or not the configured URL has a version.
#[must_use]
pub(super) fn token_url(auth_url: &Url) -> Url {
    let mut url = auth_url.clone();
    let path = url.path().trim_end_matches('/');
    let path = path.strip_suffix("/auth/tokens").unwrap_or(path);
    let path = match path.rsplit('/').next() {
        Some("v3") => path.to_owned(),
        Some("v2.0") => format!("{}v3", path.trim_end_matches("v2.0")),
        _ => format!("{path}/v3"),
    };
    url.set_path(&format!("{path}/auth/tokens"));
    url
}

/// The body of a login. It holds secrets: it is for the wire only.
#[must_use]
pub(super) fn login_body(cloud: &Cloud) -> Value {
    let identity = match &cloud.auth {
        Auth::Password { user, password } => {
            let mut user = user_body(user);
            set(&mut user, "password", json!(password.expose_secret()));
            json!({"methods": ["password"], "password": {"user": user}})
        }
        Auth::ApplicationCredential { id, secret } => {
            let mut credential = match id {
                ApplicationCredentialId::Id(id) => json!({"id": id}),
                ApplicationCredentialId::Name { name, user } => json!({"name": name, "user": user_body(user)}),
            };
            set(&mut credential, "secret", json!(secret.expose_secret()));
            json!({"methods": ["application_credential"], "application_credential": credential})
        }
        Auth::Token(token) => json!({"methods": ["token"], "token": {"id": token.expose_secret()}}),
    };
    let mut auth = json!({"identity": identity});
    let scope = match &cloud.scope {
        Scope::Implied => None,
        Scope::ProjectId(id) => Some(json!({"project": {"id": id}})),
        Scope::ProjectName { name, domain } => Some(json!({"project": {"name": name, "domain": domain_body(domain)}})),
        Scope::Trust(id) => Some(json!({"OS-TRUST:trust": {"id": id}})),
    };
    if let Some(scope) = scope {
        set(&mut auth, "scope", scope);
    }
    json!({"auth": auth})
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(map) = object {
        map.insert(key.to_owned(), value);
    }
}

fn user_body(user: &User) -> Value {
    match user {
        User::Id(id) => json!({"id": id}),
        User::Name { name, domain } => json!({"name": name, "domain": domain_body(domain)}),
    }
}

fn domain_body(domain: &Domain) -> Value {
    match domain {
        Domain::Id(id) => json!({"id": id}),
        Domain::Name(name) => json!({"name": name}),
    }
}

/// The part of the answer that we use.
#[derive(Debug, Deserialize)]
pub(super) struct TokenAnswer {
    token: TokenBody,
}

#[derive(Debug, Deserialize)]
struct TokenBody {
    expires_at: Timestamp,
    issued_at: Option<Timestamp>,
    project: Option<Project>,
    #[serde(default)]
    catalog: Vec<CatalogService>,
}

#[derive(Debug, Deserialize)]
struct Project {
    id: String,
}

#[derive(Debug, Deserialize)]
struct CatalogService {
    r#type: String,
    #[serde(default)]
    endpoints: Vec<CatalogEndpoint>,
}

#[derive(Debug, Deserialize)]
struct CatalogEndpoint {
    interface: String,
    region: Option<String>,
    region_id: Option<String>,
    url: String,
}

/// A token and what came with it.
#[derive(Debug)]
pub(super) struct Grant {
    /// The token.
    pub(super) token: SecretString,
    /// How long it lives, by Keystone's own clock.
    pub(super) lifetime: Duration,
    /// The project it is for; none for an unscoped token.
    pub(super) project_id: Option<String>,
    catalog: Vec<CatalogService>,
}

impl Grant {
    /// Puts the answer and its `X-Subject-Token` header together.
    #[must_use]
    pub(super) fn new(token: SecretString, answer: TokenAnswer, now: Timestamp) -> Self {
        let body = answer.token;
        let lifetime = body.expires_at.duration_since(body.issued_at.unwrap_or(now));
        Self {
            token,
            lifetime: Duration::try_from(lifetime).unwrap_or_default(),
            project_id: body.project.map(|project| project.id),
            catalog: body.catalog,
        }
    }

    /// The endpoint of a service, as this cloud's settings choose it.
    ///
    /// # Errors
    /// `InvalidArgument` (the configuration does not fit the cloud): names the service, region and interface that were
    /// looked for and those that the catalogue has.
    pub(super) fn endpoint(&self, service: ServiceKind, cloud: &Cloud) -> Result<Url> {
        if let Some((_, url)) =
            cloud.endpoint_overrides.iter().find(|(kind, _)| service.types().contains(&kind.as_str()))
        {
            return Ok(url.clone());
        }
        let candidates = service
            .types()
            .iter()
            .find_map(|kind| self.catalog.iter().find(|entry| entry.r#type == *kind && !entry.endpoints.is_empty()));
        let Some(entry) = candidates else {
            let known: Vec<&str> = self.catalog.iter().map(|entry| entry.r#type.as_str()).collect();
            return Err(Error::invalid(format!(
                "{}: the catalogue has no service of type {}; it has {}. Is the service installed, and is the credential scoped to a project?",
                cloud.origin,
                service.types().join(" or "),
                if known.is_empty() { "none at all".to_owned() } else { known.join(", ") },
            )));
        };
        let in_region = |endpoint: &&CatalogEndpoint| match &cloud.region {
            Some(region) => endpoint.region_id.as_ref() == Some(region) || endpoint.region.as_ref() == Some(region),
            None => true,
        };
        let found = entry
            .endpoints
            .iter()
            .filter(in_region)
            .find(|endpoint| interface_of(&endpoint.interface) == Some(cloud.interface));
        let Some(endpoint) = found else {
            let known: Vec<String> = entry
                .endpoints
                .iter()
                .map(|e| {
                    format!(
                        "{} in {}",
                        e.interface,
                        e.region_id.as_deref().or(e.region.as_deref()).unwrap_or("no region")
                    )
                })
                .collect();
            return Err(Error::invalid(format!(
                "{}: service {} has no {} endpoint{}; it has {}",
                cloud.origin,
                entry.r#type,
                cloud.interface.as_str(),
                cloud.region.as_ref().map(|region| format!(" in region {region}")).unwrap_or_default(),
                known.join(", "),
            )));
        };
        Url::parse(&endpoint.url).map_err(|error| {
            Error::new(
                Kind::InvalidArgument,
                format!("the catalogue's URL {:?} of service {}", endpoint.url, entry.r#type),
            )
            .because(error)
        })
    }
}

/// The catalogue's spelling, old ones included.
fn interface_of(text: &str) -> Option<Interface> {
    match text.strip_suffix("URL").unwrap_or(text) {
        "public" => Some(Interface::Public),
        "internal" => Some(Interface::Internal),
        "admin" => Some(Interface::Admin),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Grant, TokenAnswer, login_body, token_url};
    use crate::openstack::client::ServiceKind;
    use crate::openstack::cloud::{Auth, Cloud, Domain, Interface, Scope, Tls, User};
    use jiff::Timestamp;
    use serde_json::json;
    use std::time::Duration;
    use url::Url;

    fn cloud() -> Cloud {
        Cloud {
            name: String::new(),
            auth_url: Url::parse("http://k:5000/v3").unwrap(),
            auth: Auth::Password {
                user: User::Name { name: "u".into(), domain: Domain::Name("Default".into()) },
                password: "secret".into(),
            },
            scope: Scope::ProjectName { name: "p".into(), domain: Domain::Id("default".into()) },
            region: Some("RegionOne".into()),
            interface: Interface::Public,
            endpoint_overrides: Vec::new(),
            tls: Tls::default(),
            origin: "test.conf".into(),
        }
    }

    fn grant() -> Grant {
        let answer: TokenAnswer = serde_json::from_value(json!({"token": {
            "expires_at": "2026-01-01T01:00:00.000000Z", "issued_at": "2026-01-01T00:00:00.000000Z",
            "project": {"id": "p1", "name": "p"},
            "catalog": [
                {"type": "volumev3", "endpoints": [
                    {"interface": "admin", "region_id": "RegionOne", "region": "RegionOne", "url": "http://a/v3/p1"},
                    {"interface": "public", "region_id": "RegionTwo", "region": "RegionTwo", "url": "http://two/v3/p1"},
                    {"interface": "public", "region_id": "RegionOne", "region": "RegionOne", "url": "http://one/v3/p1"}]},
                {"type": "compute", "endpoints": []}]}}))
        .unwrap();
        Grant::new("t".into(), answer, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn token_urls_take_any_form_of_the_auth_url() {
        for (given, wanted) in [
            ("http://k:5000", "http://k:5000/v3/auth/tokens"),
            ("http://k:5000/", "http://k:5000/v3/auth/tokens"),
            ("http://k:5000/v3", "http://k:5000/v3/auth/tokens"),
            ("http://k:5000/v3/", "http://k:5000/v3/auth/tokens"),
            ("https://k/identity", "https://k/identity/v3/auth/tokens"),
            ("https://k/identity/v2.0", "https://k/identity/v3/auth/tokens"),
            ("https://k/identity/v3/auth/tokens", "https://k/identity/v3/auth/tokens"),
        ] {
            assert_eq!(token_url(&Url::parse(given).unwrap()).as_str(), wanted, "{given}");
        }
    }

    #[test]
    fn a_password_login_is_scoped_to_the_project() {
        let body = login_body(&cloud());
        assert_eq!(body["auth"]["identity"]["password"]["user"]["password"], "secret");
        assert_eq!(body["auth"]["scope"]["project"], json!({"name": "p", "domain": {"id": "default"}}));
    }

    #[test]
    fn the_endpoint_is_chosen_by_type_region_and_interface() {
        let grant = grant();
        assert_eq!(grant.lifetime, Duration::from_secs(3600));
        assert_eq!(grant.endpoint(ServiceKind::BlockStorage, &cloud()).unwrap().as_str(), "http://one/v3/p1");
        let admin = Cloud { interface: Interface::Admin, ..cloud() };
        assert_eq!(grant.endpoint(ServiceKind::BlockStorage, &admin).unwrap().as_str(), "http://a/v3/p1");
        let overridden =
            Cloud { endpoint_overrides: vec![("block-storage".into(), Url::parse("http://o/v3").unwrap())], ..cloud() };
        assert_eq!(grant.endpoint(ServiceKind::BlockStorage, &overridden).unwrap().as_str(), "http://o/v3");
    }

    #[test]
    fn a_wrong_region_or_service_is_named_with_what_there_is() {
        let wrong = Cloud { region: Some("Mars".into()), ..cloud() };
        let error = grant().endpoint(ServiceKind::BlockStorage, &wrong).unwrap_err().to_string();
        assert!(error.contains("region Mars") && error.contains("public in RegionOne"), "{error}");
        let error = grant().endpoint(ServiceKind::Compute, &cloud()).unwrap_err().to_string();
        assert!(error.contains("no service of type compute") && error.contains("volumev3"), "{error}");
    }
}
