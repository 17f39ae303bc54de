//! The requests whose answers are compared.

use serde_json::{Value, json};

/// How closely an answer is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closeness {
    /// Every word.
    Words,
    /// Which fields there are, and of which types.
    Shape,
}

/// One request of the scenario.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) what: &'static str,
    pub(super) method: &'static str,
    pub(super) url: String,
    pub(super) version: &'static str,
    pub(super) body: Value,
    pub(super) closeness: Closeness,
    /// Keep this part of the answer under this name.
    pub(super) keep: Option<(&'static str, &'static str)>,
    /// Repeat until this part of the answer has this value (`gone`: until a 404).
    pub(super) until: Option<(&'static str, &'static str)>,
}

pub(super) fn step(what: &'static str, method: &'static str, url: &str, version: &'static str) -> Step {
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
    pub(super) fn body(mut self, body: Value) -> Self {
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
pub(super) const NEW: &str = "3.71";
pub(super) const NOVA: &str = "2.60";

/// Every kind of answer that the driver can meet. `C` is Cinder's endpoint, `N` Nova's, `K` Keystone's.
pub(super) fn scenario() -> Vec<Step> {
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
