//! Classes with credentials of their own: the `os-*` secrets of manila-csi.
//!
//! The credentials are not used. Here the controller has those of cloud.conf, for all RPCs, also those to which an
//! orchestrator gives no secret; a class's secret chooses among the clouds of cloud.conf, and one for an account that is
//! not there is refused, so that no share is made in another project than the class means.

use super::{Cloud, ManilaProvider};
use crate::error::{Error, Result};
use crate::model::Secrets;
use crate::openstack::cloud::{self, ApplicationCredentialId, Auth, Scope};
use secrecy::ExposeSecret;
use url::Url;

const AUTH_URL: &str = "os-authURL";
const REGION: &str = "os-region";
const PROJECT_ID: &str = "os-projectID";
const PROJECT_NAME: &str = "os-projectName";
const CREDENTIAL_ID: &str = "os-applicationCredentialID";
const CLOUD: &str = "os-cloud";

/// How well a configured cloud fits what a secret says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// It is another one.
    Other,
    /// Nothing speaks against it.
    Possible,
    /// The project or the credential is the same.
    Same,
}

impl ManilaProvider {
    /// The cloud that a class's secret means; without one, the default cloud.
    pub(super) async fn cloud_of_class(&self, secrets: &Secrets) -> Result<&Cloud> {
        if !secrets.contains_key(AUTH_URL) {
            return match (said(secrets, CLOUD), said(secrets, crate::provider::clouds::CLOUD_SECRET)) {
                (Some(name), None) if self.clouds.keys().any(|known| known == name) => self.clouds.of_handle(name),
                _ => self.clouds.of_class(secrets),
            };
        }
        let mut best: Option<(Fit, &Cloud)> = None;
        for cloud in self.clouds.all() {
            let fit = fit(secrets, &*cloud.manila.client().session().settings().await?);
            if fit > best.map_or(Fit::Other, |(best, _)| best) {
                best = Some((fit, cloud));
            }
        }
        best.map(|(_, cloud)| cloud).ok_or_else(|| {
            let words: Vec<String> = [AUTH_URL, REGION, PROJECT_ID, PROJECT_NAME]
                .into_iter()
                .filter_map(|key| said(secrets, key).map(|value| format!("{key} {value:?}")))
                .collect();
            Error::invalid(format!(
                "the secret of the class is for another account than those of cloud.conf ({}): credentials are taken \
                 from cloud.conf only, so add a section [Global \"name\"] with them there",
                words.join(", ")
            ))
        })
    }
}

fn said<'a>(secrets: &'a Secrets, key: &str) -> Option<&'a str> {
    secrets.get(key).map(|value| value.expose_secret()).filter(|value| !value.is_empty())
}

fn fit(secrets: &Secrets, cloud: &cloud::Cloud) -> Fit {
    let differs = |key, is: Option<&str>| matches!((said(secrets, key), is), (Some(said), Some(is)) if said != is);
    let is_same_url = said(secrets, AUTH_URL).and_then(|text| Url::parse(text).ok()).is_some_and(|url| {
        let place = |url: &Url| {
            let path = url.path().trim_end_matches('/').trim_end_matches("/v3").trim_end_matches('/').to_owned();
            (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port_or_known_default(), path)
        };
        place(&url) == place(&cloud.auth_url)
    });
    let (project_id, project_name) = match &cloud.scope {
        Scope::ProjectId(id) => (Some(id.as_str()), None),
        Scope::ProjectName { name, .. } => (None, Some(name.as_str())),
        Scope::Implied | Scope::Trust(_) => (None, None),
    };
    let credential = match &cloud.auth {
        Auth::ApplicationCredential { id: ApplicationCredentialId::Id(id), .. } => Some(id.as_str()),
        _ => None,
    };
    if !is_same_url
        || differs(REGION, cloud.region.as_deref())
        || differs(PROJECT_ID, project_id)
        || differs(PROJECT_NAME, project_name)
    {
        return Fit::Other;
    }
    let is_same = [(PROJECT_ID, project_id), (PROJECT_NAME, project_name), (CREDENTIAL_ID, credential)]
        .into_iter()
        .any(|(key, is)| is.is_some() && said(secrets, key) == is);
    if is_same { Fit::Same } else { Fit::Possible }
}

#[cfg(test)]
mod tests {
    use super::{Fit, fit};
    use crate::model::Secrets;
    use crate::openstack::cloud::{Auth, Cloud, Domain, Interface, Scope, Tls};

    fn cloud(scope: Scope) -> Cloud {
        Cloud {
            name: String::new(),
            auth_url: "https://cloud.example.org:5000".parse().unwrap(),
            auth: Auth::Token("t".to_owned().into()),
            scope,
            region: Some("east".to_owned()),
            interface: Interface::default(),
            endpoint_overrides: Vec::new(),
            tls: Tls::default(),
            origin: String::new(),
        }
    }

    #[test]
    fn a_secret_fits_the_cloud_with_its_account() {
        let named = Scope::ProjectName { name: "demo".to_owned(), domain: Domain::Id("default".to_owned()) };
        for (pairs, scope, expected) in [
            (&[("os-authURL", "https://cloud.example.org:5000/v3/")][..], Scope::Implied, Fit::Possible),
            (&[("os-authURL", "https://cloud.example.org:5000"), ("os-region", "east")], named.clone(), Fit::Possible),
            (&[("os-authURL", "https://cloud.example.org:5000"), ("os-projectName", "demo")], named.clone(), Fit::Same),
            (
                &[("os-authURL", "https://cloud.example.org:5000"), ("os-projectName", "other")],
                named.clone(),
                Fit::Other,
            ),
            (&[("os-authURL", "https://cloud.example.org:5000"), ("os-region", "west")], named.clone(), Fit::Other),
            (&[("os-authURL", "https://other.example.org:5000/v3")], named, Fit::Other),
            (&[("os-authURL", "nonsense")], Scope::Implied, Fit::Other),
        ] {
            let secrets: Secrets = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
            assert_eq!(fit(&secrets, &cloud(scope)), expected, "{pairs:?}");
        }
    }
}
