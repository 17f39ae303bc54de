//! Answers without what is never the same twice.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The headers that a client may look at.
pub(super) fn chosen(headers: &reqwest::header::HeaderMap, words: &BTreeMap<String, String>) -> Value {
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
pub(super) fn blank(value: &Value, words: &BTreeMap<String, String>) -> Value {
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
pub(super) fn shape(value: &Value) -> Value {
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
