//! The stand-in is held to the real services' answers.
//!
//! `real_answers.json` holds what Keystone, Cinder and Nova of 2026.2 answered to the requests of [`scenario`]: status,
//! headers and bodies, with ids, times and hosts blanked out. The stand-in has to answer the same. To record them again:
//!
//! ```sh
//! export CLOUD_HOME=/var/tmp/fuxi-fidelity
//! CLOUD_PORT_OFFSET=auto tests/openstack/cloud start keystone cinder nova
//! FUXI_REAL_CLOUD=$CLOUD_HOME/state/info.json cargo test --test openstack_faults record -- --ignored
//! tests/openstack/cloud stop
//! ```
//!
//! A cloud of its own, because the recording makes it slow: some steps ask for what is not finished yet.

use crate::standin::Standin;
use crate::standin::cloud::Pace;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

const WAITING: Duration = Duration::from_millis(100);

/// How closely an answer is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closeness {
    /// Every word.
    Words,
    /// Which fields there are, and of which types.
    Shape,
}

/// One request of the scenario.
#[derive(Debug, Clone)]
struct Step {
    what: &'static str,
    method: &'static str,
    url: String,
    version: &'static str,
    body: Value,
    closeness: Closeness,
    /// Keep this part of the answer under this name.
    keep: Option<(&'static str, &'static str)>,
    /// Repeat until this part of the answer has this value (`gone`: until a 404).
    until: Option<(&'static str, &'static str)>,
}

fn step(what: &'static str, method: &'static str, url: &str, version: &'static str) -> Step {
    Step {
        what,
        method,
        url: url.to_owned(),
        version,
        body: Value::Null,
        closeness: Closeness::Words,
        keep: None,
        until: None,
    }
}

impl Step {
    fn body(mut self, body: Value) -> Self {
        self.body = body;
        self
    }

    fn shape(mut self) -> Self {
        self.closeness = Closeness::Shape;
        self
    }

    fn keep(mut self, name: &'static str, pointer: &'static str) -> Self {
        self.keep = Some((name, pointer));
        self
    }

    fn until(mut self, pointer: &'static str, value: &'static str) -> Self {
        self.until = Some((pointer, value));
        self
    }
}

/// The newest microversions of both services that the driver knows.
const NEW: &str = "3.71";
const NOVA: &str = "2.60";

/// Every kind of answer that the driver can meet. `C` is Cinder's endpoint, `N` Nova's, `K` Keystone's.
fn scenario() -> Vec<Step> {
    let nobody = "11111111-1111-1111-1111-111111111111";
    let password = |password: &str| {
        json!({ "auth": { "identity": { "methods": ["password"], "password": { "user": {
            "name": "{user}", "domain": { "name": "Default" }, "password": password } } },
            "scope": { "project": { "name": "{project}", "domain": { "name": "Default" } } } } })
    };
    let volume = |wish: Value| json!({ "volume": wish });
    let attach = |what, server: &str, volume: &str, version| {
        step(what, "POST", &format!("N/servers/{server}/os-volume_attachments"), version)
            .body(json!({ "volumeAttachment": { "volumeId": volume } }))
    };
    let disk = "N/servers/{server}/os-volume_attachments/{v}";
    let extend = |what, size: u64, version| {
        step(what, "POST", "C/volumes/{v}/action", version).body(json!({ "os-extend": { "new_size": size } }))
    };
    vec![
        step("Keystone's version", "GET", "K", ""),
        step("a token", "POST", "K/auth/tokens", "").body(password("{password}")).shape(),
        step("a wrong password", "POST", "K/auth/tokens", "").body(password("wrong")),
        step("Cinder's versions", "GET", "Croot/", ""),
        step("Cinder's version", "GET", "Croot/v3/", ""),
        step("Nova's versions", "GET", "Nroot/", ""),
        step("Nova's version", "GET", "Nroot/v2.1/", ""),
        step("a bad token", "GET", "C/volumes/detail", "bad token"),
        step("Nova, a bad token", "GET", "N/servers/detail", "bad token"),
        step("a microversion too new", "GET", "C/volumes/detail", "3.999"),
        step("Nova, a microversion too new", "GET", "N/servers/detail", "2.999"),
        step("limits", "GET", "C/limits", NEW).shape(),
        step("types", "GET", "C/types", NEW).shape(),
        step("the default type", "GET", "C/types/default", NEW).shape(),
        step("an unknown type", "GET", &format!("C/types/{nobody}"), NEW),
        step("zones", "GET", "C/os-availability-zone", NEW),
        step("quotas", "GET", "C/os-quota-sets/{project_id}?usage=True", NEW).shape(),
        step("pools are not for users", "GET", "C/scheduler-stats/get_pools?detail=True", NEW),
        step("an empty list", "GET", "C/volumes/detail?name=nobody", NEW),
        step("create in an unknown zone", "POST", "C/volumes", NEW)
            .body(volume(json!({ "name": "x", "size": 1, "availability_zone": "nowhere" }))),
        step("create of an unknown type", "POST", "C/volumes", NEW)
            .body(volume(json!({ "name": "x", "size": 1, "volume_type": "nowhere" }))),
        step("create of nothing", "POST", "C/volumes", NEW).body(volume(json!({ "name": "x", "size": 0 }))),
        step("create with a long name", "POST", "C/volumes", NEW)
            .body(volume(json!({ "name": "x".repeat(300), "size": 1 }))),
        step("create over the quota", "POST", "C/volumes", NEW).body(volume(json!({ "name": "x", "size": 999_999 }))),
        step("create from an unknown snapshot", "POST", "C/volumes", NEW)
            .body(volume(json!({ "name": "x", "size": 1, "snapshot_id": nobody }))),
        step("create from an unknown volume", "POST", "C/volumes", NEW)
            .body(volume(json!({ "name": "x", "size": 1, "source_volid": nobody }))),
        step("create from an unknown backup", "POST", "C/volumes", NEW)
            .body(volume(json!({ "name": "x", "size": 1, "backup_id": nobody }))),
        step("create", "POST", "C/volumes", NEW)
            .body(volume(json!({ "name": "first", "size": 1, "metadata": { "a": "b" } })))
            .keep("v", "/volume/id"),
        step("a volume that is being made", "GET", "C/volumes/{v}", NEW),
        attach("attach what is being made", "{server}", "{v}", NOVA),
        step("delete what is being made", "DELETE", "C/volumes/{v}", NEW),
        step("the volume", "GET", "C/volumes/{v}", NEW).until("/volume/status", "available"),
        step("the volume, oldest version", "GET", "C/volumes/{v}", ""),
        step("by name", "GET", "C/volumes/detail?name=first", NEW),
        step("by name, a full page", "GET", "C/volumes/detail?name=first&limit=1", NEW),
        step("without details", "GET", "C/volumes?name=first", NEW),
        step("by metadata", "GET", "C/volumes/detail?metadata=%7B%27a%27%3A%27b%27%7D", NEW),
        step("by metadata that it has not", "GET", "C/volumes/detail?metadata=%7B%27a%27%3A%27c%27%7D", NEW),
        step("by metadata in JSON", "GET", "C/volumes/detail?metadata=%7B%22a%22%3A%22b%22%7D", NEW),
        step("changed since", "GET", "C/volumes/detail?updated_at=gte:2026-01-01T00:00:00", NEW),
        step("changed before", "GET", "C/volumes/detail?updated_at=lt:2026-01-01T00:00:00", NEW),
        step("changed since nonsense", "GET", "C/volumes/detail?updated_at=gte:zz", NEW),
        step("an unknown filter", "GET", "C/volumes/detail?nosuch=1", NEW),
        step("snapshots know no time", "GET", "C/snapshots/detail?updated_at=gte:2026-01-01T00:00:00", NEW),
        step("a negative limit", "GET", "C/volumes/detail?limit=-1", NEW),
        step("no limit at all", "GET", "C/volumes/detail?limit=0", NEW),
        step("an unknown marker", "GET", &format!("C/volumes/detail?marker={nobody}"), NEW),
        step("the marker is the last", "GET", "C/volumes/detail?marker={v}", NEW),
        step("an unknown volume", "GET", &format!("C/volumes/{nobody}"), NEW),
        step("no id at all", "GET", "C/volumes/nope", NEW),
        step("delete an unknown volume", "DELETE", &format!("C/volumes/{nobody}"), NEW),
        step("summary", "GET", "C/volumes/summary", NEW),
        step("rename", "PUT", "C/volumes/{v}", NEW).body(volume(json!({ "metadata": { "a": "c" } }))),
        step("more metadata", "POST", "C/volumes/{v}/metadata", NEW).body(json!({ "metadata": { "d": "e" } })),
        extend("extend to what it is", 1, NEW),
        extend("extend over the quota", 999_999, NEW),
        extend("extend", 2, NEW),
        step("snapshot while it grows", "POST", "C/snapshots", NEW)
            .body(json!({ "snapshot": { "name": "s", "volume_id": "{v}" } })),
        extend("extend while it grows", 3, NEW),
        step("extended", "GET", "C/volumes/{v}", NEW).until("/volume/status", "available"),
        step("snapshot of an unknown volume", "POST", "C/snapshots", NEW)
            .body(json!({ "snapshot": { "name": "s", "volume_id": nobody } })),
        step("snapshot", "POST", "C/snapshots", NEW)
            .body(json!({ "snapshot": { "name": "s", "volume_id": "{v}", "metadata": { "k": "v" } } }))
            .keep("s", "/snapshot/id"),
        step("restore what is not ready", "POST", "C/volumes", NEW)
            .body(volume(json!({ "name": "x", "size": 2, "snapshot_id": "{s}" }))),
        step("delete a snapshot that is not ready", "DELETE", "C/snapshots/{s}", NEW),
        step("the snapshot", "GET", "C/snapshots/{s}", NEW).until("/snapshot/status", "available"),
        step("snapshots of a volume", "GET", "C/snapshots/detail?volume_id={v}&limit=1", NEW),
        step("snapshots by name", "GET", "C/snapshots/detail?name=s", NEW),
        step("an unknown snapshot", "GET", &format!("C/snapshots/{nobody}"), NEW),
        step("delete a volume with a snapshot", "DELETE", "C/volumes/{v}", NEW),
        step("restore into less", "POST", "C/volumes", NEW)
            .body(volume(json!({ "name": "x", "size": 1, "snapshot_id": "{s}" }))),
        step("clone into less", "POST", "C/volumes", NEW)
            .body(volume(json!({ "name": "x", "size": 1, "source_volid": "{v}" }))),
        step("restore into more", "POST", "C/volumes", NEW)
            .body(volume(json!({ "name": "second", "size": 3, "snapshot_id": "{s}" })))
            .keep("w", "/volume/id"),
        step("restored", "GET", "C/volumes/{w}", NEW).until("/volume/status", "available"),
        step("clone", "POST", "C/volumes", NEW)
            .body(volume(json!({ "name": "third", "size": 2, "source_volid": "{v}" })))
            .keep("c", "/volume/id"),
        step("cloned", "GET", "C/volumes/{c}", NEW).until("/volume/status", "available"),
        step("backup with metadata, too old", "POST", "C/backups", "3.42")
            .body(json!({ "backup": { "name": "b", "volume_id": "{v}", "metadata": { "k": "v" } } }))
            .shape(),
        step("backup of a snapshot", "POST", "C/backups", NEW)
            .body(json!({ "backup": { "name": "b", "volume_id": "{v}", "snapshot_id": "{s}", "metadata": { "k": "v" } } }))
            .keep("b", "/backup/id"),
        step("the snapshot meanwhile", "GET", "C/snapshots/{s}", NEW),
        step("restore a backup that is not ready", "POST", "C/volumes", NEW)
            .body(volume(json!({ "name": "x", "size": 2, "backup_id": "{b}" }))),
        step("delete a backup that is not ready", "DELETE", "C/backups/{b}", NEW),
        step("delete the snapshot meanwhile", "DELETE", "C/snapshots/{s}", NEW),
        step("the backup", "GET", "C/backups/{b}", NEW).until("/backup/status", "available"),
        step("backups by name", "GET", "C/backups/detail?name=b&limit=1", NEW),
        step("an unknown backup", "GET", &format!("C/backups/{nobody}"), NEW),
        step("restore a backup", "POST", "C/volumes", NEW)
            .body(volume(json!({ "name": "fourth", "size": 2, "backup_id": "{b}" })))
            .keep("r", "/volume/id"),
        step("restored from the backup", "GET", "C/volumes/{r}", NEW).until("/volume/status", "available"),
        step("a volume that no back end takes", "POST", "C/volumes", NEW)
            .body(volume(json!({ "name": "huge", "size": 20_000, "volume_type": "loop-b", "availability_zone": "nova" })))
            .keep("e", "/volume/id"),
        step("it ends in error", "GET", "C/volumes/{e}", NEW).until("/volume/status", "error"),
        step("the reason", "GET", "C/messages?resource_uuid={e}", NEW),
        step("the reason, too old", "GET", "C/messages?resource_uuid={e}", "3.2"),
        step("no disks yet", "GET", "N/servers/{server}/os-volume_attachments", NOVA),
        step("the server", "GET", "N/servers/{server}", NOVA).shape(),
        step("an unknown server", "GET", &format!("N/servers/{nobody}"), NOVA),
        attach("attach an unknown volume", "{server}", nobody, NOVA),
        attach("attach no id at all", "{server}", "zz", NOVA),
        attach("attach to an unknown server", nobody, "{v}", NOVA),
        step("detach what is not attached", "DELETE", disk, NOVA),
        attach("attach what is in error", "{server}", "{e}", NOVA),
        attach("attach", "{server}", "{v}", NOVA),
        attach("attach again at once", "{server}", "{v}", NOVA),
        attach("attach elsewhere at once", "{server2}", "{v}", NOVA),
        step("the volume in use", "GET", "C/volumes/{v}", NEW).until("/volume/status", "in-use"),
        step("disks", "GET", "N/servers/{server}/os-volume_attachments", NOVA),
        step("disks, oldest version", "GET", "N/servers/{server}/os-volume_attachments", ""),
        step("disks, new version", "GET", "N/servers/{server}/os-volume_attachments", "2.89"),
        step("one disk", "GET", disk, NOVA),
        step("another's disk", "GET", "N/servers/{server2}/os-volume_attachments/{v}", NOVA),
        attach("attach again", "{server}", "{v}", NOVA),
        attach("attach elsewhere", "{server2}", "{v}", NOVA),
        step("attachments", "GET", "C/attachments?volume_id={v}", NEW).keep("a", "/attachments/0/id"),
        step("attachments, too old", "GET", "C/attachments?volume_id={v}", "3.20"),
        step("attachments in full", "GET", "C/attachments/detail?volume_id={v}", NEW).shape(),
        step("take it from Nova", "DELETE", "C/attachments/{a}", NEW),
        step("an unknown attachment", "DELETE", &format!("C/attachments/{nobody}"), NEW),
        step("delete what is in use", "DELETE", "C/volumes/{v}", NEW),
        step("snapshot in use, too old", "POST", "C/snapshots", "3.65")
            .body(json!({ "snapshot": { "name": "t", "volume_id": "{v}" } })),
        step("snapshot in use", "POST", "C/snapshots", "3.66")
            .body(json!({ "snapshot": { "name": "t", "volume_id": "{v}" } }))
            .keep("t", "/snapshot/id"),
        step("the snapshot in use", "GET", "C/snapshots/{t}", NEW).until("/snapshot/status", "available"),
        step("backup in use without force", "POST", "C/backups", NEW)
            .body(json!({ "backup": { "name": "d", "volume_id": "{v}" } })),
        extend("extend in use, too old", 3, "3.41"),
        extend("extend in use", 3, "3.42"),
        step("extended in use", "GET", "C/volumes/{v}", NEW).until("/volume/status", "in-use"),
        step("detach", "DELETE", disk, NOVA),
        step("detach again at once", "DELETE", disk, NOVA),
        step("detached", "GET", "C/volumes/{v}", NEW).until("/volume/status", "available"),
        step("Nova has forgotten it", "GET", disk, NOVA).until("", "gone"),
        step("detach again", "DELETE", disk, NOVA),
        step("detach from an unknown server", "DELETE", &format!("N/servers/{nobody}/os-volume_attachments/{{v}}"), NOVA),
        step("create for many", "POST", "C/volumes", NEW)
            .body(volume(json!({ "name": "many", "size": 1, "volume_type": "multi" })))
            .keep("m", "/volume/id"),
        step("for many", "GET", "C/volumes/{m}", NEW).until("/volume/status", "available"),
        attach("attach for many, too old", "{server}", "{m}", "2.59"),
        attach("attach for many", "{server}", "{m}", NOVA),
        step("attached to one", "GET", "C/volumes/{m}", NEW).until("/volume/status", "in-use"),
        attach("attach to a second", "{server2}", "{m}", NOVA),
        step("attached to both", "GET", "C/volumes/{m}", NEW).until("/volume/attachments/1/device", "/dev/sdb"),
        step("detach the first", "DELETE", "N/servers/{server}/os-volume_attachments/{m}", NOVA),
        step("Nova has forgotten the first", "GET", "N/servers/{server}/os-volume_attachments/{m}", NOVA).until("", "gone"),
        step("attached to one again", "GET", "C/volumes/{m}", NEW).until("/volume/status", "in-use"),
        step("detach the second", "DELETE", "N/servers/{server2}/os-volume_attachments/{m}", NOVA),
        step("detached from both", "GET", "C/volumes/{m}", NEW).until("/volume/status", "available"),
        step("delete the snapshot", "DELETE", "C/snapshots/{s}", NEW),
        step("the snapshot is going", "GET", "C/snapshots/{s}", NEW).until("", "gone"),
        step("delete the other snapshot", "DELETE", "C/snapshots/{t}", NEW),
        step("the other snapshot is going", "GET", "C/snapshots/{t}", NEW).until("", "gone"),
        step("delete the backup", "DELETE", "C/backups/{b}", NEW),
        step("the backup is going", "GET", "C/backups/{b}", NEW).until("", "gone"),
        step("delete", "DELETE", "C/volumes/{v}", NEW),
        step("delete again at once", "DELETE", "C/volumes/{v}", NEW),
        step("what is on its way out", "GET", "C/volumes/detail?status=deleting", NEW).shape(),
        step("deleted", "GET", "C/volumes/{v}", NEW).until("", "gone"),
        step("delete the restored", "DELETE", "C/volumes/{w}", NEW),
        step("delete the clone", "DELETE", "C/volumes/{c}", NEW),
        step("delete the one from the backup", "DELETE", "C/volumes/{r}", NEW),
        step("delete the broken", "DELETE", "C/volumes/{e}", NEW),
        step("delete the one for many", "DELETE", "C/volumes/{m}", NEW),
        step("the last is gone", "GET", "C/volumes/{m}", NEW).until("", "gone"),
    ]
}

/// A cloud to ask: where it is, and what the placeholders of the scenario stand for.
struct Target {
    http: reqwest::Client,
    keystone: String,
    cinder: String,
    nova: String,
    token: String,
    words: BTreeMap<String, String>,
}

impl Target {
    /// Logs in.
    async fn new(keystone: &str, user: &str, password: &str, project: &str) -> Self {
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
    async fn send(&self, step: &Step) -> (u16, reqwest::header::HeaderMap, Value) {
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
    async fn answers(&mut self) -> Vec<(Step, Value)> {
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

/// The headers that a client may look at.
fn chosen(headers: &reqwest::header::HeaderMap, words: &BTreeMap<String, String>) -> Value {
    let mut chosen = Map::new();
    for name in
        ["content-type", "openstack-api-version", "x-openstack-nova-api-version", "retry-after", "www-authenticate"]
    {
        if let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) {
            // An answer without a body may call it what it likes.
            let empty = headers.get("content-length").is_some_and(|length| length == "0");
            if name != "content-type" || !empty {
                let value = value.replace("; charset=UTF-8", "");
                chosen.insert(name.to_owned(), blank(&Value::String(value), words));
            }
        }
    }
    for name in ["x-openstack-request-id", "date", "x-subject-token"] {
        if headers.contains_key(name) {
            chosen.insert(name.to_owned(), json!("present"));
        }
    }
    Value::Object(chosen)
}

/// The same with everything blanked out that is never the same twice.
fn blank(value: &Value, words: &BTreeMap<String, String>) -> Value {
    match value {
        Value::String(text) => Value::String(blank_text(text, words)),
        Value::Array(items) => items.iter().map(|item| blank(item, words)).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| (key.clone(), blank(value, words))).collect::<Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

fn blank_text(text: &str, words: &BTreeMap<String, String>) -> String {
    let mut text = text.to_owned();
    for (name, value) in words {
        if !matches!(name.as_str(), "user" | "password" | "project") {
            text = text.replace(value, &format!("<{name}>"));
        }
    }
    // Hosts, and the prefixes that the stand-in has instead of ports.
    while let Some(start) = text.find("http://127.0.0.1:") {
        let rest = &text[start + 7..];
        let end = rest.find('/').unwrap_or(rest.len());
        let path = &rest[end..];
        let path = ["/volume/", "/compute/", "/identity/"]
            .iter()
            .find_map(|prefix| path.strip_prefix(prefix).map(|rest| format!("/{rest}")))
            .unwrap_or_else(|| path.to_owned());
        text = format!("{}<host>{path}", &text[..start]);
    }
    let is_time = |text: &str| text.len() > 18 && text.starts_with("20") && text.as_bytes()[10] == b'T';
    if is_time(&text) {
        return format!("<time of {} characters>", text.len());
    }
    // UUIDs and plain hexadecimal ids, wherever they are.
    let mut blanked = String::new();
    let mut word = String::new();
    for character in text.chars().chain(std::iter::once('\0')) {
        if character.is_ascii_hexdigit() || character == '-' {
            word.push(character);
            continue;
        }
        let hex = word.chars().filter(char::is_ascii_hexdigit).count();
        blanked.push_str(if hex >= 32 { "<id>" } else { &word });
        word.clear();
        if character != '\0' {
            blanked.push(character);
        }
    }
    blanked.replace("req<id>", "<request>").replace("req-<id>", "<request>")
}

/// Which fields there are, and of which types; of a list, the first entry.
fn shape(value: &Value) -> Value {
    match value {
        Value::String(_) => json!("text"),
        Value::Number(_) => json!("number"),
        Value::Bool(_) => json!("boolean"),
        Value::Null => json!("null"),
        Value::Array(items) => items.first().map(shape).into_iter().collect(),
        Value::Object(fields) => {
            // Metadata and quotas of types have keys of the cloud's own.
            let fixed = |key: &&String| !key.contains("_loop") && !key.contains("_multi") && !key.contains("DEFAULT");
            let own = |key: &str| matches!(key, "extra_specs" | "metadata" | "connection_info");
            let shape = |key: &str, value: &Value| if own(key) { json!("map") } else { shape(value) };
            fields
                .iter()
                .filter(|(key, _)| fixed(key))
                .map(|(key, value)| (key.clone(), shape(key, value)))
                .collect::<Map<_, _>>()
                .into()
        }
    }
}

fn recorded() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/openstack_faults/real_answers.json")
}

#[tokio::test]
#[ignore = "records the answers of a real cloud: needs FUXI_REAL_CLOUD"]
async fn record_the_answers_of_a_real_cloud() {
    let info = PathBuf::from(std::env::var("FUXI_REAL_CLOUD").expect("FUXI_REAL_CLOUD is the path of info.json"));
    let known: Value = serde_json::from_str(&std::fs::read_to_string(&info).expect("info.json")).expect("JSON");
    let slowly = |operations: &[&str]| {
        operations.iter().map(|name| ((*name).to_owned(), json!({ "delay": 1.5 }))).collect::<Map<_, _>>()
    };
    let faults = info.with_file_name("faults");
    let cinder = ["create_volume", "create_snapshot", "delete_volume", "delete_snapshot", "extend_volume", "backup"];
    for (service, operations) in
        [("cinder", cinder.as_slice()), ("nova", ["attach_volume", "detach_volume"].as_slice())]
    {
        let text = Value::Object(slowly(operations)).to_string();
        std::fs::write(faults.join(service).with_extension("json"), text).expect("make the cloud slow");
    }
    let keystone = known["auth_url"].as_str().expect("Keystone's URL");
    let mut target = Target::new(keystone, "other", "other", "other").await;
    for name in ["server", "server2"] {
        let body = json!({ "server": { "name": name, "flavorRef": "1", "networks": "none",
            "imageRef": "00000000-0000-0000-0000-000000000001" } });
        let made = step("a server", "POST", "N/servers", NOVA).body(body);
        let (_, _, body) = target.send(&made).await;
        let id = body["server"]["id"].as_str().expect("a server").to_owned();
        target.words.insert(name.to_owned(), id);
    }
    for name in ["{server}", "{server2}"] {
        let look = step("a server", "GET", &format!("N/servers/{name}"), NOVA);
        while target.send(&look).await.2["server"]["status"] != "ACTIVE" {
            tokio::time::sleep(WAITING).await;
        }
    }
    let answers: Vec<Value> = target.answers().await.into_iter().map(|(_, answer)| answer).collect();
    for name in ["{server}", "{server2}"] {
        target.send(&step("remove a server", "DELETE", &format!("N/servers/{name}"), NOVA)).await;
    }
    let lines: Vec<String> = answers.iter().map(Value::to_string).collect();
    for service in ["cinder.json", "nova.json"] {
        std::fs::remove_file(faults.join(service)).expect("make the cloud fast again");
    }
    std::fs::write(recorded(), format!("[\n{}\n]\n", lines.join(",\n"))).expect("write the answers");
}

#[tokio::test]
async fn the_stand_in_answers_as_the_real_services_do() {
    let standin = Standin::start();
    let slow = Pace::millis(300);
    standin.cloud(|cloud| {
        for pace in [
            &mut cloud.paces.create,
            &mut cloud.paces.delete,
            &mut cloud.paces.snapshot,
            &mut cloud.paces.backup,
            &mut cloud.paces.extend,
            &mut cloud.paces.attach,
            &mut cloud.paces.detach,
        ] {
            *pace = slow;
        }
        cloud.nova_highest = (2, 104);
    });
    let mut target = Target::new(&standin.auth_url(), "csi", "correct horse", "demo").await;
    let servers = standin.cloud(|cloud| [cloud.first_server(), cloud.add_server("node-2")]);
    target.words.extend(["server", "server2"].map(str::to_owned).into_iter().zip(servers));
    let real: Vec<Value> =
        serde_json::from_str(&std::fs::read_to_string(recorded()).expect("the recorded answers")).expect("JSON");
    let answers = target.answers().await;
    assert_eq!(answers.len(), real.len(), "record the real answers again: the scenario has changed");
    let mut differences = Vec::new();
    for ((_, ours), real) in answers.iter().zip(&real) {
        let step = real["step"].as_str().unwrap_or_default();
        compare(ours, real, step, &mut differences);
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

/// Notes each part that differs, by its path.
fn compare(ours: &Value, real: &Value, path: &str, differences: &mut Vec<String>) {
    match (ours, real) {
        (Value::Object(ours), Value::Object(real)) => {
            for key in ours.keys().chain(real.keys().filter(|key| !ours.contains_key(*key))) {
                let absent = json!("<absent>");
                let [ours, real] = [ours, real].map(|fields| fields.get(key).unwrap_or(&absent));
                compare(ours, real, &format!("{path}/{key}"), differences);
            }
        }
        (Value::Array(ours), Value::Array(real)) if ours.len() == real.len() => {
            for (index, (ours, real)) in ours.iter().zip(real).enumerate() {
                compare(ours, real, &format!("{path}/{index}"), differences);
            }
        }
        _ if ours != real => differences.push(format!("{path}: real {real}, ours {ours}")),
        _ => {}
    }
}
