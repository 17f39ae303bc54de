//! A cloud that is asked: the real one or the stand-in.

use super::WAITING;
use super::blank::{blank, chosen, shape};
use super::scenario::{Closeness, Step, scenario};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A cloud to ask: where it is, and what the placeholders of the scenario stand for.
pub(super) struct Target {
    http: reqwest::Client,
    keystone: String,
    cinder: String,
    nova: String,
    token: String,
    pub(super) words: BTreeMap<String, String>,
}

impl Target {
    /// Logs in.
    pub(super) async fn new(keystone: &str, user: &str, password: &str, project: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
        let body = json!({ "auth": { "identity": { "methods": ["password"], "password": { "user": {
            "name": user, "domain": { "name": "Default" }, "password": password } } },
            "scope": { "project": { "name": project, "domain": { "name": "Default" } } } } });
        let answer = http.post(format!("{keystone}/auth/tokens")).json(&body).send().await.expect("log in");
        let token = answer.headers()["x-subject-token"].to_str().expect("a token").to_owned();
        let answer: Value = answer.json().await.expect("a token's body");
        let endpoint = |kind: &str| {
            let services = answer["token"]["catalog"].as_array().expect("a catalogue");
            let service = services.iter().find(|service| service["type"] == kind).expect("the service");
            service["endpoints"][0]["url"].as_str().expect("its URL").to_owned()
        };
        let words = [
            ("user", user),
            ("password", password),
            ("project", project),
            ("project_id", answer["token"]["project"]["id"].as_str().expect("a project")),
        ];
        Self {
            http,
            keystone: keystone.to_owned(),
            cinder: endpoint("block-storage"),
            nova: endpoint("compute"),
            token,
            words: words.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        }
    }

    fn fill(&self, text: &str) -> String {
        self.words.iter().fold(text.to_owned(), |text, (key, value)| text.replace(&format!("{{{key}}}"), value))
    }

    fn url(&self, url: &str) -> String {
        let root = |endpoint: &str, version: &str| endpoint.split(version).next().unwrap_or_default().to_owned();
        for (short, long) in [
            ("Croot", root(&self.cinder, "/v3")),
            ("Nroot", root(&self.nova, "/v2.1")),
            ("C", self.cinder.clone()),
            ("N", self.nova.clone()),
            ("K", self.keystone.clone()),
        ] {
            if let Some(rest) = url.strip_prefix(short) {
                return format!("{long}{}", self.fill(rest));
            }
        }
        panic!("{url} names no service");
    }

    /// Sends one request: status, headers, body.
    pub(super) async fn send(&self, step: &Step) -> (u16, reqwest::header::HeaderMap, Value) {
        let mut request = self.http.request(step.method.parse().expect("a method"), self.url(&step.url));
        let kind = if step.url.starts_with('N') { "compute" } else { "volume" };
        request = match step.version {
            "bad token" => request.header("x-auth-token", "bad"),
            "" => request.header("x-auth-token", &self.token),
            version => {
                request.header("x-auth-token", &self.token).header("openstack-api-version", format!("{kind} {version}"))
            }
        };
        if !step.body.is_null() {
            let body = self.fill(&step.body.to_string());
            request = request.header("content-type", "application/json").body(body);
        }
        let answer = request.send().await.expect("an answer");
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = answer.text().await.expect("a body");
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        (status, headers, body)
    }

    /// Runs the scenario; an answer for each step.
    pub(super) async fn answers(&mut self) -> Vec<(Step, Value)> {
        let mut answers = Vec::new();
        for step in scenario() {
            let (mut status, mut headers, mut body) = self.send(&step).await;
            for _ in 0..100 {
                let done = match step.until {
                    None => true,
                    Some((_, "gone")) => status == 404,
                    Some((pointer, value)) => body.pointer(pointer).and_then(Value::as_str) == Some(value),
                };
                if done {
                    break;
                }
                tokio::time::sleep(WAITING).await;
                (status, headers, body) = self.send(&step).await;
            }
            if let Some((name, pointer)) = step.keep {
                let kept = body.pointer(pointer).and_then(Value::as_str);
                let kept = kept.unwrap_or_else(|| panic!("{}: no {pointer} in {body}", step.what));
                self.words.insert(name.to_owned(), kept.to_owned());
            }
            let body = if step.closeness == Closeness::Shape { shape(&body) } else { blank(&body, &self.words) };
            let answer =
                json!({ "step": step.what, "status": status, "headers": chosen(&headers, &self.words), "body": body });
            answers.push((step, answer));
        }
        answers
    }
}
