//! One request as the services see it.

use http::HeaderMap;
use serde_json::Value;
use std::time::Instant;

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Keystone,
    Cinder,
    Nova,
    Manila,
}

impl Service {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Keystone => "keystone",
            Self::Cinder => "cinder",
            Self::Nova => "nova",
            Self::Manila => "manila",
        }
    }
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) service: Service,
    /// The path below the service's version (and project), in parts.
    pub(crate) path: Vec<String>,
    /// What stood before that: `v3`, or `v3/<project>`, or nothing.
    pub(crate) version_root: bool,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) body: Value,
    pub(crate) token: Option<String>,
    /// The microversion that was asked for; the oldest if none was.
    pub(crate) microversion: (u16, u16),
    /// Whether one was asked for at all.
    pub(crate) microversion_given: bool,
    /// As it stands in the log: `POST cinder /volumes/{}/action os-extend`.
    pub(crate) line: String,
    /// Path, query and body as they came, for rules about one object.
    pub(crate) whole: String,
}

impl Asked {
    pub(crate) fn new(method: &str, uri: &http::Uri, headers: &HeaderMap, body: &[u8], project: &str) -> Option<Self> {
        let mut parts = uri.path().split('/').filter(|part| !part.is_empty()).map(str::to_owned).peekable();
        let service = match parts.next()?.as_str() {
            "identity" => Service::Keystone,
            "volume" => Service::Cinder,
            "compute" => Service::Nova,
            "share" => Service::Manila,
            _ => return None,
        };
        let version_root = parts.next_if(|part| is_version(part)).is_some();
        if service != Service::Keystone {
            // Older services want the project in the URL, newer ones let it be there.
            let _ = parts.next_if(|part| part == project);
        }
        let path: Vec<String> = parts.collect();
        let query = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        let body_text = String::from_utf8_lossy(body).into_owned();
        let body: Value = serde_json::from_str(&body_text).unwrap_or(Value::Null);
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let kind = if service == Service::Nova { "compute" } else { "volume" };
        let oldest = match service {
            Service::Nova => (2, 1),
            Service::Manila => (2, 0),
            _ => (3, 0),
        };
        let microversion = header("openstack-api-version")
            .and_then(|value| value.strip_prefix(kind).map(|rest| rest.trim().to_owned()))
            .or_else(|| header("x-openstack-manila-api-version").filter(|_| service == Service::Manila))
            .or_else(|| header("x-openstack-nova-api-version").filter(|_| service == Service::Nova))
            .and_then(|value| value.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?))));
        let mut line = format!("{method} {} /{}", service.name(), template(&path));
        if path.last().is_some_and(|part| part == "action")
            && let Some(verb) = body.as_object().and_then(|object| object.keys().next())
        {
            line = format!("{line} {verb}");
        }
        Some(Self {
            method: method.to_owned(),
            service,
            version_root,
            query,
            token: header("x-auth-token"),
            microversion: microversion.unwrap_or(oldest),
            microversion_given: microversion.is_some(),
            line,
            whole: format!("{uri} {body_text}"),
            path,
            body,
        })
    }

    /// The parts of the path, as many as a pattern needs.
    pub(crate) fn parts(&self) -> Vec<&str> {
        self.path.iter().map(String::as_str).collect()
    }

    /// One parameter of the query.
    pub(crate) fn query(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// Whether a part of a path is a version, such as `v3` or `v2.1`.
fn is_version(part: &str) -> bool {
    part.strip_prefix('v').is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

/// The path with `{}` for every part that is an id.
fn template(path: &[String]) -> String {
    const WORDS: [&str; 29] = [
        "shares",
        "export_locations",
        "share-access-rules",
        "share-backups",
        "quota-sets",
        "volumes",
        "snapshots",
        "backups",
        "attachments",
        "messages",
        "limits",
        "types",
        "detail",
        "action",
        "servers",
        "os-volume_attachments",
        "auth",
        "tokens",
        "metadata",
        "summary",
        "os-availability-zone",
        "scheduler-stats",
        "get_pools",
        "os-quota-sets",
        "extra_specs",
        "volume_types",
        "default",
        "os-services",
        "restore",
    ];
    let parts: Vec<&str> =
        path.iter().map(|part| if WORDS.contains(&part.as_str()) { part.as_str() } else { "{}" }).collect();
    parts.join("/")
}

/// One request of the log.
#[derive(Debug, Clone)]
pub(crate) struct Logged {
    pub(crate) at: Instant,
    /// Which driver process sent it: 1 for the first.
    #[allow(dead_code, reason = "shown where a test prints the log")]
    pub(crate) generation: u32,
    /// Method, service, templated path and verb.
    pub(crate) line: String,
    /// Path, query and body as they came.
    #[allow(dead_code, reason = "shown where a test prints the log")]
    pub(crate) whole: String,
    pub(crate) microversion: Option<(u16, u16)>,
    pub(crate) token: Option<String>,
    pub(crate) user_agent: Option<String>,
    /// What was answered; none when the answer never left.
    pub(crate) status: Option<u16>,
}
