package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// volumeTypes of the fake, and of tests/openstack; the first is the default.
var volumeTypes = []dict{
	{"id": "c5ce1b42-e2c0-4ef4-9c6b-ad65629e36b5", "name": "loop", "is_public": true, "description": nil, "extra_specs": dict{}},
	{"id": "105b67ee-d20a-49d2-9264-78f83eaf2677", "name": "multi", "is_public": true, "description": nil, "extra_specs": dict{"multiattach": "<is> True"}},
}

// volumeFilters and so on are Cinder's resource_filters.json.
var (
	volumeFilters = []string{"name", "status", "metadata", "bootable", "migration_status", "availability_zone", "group_id", "size",
		"created_at", "updated_at", "consumes_quota"}
	snapshotFilters = []string{"name", "status", "volume_id", "metadata", "availability_zone", "consumes_quota"}
	backupFilters   = []string{"name", "status", "volume_id"}
)

func (f *Fake) newVolume(name string, size int) *entity {
	e := &entity{id: newID(), name: name, size: size, status: "creating", created: time.Now(), meta: dict{},
		extra: dict{"description": nil, "volume_type": "loop", "volume_type_id": volumeTypes[0]["id"], "availability_zone": "nova",
			"snapshot_id": nil, "source_volid": nil, "multiattach": false, "bootable": "false"}}
	f.cinder["volumes"].add(e)
	return e
}

func (f *Fake) volumeView(e *entity) dict {
	d := dict{"id": e.id, "name": e.name, "status": e.status, "size": e.size, "created_at": f.stamp(e.created), "updated_at": f.stamp(e.updated),
		"metadata": e.meta, "user_id": "u", "encrypted": false, "replication_status": nil, "consistencygroup_id": nil,
		"group_id": nil, "shared_targets": false, "service_uuid": nil, "consumes_quota": true, "os-vol-tenant-attr:tenant_id": fakeProject,
		"links": []dict{{"rel": "self", "href": "http://cinder.fake/v3/" + fakeProject + "/volumes/" + e.id}}}
	maps.Copy(d, e.extra)
	atts := []dict{}
	for _, a := range e.atts {
		if a.status == "attached" || a.status == "detaching" {
			atts = append(atts, dict{"id": e.id, "attachment_id": a.id, "volume_id": e.id, "server_id": orNil(a.server), "host_name": nil,
				"device": a.device, "attached_at": f.stamp(a.at)})
		}
	}
	d["attachments"] = atts
	return d
}

func orNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func (f *Fake) blockView(kind string, e *entity) dict {
	if kind == "volumes" {
		return f.volumeView(e)
	}
	d := dict{"id": e.id, "name": e.name, "status": e.status, "size": e.size, "created_at": f.stamp(e.created), "updated_at": f.stamp(e.updated),
		"metadata": e.meta, "volume_id": e.source, "description": nil}
	maps.Copy(d, e.extra)
	return d
}

func (f *Fake) block(c *call) reply {
	kind, id, verb := c.seg[0], c.seg[1], c.seg[2]
	switch kind {
	case "attachments":
		if c.minor < 27 {
			return noPath()
		}
		return f.attachments(c)
	case "limits":
		return reply{code: 200, body: dict{"limits": f.blockLimits()}}
	case "types":
		return f.types(id)
	case "messages":
		if c.minor < 3 {
			return noPath()
		}
		return f.messageList(c)
	case "os-availability-zone":
		return reply{code: 200, body: dict{"availabilityZoneInfo": []dict{{"zoneName": "nova", "zoneState": dict{"available": true}}}}}
	}
	t := f.cinder[kind]
	if t == nil {
		return noPath()
	}
	one := strings.TrimSuffix(kind, "s")
	if c.method == "GET" && (id == "" || id == "detail") {
		l := listing{kind: kind, path: strings.TrimSuffix("/"+kind+"/"+id, "/"), view: func(e *entity) dict { return f.blockView(kind, e) },
			filters: map[string][]string{"volumes": volumeFilters, "snapshots": snapshotFilters, "backups": backupFilters}[kind]}
		if id == "" && kind != "snapshots" {
			l.view = func(e *entity) dict { return dict{"id": e.id, "name": e.name, "links": []any{}} }
		}
		return f.page(c, t, l)
	}
	if c.method == "POST" && id == "" {
		return f.blockCreate(c, kind, one, sub(c.body, one))
	}
	e := t.byID[id]
	if e == nil {
		return notFound(title(kind), id)
	}
	switch {
	case verb == "metadata" && kind != "backups":
		return metadataCall(c, e)
	case c.method == "GET" && verb == "":
		return reply{code: 200, body: dict{one: f.blockView(kind, e)}}
	case c.method == "PUT" && verb == "":
		in := sub(c.body, one)
		if v, ok := in["name"].(string); ok {
			e.name = v
		}
		if m := sub(in, "metadata"); m != nil {
			e.meta = m
		}
		e.updated = f.clock
		return reply{code: 200, body: dict{one: f.blockView(kind, e)}}
	case c.method == "DELETE" && verb == "":
		return f.blockDelete(c, kind, e)
	case c.method == "POST" && verb == "action" && kind == "volumes":
		return f.volumeAction(c, e)
	}
	return noPath()
}

func (f *Fake) blockLimits() dict {
	used := func(kind string) (n, gib int) {
		for _, e := range f.cinder[kind].order {
			n, gib = n+1, gib+e.size
		}
		return
	}
	volumes, vg := used("volumes")
	snapshots, sg := used("snapshots")
	backups, bg := used("backups")
	return dict{"rate": []any{}, "absolute": dict{"maxTotalVolumes": 100000, "maxTotalSnapshots": 100000, "maxTotalVolumeGigabytes": 10000000,
		"maxTotalBackups": 100000, "maxTotalBackupGigabytes": 10000000, "totalVolumesUsed": volumes, "totalGigabytesUsed": vg + sg,
		"totalSnapshotsUsed": snapshots, "totalBackupsUsed": backups, "totalBackupGigabytesUsed": bg}}
}

func (f *Fake) types(id string) reply {
	switch id {
	case "":
		return reply{code: 200, body: dict{"volume_types": volumeTypes}, rows: len(volumeTypes)}
	case "default":
		return reply{code: 200, body: dict{"volume_type": volumeTypes[0]}}
	}
	if t := volumeType(id); t != nil {
		return reply{code: 200, body: dict{"volume_type": t}}
	}
	return fault("itemNotFound", 404, "Volume type %s could not be found.", id)
}

func volumeType(key string) dict {
	for _, t := range volumeTypes {
		if t["id"] == key || t["name"] == key {
			return t
		}
	}
	return nil
}

func (f *Fake) blockDelete(c *call, kind string, e *entity) reply {
	t := f.cinder[kind]
	if kind == "volumes" {
		cascade := strings.EqualFold(c.q.Get("cascade"), "true")
		free := slices.Contains([]string{"available", "error", "error_restoring", "error_extending", "error_managing"}, e.status)
		if len(e.atts) > 0 || !free || f.hasChild("snapshots", e.id) && !cascade {
			return badRequest("Invalid volume: Volume status must be available or error or error_restoring or error_extending or error_managing and must not be migrating, attached, belong to a group, have snapshots, awaiting a transfer, or be disassociated from snapshots after volume transfer.")
		}
		for _, s := range slices.Clone(f.cinder["snapshots"].order) {
			if s.source == e.id {
				f.set(s, "deleting")
				f.after(f.Delete, func() { f.cinder["snapshots"].remove(s.id) })
			}
		}
	} else if e.status != "available" && e.status != "error" {
		if kind == "backups" {
			return badRequest("Invalid backup: Backup status must be available or error")
		}
		return badRequest("Invalid snapshot: Snapshot status must be available or error, but current status is: %s.", e.status)
	}
	f.set(e, "deleting")
	f.after(f.Delete, func() { t.remove(e.id) })
	return reply{code: 202}
}

func (f *Fake) hasChild(kind, id string) bool {
	return slices.ContainsFunc(f.cinder[kind].order, func(s *entity) bool { return s.source == id })
}

func (f *Fake) volumeAction(c *call, e *entity) reply {
	for verb, v := range c.body {
		in, _ := v.(dict)
		switch verb {
		case "os-extend":
			back := e.status
			if back != "available" && (back != "in-use" || c.minor < 42) {
				return badRequest("Invalid volume: Volume %s status must be '('available', 'in-use')' to extend, but current status is: %s.", e.id, back)
			}
			if num(in, "new_size") <= e.size {
				return badRequest("Invalid input received: New size for extend must be greater than current size. (current: %d, extended: %d).", e.size, num(in, "new_size"))
			}
			f.set(e, "extending")
			f.after(f.Extend, func() { e.size = num(in, "new_size"); f.set(e, back) })
			return reply{code: 202}
		case "os-retype":
			to := volumeType(str(in, "new_type"))
			if to == nil {
				return fault("itemNotFound", 404, "Volume type %s could not be found.", str(in, "new_type"))
			}
			back := e.status
			f.set(e, "retyping")
			f.after(f.Extend, func() { e.extra["volume_type"], e.extra["volume_type_id"] = to["name"], to["id"]; f.set(e, back) })
			return reply{code: 202}
		case "os-reset_status", "os-force_delete", "os-force_detach":
			return fault("forbidden", 403, "Policy doesn't allow volume_extension:volume_admin_actions to be performed.")
		}
	}
	return badRequest("There is no such action")
}

// sources that a volume can be made from: the key in the request, the kind,
// and the statuses in which it can.
var sources = []struct {
	key, kind string
	ready     []string
}{
	{"snapshot_id", "snapshots", []string{"available"}},
	{"source_volid", "volumes", []string{"available", "in-use"}},
	{"backup_id", "backups", []string{"available"}},
}

func (f *Fake) blockCreate(c *call, kind, one string, in dict) reply {
	if in == nil {
		return badRequest("'%s' is a required property", one)
	}
	var e *entity
	if kind == "volumes" {
		var bad *reply
		if e, bad = f.volumeCreate(c, in); bad != nil {
			return *bad
		}
	} else {
		v := f.cinder["volumes"].byID[str(in, "volume_id")]
		if v == nil {
			return notFound("Volume", str(in, "volume_id"))
		}
		snap := f.cinder["snapshots"].byID[str(in, "snapshot_id")]
		if snap == nil && str(in, "snapshot_id") != "" {
			return notFound("Snapshot", str(in, "snapshot_id"))
		}
		if snap != nil && snap.status != "available" {
			return badRequest("Invalid snapshot: Snapshot to be backed up must be available, but the current status is \"%s\".", snap.status)
		}
		force, _ := strconv.ParseBool(fmt.Sprint(in["force"]))
		force = force || kind == "snapshots" && c.minor >= 66
		if v.status != "available" && !(force && v.status == "in-use") && snap == nil {
			return badRequest("Invalid volume: Volume %s status must be available, but current status is: %s.", v.id, v.status)
		}
		e = &entity{id: newID(), name: str(in, "name"), status: "creating", size: v.size, created: time.Now(), source: v.id}
		if kind == "backups" {
			e.extra = dict{"snapshot_id": in["snapshot_id"], "availability_zone": "nova", "is_incremental": in["incremental"] == true, "has_dependent_backups": false,
				"object_count": 0, "container": nil, "fail_reason": nil, "data_timestamp": f.stamp(e.created)}
			busy := v
			if snap != nil {
				busy = snap
			}
			back := busy.status
			f.set(busy, "backing-up")
			f.become(busy, back, f.Backup)
			f.finish(e, f.Backup, "VOLUME_BACKUP", reasonBackup)
		} else {
			e.extra = dict{"os-extended-snapshot-attributes:project_id": fakeProject, "os-extended-snapshot-attributes:progress": "100%", "consumes_quota": true}
			f.finish(e, f.Snapshot, "VOLUME_SNAPSHOT", reasonSnapshot)
		}
		f.cinder[kind].add(e)
	}
	e.meta = dict{}
	if m := sub(in, "metadata"); m != nil {
		e.meta = m
	}
	return reply{code: 202, body: dict{one: f.blockView(kind, e)}}
}

func (f *Fake) volumeCreate(c *call, in dict) (*entity, *reply) {
	refuse := func(r reply) (*entity, *reply) { return nil, &r }
	size, took, least := num(in, "size"), f.Create, 0
	var backup *entity
	for _, from := range sources {
		id := str(in, from.key)
		if id == "" || from.key == "backup_id" && c.minor < 47 {
			continue
		}
		src := f.cinder[from.kind].byID[id]
		if src == nil {
			return refuse(notFound(title(from.kind), id))
		}
		if !slices.Contains(from.ready, src.status) {
			return refuse(badRequest("Invalid %s: Originating %s status must be one of '%s' values", strings.TrimSuffix(from.kind, "s"), from.kind, strings.Join(from.ready, ", ")))
		}
		if least = src.size; size == 0 {
			size = least
		}
		if from.key == "backup_id" {
			backup = src
		}
	}
	if size < 1 {
		return refuse(badRequest("Invalid input for field/attribute size. Value: %d. %d is less than the minimum of 1", size, size))
	}
	if size < least {
		return refuse(badRequest("Invalid input received: Volume size '%d'GB cannot be smaller than the source size %dGB. They must be >= original size.", size, least))
	}
	kind := volumeTypes[0]
	if v := str(in, "volume_type"); v != "" {
		if kind = volumeType(v); kind == nil {
			return refuse(fault("itemNotFound", 404, "Volume type with name %s could not be found.", v))
		}
	}
	if v := str(in, "availability_zone"); v != "" && v != "nova" {
		return refuse(badRequest("Invalid input received: Availability zone '%s' is invalid.", v))
	}
	e := f.newVolume(str(in, "name"), size)
	e.extra["volume_type"], e.extra["volume_type_id"] = kind["name"], kind["id"]
	e.extra["multiattach"] = len(sub(kind, "extra_specs")) > 0
	for _, k := range []string{"description", "snapshot_id", "source_volid", "backup_id"} {
		if v := str(in, k); v != "" {
			e.extra[k] = v
		}
	}
	if backup != nil { // first a volume, then the data
		f.become(e, "restoring-backup", took/2)
		f.set(backup, "restoring")
		f.become(backup, "available", took)
	}
	f.finish(e, took, "VOLUME", reasonVolume)
	return e, nil
}

// ---- attachments -----------------------------------------------------------

// attView is an attachment; in the answer to a change it is still as it was
// reserved, as with the real Cinder.
func (f *Fake) attView(a *attachment, detail bool) dict {
	d := dict{"id": a.id, "volume_id": a.volume, "instance": orNil(a.server), "status": a.status}
	if detail {
		maps.Copy(d, dict{"attach_mode": a.mode, "attached_at": f.stamp(a.at), "detached_at": nil, "connection_info": dict{}})
		if a.connector != nil {
			d["connection_info"] = dict{"driver_volume_type": "local", "volume_id": a.volume, "attachment_id": a.id, "device_path": "/dev/null"}
		}
	}
	return d
}

// attachments without an instance are the driver's own; Nova's are guarded.
func (f *Fake) attachments(c *call) reply {
	id := c.seg[1]
	answer := func(a *attachment, status string) reply {
		d := f.attView(a, true)
		d["status"] = status
		return reply{code: 200, body: dict{"attachment": d}}
	}
	switch {
	case c.method == "GET" && (id == "" || id == "detail"):
		return f.attachmentList(c, id == "detail")
	case c.method == "POST" && id == "":
		in := sub(c.body, "attachment")
		v := f.cinder["volumes"].byID[str(in, "volume_uuid")]
		if v == nil {
			return notFound("Volume", str(in, "volume_uuid"))
		}
		if !reservable(v) {
			return badRequest("Invalid volume: Volume %s status must be available or downloading to reserve, but the current status is %s.", v.id, v.status)
		}
		a := &attachment{id: newID(), volume: v.id, server: str(in, "instance_uuid"), status: "reserved", mode: "rw", connector: in["connector"]}
		if m := str(in, "mode"); m != "" && c.minor >= 54 {
			a.mode = m
		}
		f.set(v, "reserved")
		if a.connector != nil {
			a.status, a.device = "attaching", mountpoint(a.connector)
			f.set(v, "attaching")
		}
		f.attach(v, a)
		return answer(a, "reserved")
	}
	a := f.atts[id]
	if a == nil {
		return fault("itemNotFound", 404, "Volume attachment could not be found with filter: attachment_id = %s.", id)
	}
	v := f.cinder["volumes"].byID[a.volume]
	switch {
	case c.method == "GET":
		return answer(a, a.status)
	case c.method == "PUT":
		if a.status == "attached" {
			return badRequest("Invalid attachment: attachment is already attached")
		}
		a.connector, a.status = sub(c.body, "attachment")["connector"], "attaching"
		a.device = mountpoint(a.connector)
		f.set(v, "attaching")
		return answer(a, "reserved")
	case c.method == "POST" && c.seg[2] == "action" && c.minor >= 44:
		a.status, a.at = "attached", f.clock
		f.set(v, "in-use")
		return reply{code: 204}
	case c.method == "DELETE":
		if _, nova := f.servers[a.server]; nova {
			return fault("conflictingRequest", 409, "ConflictNovaUsingAttachment: Detach volume from instance %s using the Compute API", a.server)
		}
		f.detached(v, a)
		f.forget(a)
		left := []dict{}
		for _, x := range v.atts {
			left = append(left, f.attView(x, false))
		}
		return reply{code: 200, body: dict{"attachments": left}}
	}
	return noPath()
}

func (f *Fake) attachmentList(c *call, detail bool) reply {
	limit, marker := 1000, f.atts[c.q.Get("marker")]
	if n, err := strconv.Atoi(c.q.Get("limit")); err == nil && n >= 0 {
		limit = min(limit, n)
	}
	var all []*attachment
	for _, a := range f.atts {
		if is := func(key, value string) bool { return c.q.Get(key) == "" || c.q.Get(key) == value }; is("volume_id", a.volume) &&
			is("instance_id", a.server) && is("status", a.status) && (marker == nil || a.seq < marker.seq) {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, func(a, b *attachment) int { return b.seq - a.seq })
	out := []dict{}
	for _, a := range all[:min(limit, len(all))] {
		out = append(out, f.attView(a, detail))
	}
	body := dict{"attachments": out}
	if len(out) == limit && limit > 0 {
		c.q.Set("marker", all[limit-1].id)
		path := "/attachments"
		if detail {
			path += "/detail"
		}
		body["attachments_links"] = []dict{{"rel": "next", "href": "http://cinder.fake/v3/" + fakeProject + path + "?" + c.q.Encode()}}
	}
	return reply{code: 200, body: body, rows: len(out)}
}

// reservable: one more attachment may be made.
func reservable(v *entity) bool {
	multi, _ := v.extra["multiattach"].(bool)
	return v.status == "available" || multi && v.status == "in-use"
}

// attach records an attachment with Cinder and, for Nova's, with the server.
func (f *Fake) attach(v *entity, a *attachment) {
	f.attSeq++
	a.seq = f.attSeq
	f.atts[a.id], v.atts = a, append(v.atts, a)
	f.disks[a.server], f.records[v.id] = append(f.disks[a.server], a), append(f.records[v.id], a)
}

// detached removes it from Cinder, forget from Nova.
func (f *Fake) detached(v *entity, a *attachment) {
	delete(f.atts, a.id)
	v.atts = slices.DeleteFunc(v.atts, func(x *attachment) bool { return x == a })
	status := "available"
	if len(v.atts) > 0 {
		status = "in-use"
	}
	f.set(v, status)
}

func (f *Fake) forget(a *attachment) {
	gone := func(x *attachment) bool { return x == a }
	f.disks[a.server] = slices.DeleteFunc(f.disks[a.server], gone)
	if f.records[a.volume] = slices.DeleteFunc(f.records[a.volume], gone); len(f.records[a.volume]) == 0 {
		delete(f.records, a.volume)
	}
}

// mountpoint is what an attachment without an instance shows as its device.
func mountpoint(connector any) string {
	c, _ := connector.(dict)
	return str(c, "mountpoint")
}
