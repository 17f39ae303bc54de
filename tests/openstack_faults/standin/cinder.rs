//! Cinder: which request goes where, and the lists.

use super::answer::Answer;
use super::cloud::{Cloud, Item, Kind, VolumeType, written};
use super::request::Asked;
use super::{attachments, quota, snapshots, volumes};
use jiff::Timestamp;
use jiff::civil::DateTime;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Answers for Cinder.
pub(super) fn answer(cloud: &mut Cloud, asked: &Asked) -> Answer {
    let parts = asked.parts();
    match (asked.method.as_str(), parts.as_slice()) {
        ("GET", ["limits"]) => quota::limits(cloud),
        ("GET", ["os-quota-sets", _]) => {
            quota::quota_set(cloud, asked.query("usage").is_some_and(|usage| usage.eq_ignore_ascii_case("true")))
        }
        ("GET", ["types"]) => types(cloud),
        ("GET", ["types", id]) => one_type(cloud, id),
        ("GET", ["messages"]) => messages(cloud, asked),
        ("GET", ["os-availability-zone"]) => zones(cloud),
        ("GET", ["scheduler-stats", "get_pools"]) => {
            Answer::forbidden("Policy doesn't allow scheduler_extension:scheduler_stats:get_pools to be performed.")
        }
        (_, ["attachments", rest @ ..]) => attachments::answer(cloud, asked, rest),
        ("GET", ["volumes"]) => list(cloud, asked, Kind::Volume, false),
        ("GET", ["volumes", "detail"]) => list(cloud, asked, Kind::Volume, true),
        ("GET", ["snapshots"]) => list(cloud, asked, Kind::Snapshot, false),
        ("GET", ["snapshots", "detail"]) => list(cloud, asked, Kind::Snapshot, true),
        ("GET", ["backups"]) => list(cloud, asked, Kind::Backup, false),
        ("GET", ["backups", "detail"]) => list(cloud, asked, Kind::Backup, true),
        (_, ["volumes", rest @ ..]) => volumes::answer(cloud, asked, rest),
        (_, ["snapshots", rest @ ..]) => snapshots::answer(cloud, asked, Kind::Snapshot, rest),
        (_, ["backups", rest @ ..]) => snapshots::answer(cloud, asked, Kind::Backup, rest),
        _ => Answer::text(404, "404 Not Found\n\nThe resource could not be found.\n\n   "),
    }
}

/// The two links that every object has.
pub(super) fn links(cloud: &Cloud, path: &str) -> Value {
    let (url, project) = (&cloud.url, &cloud.project);
    json!([
        { "rel": "self", "href": format!("{url}/volume/v3/{project}/{path}") },
        { "rel": "bookmark", "href": format!("{url}/volume/{project}/{path}") },
    ])
}

/// A volume, a snapshot or a backup in full.
pub(super) fn view(cloud: &Cloud, item: &Item, microversion: (u16, u16)) -> Value {
    match item.kind {
        Kind::Volume => volumes::view(cloud, item, microversion),
        Kind::Snapshot => snapshots::snapshot_view(cloud, item, microversion),
        Kind::Backup => snapshots::backup_view(cloud, item, microversion),
    }
}

/// In a list without details.
fn short_view(cloud: &Cloud, item: &Item) -> Value {
    match item.kind {
        Kind::Snapshot => json!({
            "id": item.id, "created_at": written(item.created), "updated_at": item.updated.map(written),
            "name": item.name, "description": item.description, "volume_id": item.volume_id, "status": item.status,
            "size": item.size, "metadata": item.metadata,
        }),
        kind => json!({ "id": item.id, "name": item.name,
                        "links": links(cloud, &format!("{}/{}", kind.plural(), item.id)) }),
    }
}

/// The filters that a user may set, as Cinder's resource_filters.json has them.
fn filters(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Volume => &[
            "name",
            "status",
            "metadata",
            "bootable",
            "migration_status",
            "availability_zone",
            "group_id",
            "size",
            "created_at",
            "updated_at",
        ],
        Kind::Snapshot => &["name", "status", "volume_id", "metadata", "availability_zone", "consumes_quota"],
        Kind::Backup => &["name", "status", "volume_id"],
    }
}

/// A list: filters, newest first, pages with links.
fn list(cloud: &mut Cloud, asked: &Asked, kind: Kind, detail: bool) -> Answer {
    const OTHERS: [&str; 8] =
        ["limit", "marker", "offset", "sort", "sort_key", "sort_dir", "all_tenants", "with_count"];
    let unknown: Vec<&str> = asked
        .query
        .iter()
        .map(|(key, _)| key.as_str())
        .filter(|key| !OTHERS.contains(key) && !filters(kind).contains(key))
        .collect();
    if !unknown.is_empty() {
        return Answer::bad_request(format!("Invalid filters {} are found in query options.", unknown.join(", ")));
    }
    let limit = match asked.query("limit").map(str::parse::<i64>) {
        None => cloud.page,
        Some(Ok(limit)) => match usize::try_from(limit) {
            Ok(limit) => limit.min(cloud.page),
            Err(_) => return Answer::bad_request("limit param must be positive"),
        },
        Some(Err(_)) => return Answer::bad_request("limit param must be an integer"),
    };
    let offset: usize = asked.query("offset").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut found: Vec<&Item> = Vec::new();
    for item in cloud.items.iter().filter(|item| item.kind == kind) {
        match is_wanted(item, asked, cloud.loose_names) {
            Ok(true) => found.push(item),
            Ok(false) => {}
            Err(answer) => return answer,
        }
    }
    found.sort_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
    if let Some(marker) = asked.query("marker") {
        let Some(last) = cloud.item(kind, marker) else { return Answer::not_found(kind.title(), marker) };
        found.retain(|item| (item.created, &item.id) < (last.created, &last.id));
    }
    let page: Vec<Item> = found.into_iter().skip(offset).take(limit).cloned().collect();
    let mut body = json!({});
    body[kind.plural()] = page
        .iter()
        .map(|item| if detail { view(cloud, item, asked.microversion) } else { short_view(cloud, item) })
        .collect();
    // Cinder gives the link whenever the page is full, even if it was the last.
    if let Some(last) = page.last().filter(|_| page.len() == limit) {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (key, value) in asked.query.iter().filter(|(key, _)| key != "marker" && key != "offset") {
            query.append_pair(key, value);
        }
        query.append_pair("marker", &last.id);
        let path = asked.path.join("/");
        let href = format!("{}/volume/v3/{}/{path}?{}", cloud.url, cloud.project, query.finish());
        body[format!("{}_links", kind.plural())] = json!([{ "rel": "next", "href": href }]);
    }
    for item in page {
        cloud.looked_at(&item.id);
    }
    Answer::json(200, body)
}

/// Whether the item passes all filters.
fn is_wanted(item: &Item, asked: &Asked, loose_names: bool) -> Result<bool, Answer> {
    for (key, value) in &asked.query {
        let passes = match key.as_str() {
            "name" => item.name == *value || (loose_names && item.name.eq_ignore_ascii_case(value)),
            "status" => item.status == *value,
            "volume_id" => item.volume_id.as_deref() == Some(value),
            "availability_zone" => item.zone == *value,
            "size" => item.size.to_string() == *value,
            "metadata" => {
                // Python's literal of a dict; with double quotes it is JSON as well.
                let wanted: BTreeMap<String, String> =
                    serde_json::from_str(&value.replace('\'', "\"")).unwrap_or_default();
                wanted.iter().all(|(key, value)| item.metadata.get(key) == Some(value))
            }
            // Older versions do not know comparisons and let everything pass.
            "updated_at" | "created_at" if asked.microversion < (3, 60) => true,
            "updated_at" => is_in_time(item.updated, value)?,
            "created_at" => is_in_time(Some(item.created), value)?,
            _ => true,
        };
        if !passes {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Comparisons such as `gte:2026-11-21T08:54:16`, several with commas.
fn is_in_time(stamp: Option<Timestamp>, filter: &str) -> Result<bool, Answer> {
    for comparison in filter.split(',') {
        let (operator, text) = comparison.split_once(':').unwrap_or(("eq", comparison));
        let plain = text.trim_end_matches('Z').trim_end_matches("+00:00");
        let bound = plain
            .parse::<DateTime>()
            .ok()
            .and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC).ok())
            .ok_or_else(|| Answer::bad_request(format!("Invalid {text} value")))?
            .timestamp();
        let Some(stamp) = stamp else { return Ok(false) };
        let passes = match operator {
            "gt" => stamp > bound,
            "gte" => stamp >= bound,
            "lt" => stamp < bound,
            "lte" => stamp <= bound,
            "eq" => stamp == bound,
            "neq" => stamp != bound,
            _ => return Err(Answer::bad_request(format!("Invalid operator {operator}"))),
        };
        if !passes {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A type's id is its name in this form.
pub(super) fn type_id(name: &str) -> String {
    let sum = name.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(131).wrapping_add(u64::from(byte)));
    format!("{:08x}-b26f-4b0e-9f4c-0000000000aa", sum & 0xffff_ffff)
}

fn type_view(kind: &VolumeType) -> Value {
    let extra = if kind.multiattach { json!({ "multiattach": "<is> True" }) } else { json!({}) };
    json!({ "id": type_id(&kind.name), "name": kind.name, "is_public": true, "description": null, "extra_specs": extra })
}

fn types(cloud: &Cloud) -> Answer {
    let types: Vec<Value> = cloud
        .types
        .iter()
        .map(|kind| {
            let mut view = type_view(kind);
            view["os-volume-type-access:is_public"] = json!(true);
            view
        })
        .collect();
    Answer::json(200, json!({ "volume_types": types }))
}

fn one_type(cloud: &Cloud, id: &str) -> Answer {
    let wanted = if id == "default" { type_id("loop") } else { id.to_owned() };
    match cloud.types.iter().find(|kind| type_id(&kind.name) == wanted) {
        Some(kind) => Answer::json(200, json!({ "volume_type": type_view(kind) })),
        None => Answer::not_found("Volume type", id),
    }
}

fn zones(cloud: &Cloud) -> Answer {
    let zones: Vec<Value> =
        cloud.zones.iter().map(|zone| json!({ "zoneName": zone, "zoneState": { "available": true } })).collect();
    Answer::json(200, json!({ "availabilityZoneInfo": zones }))
}

fn messages(cloud: &Cloud, asked: &Asked) -> Answer {
    if asked.microversion < (3, 3) {
        return Answer::no_such_resource();
    }
    let messages: Vec<Value> = cloud
        .messages
        .iter()
        .rev()
        .filter(|message| asked.query("resource_uuid").is_none_or(|id| id == message.resource))
        .map(|message| {
            json!({
                "id": message.id, "event_id": "VOLUME_VOLUME_001_003", "user_message": message.text,
                "message_level": "ERROR", "created_at": written(message.at),
                "guaranteed_until": written(message.at + jiff::SignedDuration::from_hours(30 * 24)),
                "request_id": "req-2cf12727-b1f0-4483-b937-4ea25e302525",
                "links": links(cloud, &format!("messages/{}", message.id)),
                "resource_type": message.resource_type, "resource_uuid": message.resource,
            })
        })
        .collect();
    Answer::json(200, json!({ "messages": messages }))
}
