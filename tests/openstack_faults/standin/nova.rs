//! Nova: servers and their disks.

use super::answer::Answer;
use super::cloud::{Cloud, Disk, Kind, Outcome, Pace, Server, Step};
use super::request::Asked;
use serde_json::{Value, json};
use std::time::Duration;

/// Answers for Nova.
pub(super) fn answer(cloud: &mut Cloud, asked: &Asked) -> Answer {
    let parts = asked.parts();
    match (asked.method.as_str(), parts.as_slice()) {
        ("GET", ["servers"] | ["servers", "detail"]) => {
            let servers: Vec<Value> = cloud.servers.iter().map(|server| server_view(cloud, server)).collect();
            Answer::json(200, json!({ "servers": servers }))
        }
        (method, ["servers", id, rest @ ..]) => {
            let Some(server) = cloud.servers.iter().find(|server| server.id == *id).cloned() else {
                return Answer::not_found("Instance", id);
            };
            match (method, rest) {
                ("GET", []) => Answer::json(200, json!({ "server": server_view(cloud, &server) })),
                ("GET", ["os-volume_attachments"]) => {
                    let disks: Vec<Value> = cloud
                        .disks
                        .iter()
                        .filter(|disk| disk.server == *id)
                        .map(|disk| disk_view(disk, asked.microversion))
                        .collect();
                    Answer::json(200, json!({ "volumeAttachments": disks }))
                }
                ("POST", ["os-volume_attachments"]) => attach(cloud, asked, &server).unwrap_or_else(|refusal| refusal),
                ("GET", ["os-volume_attachments", volume]) => match disk(cloud, id, volume) {
                    Some(disk) => {
                        Answer::json(200, json!({ "volumeAttachment": disk_view(&disk, asked.microversion) }))
                    }
                    None => not_attached(id, volume),
                },
                ("DELETE", ["os-volume_attachments", volume]) => detach(cloud, id, volume),
                _ => Answer::no_such_resource(),
            }
        }
        _ => Answer::text(404, "404 Not Found\n\nThe resource could not be found.\n\n   "),
    }
}

fn disk(cloud: &Cloud, server: &str, volume: &str) -> Option<Disk> {
    cloud.disks.iter().find(|disk| disk.server == server && disk.volume == volume).cloned()
}

fn not_attached(server: &str, volume: &str) -> Answer {
    Answer::fault("itemNotFound", 404, format!("Instance {server} is not attached to volume {volume}"))
}

fn server_view(cloud: &Cloud, server: &Server) -> Value {
    let volumes: Vec<Value> = cloud
        .disks
        .iter()
        .filter(|disk| disk.server == server.id)
        .map(|disk| json!({ "id": disk.volume, "delete_on_termination": false }))
        .collect();
    let own = json!({ "rel": "self", "href": format!("{}/compute/v2.1/servers/{}", cloud.url, server.id) });
    let image = json!({ "rel": "bookmark", "href": format!("{}/compute/images/1", cloud.url) });
    json!({
        "accessIPv4": "", "accessIPv6": "", "addresses": {}, "created": "2026-11-21T11:34:05Z",
        "flavor": { "vcpus": 1, "ram": 64, "disk": 1, "ephemeral": 0, "swap": 0, "original_name": "tiny", "extra_specs": {} },
        "hostId": "87de62391a4accceea5cee007eeb2e15ea9b9ed05056e487527ebcfd", "id": server.id,
        "image": { "id": "00000000-0000-0000-0000-000000000001", "links": [image] }, "links": [own], "metadata": {},
        "name": server.name, "status": server.status, "tenant_id": cloud.project,
        "user_id": "bced53b0f7694b81a31bd3fa7a4e5659", "updated": "2026-11-21T11:34:06Z",
        "OS-DCF:diskConfig": "MANUAL", "progress": 0, "OS-EXT-AZ:availability_zone": server.zone,
        "config_drive": "", "key_name": null, "OS-SRV-USG:launched_at": "2026-11-21T11:34:06.007833",
        "OS-SRV-USG:terminated_at": null, "OS-EXT-STS:task_state": server.task_state,
        "OS-EXT-STS:vm_state": server.vm_state, "OS-EXT-STS:power_state": 1,
        "os-extended-volumes:volumes_attached": volumes, "locked": false, "description": null, "tags": [],
    })
}

/// Nova's view of a disk: `id` until 2.88, `attachment_id` since 2.89.
fn disk_view(disk: &Disk, microversion: (u16, u16)) -> Value {
    let mut view = json!({ "volumeId": disk.volume, "serverId": disk.server, "device": disk.device });
    if microversion < (2, 89) {
        view["id"] = json!(disk.volume);
    }
    if microversion >= (2, 70) {
        view["tag"] = Value::Null;
    }
    if microversion >= (2, 79) {
        view["delete_on_termination"] = json!(false);
    }
    if microversion >= (2, 89) {
        view["attachment_id"] = json!(disk.attachment);
        view["bdm_uuid"] = json!("087f89d2-073a-4059-9df3-333337bacd1f");
    }
    view
}

/// The time that a change has left after the part that is done.
fn half(pace: Pace) -> Pace {
    match pace {
        Pace::After(time) => Pace::After(time / 2),
        Pace::Looks(looks) => Pace::Looks(looks / 2),
    }
}

fn attach(cloud: &mut Cloud, asked: &Asked, server: &Server) -> Result<Answer, Answer> {
    let id = asked.body["volumeAttachment"]["volumeId"].as_str().unwrap_or_default().to_owned();
    if id.len() != 36 {
        let message = format!("Invalid input for field/attribute volumeId. Value: {id}. '{id}' is not a 'uuid'");
        return Err(Answer::bad_request(message));
    }
    let volume = cloud.volume(&id).cloned().ok_or_else(|| Answer::not_found("Volume", &id))?;
    if let Some(task) = &server.task_state {
        return Err(Answer::conflict(format!(
            "Cannot 'attach_volume' instance {} while it is in task_state {task}",
            server.id
        )));
    }
    if !["active", "stopped", "paused", "suspended"].contains(&server.vm_state.as_str()) {
        return Err(Answer::conflict(format!(
            "Cannot 'attach_volume' instance {} while it is in vm_state {}",
            server.id, server.vm_state
        )));
    }
    if volume.multiattach && asked.microversion < (2, 60) {
        return Err(Answer::bad_request(
            "Multiattach volumes are only supported starting with compute API version 2.60.",
        ));
    }
    let already = |owner: &str| {
        Answer::bad_request(format!("Invalid volume: volume {id} is already attached to instances: {owner}"))
    };
    // Nova's own records count, even if Cinder has let go already.
    let owners: Vec<&str> =
        cloud.disks.iter().filter(|disk| disk.volume == id).map(|disk| disk.server.as_str()).collect();
    match owners.first() {
        Some(_) if owners.contains(&server.id.as_str()) => return Err(already(&server.id)),
        Some(owner) if !volume.multiattach => return Err(already(owner)),
        _ => {}
    }
    if volume.status.starts_with("error") {
        return Err(Answer::bad_request(format!(
            "Invalid input received: Invalid volume: Volume attachments can not be created if the volume is in an error state. The Volume {id} currently has a status of: {}  (HTTP 400) (Request-ID: req-dda68b5a-fef4-4193-b19b-36b37b3f8311)",
            volume.status
        )));
    }
    if volume.status != "available" && !(volume.multiattach && volume.status == "in-use") {
        return Err(Answer::bad_request(format!(
            "Invalid input received: Invalid volume: Volume {id} status must be available or downloading to reserve, but the current status is {}. (HTTP 400) (Request-ID: req-dda68b5a-fef4-4193-b19b-36b37b3f8311)",
            volume.status
        )));
    }
    let here = cloud.disks.iter().filter(|disk| disk.server == server.id).count();
    if here >= server.room {
        return Err(Answer::forbidden(format!(
            "The maximum allowed number of disk devices ({}) to attach to a single instance has been exceeded.",
            server.room
        )));
    }
    let letter = char::from(b'b' + u8::try_from(here % 25).unwrap_or(0));
    let device = format!("/dev/sd{letter}");
    let attachment = cloud.reserve(&id, &server.id, &device);
    let disk = Disk { server: server.id.clone(), volume: id.clone(), attachment: attachment.clone(), device };
    let body = disk_view(&disk, asked.microversion);
    cloud.disks.push(disk);
    let pace = cloud.paces.attach;
    let outcome = cloud.outcome(Step::Attach);
    if outcome == Outcome::Stuck {
        return Ok(Answer::json(200, json!({ "volumeAttachment": body })));
    }
    let attaching = attachment.clone();
    cloud.later(half(pace), &id, move |cloud| cloud.set_attachment(&attaching, "attaching"));
    cloud.later(pace, &id.clone(), move |cloud| match outcome {
        Outcome::Done | Outcome::Stuck => cloud.set_attachment(&attachment, "attached"),
        Outcome::Error(_) => cloud.set_attachment(&attachment, "error_attaching"),
        Outcome::Undone => {
            // The hypervisor failed: Nova gives the volume back.
            cloud.disks.retain(|disk| disk.attachment != attachment);
            cloud.drop_attachment(&attachment);
        }
    });
    Ok(Answer::json(200, json!({ "volumeAttachment": body })))
}

fn detach(cloud: &mut Cloud, server: &str, volume: &str) -> Answer {
    let Some(disk) = disk(cloud, server, volume) else { return not_attached(server, volume) };
    let Some(shown) = cloud.volume(volume).map(|volume| volume.status.clone()) else {
        return Answer::not_found("Volume", volume);
    };
    let state = cloud.attachments.iter().find(|attachment| attachment.id == disk.attachment);
    if shown != "in-use" || state.is_none_or(|attachment| attachment.status != "attached") {
        return Answer::bad_request(
            "Invalid volume: Invalid input received: Invalid volume: Unable to detach volume. Volume status must be 'in-use' and attach_status must be 'attached' to detach. (HTTP 400) (Request-ID: req-dda68b5a-fef4-4193-b19b-36b37b3f8311)",
        );
    }
    let attachment = disk.attachment;
    // The attachment itself stays `attached` until it is gone.
    cloud.set_status(Kind::Volume, volume, "detaching");
    let (pace, lag) = (cloud.paces.detach, cloud.paces.nova_lag);
    match cloud.outcome(Step::Detach) {
        Outcome::Stuck => {}
        Outcome::Undone | Outcome::Error(_) => {
            let owned = volume.to_owned();
            cloud.later(pace, volume, move |cloud| cloud.set_status(Kind::Volume, &owned, "in-use"));
        }
        Outcome::Done => {
            let owned = volume.to_owned();
            cloud.later(pace, volume, move |cloud| {
                cloud.drop_attachment(&attachment);
                let forget = move |cloud: &mut Cloud| cloud.disks.retain(|disk| disk.attachment != attachment);
                if matches!(lag, Pace::After(Duration::ZERO)) {
                    forget(cloud)
                } else {
                    cloud.later(lag, &owned, forget)
                }
            });
        }
    }
    Answer::empty(202)
}
