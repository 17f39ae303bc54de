//! Cinder's attachments, and what they do to the volume.

use super::answer::Answer;
use super::cloud::{Attachment, Cloud, Kind, new_id, written};
use super::request::Asked;
use serde_json::{Value, json};

/// Everything below `/attachments`.
pub(super) fn answer(cloud: &mut Cloud, asked: &Asked, rest: &[&str]) -> Answer {
    if asked.microversion < (3, 27) {
        return Answer::no_such_resource();
    }
    match (asked.method.as_str(), rest) {
        ("GET", [] | ["detail"]) => {
            let detail = rest.first() == Some(&"detail");
            let found: Vec<Value> = cloud
                .attachments
                .iter()
                .filter(|attachment| asked.query("volume_id").is_none_or(|id| id == attachment.volume))
                .filter(|attachment| {
                    asked.query("instance_id").is_none_or(|id| attachment.server.as_deref() == Some(id))
                })
                .map(|attachment| view(attachment, detail))
                .collect();
            Answer::json(200, json!({ "attachments": found }))
        }
        (method, [id]) => {
            let Some(attachment) = cloud.attachments.iter().find(|attachment| attachment.id == *id).cloned() else {
                return Answer::fault(
                    "itemNotFound",
                    404,
                    format!("Volume attachment could not be found with filter: attachment_id = {id}."),
                );
            };
            match method {
                "GET" => Answer::json(200, json!({ "attachment": view(&attachment, true) })),
                "DELETE" => delete(cloud, &attachment),
                _ => Answer::no_such_resource(),
            }
        }
        _ => Answer::no_such_resource(),
    }
}

fn view(attachment: &Attachment, detail: bool) -> Value {
    let mut view = json!({ "id": attachment.id, "status": attachment.status, "instance": attachment.server,
                           "volume_id": attachment.volume });
    if detail {
        view["attached_at"] = attachment.at.map(written).into();
        view["detached_at"] = json!("");
        view["attach_mode"] = json!("rw");
        view["connection_info"] = json!({ "driver_volume_type": "local", "volume_id": attachment.volume,
            "attachment_id": attachment.id, "device_path": "/dev/loop0", "backing_file": "/volumes/volume",
            "access_mode": "rw", "cacheable": false, "encrypted": false, "qos_specs": null,
            "target_discovered": false, "enforce_multipath": false });
    }
    view
}

/// What Nova uses, users may not take away behind its back.
fn delete(cloud: &mut Cloud, attachment: &Attachment) -> Answer {
    // A reservation has no connection yet; and what Nova does not know it does not use.
    let used = attachment.status != "reserved" && cloud.disks.iter().any(|disk| disk.attachment == attachment.id);
    if let Some(server) = attachment.server.as_ref().filter(|_| used) {
        return Answer::conflict(format!(
            "ConflictNovaUsingAttachment: Detach volume from instance {server} using the Compute API"
        ));
    }
    cloud.drop_attachment(&attachment.id);
    Answer::json(200, json!({ "attachments": [] }))
}

impl Cloud {
    /// Cinder's part of reserving a volume for a server.
    pub(crate) fn reserve(&mut self, volume: &str, server: &str, device: &str) -> String {
        let id = new_id();
        self.attachments.push(Attachment {
            id: id.clone(),
            volume: volume.to_owned(),
            server: Some(server.to_owned()),
            status: "reserved".to_owned(),
            device: device.to_owned(),
            at: None,
        });
        self.set_status(Kind::Volume, volume, "reserved");
        id
    }

    /// Changes the status of an attachment and with it that of the volume.
    pub(crate) fn set_attachment(&mut self, id: &str, status: &str) {
        let now = self.stamp();
        let Some(attachment) = self.attachments.iter_mut().find(|attachment| attachment.id == id) else { return };
        status.clone_into(&mut attachment.status);
        if status == "attached" {
            attachment.at = Some(now);
        }
        let volume = attachment.volume.clone();
        let shown = if status == "attached" { "in-use" } else { status };
        self.set_status(Kind::Volume, &volume, shown);
    }

    /// Takes an attachment away; the volume is what the others make it.
    pub(crate) fn drop_attachment(&mut self, id: &str) {
        let Some(index) = self.attachments.iter().position(|attachment| attachment.id == id) else { return };
        let gone = self.attachments.remove(index);
        let others = self.attachments.iter().any(|attachment| attachment.volume == gone.volume);
        self.set_status(Kind::Volume, &gone.volume, if others { "in-use" } else { "available" });
    }
}
