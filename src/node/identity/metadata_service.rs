//! Nova's metadata service: a web server at a link-local address.

use super::{Server, Source, read_meta_data};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;

/// The document about this server, below the base URL of the service.
pub const DOCUMENT: &str = "/openstack/latest/meta_data.json";

/// The time that it gets. Where there is none, packets go nowhere, and the other sources wait.
pub const DEFAULT_LIMIT: Duration = Duration::from_secs(5);

/// The most that is read of its answer.
const LONGEST_ANSWER: usize = 1 << 20;

/// Asks the metadata service.
#[derive(Debug)]
pub struct MetadataService {
    url: String,
    client: reqwest::Client,
}

impl MetadataService {
    /// The service at this address, to answer within this time.
    ///
    /// # Errors
    /// `Internal`: no HTTP client can be made.
    pub fn new(url: impl Into<String>, limit: Duration) -> Result<Self> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            Error::internal("make the client of the metadata service").because(error)
        };
        // The service speaks plain HTTP; the client insists on knowing how it would speak TLS.
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(error.into()))?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        // No proxy: the address means something on this machine only.
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(limit)
            .redirect(reqwest::redirect::Policy::none())
            .tls_backend_preconfigured(tls)
            .build()
            .map_err(|error| failed(error.into()))?;
        Ok(Self { url: url.into(), client })
    }

    async fn get(&self) -> Result<Vec<u8>> {
        let failed = |error| Error::new(Kind::Unavailable, format!("GET {}", self.url)).because(error);
        let mut answer = self.client.get(&self.url).send().await.map_err(failed)?;
        if !answer.status().is_success() {
            return Err(Error::new(Kind::Unavailable, format!("GET {} gave {}", self.url, answer.status())));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > LONGEST_ANSWER {
                return Err(Error::internal(format!("GET {} gave more than {LONGEST_ANSWER} bytes", self.url)));
            }
        }
        Ok(body)
    }
}

#[async_trait]
impl Source for MetadataService {
    fn name(&self) -> &'static str {
        "metadata-service"
    }

    async fn ask(&self, call: &Call) -> Result<Server> {
        read_meta_data(&call.bound("ask the metadata service", self.get()).await??)
    }
}

#[cfg(test)]
mod tests {
    use super::MetadataService;
    use crate::call::Call;
    use crate::node::identity::Source;
    use std::time::{Duration, Instant};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const ID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

    async fn serve(answer: Option<String>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut request = [0; 2048];
                let _ = socket.read(&mut request).await;
                match &answer {
                    Some(answer) => socket.write_all(answer.as_bytes()).await.unwrap(),
                    None => tokio::time::sleep(Duration::from_secs(60)).await,
                }
            }
        });
        format!("http://{address}/openstack/latest/meta_data.json")
    }

    async fn ask(answer: Option<String>) -> crate::error::Result<super::Server> {
        let service = MetadataService::new(serve(answer).await, Duration::from_millis(300)).unwrap();
        service.ask(&Call::lasting(Duration::from_secs(20))).await
    }

    fn http(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn the_service_tells_id_and_zone() {
        let body = format!(r#"{{"uuid": "{ID}", "availability_zone": "nova"}}"#);
        let server = ask(Some(http("200 OK", &body))).await.unwrap();
        assert_eq!((server.id.as_deref(), server.zone.as_deref()), (Some(ID), Some("nova")));
    }

    #[tokio::test]
    async fn a_service_that_does_not_answer_is_given_up() {
        let started = Instant::now();
        assert!(ask(None).await.is_err());
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn refusals_and_nonsense_are_errors_that_name_the_address() {
        for answer in [http("404 Not Found", ""), http("500 Internal Server Error", ""), "nonsense".to_owned()] {
            let error = ask(Some(answer)).await.unwrap_err();
            assert!(error.to_string().contains("meta_data.json"), "{error}");
        }
        assert!(ask(Some(http("200 OK", "<html>"))).await.is_err());
    }
}
