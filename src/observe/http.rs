//! The HTTP server for people and Prometheus: `/metrics`, `/healthz`, `/readyz`.
//!
//! `/healthz` says that the process serves; nothing about OpenStack, since a restart cures no outage. `/readyz` says
//! whether the driver got through to what it needs.

use super::metrics::Metrics;
use crate::error::{Error, Result};
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// A client gets this long to send its request.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// A connection may stay open this long; scrapers come back with a new one.
const CONNECTION_TIME: Duration = Duration::from_secs(300);

/// So many connections at once; more wait in the kernel.
const MOST_CONNECTIONS: usize = 32;

/// After a failure to accept (no file descriptors left, say).
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// Whether the driver got through to what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It did.
    Ready,
    /// It did not yet, or not any more; why.
    Waiting(String),
}

/// The HTTP server.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    metrics: Metrics,
    readiness: watch::Receiver<Readiness>,
}

impl HttpServer {
    /// Listens on the first of these addresses that can be had.
    ///
    /// # Errors
    /// `InvalidArgument`: none can be had.
    pub async fn bind(
        addresses: &[SocketAddr],
        metrics: Metrics,
        readiness: watch::Receiver<Readiness>,
    ) -> Result<Self> {
        let listener = TcpListener::bind(addresses)
            .await
            .map_err(|error| Error::invalid(format!("listen on {addresses:?} (--http-endpoint)")).because(error))?;
        Ok(Self { listener, metrics, readiness })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is dropped.
    pub async fn serve(self) {
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (metrics, readiness) = (self.metrics.clone(), self.readiness.clone());
                    tokio::spawn(async move {
                        serve_connection(stream, metrics, readiness).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accept an HTTP connection");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, metrics: Metrics, readiness: watch::Receiver<Readiness>) {
    let service = hyper::service::service_fn(|request| {
        let response = answer(&request, &metrics, &readiness.borrow());
        async { Ok::<_, Infallible>(response) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_TIME, connection).await {
        tracing::debug!(%error, "an HTTP connection broke off")
    }
}

fn answer<B>(request: &Request<B>, metrics: &Metrics, readiness: &Readiness) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => match readiness {
            Readiness::Ready => text(StatusCode::OK, "ok\n".to_owned()),
            Readiness::Waiting(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        "/metrics" => match metrics.text() {
            Ok(figures) => {
                let mut response = text(StatusCode::OK, figures);
                let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        _ => text(StatusCode::NOT_FOUND, "/metrics, /healthz, /readyz\n".to_owned()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::{HttpServer, Readiness};
    use crate::observe::metrics::Metrics;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::watch;

    async fn get(address: std::net::SocketAddr, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn health_readiness_and_metrics_are_served() {
        let (set, readiness) = watch::channel(Readiness::Waiting("no login yet".to_owned()));
        let any = "127.0.0.1:0".parse().unwrap();
        let server = HttpServer::bind(&[any], Metrics::new("d", "all"), readiness).await.unwrap();
        let address = server.address().unwrap();
        let serving = tokio::spawn(server.serve());

        assert!(get(address, "GET", "/healthz").await.starts_with("HTTP/1.1 200"));
        let waiting = get(address, "GET", "/readyz").await;
        assert!(waiting.starts_with("HTTP/1.1 503") && waiting.contains("no login yet"), "{waiting}");
        set.send_replace(Readiness::Ready);
        assert!(get(address, "GET", "/readyz").await.starts_with("HTTP/1.1 200"));
        let metrics = get(address, "GET", "/metrics").await;
        assert!(metrics.contains("fuxi_csi_build_info") && metrics.ends_with("# EOF\n"), "{metrics}");
        assert!(get(address, "GET", "/other").await.starts_with("HTTP/1.1 404"));
        assert!(get(address, "POST", "/metrics").await.starts_with("HTTP/1.1 405"));
        serving.abort();
    }

    #[tokio::test]
    async fn an_address_in_use_is_refused_with_words() {
        let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let (_, readiness) = watch::channel(Readiness::Ready);
        let error = HttpServer::bind(&[address], Metrics::new("d", "all"), readiness).await.unwrap_err();
        assert!(error.to_string().contains("--http-endpoint"), "{error}");
    }
}
