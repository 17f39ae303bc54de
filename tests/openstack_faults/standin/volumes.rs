//! Cinder's volumes.

use super::answer::Answer;
use super::cinder::{links, type_id};
use super::cloud::{Cloud, Item, Kind, Outcome, Step, VolumeType, written};
use super::quota;
use super::request::Asked;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Everything below `/volumes` but the lists.
pub(super) fn answer(cloud: &mut Cloud, asked: &Asked, rest: &[&str]) -> Answer {
    if let ("POST", []) = (asked.method.as_str(), rest) {
        return create(cloud, &asked.body["volume"]).unwrap_or_else(|refusal| refusal);
    }
    if let ("GET", ["summary"]) = (asked.method.as_str(), rest) {
        let volumes: Vec<&Item> = cloud.items.iter().filter(|item| item.kind == Kind::Volume).collect();
        let size: u64 = volumes.iter().map(|volume| volume.size).sum();
        let mut metadata: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (key, value) in volumes.iter().flat_map(|volume| &volume.metadata) {
            metadata.entry(key).or_default().push(value);
        }
        return Answer::json(
            200,
            json!({ "volume-summary": { "total_count": volumes.len(), "total_size": size, "metadata": metadata } }),
        );
    }
    let [id, rest @ ..] = rest else { return Answer::no_such_resource() };
    let Some(volume) = cloud.volume(id).cloned() else { return Answer::not_found("Volume", id) };
    match (asked.method.as_str(), rest) {
        ("GET", []) => {
            let body = json!({ "volume": view(cloud, &volume, asked.microversion) });
            cloud.looked_at(id);
            Answer::json(200, body)
        }
        ("DELETE", []) => delete(cloud, asked, &volume),
        ("PUT", []) => {
            rename(cloud, id, &asked.body["volume"]);
            let changed = cloud.volume(id).cloned().unwrap_or(volume);
            let mut body = view(cloud, &changed, asked.microversion);
            if let Some(body) = body.as_object_mut() {
                body.remove("os-vol-tenant-attr:tenant_id");
            }
            Answer::json(200, json!({ "volume": body }))
        }
        ("GET", ["metadata"]) => Answer::json(200, json!({ "metadata": volume.metadata })),
        ("POST" | "PUT", ["metadata"]) => {
            let mut metadata = if asked.method == "PUT" { BTreeMap::new() } else { volume.metadata };
            metadata.extend(strings(&asked.body["metadata"]));
            if let Some(item) = cloud.item_mut(Kind::Volume, id) {
                item.metadata.clone_from(&metadata);
            }
            Answer::json(200, json!({ "metadata": metadata }))
        }
        ("POST", ["action"]) => action(cloud, asked, &volume).unwrap_or_else(|refusal| refusal),
        _ => Answer::no_such_resource(),
    }
}

/// Changes of metadata do not change `updated_at`.
fn rename(cloud: &mut Cloud, id: &str, wish: &Value) {
    if let Some(item) = cloud.item_mut(Kind::Volume, id) {
        if let Some(name) = wish["name"].as_str() {
            name.clone_into(&mut item.name);
        }
        if wish["metadata"].is_object() {
            item.metadata = strings(&wish["metadata"]);
        }
    }
}

/// A JSON object of strings.
pub(super) fn strings(value: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    value.as_object().into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), text(value)?))).collect()
}

/// A volume in full. The answer to its creation lacks the project.
pub(super) fn view(cloud: &Cloud, item: &Item, microversion: (u16, u16)) -> Value {
    let attachments: Vec<Value> = cloud
        .attachments
        .iter()
        .filter(|attachment| attachment.volume == item.id && attachment.status == "attached")
        .map(|attachment| {
            json!({ "id": item.id, "attachment_id": attachment.id, "volume_id": item.id,
                    "server_id": attachment.server, "host_name": null, "device": attachment.device,
                    "attached_at": attachment.at.map(written) })
        })
        .collect();
    let made = item.hosted;
    let mut view = json!({
        "id": item.id, "status": item.status, "size": item.size, "availability_zone": item.zone,
        "created_at": written(item.created), "updated_at": item.updated.map(written), "name": item.name,
        "description": item.description, "volume_type": item.volume_type, "snapshot_id": item.snapshot_id,
        "source_volid": item.source_volid, "metadata": item.metadata,
        "links": links(cloud, &format!("volumes/{}", item.id)),
        "user_id": "bced53b0f7694b81a31bd3fa7a4e5659", "bootable": "false", "encrypted": false,
        "replication_status": null, "consistencygroup_id": null, "multiattach": item.multiattach,
        "attachments": attachments, "os-vol-tenant-attr:tenant_id": cloud.project,
    });
    let since = |version: u16, key: &str, value: Value, view: &mut Value| {
        if microversion >= (3, version) {
            view[key] = value;
        }
    };
    since(13, "group_id", json!(item.group), &mut view);
    since(48, "shared_targets", json!(!made), &mut view);
    let service = if made { json!("bde9d9d8-5b0b-4723-8295-9dd7564eb56e") } else { Value::Null };
    since(48, "service_uuid", service, &mut view);
    since(63, "volume_type_id", json!(type_id(&item.volume_type)), &mut view);
    since(65, "consumes_quota", json!(true), &mut view);
    view
}

fn create(cloud: &mut Cloud, wish: &Value) -> Result<Answer, Answer> {
    let size = wish["size"].as_u64();
    if let Some(size) = wish["size"].as_i64().filter(|size| *size < 1) {
        return Err(Answer::bad_request(format!(
            "Invalid input for field/attribute size. Value: {size}. {size} is less than the minimum of 1"
        )));
    }
    let name = wish["name"].as_str().unwrap_or_default();
    if name.chars().count() > 255 {
        let count = name.chars().count();
        return Err(Answer::bad_request(format!(
            "Invalid input received: name has {count} characters, more than 255."
        )));
    }
    let zone = wish["availability_zone"].as_str();
    if let Some(zone) = zone.filter(|zone| !cloud.zones.iter().any(|known| known == zone)) {
        return Err(Answer::bad_request(format!("Availability zone '{zone}' is invalid.")));
    }
    let source = source(cloud, wish)?;
    let least = source.as_ref().map_or(0, |source| source.size);
    let size = size.unwrap_or(least);
    if size < least {
        let original = match source.as_ref().map(|source| source.kind) {
            Some(Kind::Volume) => "original volume size ",
            Some(Kind::Backup) => "the backup size",
            _ => "the snapshot size",
        };
        let kind = original.split(' ').nth(1).unwrap_or_default();
        return Err(Answer::bad_request(format!(
            "Invalid input received: Volume size '{size}'GB cannot be smaller than {original} {least}GB. They must be >= original {kind} size."
        )));
    }
    let volume_type = volume_type(cloud, wish, source.as_ref())?;
    quota::for_volume(cloud, size)?;

    let mut volume = cloud.new_item(Kind::Volume, name, size);
    volume.description = wish["description"].as_str().map(str::to_owned);
    volume.metadata = strings(&wish["metadata"]);
    volume.zone = zone.unwrap_or("nova").to_owned();
    let fits = volume.zone == volume_type.zone;
    volume.volume_type = volume_type.name;
    volume.multiattach = volume_type.multiattach;
    volume.snapshot_id = wish["snapshot_id"].as_str().map(str::to_owned);
    volume.source_volid = wish["source_volid"].as_str().map(str::to_owned);
    let mut body = view(cloud, &volume, (3, 71));
    if let Some(body) = body.as_object_mut() {
        body.remove("os-vol-tenant-attr:tenant_id");
    }
    let (id, pace, backup) = (volume.id.clone(), cloud.paces.create, wish["backup_id"].as_str().map(str::to_owned));
    cloud.items.push(volume);
    let outcome = match cloud.outcome(Step::CreateVolume) {
        Outcome::Done if !fits => {
            Outcome::Error("schedule allocate volume:Could not find any available weighted backend.".to_owned())
        }
        planned => planned,
    };
    match outcome {
        Outcome::Stuck => {}
        Outcome::Error(reason) => cloud.later(pace, &id.clone(), move |cloud| {
            cloud.set_status(Kind::Volume, &id, "error");
            cloud.say(Kind::Volume, &id, &reason);
        }),
        Outcome::Done | Outcome::Undone => cloud.later(pace, &id.clone(), move |cloud| {
            cloud.set_status(Kind::Volume, &id, "available");
            if let Some(item) = cloud.item_mut(Kind::Volume, &id) {
                item.hosted = true;
                item.metadata.extend(backup.map(|backup| ("src_backup_id".to_owned(), backup)));
            }
        }),
    }
    Ok(Answer::json(202, json!({ "volume": body })))
}

/// The type that was asked for, or that of the source, or the default.
fn volume_type(cloud: &Cloud, wish: &Value, source: Option<&Item>) -> Result<VolumeType, Answer> {
    let find = |name: &str| cloud.types.iter().find(|kind| kind.name == name || type_id(&kind.name) == name).cloned();
    match wish["volume_type"].as_str() {
        Some(name) => find(name).ok_or_else(|| Answer::not_found("Volume type with name", name)),
        None => source
            .and_then(|source| find(&source.volume_type))
            .or_else(|| find("loop"))
            .ok_or_else(|| Answer::not_found("Default volume type", "loop")),
    }
}

/// What the new volume is filled with.
fn source(cloud: &Cloud, wish: &Value) -> Result<Option<Item>, Answer> {
    let given = |key: &str| wish[key].as_str().filter(|id| !id.is_empty());
    if let Some(id) = given("snapshot_id") {
        let snapshot = cloud.item(Kind::Snapshot, id).ok_or_else(|| Answer::not_found("Snapshot", id))?;
        if snapshot.status != "available" {
            let message = "Invalid snapshot: Originating snapshot status must be one of 'available' values";
            return Err(Answer::bad_request(message));
        }
        return Ok(Some(snapshot.clone()));
    }
    if let Some(id) = given("source_volid") {
        let volume = cloud.volume(id).ok_or_else(|| Answer::not_found("Volume", id))?;
        if volume.status != "available" && volume.status != "in-use" {
            return Err(Answer::bad_request(format!(
                "Invalid volume: Invalid status: {} for source volume {id}",
                volume.status
            )));
        }
        return Ok(Some(volume.clone()));
    }
    if let Some(id) = given("backup_id") {
        let backup = cloud.item(Kind::Backup, id).ok_or_else(|| Answer::not_found("Backup", id))?;
        if backup.status != "available" {
            return Err(Answer::bad_request(
                "Invalid backup: Originating backup status must be one of 'available' values",
            ));
        }
        return Ok(Some(backup.clone()));
    }
    Ok(None)
}

fn delete(cloud: &mut Cloud, asked: &Asked, volume: &Item) -> Answer {
    let id = volume.id.clone();
    let snapshots: Vec<String> = cloud
        .items
        .iter()
        .filter(|item| item.kind == Kind::Snapshot && item.volume_id.as_ref() == Some(&id))
        .map(|item| item.id.clone())
        .collect();
    let cascade = asked.query("cascade").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let deletable = ["available", "error", "error_restoring", "error_extending", "error_managing"];
    let attached = cloud.attachments.iter().any(|attachment| attachment.volume == id);
    let is_free = !attached && volume.group.is_none();
    if !is_free || !deletable.contains(&volume.status.as_str()) || (!snapshots.is_empty() && !cascade) {
        return Answer::bad_request(
            "Invalid volume: Volume status must be available or error or error_restoring or error_extending or error_managing and must not be migrating, attached, belong to a group, have snapshots, awaiting a transfer, or be disassociated from snapshots after volume transfer.",
        );
    }
    cloud.set_status(Kind::Volume, &id, "deleting");
    let pace = cloud.paces.delete;
    match cloud.outcome(Step::DeleteVolume) {
        Outcome::Stuck => {}
        Outcome::Error(reason) => cloud.later(pace, &id.clone(), move |cloud| {
            cloud.set_status(Kind::Volume, &id, "error_deleting");
            cloud.say(Kind::Volume, &id, &reason);
        }),
        Outcome::Undone => {
            cloud.later(pace, &id.clone(), move |cloud| cloud.set_status(Kind::Volume, &id, "available"))
        }
        Outcome::Done => cloud.later(pace, &id.clone(), move |cloud| {
            for snapshot in snapshots {
                cloud.remove(Kind::Snapshot, &snapshot);
            }
            cloud.remove(Kind::Volume, &id);
        }),
    }
    Answer::empty(202)
}

fn action(cloud: &mut Cloud, asked: &Asked, volume: &Item) -> Result<Answer, Answer> {
    let extend = &asked.body["os-extend"];
    if extend.is_object() {
        return extend_to(cloud, asked, volume, extend["new_size"].as_u64().unwrap_or(0));
    }
    if asked.body["os-roll_detaching"].is_object() {
        if volume.status == "detaching" {
            cloud.set_status(Kind::Volume, &volume.id, "in-use");
        }
        return Ok(Answer::empty(202));
    }
    if asked.body["os-reset_status"].is_object() {
        return Err(Answer::forbidden(
            "Policy doesn't allow volume_extension:volume_admin_actions:reset_status to be performed.",
        ));
    }
    Err(Answer::bad_request("There is no such action."))
}

fn extend_to(cloud: &mut Cloud, asked: &Asked, volume: &Item, size: u64) -> Result<Answer, Answer> {
    let id = volume.id.clone();
    if size <= volume.size {
        return Err(Answer::bad_request(format!(
            "Invalid input received: New size for extend must be greater than current size. (current: {}, extended: {size}).",
            volume.size
        )));
    }
    let states: &[&str] = if asked.microversion >= (3, 42) { &["available", "in-use"] } else { &["available"] };
    if !states.contains(&volume.status.as_str()) {
        return Err(Answer::bad_request(format!(
            "Invalid volume: Volume {id} status must be '{{'status': 'available'}}' to extend, currently {}.",
            volume.status
        )));
    }
    quota::for_growth(cloud, volume.size, size)?;
    let before = volume.status.clone();
    cloud.set_status(Kind::Volume, &id, "extending");
    let pace = cloud.paces.extend;
    match cloud.outcome(Step::Extend) {
        Outcome::Stuck => {}
        Outcome::Error(reason) => cloud.later(pace, &id.clone(), move |cloud| {
            cloud.set_status(Kind::Volume, &id, "error_extending");
            cloud.say(Kind::Volume, &id, &reason);
        }),
        Outcome::Undone => cloud.later(pace, &id.clone(), move |cloud| cloud.set_status(Kind::Volume, &id, &before)),
        Outcome::Done => cloud.later(pace, &id.clone(), move |cloud| {
            if let Some(item) = cloud.item_mut(Kind::Volume, &id) {
                item.size = size;
            }
            cloud.set_status(Kind::Volume, &id, &before);
        }),
    }
    Ok(Answer::empty(202))
}
