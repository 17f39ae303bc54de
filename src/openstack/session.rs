//! The token of one cloud, its catalogue, and the HTTP connections, shared by the clients of all services.
//!
//! There is one login per token life. A token carries a *generation*: whoever gets a 401 says "renew if it is still
//! generation N", so that a hundred requests refused at once make one login. The settings are read again before every
//! login and whenever a connection fails, so that new credentials and CA files take effect without a restart.

use super::client::{Meter, ServiceKind, Usage};
use super::cloud::Cloud;
use super::keystone::{Grant, TokenAnswer, login_body, token_url};
use super::refusal::{Refusal, describe_transport};
use super::transport;
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use async_trait::async_trait;
use jiff::Timestamp;
use secrecy::SecretString;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use url::Url;

/// A token is renewed this long before it expires, or after nine tenths of a short life.
const RENEW_BEFORE: Duration = Duration::from_secs(60);

/// After a refused login, the same settings are not tried again for this long: accounts get locked by less.
const AFTER_REFUSAL: Duration = Duration::from_secs(2);

/// How long one login may take.
const LOGIN_TIME: Duration = Duration::from_secs(30);

/// Where the settings of a cloud come from.
#[async_trait]
pub trait Settings: Send + Sync + 'static {
    /// The settings as they are now, and a number that differs whenever the settings, or the certificate files that
    /// they name, have changed.
    ///
    /// # Errors
    /// `InvalidArgument`: they cannot be read or make no sense.
    async fn current(&self) -> Result<(Arc<Cloud>, u64)>;
}

/// Settings that never change.
#[async_trait]
impl Settings for Arc<Cloud> {
    async fn current(&self) -> Result<(Arc<Cloud>, u64)> {
        Ok((Self::clone(self), 0))
    }
}

/// A session with one cloud. Cheap to clone.
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    settings: Box<dyn Settings>,
    user_agent: Vec<String>,
    meter: Arc<dyn Meter>,
    current: Mutex<Option<Arc<Login>>>,
    /// How many logins there have been. It never falls, so a generation is never taken for another.
    logins: AtomicU64,
    /// Held while logging in; remembers the last refusal.
    logging_in: tokio::sync::Mutex<Option<Refused>>,
}

struct Refused {
    when: Instant,
    fingerprint: u64,
    kind: Kind,
    message: String,
}

/// One login: what a request needs.
pub(super) struct Login {
    pub(super) generation: u64,
    pub(super) grant: Grant,
    pub(super) cloud: Arc<Cloud>,
    pub(super) http: reqwest::Client,
    fingerprint: u64,
    renew_at: Instant,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// A session that logs in when it is first needed. `user_agent` is added to the driver's own.
    #[must_use]
    pub fn new(settings: impl Settings, user_agent: Vec<String>, meter: Arc<dyn Meter>) -> Self {
        Self(Arc::new(Inner {
            settings: Box::new(settings),
            user_agent,
            meter,
            current: Mutex::new(None),
            logins: AtomicU64::new(0),
            logging_in: tokio::sync::Mutex::new(None),
        }))
    }

    /// Logs in, unless that is done.
    ///
    /// # Errors
    /// `InvalidArgument`, `Unauthenticated`, `Denied`: the settings are wrong. `Unavailable`: Keystone is away.
    pub async fn log_in(&self, call: &Call) -> Result<()> {
        self.login(call, None).await.map(drop)
    }

    /// The settings of the cloud, as they are now.
    ///
    /// # Errors
    /// As [`Settings::current`].
    pub async fn settings(&self) -> Result<Arc<Cloud>> {
        Ok(self.0.settings.current().await?.0)
    }

    /// Whether there has been a successful login.
    #[must_use]
    pub fn is_logged_in(&self) -> bool {
        self.current().is_some()
    }

    /// The project that this session is for; none where Keystone did not say.
    ///
    /// # Errors
    /// As [`Session::log_in`].
    pub async fn project_id(&self, call: &Call) -> Result<Option<String>> {
        Ok(self.login(call, None).await?.grant.project_id.clone())
    }

    /// Where this session would find a service.
    ///
    /// # Errors
    /// As [`Session::log_in`]; `InvalidArgument` where the catalogue has no such endpoint.
    pub async fn endpoint(&self, call: &Call, service: ServiceKind) -> Result<Url> {
        let login = self.login(call, None).await?;
        login.grant.endpoint(service, &login.cloud)
    }

    pub(super) fn meter(&self) -> &dyn Meter {
        self.0.meter.as_ref()
    }

    /// A login to send requests with: the present one, unless it is `spent` (that generation got a 401) or about to
    /// expire.
    pub(super) async fn login(&self, call: &Call, spent: Option<u64>) -> Result<Arc<Login>> {
        let usable = |login: &Arc<Login>| spent != Some(login.generation) && Instant::now() < login.renew_at;
        if let Some(login) = self.current().filter(&usable) {
            return Ok(login);
        }
        Box::pin(self.login_anew(call, usable)).await
    }

    /// Logs in, one for all who wait for it.
    async fn login_anew(&self, call: &Call, usable: impl Fn(&Arc<Login>) -> bool) -> Result<Arc<Login>> {
        let mut refused = call.bound("wait for the login to OpenStack", self.0.logging_in.lock()).await?;
        if let Some(login) = self.current().filter(usable) {
            return Ok(login);
        }
        let (cloud, fingerprint) = self.0.settings.current().await?;
        if let Some(refused) =
            refused.as_ref().filter(|r| r.fingerprint == fingerprint && r.when.elapsed() < AFTER_REFUSAL)
        {
            return Err(Error::new(refused.kind, refused.message.clone()));
        }
        let outcome = call.bound("log in to OpenStack", self.renew(call, cloud, fingerprint)).await?;
        *refused = match &outcome {
            Err(error) if matches!(error.kind(), Kind::Unauthenticated | Kind::Denied) => {
                Some(Refused { when: Instant::now(), fingerprint, kind: error.kind(), message: error.to_string() })
            }
            _ => None,
        };
        outcome
    }

    /// After a failed connection: takes changed settings (a new CA, say) into use. Says whether there were any.
    pub(super) async fn refresh_transport(&self, login: &Login) -> Result<bool> {
        let (cloud, fingerprint) = self.0.settings.current().await?;
        if fingerprint == login.fingerprint {
            return Ok(false);
        }
        tracing::info!(cloud = %cloud.origin, "the settings have changed: the next request uses them");
        let mut current = self.lock();
        if current.as_ref().is_some_and(|now| now.generation == login.generation) {
            *current = None;
        }
        Ok(true)
    }

    fn current(&self) -> Option<Arc<Login>> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Login>>> {
        self.0.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn renew(&self, call: &Call, cloud: Arc<Cloud>, fingerprint: u64) -> Result<Arc<Login>> {
        let before = self.current();
        let http = match &before {
            Some(login) if login.fingerprint == fingerprint => login.http.clone(),
            _ => {
                let (tls, user_agent, origin) = (cloud.tls.clone(), self.0.user_agent.clone(), cloud.origin.clone());
                tokio::task::spawn_blocking(move || transport::connect(&tls, &user_agent))
                    .await
                    .map_err(|error| Error::internal("set up TLS").because(error))?
                    .map_err(|error| error.during(origin))?
            }
        };
        let grant = log_in(call, &http, &cloud, self.meter()).await?;
        let margin = RENEW_BEFORE.min(grant.lifetime / 10);
        let login = Arc::new(Login {
            generation: self.0.logins.fetch_add(1, Ordering::Relaxed),
            renew_at: Instant::now() + grant.lifetime.saturating_sub(margin),
            grant,
            cloud,
            http,
            fingerprint,
        });
        *self.lock() = Some(Arc::clone(&login));
        tracing::debug!(cloud = %login.cloud.origin, generation = login.generation, "logged in to OpenStack");
        Ok(login)
    }
}

/// Gets a token from Keystone.
async fn log_in(call: &Call, http: &reqwest::Client, cloud: &Cloud, meter: &dyn Meter) -> Result<Grant> {
    let url = token_url(&cloud.auth_url);
    let doing = || format!("log in at {url} ({})", cloud.origin);
    let started = Instant::now();
    let sent = http.post(url.clone()).json(&login_body(cloud)).timeout(LOGIN_TIME).send().await;
    let mut usage =
        Usage { service: "identity", method: "POST", template: "/v3/auth/tokens", status: 0, took: started.elapsed() };
    let response = match sent {
        Ok(response) => response,
        Err(error) => {
            call.note_request(None);
            meter.request(&usage);
            meter.login(false);
            return Err(describe_transport(&error).during(doing()));
        }
    };
    let status = response.status().as_u16();
    usage.status = status;
    meter.request(&usage);
    meter.login(response.status().is_success());
    let request_id = super::refusal::request_id(response.headers());
    call.note_request(request_id.as_deref());
    let token = response.headers().get("x-subject-token").and_then(|value| value.to_str().ok()).map(SecretString::from);
    let body = response.bytes().await.map_err(|error| describe_transport(&error).during(doing()))?;
    if !(200..300).contains(&status) {
        let refusal = Refusal::parse(status, request_id, &body);
        let (kind, advice) = match status {
            401 => (
                Kind::Unauthenticated,
                "the cloud refuses these credentials: check user, password or application credential",
            ),
            403 => (Kind::Denied, "the credentials are right, but not allowed to log in here: check project and roles"),
            400 => (Kind::InvalidArgument, "Keystone does not understand the login: check user, domain and project"),
            404 => (Kind::InvalidArgument, "there is no Keystone v3 at this URL: check auth-url"),
            300..=399 => (Kind::InvalidArgument, "the URL is redirected: set auth-url to where Keystone really is"),
            429 => (Kind::Unavailable, "Keystone is overloaded"),
            500.. => (Kind::Unavailable, "Keystone has a fault"),
            _ => (Kind::InvalidArgument, "unexpected answer"),
        };
        return Err(Error::new(kind, advice).because(refusal).during(doing()));
    }
    let token = token.ok_or_else(|| {
        Error::invalid("the answer has no X-Subject-Token header: this is not Keystone; check auth-url").during(doing())
    })?;
    let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|error| {
        Error::invalid("the answer is not a Keystone token; check auth-url").because(error).during(doing())
    })?;
    Ok(Grant::new(token, answer, Timestamp::now()))
}
