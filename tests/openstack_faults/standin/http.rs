//! The HTTP server of the stand-in: connections, the log, and what faults do to requests.

use super::answer::{Answer, Body};
use super::fault::Action;
use super::request::{Asked, Logged, Service};
use super::{Shared, keystone, lock};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Serves for ever.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let reset = Arc::new(AtomicBool::new(false));
        let generation = shared.generation.load(Ordering::SeqCst);
        let connection = Connection { stream, reset: reset.clone() };
        let shared = shared.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                let (shared, reset) = (shared.clone(), reset.clone());
                // A task of its own: a caller that hangs up does not undo what it asked for.
                let served = tokio::spawn(async move { respond(&shared, generation, &reset, request).await });
                async move { served.await.unwrap_or(Err(Cut)) }
            });
            // An error here is a connection that was cut, by the peer or by a fault.
            let _ =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), service).await;
        });
    }
}

/// The connection ends without an answer.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut")
    }
}

impl std::error::Error for Cut {}

async fn respond(
    shared: &Arc<Shared>,
    generation: u32,
    reset: &AtomicBool,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Cut> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    let project = lock(&shared.cloud).project.clone();
    let Some(asked) = Asked::new(head.method.as_str(), &head.uri, &head.headers, &body, &project) else {
        return Ok(render(&Answer::text(404, "404 Not Found\n\nThe resource could not be found.\n\n   "), None));
    };
    let index = {
        let mut log = lock(&shared.log);
        log.push(Logged {
            at: Instant::now(),
            generation,
            line: asked.line.clone(),
            whole: asked.whole.clone(),
            microversion: asked.microversion_given.then_some(asked.microversion),
            token: asked.token.clone(),
            user_agent: head.headers.get("user-agent").and_then(|value| value.to_str().ok()).map(str::to_owned),
            status: None,
        });
        log.len() - 1
    };
    let action = lock(&shared.faults).strike(&asked.line, &asked.whole);
    let answer = match action {
        None => serve_asked(shared, &asked),
        Some(Action::Reset) => {
            reset.store(true, Ordering::SeqCst);
            return Err(Cut);
        }
        Some(Action::LoseAnswer) => {
            serve_asked(shared, &asked);
            return Err(Cut);
        }
        Some(Action::KillBefore) => {
            kill(shared);
            return Err(Cut);
        }
        Some(Action::KillAfter) => {
            serve_asked(shared, &asked);
            kill(shared);
            return Err(Cut);
        }
        Some(Action::Status { status, retry_after }) => {
            let answer = Answer::injected(status);
            match retry_after {
                Some(seconds) => answer.header("retry-after", seconds.to_string()),
                None => answer,
            }
        }
        Some(Action::StatusAfter { status }) => {
            serve_asked(shared, &asked);
            Answer::injected(status)
        }
        Some(Action::Hold(gate)) => {
            gate.opened().await;
            serve_asked(shared, &asked)
        }
        Some(Action::RevokeToken) => {
            if let Some(token) = &asked.token {
                lock(&shared.cloud).tokens.remove(token);
            }
            serve_asked(shared, &asked)
        }
    };
    if let Some(logged) = lock(&shared.log).get_mut(index) {
        logged.status = Some(answer.status);
    }
    Ok(render(&answer, Some(&asked)))
}

fn kill(shared: &Shared) {
    if let Some(kill) = lock(&shared.killer).as_ref() {
        kill();
    }
}

/// The real work: the cloud does what is asked.
fn serve_asked(shared: &Shared, asked: &Asked) -> Answer {
    let mut cloud = lock(&shared.cloud);
    cloud.tick();
    if asked.service == Service::Keystone {
        return keystone::answer(&mut cloud, asked);
    }
    if let Some(answer) = keystone::version_document(&cloud, asked) {
        return answer;
    }
    if !asked.token.as_ref().is_some_and(|token| cloud.tokens.contains(token)) {
        return Answer::unauthorized(&format!("{}/identity/v3", cloud.url));
    }
    let (lowest, highest) = match asked.service {
        Service::Nova => ((2, 1), cloud.nova_highest),
        Service::Manila => (cloud.manila_lowest, cloud.manila_highest),
        _ => ((3, 0), cloud.cinder_highest),
    };
    if asked.microversion > highest || asked.microversion < lowest {
        let message = format!(
            "Version {}.{} is not supported by the API. Minimum is {}.{} and maximum is {}.{}.",
            asked.microversion.0, asked.microversion.1, lowest.0, lowest.1, highest.0, highest.1
        );
        return Answer::fault("computeFault", 406, message);
    }
    match asked.service {
        Service::Nova => super::nova::answer(&mut cloud, asked),
        Service::Manila => super::manila::answer(&mut cloud, asked),
        _ => super::cinder::answer(&mut cloud, asked),
    }
}

fn render(answer: &Answer, asked: Option<&Asked>) -> Response<Full<Bytes>> {
    static REQUESTS: AtomicU64 = AtomicU64::new(1);
    let id = format!("req-{:08x}-0000-4000-8000-000000000000", REQUESTS.fetch_add(1, Ordering::Relaxed));
    let mut response = Response::builder().status(answer.status);
    // Nova's list of versions is answered before there is a request id or a version.
    let bare =
        asked.is_some_and(|asked| asked.service == Service::Nova && !asked.version_root && asked.path.is_empty());
    if !bare {
        response = response.header("x-openstack-request-id", &id);
    }
    if let Some(asked) = asked.filter(|_| !bare) {
        let (major, minor) = asked.microversion;
        match asked.service {
            Service::Keystone => {}
            Service::Manila => {
                response = response.header("x-openstack-manila-api-version", format!("{major}.{minor}"));
            }
            // The token middleware answers before the API knows the version.
            _ if answer.status == 401 => {}
            Service::Cinder => {
                response = response
                    .header("openstack-api-version", format!("volume {major}.{minor}"))
                    .header("vary", "OpenStack-API-Version")
                    .header("x-compute-request-id", &id);
            }
            Service::Nova => {
                response = response
                    .header("openstack-api-version", format!("compute {major}.{minor}"))
                    .header("x-openstack-nova-api-version", format!("{major}.{minor}"))
                    .header("vary", "OpenStack-API-Version, X-OpenStack-Nova-API-Version")
                    .header("x-compute-request-id", &id);
            }
        }
    }
    for (name, value) in &answer.headers {
        response = response.header(*name, value);
    }
    let body = match &answer.body {
        Body::Nothing => Bytes::new(),
        Body::Json(value) => {
            response = response.header("content-type", "application/json");
            Bytes::from(value.to_string())
        }
        Body::Text(text) => {
            response = response.header("content-type", "text/plain; charset=UTF-8");
            Bytes::from_static(text.as_bytes())
        }
    };
    response.body(Full::new(body)).expect("an answer of valid parts")
}

/// A connection that can end with a reset instead of a farewell.
struct Connection {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.reset.load(Ordering::SeqCst) {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.reset.load(Ordering::SeqCst) {
            // A farewell would spoil the reset.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
