package main

import (
	"slices"
	"strconv"
	"time"
)

func (f *Fake) compute(c *call) reply {
	if c.seg[0] != "servers" {
		return noPath()
	}
	id, kind, vid := c.seg[1], c.seg[2], c.seg[3]
	if id == "" || id == "detail" {
		out := []dict{}
		for s := range f.servers {
			if name := c.q.Get("name"); name == "" || name == f.servers[s] {
				out = append(out, f.serverView(s))
			}
		}
		return reply{code: 200, body: dict{"servers": out}, rows: len(out)}
	}
	if _, ok := f.servers[id]; !ok {
		return notFound("Instance", id)
	}
	if kind == "" {
		return reply{code: 200, body: dict{"server": f.serverView(id)}}
	}
	if kind != "os-volume_attachments" {
		return noPath()
	}
	view := func(a *attachment) dict {
		d := dict{"volumeId": a.volume, "serverId": id, "device": a.device}
		if c.minor < 89 {
			d["id"] = a.volume
		} else {
			d["attachment_id"], d["bdm_uuid"] = a.id, a.id
		}
		if c.minor >= 70 {
			d["tag"] = nil
		}
		if c.minor >= 79 {
			d["delete_on_termination"] = false
		}
		return d
	}
	here := f.disks[id]
	at := slices.IndexFunc(here, func(a *attachment) bool { return a.volume == vid })
	switch {
	case c.method == "POST" && vid == "":
		return f.novaAttach(c, id, str(sub(c.body, "volumeAttachment"), "volumeId"), len(here), view)
	case c.method == "GET" && vid == "":
		out := []dict{}
		offset, _ := strconv.Atoi(c.q.Get("offset"))
		for i, a := range here {
			if limit, err := strconv.Atoi(c.q.Get("limit")); i >= offset && (err != nil || len(out) < limit) && len(out) < 1000 {
				out = append(out, view(a))
			}
		}
		return reply{code: 200, body: dict{"volumeAttachments": out}, rows: len(out)}
	case at < 0:
		if f.cinder["volumes"].byID[vid] == nil && c.method == "DELETE" {
			return notFound("Volume", vid)
		}
		return fault("itemNotFound", 404, "Instance %s is not attached to volume %s", id, vid)
	case c.method == "GET":
		return reply{code: 200, body: dict{"volumeAttachment": view(here[at])}}
	case c.method == "DELETE":
		a, v := here[at], f.cinder["volumes"].byID[vid]
		if v == nil {
			return notFound("Volume", vid)
		}
		if a.status != "attached" {
			return badRequest("Invalid input received: Invalid volume: Unable to detach volume. Volume status must be 'in-use' and attach_status must be 'attached' to detach. (HTTP 400) (Request-ID: req-%s)", newID())
		}
		a.status = "detaching"
		f.set(v, "detaching")
		took := f.queue(id, f.Detach)
		f.after(took, func() { f.detached(v, a) })
		f.after(took+f.Record, func() { f.forget(a) })
		return reply{code: 202}
	}
	return noPath()
}

// queue is the time until Nova is done with one more thing on this server.
func (f *Fake) queue(server string, d time.Duration) time.Duration {
	if !f.SerialPerServer {
		return d
	}
	start := time.Now()
	if b := f.busy[server]; b.After(start) {
		start = b
	}
	f.busy[server] = start.Add(d)
	return time.Until(f.busy[server])
}

func (f *Fake) novaAttach(c *call, server, vol string, n int, view func(*attachment) dict) reply {
	v := f.cinder["volumes"].byID[vol]
	if v == nil {
		return notFound("Volume", vol)
	}
	multi, _ := v.extra["multiattach"].(bool)
	if multi && c.minor < 60 {
		return badRequest("Multiattach volumes are only supported starting with compute API version 2.60.")
	}
	// Nova's own records, some of which outlive what Cinder knows
	for _, a := range f.records[vol] {
		if f.servers[a.server] != "" && (a.server == server || !multi) {
			return badRequest("Invalid volume: volume %s is already attached to instances: %s", vol, a.server)
		}
	}
	if !reservable(v) {
		return badRequest("Invalid input received: Invalid volume: Volume %s status must be available or downloading to reserve, but the current status is %s. (HTTP 400) (Request-ID: req-%s)", vol, v.status, newID())
	}
	a := &attachment{id: newID(), volume: vol, server: server, status: "reserved", mode: "rw", device: "/dev/sd" + string(rune('b'+n%25)), connector: dict{}}
	f.attach(v, a)
	f.set(v, "reserved")
	took := f.queue(server, f.Attach)
	f.after(took/2, func() { a.status = "attaching"; f.set(v, "attaching") })
	f.after(took, func() { a.status, a.at = "attached", f.clock; f.set(v, "in-use") })
	if c.minor >= 101 {
		return reply{code: 202}
	}
	return reply{code: 200, body: dict{"volumeAttachment": view(a)}}
}

func (f *Fake) serverView(id string) dict {
	vols := []dict{}
	for _, a := range f.disks[id] {
		vols = append(vols, dict{"id": a.volume, "delete_on_termination": false})
	}
	return dict{"id": id, "name": f.servers[id], "status": "ACTIVE", "tenant_id": fakeProject, "metadata": dict{}, "addresses": dict{},
		"flavor": dict{"id": "1"}, "image": dict{"id": "1"}, "OS-EXT-AZ:availability_zone": "nova", "OS-EXT-STS:task_state": nil,
		"OS-EXT-STS:vm_state": "active", "OS-EXT-STS:power_state": 1, "os-extended-volumes:volumes_attached": vols,
		"created": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:00Z"}
}
