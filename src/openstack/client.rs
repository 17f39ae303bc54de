//! One request to one OpenStack service, with all that that takes: token, endpoint, microversion, a turn at the gate,
//! retries, errors, and what it cost.

use super::gate::Gate;
pub use super::meter::{Meter, Usage};
pub use super::refusal::{Refusal, found};
use super::refusal::{describe_transport, request_id, retry_after};
pub use super::route::{Microversion, Route};
pub use super::service::ServiceKind;
use super::session::{Login, Session};
use crate::call::Call;
use crate::error::{Error, Result};
use http::{HeaderMap, Method, header};
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use url::Url;

/// How long one GET may take; it is repeated within the call's time.
const READ_TIME: Duration = Duration::from_secs(30);

/// How long one request that changes something may take. Nova answers an attach only when the hypervisor has been
/// asked, so this is long; giving up earlier would only mean not to know the outcome.
const WRITE_TIME: Duration = Duration::from_secs(120);

/// How often a request is sent at most, repeats included.
const MOST_ATTEMPTS: u32 = 5;

/// The first pause between two attempts; it doubles each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// The client of one service in one cloud. Cheap to clone.
///
/// Errors of every method: a refusal (4xx, 5xx) maps to a kind (400 `InvalidArgument`, 401 `Unauthenticated`,
/// 403 `Denied`, 404 `NotFound`, 406 `Unsupported`, 409 `Conflict`, 413 with a quota message `Exhausted`, other 413,
/// 429 and 503 `Unavailable`, 500 `Internal`, other 5xx `Unavailable`) and has a [`Refusal`] as its cause, so policy can
/// tell them apart; a connection that fails is `Unavailable`; a call that is over is `Deadline`.
///
/// GET and DELETE are retried within the call's time. A POST or PUT is repeated only if it surely did not arrive; and
/// what changes something is, once sent, not cut off when the call ends, so that its outcome is known to this process
/// (bounded by the client's own time limit).
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    session: Session,
    service: ServiceKind,
    gate: Gate,
    highest: OnceCell<Microversion>,
    /// Of the login of this generation.
    endpoint: Mutex<Option<(u64, Url)>>,
    clock: Mutex<Option<(Timestamp, Instant)>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.0.service).finish()
    }
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// A request that is going to be sent, perhaps several times.
struct Request {
    method: Method,
    url: Url,
    template: &'static str,
    microversion: Option<Microversion>,
    experimental: bool,
    body: Option<Vec<u8>>,
}

impl Client {
    /// A client that keeps at most `most_requests` requests in flight.
    #[must_use]
    pub fn new(session: Session, service: ServiceKind, most_requests: usize) -> Self {
        Self(Arc::new(Inner {
            session,
            service,
            gate: Gate::new(most_requests),
            highest: OnceCell::new(),
            endpoint: Mutex::new(None),
            clock: Mutex::new(None),
        }))
    }

    /// The session that this client uses.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.0.session
    }

    /// GET.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn get<T: DeserializeOwned>(&self, call: &Call, route: Route) -> Result<T> {
        self.answered(call, Method::GET, route, None).await
    }

    /// POST with an answer.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        call: &Call,
        route: Route,
        body: &(impl Serialize + Sync),
    ) -> Result<T> {
        let body = encode(body)?;
        self.answered(call, Method::POST, route, Some(body)).await
    }

    /// POST whose answer has no (interesting) body, such as an action.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn act(&self, call: &Call, route: Route, body: &(impl Serialize + Sync)) -> Result<()> {
        let body = encode(body)?;
        self.send(call, Method::POST, route, Some(body)).await.map(drop)
    }

    /// PUT with an answer.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn put<T: DeserializeOwned>(
        &self,
        call: &Call,
        route: Route,
        body: &(impl Serialize + Sync),
    ) -> Result<T> {
        let body = encode(body)?;
        self.answered(call, Method::PUT, route, Some(body)).await
    }

    /// DELETE.
    ///
    /// # Errors
    /// See [`Client`]; a 404 is an error here, policy decides.
    pub async fn delete(&self, call: &Call, route: Route) -> Result<()> {
        self.send(call, Method::DELETE, route, None).await.map(drop)
    }

    /// The highest microversion that the service has; asked once.
    ///
    /// # Errors
    /// See [`Client`].
    pub async fn highest(&self, call: &Call) -> Result<Microversion> {
        self.0
            .highest
            .get_or_try_init(|| async {
                let login = self.0.session.login(call, None).await?;
                let (root, _) = self.0.service.version_root(&login.grant.endpoint(self.0.service, &login.cloud)?);
                let request = Request {
                    method: Method::GET,
                    url: root,
                    template: "/",
                    microversion: None,
                    experimental: false,
                    body: None,
                };
                let answer = Box::pin(self.persist(call, |_| Ok(request.again()))).await?;
                self.0.service.highest_in(&answer.body).ok_or_else(|| {
                    Error::invalid(format!("{} shows no version document at {}", self.0.service.name(), request.url))
                })
            })
            .await
            .copied()
    }

    /// The service's own clock, as its `Date` headers and the time since then tell it; never ahead, as long as that clock
    /// is not set back.
    #[must_use]
    pub fn service_time(&self) -> Option<Timestamp> {
        let (seen, when) = (*self.0.clock.lock().unwrap_or_else(PoisonError::into_inner))?;
        seen.checked_add(jiff::SignedDuration::try_from(when.elapsed()).ok()?).ok()
    }

    async fn answered<T: DeserializeOwned>(
        &self,
        call: &Call,
        method: Method,
        route: Route,
        body: Option<Vec<u8>>,
    ) -> Result<T> {
        let doing = self.doing(&method, &route);
        let answer = self.send(call, method, route, body).await?;
        serde_json::from_slice(&answer.body)
            .map_err(|error| Error::internal("the answer is not what the API promises").because(error).during(doing))
    }

    async fn send(&self, call: &Call, method: Method, route: Route, body: Option<Vec<u8>>) -> Result<Answer> {
        // Where URLs need the project's id, and the catalogue has none, is a question of the service's version.
        let doing = self.doing(&method, &route);
        let make = |login: &Login| {
            Ok(Request {
                method: method.clone(),
                url: route.url(&self.endpoint(login)?),
                template: route.template,
                microversion: route.microversion,
                experimental: route.experimental,
                body: body.clone(),
            })
        };
        self.learn_endpoint(call).await?;
        Box::pin(self.persist(call, make)).await.map_err(|error| error.during(doing))
    }

    fn doing(&self, method: &Method, route: &Route) -> String {
        format!("{} {method} {}", self.0.service.name(), route.path())
    }

    /// Sends until there is an answer that counts. Thousands may wait at the gate, so what only those need who are through
    /// it is boxed then.
    async fn persist(&self, call: &Call, make: impl Fn(&Login) -> Result<Request>) -> Result<Answer> {
        let mut spent = None;
        let mut attempts = 0;
        loop {
            attempts += 1;
            call.check("send a request")?;
            let login = self.0.session.login(call, spent).await?;
            let pass = self.0.gate.enter(call).await?;
            let request = make(&login)?;
            let method = request.method.clone();
            let outcome = self.exchange(call, &login, request).await;
            drop(pass);
            let (error, pause) = match outcome {
                Ok(answer) if (200..300).contains(&answer.status) => {
                    self.0.gate.went_well();
                    return Ok(answer);
                }
                Ok(answer) if answer.status == 401 && spent.is_none() => {
                    // Refused before anything was done, so even a POST may be repeated.
                    spent = Some(login.generation);
                    continue;
                }
                Ok(answer) => match self.judge(&method, answer) {
                    Verdict::Final(error) => return Err(error),
                    Verdict::Again(error, pause) => (error, pause),
                },
                Err(Failure::Over(error)) => return Err(error),
                Err(Failure::Unsent(error)) => {
                    if self.0.session.refresh_transport(&login).await? {
                        self.0.session.meter().retry(self.0.service.name());
                        continue;
                    }
                    (error, None)
                }
                Err(Failure::Unanswered(error)) if method == Method::GET || method == Method::DELETE => (error, None),
                Err(Failure::Unanswered(error)) => return Err(error),
            };
            let pause = pause.unwrap_or_else(|| backoff(attempts));
            if attempts >= MOST_ATTEMPTS || pause >= call.remaining() {
                return Err(error);
            }
            self.0.session.meter().retry(self.0.service.name());
            call.sleep("wait before the next attempt", pause).await.map_err(|_| error)?;
        }
    }

    fn judge(&self, method: &Method, answer: Answer) -> Verdict {
        let refusal = Refusal::parse(answer.status, request_id(&answer.headers), &answer.body);
        let error = || Error::new(refusal.kind(), "refused").because(refusal.clone());
        let wanted = retry_after(&answer.headers).filter(|pause| !pause.is_zero());
        match answer.status {
            // Rate limits come from in front of the service: nothing was done.
            429 => {
                self.0.gate.overloaded(wanted);
                Verdict::Again(error(), wanted)
            }
            413 if !refusal.is_quota() => {
                self.0.gate.overloaded(wanted);
                Verdict::Again(error(), wanted)
            }
            500 | 502 | 503 | 504 => {
                if answer.status == 503 {
                    self.0.gate.overloaded(wanted);
                }
                if *method == Method::GET || *method == Method::DELETE {
                    Verdict::Again(error(), wanted)
                } else {
                    Verdict::Final(error())
                }
            }
            _ => Verdict::Final(error()),
        }
    }

    /// Sends once. What changes something runs in a task of its own, which ends when the answer is there, whatever
    /// becomes of the caller.
    async fn exchange(&self, call: &Call, login: &Arc<Login>, request: Request) -> Result<Answer, Failure> {
        if request.method == Method::GET {
            let time = READ_TIME.min(call.remaining());
            let sent = call.bound("wait for an answer", Box::pin(self.transmit(call, login, request, time))).await;
            return match sent {
                Ok(Err(failure)) if call.is_over() => {
                    Err(Failure::Over(call.check("wait for an answer").err().unwrap_or_else(|| failure.into_error())))
                }
                Ok(outcome) => outcome,
                Err(over) => Err(Failure::Over(over)),
            };
        }
        let (client, call, login) = (self.clone(), call.clone(), Arc::clone(login));
        let task = tokio::spawn(async move { client.transmit(&call, &login, request, WRITE_TIME).await });
        task.await.unwrap_or_else(|error| Err(Failure::Over(Error::internal("send a request").because(error))))
    }

    async fn transmit(&self, call: &Call, login: &Login, request: Request, time: Duration) -> Result<Answer, Failure> {
        let started = Instant::now();
        let method = method_name(&request.method);
        let template = request.template;
        let outcome = self.wire(login, request, time).await;
        let status = outcome.as_ref().map_or(0, |answer| answer.status);
        self.0.session.meter().request(&Usage {
            service: self.0.service.name(),
            method,
            template,
            status,
            took: started.elapsed(),
        });
        call.note_request(outcome.as_ref().ok().and_then(|answer| request_id(&answer.headers)).as_deref());
        if let Ok(answer) = &outcome {
            self.note_time(&answer.headers);
        }
        outcome.map_err(|error| {
            if error.is_connect() {
                Failure::Unsent(describe_transport(&error))
            } else {
                Failure::Unanswered(describe_transport(&error))
            }
        })
    }

    async fn wire(&self, login: &Login, request: Request, time: Duration) -> Result<Answer, reqwest::Error> {
        let mut builder = login
            .http
            .request(request.method, request.url)
            .timeout(time)
            .header("x-auth-token", login.grant.token.expose_secret())
            .header(header::ACCEPT, "application/json");
        if let Some(version) = request.microversion {
            let (name, value) = self.0.service.microversion_header(version);
            builder = builder.header(name, value);
        }
        if request.experimental {
            builder = builder.header("x-openstack-manila-api-experimental", "true");
        }
        if let Some(body) = request.body {
            builder = builder.header(header::CONTENT_TYPE, "application/json").body(body);
        }
        let response = builder.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await?.into();
        Ok(Answer { status, headers, body })
    }

    fn note_time(&self, headers: &HeaderMap) {
        let date = headers.get(header::DATE).and_then(|value| value.to_str().ok());
        if let Some(zoned) = date.and_then(|text| jiff::fmt::rfc2822::parse(text).ok()) {
            let told = zoned.timestamp();
            // `Date` has whole seconds: the truth is up to one later, and an older answer may have told more of it.
            let known = self.service_time().filter(|known| (0..1200).contains(&known.duration_since(told).as_millis()));
            let now = (known.unwrap_or(told), Instant::now());
            *self.0.clock.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        }
    }

    fn endpoint(&self, login: &Login) -> Result<Url> {
        let mut known = self.0.endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, url)) = known.as_ref().filter(|(generation, _)| *generation == login.generation) {
            return Ok(url.clone());
        }
        let listed = login.grant.endpoint(self.0.service, &login.cloud)?;
        let (mut url, has_project) = self.0.service.version_root(&listed);
        let needs_project = self.0.highest.get().is_some_and(|highest| *highest < self.0.service.projectless_from());
        if has_project {
            url = listed;
        } else if let (true, Some(project)) = (needs_project, &login.grant.project_id) {
            url.set_path(&format!("{}{project}", url.path()));
        }
        *known = Some((login.generation, url.clone()));
        Ok(url)
    }

    /// Where the catalogue's URL has no project id, the service's version tells whether it needs one.
    async fn learn_endpoint(&self, call: &Call) -> Result<()> {
        if self.0.highest.initialized() {
            return Ok(());
        }
        let login = self.0.session.login(call, None).await?;
        let (_, has_project) = self.0.service.version_root(&login.grant.endpoint(self.0.service, &login.cloud)?);
        if has_project { Ok(()) } else { Box::pin(self.highest(call)).await.map(drop) }
    }
}

impl Request {
    fn again(&self) -> Self {
        Self {
            method: self.method.clone(),
            url: self.url.clone(),
            template: self.template,
            microversion: self.microversion,
            experimental: self.experimental,
            body: self.body.clone(),
        }
    }
}

/// Why there is no answer.
enum Failure {
    /// The call is over.
    Over(Error),
    /// The request surely did not arrive.
    Unsent(Error),
    /// The request may have arrived.
    Unanswered(Error),
}

impl Failure {
    fn into_error(self) -> Error {
        match self {
            Self::Over(error) | Self::Unsent(error) | Self::Unanswered(error) => error,
        }
    }
}

/// What follows from an answer that is no success.
enum Verdict {
    Final(Error),
    Again(Error, Option<Duration>),
}

fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "OTHER",
    }
}

fn encode(body: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(body).map_err(|error| Error::internal("encode a request").because(error))
}

/// An exponentially growing pause, the upper half of it random.
fn backoff(attempt: u32) -> Duration {
    let pause = FIRST_PAUSE.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
    let half = pause / 2;
    half + Duration::from_micros(fastrand::u64(0..=u64::try_from(half.as_micros()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::{Client, HeaderMap, ServiceKind, backoff, header};
    use crate::openstack::cloud::{Auth, Cloud, Interface, Scope, Tls};
    use crate::openstack::session::Session;
    use std::sync::Arc;
    use std::time::Duration;
    use url::Url;

    fn client(service: ServiceKind) -> Client {
        let cloud = Cloud {
            name: String::new(),
            auth_url: Url::parse("http://127.0.0.1:9/").unwrap(),
            auth: Auth::Token("t".into()),
            scope: Scope::Implied,
            region: None,
            interface: Interface::Public,
            endpoint_overrides: Vec::new(),
            tls: Tls::default(),
            origin: "test".into(),
        };
        Client::new(Session::new(Arc::new(cloud), Vec::new(), Arc::new(())), service, 4)
    }

    #[tokio::test(start_paused = true)]
    async fn the_service_s_clock_gets_sharper_with_each_answer_and_may_be_set_back() {
        let client = client(ServiceKind::BlockStorage);
        let tell = |second: u8| {
            let date = format!("Sat, 21 Nov 2026 08:54:{second:02} GMT");
            client.note_time(&HeaderMap::from_iter([(header::DATE, date.parse().unwrap())]));
        };
        let seconds = || client.service_time().unwrap().as_millisecond() % 60_000;
        tell(10);
        tokio::time::sleep(Duration::from_millis(900)).await;
        tell(10);
        assert_eq!(seconds(), 10_900);
        tokio::time::sleep(Duration::from_millis(900)).await;
        tell(12);
        assert_eq!(seconds(), 12_000, "the truth is later than was thought");
        tell(3);
        assert_eq!(seconds(), 3_000, "set back");
    }

    #[test]
    fn pauses_grow_and_stay_bounded() {
        for attempt in 1..40 {
            assert!(backoff(attempt) <= Duration::from_secs(8) && backoff(attempt) >= Duration::from_millis(125));
        }
    }

    #[tokio::test]
    async fn a_keystone_that_is_away_is_unavailable_and_says_where() {
        let call = crate::call::Call::lasting(Duration::from_secs(5));
        let error = client(ServiceKind::Compute).highest(&call).await.unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Unavailable);
        assert!(error.to_string().contains("http://127.0.0.1:9/v3/auth/tokens"), "{error}");
    }
}
