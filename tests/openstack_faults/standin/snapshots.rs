//! Cinder's snapshots and backups.

use super::answer::Answer;
use super::cinder::{links, view};
use super::cloud::{Cloud, Item, Kind, Outcome, Step, written};
use super::quota;
use super::request::Asked;
use super::volumes::strings;
use serde_json::{Value, json};

/// Everything below `/snapshots` and `/backups` but the lists.
pub(super) fn answer(cloud: &mut Cloud, asked: &Asked, kind: Kind, rest: &[&str]) -> Answer {
    if let ("POST", []) = (asked.method.as_str(), rest) {
        let made = if kind == Kind::Snapshot { create_snapshot(cloud, asked) } else { create_backup(cloud, asked) };
        return made.unwrap_or_else(|refusal| refusal);
    }
    let [id, rest @ ..] = rest else { return Answer::no_such_resource() };
    let Some(item) = cloud.item(kind, id).cloned() else { return Answer::not_found(kind.title(), id) };
    match (asked.method.as_str(), rest) {
        ("GET", []) => {
            let body = json!({ kind.singular(): view(cloud, &item, asked.microversion) });
            cloud.looked_at(id);
            Answer::json(200, body)
        }
        ("DELETE", []) => delete(cloud, &item),
        ("PUT", []) => {
            let wish = &asked.body[kind.singular()];
            if let Some(item) = cloud.item_mut(kind, id) {
                if let Some(name) = wish["name"].as_str() {
                    name.clone_into(&mut item.name);
                }
                if wish["metadata"].is_object() {
                    item.metadata = strings(&wish["metadata"]);
                }
            }
            let changed = cloud.item(kind, id).cloned().unwrap_or(item);
            Answer::json(200, json!({ kind.singular(): view(cloud, &changed, asked.microversion) }))
        }
        _ => Answer::no_such_resource(),
    }
}

/// A snapshot in full.
pub(super) fn snapshot_view(cloud: &Cloud, item: &Item, microversion: (u16, u16)) -> Value {
    let mut view = json!({
        "id": item.id, "created_at": written(item.created), "updated_at": item.updated.map(written),
        "name": item.name, "description": item.description, "volume_id": item.volume_id, "status": item.status,
        "size": item.size, "metadata": item.metadata,
        "os-extended-snapshot-attributes:project_id": cloud.project,
        "os-extended-snapshot-attributes:progress": if item.hosted { "100%" } else { "0%" },
    });
    if microversion >= (3, 14) {
        view["group_snapshot_id"] = Value::Null;
    }
    if microversion >= (3, 41) {
        view["user_id"] = json!("bced53b0f7694b81a31bd3fa7a4e5659");
    }
    if microversion >= (3, 65) {
        view["consumes_quota"] = json!(true);
    }
    view
}

/// A backup in full.
pub(super) fn backup_view(cloud: &Cloud, item: &Item, microversion: (u16, u16)) -> Value {
    let mut view = json!({
        "id": item.id, "status": item.status, "size": item.size, "object_count": 0, "availability_zone": item.zone,
        "container": null, "created_at": written(item.created), "updated_at": item.updated.map(written),
        "name": item.name, "description": item.description, "fail_reason": item.fail_reason,
        "volume_id": item.volume_id, "links": links(cloud, &format!("backups/{}", item.id)),
        "is_incremental": false, "has_dependent_backups": false, "snapshot_id": item.snapshot_id,
        "data_timestamp": written(item.created),
    });
    if microversion >= (3, 43) {
        view["metadata"] = json!(item.metadata);
    }
    view
}

fn create_snapshot(cloud: &mut Cloud, asked: &Asked) -> Result<Answer, Answer> {
    let wish = &asked.body["snapshot"];
    let volume_id = wish["volume_id"].as_str().unwrap_or_default();
    let volume = cloud.volume(volume_id).cloned().ok_or_else(|| Answer::not_found("Volume", volume_id))?;
    let new = asked.microversion >= (3, 66);
    let force = &wish["force"];
    let forced = force.as_bool() == Some(true) || force.as_str().is_some_and(|text| text.eq_ignore_ascii_case("true"));
    if new && !force.is_null() && !forced {
        return Err(Answer::bad_request("Invalid input for field/attribute force."));
    }
    let states: &[&str] = if new || forced { &["available", "in-use"] } else { &["available"] };
    if !states.contains(&volume.status.as_str()) {
        return Err(Answer::bad_request(format!(
            "Invalid volume: Volume {volume_id} status must be {}, but current status is: {}.",
            states.join(", "),
            volume.status
        )));
    }
    quota::for_snapshot(cloud, volume.size)?;
    let mut snapshot = cloud.new_item(Kind::Snapshot, wish["name"].as_str().unwrap_or_default(), volume.size);
    snapshot.description = wish["description"].as_str().map(str::to_owned);
    snapshot.metadata = strings(&wish["metadata"]);
    snapshot.volume_id = Some(volume.id.clone());
    snapshot.volume_type = volume.volume_type;
    let mut body = snapshot_view(cloud, &snapshot, asked.microversion);
    if let Some(body) = body.as_object_mut() {
        body.retain(|key, _| !key.starts_with("os-extended"));
    }
    let (id, pace) = (snapshot.id.clone(), cloud.paces.snapshot);
    cloud.items.push(snapshot);
    match cloud.outcome(Step::CreateSnapshot) {
        Outcome::Stuck => {}
        Outcome::Error(reason) => cloud.later(pace, &id.clone(), move |cloud| {
            cloud.set_status(Kind::Snapshot, &id, "error");
            cloud.say(Kind::Snapshot, &id, &reason);
        }),
        Outcome::Done | Outcome::Undone => {
            cloud.later(pace, &id.clone(), move |cloud| {
                cloud.set_status(Kind::Snapshot, &id, "available");
                if let Some(item) = cloud.item_mut(Kind::Snapshot, &id) {
                    item.hosted = true;
                }
            });
        }
    }
    Ok(Answer::json(202, json!({ "snapshot": body })))
}

fn create_backup(cloud: &mut Cloud, asked: &Asked) -> Result<Answer, Answer> {
    let wish = &asked.body["backup"];
    for (key, since) in [("metadata", 43), ("availability_zone", 51)] {
        if asked.microversion < (3, since) && !wish[key].is_null() {
            return Err(Answer::bad_request(format!(
                "Invalid input for field/attribute backup. Additional properties are not allowed ('{key}' was unexpected)"
            )));
        }
    }
    let volume_id = wish["volume_id"].as_str().unwrap_or_default();
    let volume = cloud.volume(volume_id).cloned().ok_or_else(|| Answer::not_found("Volume", volume_id))?;
    let snapshot = match wish["snapshot_id"].as_str() {
        Some(id) => Some(cloud.item(Kind::Snapshot, id).cloned().ok_or_else(|| Answer::not_found("Snapshot", id))?),
        None => None,
    };
    let forced = wish["force"].as_bool() == Some(true);
    match &snapshot {
        Some(snapshot) if snapshot.status != "available" => {
            return Err(Answer::bad_request(format!(
                "Invalid snapshot: Snapshot to be backed up must be available, but the current status is \"{}\".",
                snapshot.status
            )));
        }
        None if volume.status == "in-use" && !forced => {
            return Err(Answer::bad_request("Invalid volume: Backing up an in-use volume must use the force flag."));
        }
        None if volume.status != "available" && volume.status != "in-use" => {
            return Err(Answer::bad_request(format!(
                "Invalid volume: Volume to be backed up must be available or in-use, but the current status is \"{}\".",
                volume.status
            )));
        }
        _ => {}
    }
    quota::for_backup(cloud, volume.size)?;
    let mut backup = cloud.new_item(Kind::Backup, wish["name"].as_str().unwrap_or_default(), volume.size);
    backup.description = wish["description"].as_str().map(str::to_owned);
    backup.metadata = strings(&wish["metadata"]);
    backup.volume_id = Some(volume.id.clone());
    backup.snapshot_id = snapshot.as_ref().map(|snapshot| snapshot.id.clone());
    backup.zone = wish["availability_zone"].as_str().unwrap_or("nova").to_owned();
    let (id, pace) = (backup.id.clone(), cloud.paces.backup);
    let body = json!({ "backup": { "id": id, "name": backup.name, "links": links(cloud, &format!("backups/{id}")) } });
    cloud.items.push(backup);
    // While it runs, its source is busy.
    let source = snapshot.as_ref().map_or((Kind::Volume, volume.id.clone()), |it| (Kind::Snapshot, it.id.clone()));
    let source_before = snapshot.map_or(volume.status, |snapshot| snapshot.status);
    cloud.set_status(source.0, &source.1, "backing-up");
    match cloud.outcome(Step::CreateBackup) {
        Outcome::Stuck => {}
        Outcome::Error(reason) => cloud.later(pace, &id.clone(), move |cloud| {
            cloud.set_status(source.0, &source.1, &source_before);
            cloud.set_status(Kind::Backup, &id, "error");
            if let Some(item) = cloud.item_mut(Kind::Backup, &id) {
                item.fail_reason = Some(reason.clone());
            }
            cloud.say(Kind::Backup, &id, &reason);
        }),
        Outcome::Done | Outcome::Undone => cloud.later(pace, &id.clone(), move |cloud| {
            cloud.set_status(source.0, &source.1, &source_before);
            cloud.set_status(Kind::Backup, &id, "available");
        }),
    }
    Ok(Answer::json(202, body))
}

fn delete(cloud: &mut Cloud, item: &Item) -> Answer {
    let (kind, id) = (item.kind, item.id.clone());
    let deletable = item.status == "available" || item.status == "error";
    if !deletable {
        return Answer::bad_request(match kind {
            Kind::Snapshot => {
                "Invalid snapshot: Snapshot status must be available or error and must not be part of a group."
            }
            _ => "Invalid backup: Backup status must be available or error",
        });
    }
    let (step, pace) = if kind == Kind::Snapshot {
        (Step::DeleteSnapshot, cloud.paces.snapshot)
    } else {
        (Step::DeleteBackup, cloud.paces.backup)
    };
    cloud.set_status(kind, &id, "deleting");
    match cloud.outcome(step) {
        Outcome::Stuck => {}
        Outcome::Error(reason) => cloud.later(pace, &id.clone(), move |cloud| {
            cloud.set_status(kind, &id, "error_deleting");
            cloud.say(kind, &id, &reason);
        }),
        Outcome::Undone => cloud.later(pace, &id.clone(), move |cloud| cloud.set_status(kind, &id, "available")),
        Outcome::Done => cloud.later(pace, &id.clone(), move |cloud| cloud.remove(kind, &id)),
    }
    Answer::empty(202)
}
