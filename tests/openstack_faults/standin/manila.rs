//! Manila: shares, their access rules and export locations, snapshots. What passes through a state is done with it at
//! the next request.

use super::answer::Answer;
use super::cloud::{Cloud, new_id};
use super::request::Asked;
use jiff::Timestamp;
use serde_json::{Value, json};

/// A share, a snapshot or a backup.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) status: String,
    pub(crate) size: u64,
    pub(crate) metadata: Value,
    description: String,
    created: Timestamp,
    protocol: String,
    /// Of a snapshot or backup: its share. Of a share: its snapshot.
    parent: Option<String>,
    /// Of a share: the backup that was restored into it.
    restored: Option<String>,
}

/// An access rule.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) id: String,
    pub(crate) share: String,
    pub(crate) to: String,
    pub(crate) state: String,
    pub(crate) metadata: Value,
    pub(crate) level: String,
    kind: String,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manila {
    pub(crate) shares: Vec<Object>,
    pub(crate) snapshots: Vec<Object>,
    pub(crate) backups: Vec<Object>,
    pub(crate) rules: Vec<Rule>,
    /// Whether new rules end in error.
    pub(crate) refuses_rules: bool,
    /// Whether restorations of backups end in error.
    pub(crate) refuses_restorations: bool,
    /// What the next requests of such a line (`POST manila /shares`) are answered, by status.
    pub(crate) refusals: Vec<(&'static str, u16, &'static str)>,
    /// What new shares end in error for: the detail of the message, and its words.
    pub(crate) failure: Option<(&'static str, &'static str)>,
    /// Other export locations than the usual ones.
    pub(crate) exports: Option<Vec<Value>>,
}

impl Manila {
    /// A share or a rule that somebody else made.
    pub(crate) fn add_share(&mut self, name: &str, now: Timestamp) -> String {
        let asked = json!({"name": name, "size": 1, "share_proto": "NFS", "metadata": {}});
        create_share(self, now, &asked);
        self.shares.last().map(|share| share.id.clone()).unwrap_or_default()
    }

    pub(crate) fn add_rule(&mut self, share: &str, to: &str) {
        let allow = json!({"access_type": "ip", "access_to": to, "access_level": "rw", "metadata": {}});
        act(self, share, &json!({ "allow_access": allow }));
    }

    fn exports_of(&self, share: &str) -> Vec<Value> {
        let usual = || {
            vec![
                json!({"id": "e", "path": format!("127.0.0.1:/shares/{share}"), "preferred": true, "is_admin_only": false}),
                json!({"id": "f", "path": format!("10.9.0.1:/shares/{share}"), "preferred": false, "is_admin_only": false}),
            ]
        };
        self.exports.clone().unwrap_or_else(usual)
    }

    /// Ends what is passing.
    fn settle(&mut self) {
        for list in [&mut self.shares, &mut self.snapshots, &mut self.backups] {
            list.retain(|object| object.status != "deleting");
            for object in list {
                if object.status == "error" || (object.status == "creating" && self.failure.is_some()) {
                    object.status = "error".to_owned();
                    continue;
                }
                let is_refused = self.refuses_restorations && object.status.starts_with("backup_restoring");
                object.status = if is_refused { "backup_restoring_error" } else { "available" }.to_owned();
            }
        }
        self.rules.retain(|rule| rule.state != "queued_to_deny");
        let shares: Vec<&String> = self.shares.iter().map(|share| &share.id).collect();
        self.rules.retain(|rule| shares.contains(&&rule.share));
        for rule in self.rules.iter_mut().filter(|rule| rule.state == "queued_to_apply") {
            rule.state = if self.refuses_rules { "error" } else { "active" }.to_owned();
        }
    }
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(Value::as_str).map(str::to_owned)
}

/// Answers for Manila.
pub(super) fn answer(cloud: &mut Cloud, asked: &Asked) -> Answer {
    cloud.manila.settle();
    let now = cloud.stamp();
    let page = cloud.page;
    let manila = &mut cloud.manila;
    if let Some(at) = manila.refusals.iter().position(|(line, ..)| *line == asked.line) {
        return match manila.refusals.remove(at) {
            (_, 413, words) => Answer::over_quota(words),
            (_, 422, words) => Answer::fault("unprocessableEntity", 422, words),
            (_, 403, words) => Answer::forbidden(words),
            (_, _, words) => Answer::bad_request(words),
        };
    }
    let parts = asked.parts();
    match (asked.method.as_str(), parts.as_slice()) {
        ("GET", ["shares", "detail"]) => {
            listed(asked, page, "shares", manila.shares.iter().map(|share| (share, share_view(share))))
        }
        ("GET", ["snapshots", "detail"]) => listed(
            asked,
            page,
            "snapshots",
            manila.snapshots.iter().map(|snapshot| (snapshot, snapshot_view(snapshot))),
        ),
        ("POST", ["shares"]) => create_share(manila, now, &asked.body["share"]),
        ("POST", ["snapshots"]) => create_snapshot(manila, now, &asked.body["snapshot"]),
        ("GET", ["shares", id]) => match manila.shares.iter().find(|share| share.id == *id) {
            Some(share) => {
                let mut view = share_view(share);
                // Until then the paths are shown with the share, but not whom they are for.
                if asked.microversion < (2, 9) && share.status == "available" {
                    let exports = manila.exports_of(id);
                    view["export_locations"] = exports.iter().map(|export| export["path"].clone()).collect();
                }
                Answer::json(200, json!({"share": view}))
            }
            None => Answer::not_found("Share", id),
        },
        ("GET", ["snapshots", id]) => match manila.snapshots.iter().find(|snapshot| snapshot.id == *id) {
            Some(snapshot) => Answer::json(200, json!({"snapshot": snapshot_view(snapshot)})),
            None => Answer::not_found("Snapshot", id),
        },
        ("DELETE", ["shares", id]) => {
            if manila.snapshots.iter().any(|snapshot| snapshot.parent.as_deref() == Some(id)) {
                return Answer::forbidden("Invalid share: Share still has 1 dependent snapshots.");
            }
            delete(&mut manila.shares, "Share", id)
        }
        ("DELETE", ["snapshots", id]) => delete(&mut manila.snapshots, "Snapshot", id),
        ("GET", ["share-backups", "detail"]) => {
            listed(asked, page, "share_backups", manila.backups.iter().map(|backup| (backup, backup_view(backup))))
        }
        ("GET", ["share-backups", id]) => match manila.backups.iter().find(|backup| backup.id == *id) {
            Some(backup) => Answer::json(200, json!({"share_backup": backup_view(backup)})),
            None => Answer::not_found("Share backup", id),
        },
        ("POST", ["share-backups"]) => create_backup(manila, now, &asked.body["share_backup"]),
        ("DELETE", ["share-backups", id]) => delete(&mut manila.backups, "Share backup", id),
        ("POST", ["share-backups", id, "action"]) => restore_backup(manila, id, &asked.body),
        ("GET", ["shares", id, "export_locations"]) => match manila.shares.iter().find(|share| share.id == *id) {
            Some(_) => Answer::json(200, json!({"export_locations": manila.exports_of(id)})),
            None => Answer::not_found("Share", id),
        },
        ("GET", ["share-access-rules"]) => {
            let share = asked.query("share_id").unwrap_or_default();
            if !manila.shares.iter().any(|one| one.id == share) {
                return Answer::bad_request(format!("Share {share} not found."));
            }
            let rules: Vec<Value> = manila.rules.iter().filter(|rule| rule.share == share).map(rule_view).collect();
            Answer::json(200, json!({"access_list": rules}))
        }
        ("POST", ["shares", id, "action"]) => act(manila, id, &asked.body),
        ("POST", ["shares", id, "metadata"]) => match manila.shares.iter_mut().find(|share| share.id == *id) {
            Some(share) => tag(&mut share.metadata, &asked.body["metadata"]),
            None => Answer::not_found("Share", id),
        },
        ("DELETE", ["shares", id, "metadata", key]) => match manila.shares.iter_mut().find(|share| share.id == *id) {
            Some(share) => untag(&mut share.metadata, key),
            None => Answer::not_found("Share", id),
        },
        ("PUT", ["share-access-rules", id, "metadata"]) => match manila.rules.iter_mut().find(|rule| rule.id == *id) {
            Some(rule) => tag(&mut rule.metadata, &asked.body["metadata"]),
            None => Answer::not_found("Share access rule", id),
        },
        ("DELETE", ["share-access-rules", id, "metadata", key]) => {
            match manila.rules.iter_mut().find(|rule| rule.id == *id) {
                Some(rule) => untag(&mut rule.metadata, key),
                None => Answer::not_found("Share access rule", id),
            }
        }
        ("GET", ["messages"]) => {
            let message = |(detail, words): (&str, &str)| json!({"user_message": words, "detail_id": detail, "created_at": "2026-11-21T08:00:00.000000"});
            let messages: Vec<Value> = manila.failure.into_iter().map(message).collect();
            Answer::json(200, json!({ "messages": messages }))
        }
        ("GET", ["quota-sets", _, "detail"]) => Answer::json(
            200,
            json!({"quota_set": {"id": "p", "gigabytes": {"limit": 1000, "in_use": 0, "reserved": 0}}}),
        ),
        _ => Answer::text(404, "404 Not Found\n\nThe resource could not be found.\n\n   "),
    }
}

fn tag(metadata: &mut Value, more: &Value) -> Answer {
    for (key, value) in more.as_object().into_iter().flatten() {
        metadata[key] = value.clone();
    }
    Answer::json(200, json!({"metadata": metadata}))
}

fn untag(metadata: &mut Value, key: &str) -> Answer {
    match metadata.as_object_mut().and_then(|metadata| metadata.remove(key)) {
        Some(_) => Answer::empty(200),
        None => Answer::not_found("Metadata", key),
    }
}

/// Whether metadata has what a filter asks for, which is written as Python writes a dict: `{'key': 'value'}`.
fn has(metadata: &Value, filter: &str) -> bool {
    let words: Vec<&str> = filter.split('\'').skip(1).step_by(2).collect();
    let [key, value] = words[..] else { return false };
    metadata[key] == value
}

/// A list, of at most `most` entries whatever is asked for.
fn listed<'a>(asked: &Asked, most: usize, key: &str, objects: impl Iterator<Item = (&'a Object, Value)>) -> Answer {
    let is_wanted = |object: &Object| {
        asked.query("name").is_none_or(|name| object.name == name)
            && asked.query("status").is_none_or(|status| object.status == status)
            && asked.query("metadata").is_none_or(|filter| has(&object.metadata, filter))
            && asked.query("share_id").is_none_or(|share| object.parent.as_deref() == Some(share))
    };
    let mut found: Vec<(&Object, Value)> = objects.filter(|(object, _)| is_wanted(object)).collect();
    found.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
    let offset = asked.query("offset").and_then(|text| text.parse().ok()).unwrap_or(0);
    let limit = asked.query("limit").and_then(|text| text.parse().ok()).unwrap_or(most).min(most);
    let more = found.len() > offset + limit;
    let page: Vec<Value> = found.into_iter().skip(offset).take(limit).map(|(_, view)| view).collect();
    let links = format!("{}_links", if key == "snapshots" { "share_snapshots" } else { key });
    let mut body = json!({ key: page });
    if more {
        body[links] = json!([{"rel": "next", "href": "x"}]);
    }
    Answer::json(200, body)
}

fn create_share(manila: &mut Manila, now: Timestamp, asked: &Value) -> Answer {
    let parent = text(asked, "snapshot_id");
    if let Some(id) = &parent
        && !manila.snapshots.iter().any(|snapshot| snapshot.id == *id)
    {
        return Answer::not_found("Snapshot", id);
    }
    let share = Object {
        id: new_id(),
        name: text(asked, "name").unwrap_or_default(),
        status: "creating".to_owned(),
        size: asked["size"].as_u64().unwrap_or(1),
        metadata: asked["metadata"].clone(),
        description: text(asked, "description").unwrap_or_default(),
        created: now,
        protocol: text(asked, "share_proto").unwrap_or_default(),
        parent,
        restored: None,
    };
    let view = share_view(&share);
    manila.shares.push(share);
    Answer::json(200, json!({"share": view}))
}

fn create_snapshot(manila: &mut Manila, now: Timestamp, asked: &Value) -> Answer {
    let id = text(asked, "share_id").unwrap_or_default();
    let Some(share) = manila.shares.iter().find(|share| share.id == id) else {
        return Answer::not_found("Share", &id);
    };
    let snapshot = Object {
        id: new_id(),
        name: text(asked, "name").unwrap_or_default(),
        status: "creating".to_owned(),
        metadata: asked["metadata"].clone(),
        description: text(asked, "description").unwrap_or_default(),
        created: now,
        parent: Some(id),
        ..share.clone()
    };
    let view = snapshot_view(&snapshot);
    manila.snapshots.push(snapshot);
    Answer::json(202, json!({"snapshot": view}))
}

fn create_backup(manila: &mut Manila, now: Timestamp, asked: &Value) -> Answer {
    let id = text(asked, "share_id").unwrap_or_default();
    let Some(share) = manila.shares.iter_mut().find(|share| share.id == id) else {
        return Answer::bad_request(format!("No share exists with ID {id}."));
    };
    if manila.snapshots.iter().any(|snapshot| snapshot.parent.as_deref() == Some(&id)) {
        return Answer::bad_request(format!("Cannot backup share {id} while it has snapshots."));
    }
    let backup = Object {
        id: new_id(),
        name: text(asked, "name").unwrap_or_default(),
        status: "creating".to_owned(),
        description: text(asked, "description").unwrap_or_default(),
        created: now,
        parent: Some(id),
        ..share.clone()
    };
    share.status = "backup_creating".to_owned();
    let view = backup_view(&backup);
    manila.backups.push(backup);
    Answer::json(202, json!({"share_backup": view}))
}

fn restore_backup(manila: &mut Manila, id: &str, body: &Value) -> Answer {
    let Some(backup) = manila.backups.iter_mut().find(|backup| backup.id == id) else {
        return Answer::not_found("Share backup", id);
    };
    let wanted = text(body, "restore").unwrap_or_default();
    let Some(share) = manila.shares.iter_mut().find(|share| share.id == wanted) else {
        return Answer::not_found("Share", &wanted);
    };
    if backup.size > share.size {
        return Answer::bad_request(format!("Share size {} is too small to restore backup.", share.size));
    }
    backup.status = "restoring".to_owned();
    share.status = "backup_restoring".to_owned();
    share.restored = Some(id.to_owned());
    Answer::json(202, json!({"restore": {"backup_id": id, "share_id": wanted}}))
}

fn delete(list: &mut [Object], what: &str, id: &str) -> Answer {
    match list.iter_mut().find(|object| object.id == id) {
        Some(object) => {
            object.status = "deleting".to_owned();
            Answer::empty(202)
        }
        None => Answer::not_found(what, id),
    }
}

fn act(manila: &mut Manila, id: &str, body: &Value) -> Answer {
    let Some(share) = manila.shares.iter_mut().find(|share| share.id == id) else {
        return Answer::not_found("Share", id);
    };
    if let Some(extend) = body.get("extend") {
        let size = extend["new_size"].as_u64().unwrap_or(0);
        if size <= share.size {
            return Answer::bad_request(
                "Invalid input received: New size for extend must be greater than current size.",
            );
        }
        share.size = size;
        share.status = "extending".to_owned();
        return Answer::empty(202);
    }
    if let Some(allow) = body.get("allow_access") {
        let to = text(allow, "access_to").unwrap_or_default();
        if manila.rules.iter().any(|rule| rule.share == id && rule.to == to) {
            return Answer::bad_request(format!("Share access ip:{to} exists."));
        }
        let rule = Rule {
            id: new_id(),
            share: id.to_owned(),
            to,
            state: "queued_to_apply".to_owned(),
            kind: text(allow, "access_type").unwrap_or_default(),
            level: text(allow, "access_level").unwrap_or_default(),
            metadata: allow["metadata"].clone(),
        };
        let view = rule_view(&rule);
        manila.rules.push(rule);
        return Answer::json(200, json!({"access": view}));
    }
    if let Some(deny) = body.get("deny_access") {
        let wanted = text(deny, "access_id").unwrap_or_default();
        return match manila.rules.iter_mut().find(|rule| rule.id == wanted) {
            Some(rule) => {
                rule.state = "queued_to_deny".to_owned();
                Answer::empty(202)
            }
            None => Answer::not_found("Share access rule", &wanted),
        };
    }
    Answer::bad_request("There is no such action.")
}

fn share_view(share: &Object) -> Value {
    json!({"id": share.id, "name": share.name, "status": share.status, "size": share.size, "share_proto": share.protocol,
        "metadata": share.metadata, "description": share.description, "snapshot_id": share.parent,
        "created_at": share.created.strftime("%Y-%m-%dT%H:%M:%S.%6f").to_string(), "availability_zone": "nova",
        "source_backup_id": share.restored, "share_type": "t", "share_type_name": "default", "access_rules_status": "active", "share_group_id": null})
}

fn snapshot_view(snapshot: &Object) -> Value {
    json!({"id": snapshot.id, "name": snapshot.name, "status": snapshot.status, "share_size": snapshot.size,
        "metadata": snapshot.metadata, "description": snapshot.description, "share_id": snapshot.parent,
        "created_at": snapshot.created.strftime("%Y-%m-%dT%H:%M:%S.%6f").to_string()})
}

fn backup_view(backup: &Object) -> Value {
    json!({"id": backup.id, "name": backup.name, "status": backup.status, "size": backup.size, "share_id": backup.parent,
        "description": backup.description,
        "created_at": backup.created.strftime("%Y-%m-%dT%H:%M:%S.%6f").to_string()})
}

fn rule_view(rule: &Rule) -> Value {
    let key = (rule.kind == "cephx" && rule.state == "active").then_some("QVFCZ2VoZWlt");
    json!({"id": rule.id, "access_type": rule.kind, "access_to": rule.to, "access_level": rule.level,
        "state": rule.state, "access_key": key, "metadata": rule.metadata})
}
