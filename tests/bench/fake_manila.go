package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

func (f *Fake) shareView(kind string, e *entity) dict {
	d := dict{"id": e.id, "name": e.name, "status": e.status, "size": e.size, "created_at": stamp6(e.created), "metadata": e.meta,
		"project_id": fakeProject}
	if kind == "snapshots" {
		d["share_id"] = e.source
	}
	maps.Copy(d, e.extra)
	return d
}

func sharePath(e *entity) string { return "127.0.0.1:/shares/" + e.id }

var shareType = dict{"id": "9d5c2f0e-6d0b-4bb5-a3a5-6f6a1f0a9b11", "name": "default", "is_default": true,
	"extra_specs":          dict{"driver_handles_share_servers": "False", "snapshot_support": "True", "create_share_from_snapshot_support": "True"},
	"required_extra_specs": dict{"driver_handles_share_servers": "False"}, "share_type_access:is_public": true}

var shareFilters = []string{"name", "name~", "status", "share_id", "snapshot_id", "share_type_id", "availability_zone", "metadata"}

func (f *Fake) share(c *call) reply {
	kind, id, verb := c.seg[0], c.seg[1], c.seg[2]
	switch kind {
	case "types", "share_types":
		if id == "" || id == "detail" {
			return reply{code: 200, body: dict{"share_types": []dict{shareType}, "volume_types": []dict{shareType}}}
		}
		if id != "default" && id != shareType["id"] {
			return fault("itemNotFound", 404, "Share type %s could not be found.", id)
		}
		return reply{code: 200, body: dict{"share_type": shareType, "volume_type": shareType}}
	case "share-access-rules":
		return f.accessRules(c)
	case "messages":
		return f.messageList(c)
	}
	t := f.manila[kind]
	if t == nil {
		return noPath()
	}
	one := strings.TrimSuffix(kind, "s")
	if c.method == "GET" && (id == "" || id == "detail") {
		l := listing{kind: kind, filters: shareFilters, view: func(e *entity) dict { return f.shareView(kind, e) }}
		if id == "" {
			l.view = func(e *entity) dict { return dict{"id": e.id, "name": e.name, "links": []any{}} }
		}
		return f.page(c, t, l)
	}
	if c.method == "POST" && id == "" {
		return f.shareCreate(kind, one, sub(c.body, one))
	}
	e := t.byID[id]
	if e == nil {
		return notFound(title(kind), id)
	}
	switch {
	case verb == "export_locations":
		return reply{code: 200, body: dict{"export_locations": []dict{{"id": e.id, "path": sharePath(e), "preferred": true, "is_admin_only": false, "share_instance_id": e.id}}}}
	case verb == "metadata":
		return metadataCall(c, e)
	case c.method == "GET" && verb == "":
		view := f.shareView(kind, e)
		if kind == "shares" && c.minor < 9 && e.status == "available" {
			view["export_locations"] = []string{sharePath(e)}
		}
		return reply{code: 200, body: dict{one: view}}
	case c.method == "DELETE" && verb == "":
		return f.shareDelete(kind, t, e)
	case verb == "action":
		return f.shareAction(c, e)
	}
	return noPath()
}

func (f *Fake) shareDelete(kind string, t *table, e *entity) reply {
	if !slices.Contains([]string{"available", "error", "inactive"}, e.status) {
		if kind == "snapshots" {
			return badRequest("Invalid share snapshot: Share Snapshot status must be 'available' or 'error'.")
		}
		return fault("forbidden", 403, "Share status must be one of ('available', 'error', 'inactive').")
	}
	if kind == "shares" && slices.ContainsFunc(f.manila["snapshots"].order, func(s *entity) bool { return s.source == e.id }) {
		return fault("forbidden", 403, "Share still has 1 dependent snapshots.")
	}
	f.set(e, "deleting")
	f.after(f.Delete, func() { t.remove(e.id); delete(f.access, e.id) })
	return reply{code: 202}
}

func (f *Fake) shareCreate(kind, one string, in dict) reply {
	e := &entity{id: newID(), name: str(in, "name"), status: "creating", size: num(in, "size"), created: time.Now(), meta: dict{}}
	if m := sub(in, "metadata"); m != nil {
		e.meta = m
	}
	code := 200
	if kind == "snapshots" {
		src := f.manila["shares"].byID[str(in, "share_id")]
		if src == nil {
			return notFound("Share", str(in, "share_id"))
		}
		if src.status != "available" {
			return fault("forbidden", 403, "Source share status must be 'available'.")
		}
		e.source, e.size, code = src.id, src.size, 202
		e.extra = dict{"share_size": src.size, "share_proto": src.extra["share_proto"]}
	} else {
		if s := str(in, "snapshot_id"); s != "" {
			snap := f.manila["snapshots"].byID[s]
			if snap == nil {
				return notFound("Snapshot", s)
			}
			if snap.status != "available" {
				return badRequest("Invalid share snapshot: status must be 'available'")
			}
			if e.size < snap.size {
				return badRequest("Share size '%d' must be equal or greater than snapshot size '%d'", e.size, snap.size)
			}
		}
		e.extra = dict{"share_proto": strings.ToUpper(str(in, "share_proto")), "share_type": shareType["id"], "share_type_name": "default", "availability_zone": "nova",
			"snapshot_id": in["snapshot_id"], "is_public": false, "share_network_id": nil, "snapshot_support": true, "create_share_from_snapshot_support": true,
			"has_replicas": false, "replication_type": nil, "share_group_id": nil, "task_state": nil}
	}
	took, resource, reason := f.Create, "SHARE", reasonShare
	if kind == "snapshots" {
		took, resource, reason = f.Snapshot, "SHARE_SNAPSHOT", reasonSnapshot
	}
	f.manila[kind].add(e)
	f.finish(e, took, resource, reason)
	return reply{code: code, body: dict{one: f.shareView(kind, e)}}
}

func (f *Fake) accessRules(c *call) reply {
	if c.minor < 45 {
		return noPath()
	}
	if id := c.seg[1]; id != "" {
		for _, rules := range f.access {
			for _, r := range rules {
				if r["id"] == id {
					return reply{code: 200, body: dict{"access": maps.Clone(r)}}
				}
			}
		}
		return notFound("Share access rule", id)
	}
	share := c.q.Get("share_id")
	if f.manila["shares"].byID[share] == nil {
		return notFound("Share", share)
	}
	return reply{code: 200, body: dict{"access_list": f.accessList(share)}}
}

func (f *Fake) accessList(share string) []dict {
	out := []dict{}
	for _, r := range f.access[share] {
		out = append(out, maps.Clone(r))
	}
	return out
}

func (f *Fake) shareAction(c *call, e *entity) reply {
	for verb, v := range c.body {
		in, _ := v.(dict)
		switch verb {
		case "extend", "shrink":
			if e.status != "available" {
				return badRequest("Invalid share: share %s must be available to %s, but current status is: %s.", e.id, verb, e.status)
			}
			if size := num(in, "new_size"); size <= e.size == (verb == "extend") {
				return badRequest("Invalid input received: New size for %s must be different", verb)
			}
			f.set(e, strings.TrimSuffix(verb, "k")+map[string]string{"extend": "ing", "shrink": "king"}[verb])
			f.after(f.Extend, func() { e.size = num(in, "new_size"); f.set(e, "available") })
			return reply{code: 202}
		case "allow_access":
			if e.status != "available" {
				return badRequest("Invalid share: New access rules cannot be applied while the share or any of its replicas or migration copies lacks a valid host or is not in an \"available\" state.")
			}
			for _, r := range f.access[e.id] {
				if r["access_to"] == in["access_to"] && r["access_type"] == in["access_type"] {
					return badRequest("Share access %v:%v exists.", in["access_type"], in["access_to"])
				}
			}
			meta := dict{}
			if m := sub(in, "metadata"); m != nil {
				meta = m
			}
			rule := dict{"id": newID(), "share_id": e.id, "access_type": in["access_type"], "access_to": in["access_to"], "access_level": in["access_level"],
				"access_key": nil, "state": "queued_to_apply", "created_at": stamp6(f.clock), "updated_at": nil, "metadata": meta}
			if rule["access_level"] == nil {
				rule["access_level"] = "rw"
			}
			f.access[e.id] = append(f.access[e.id], rule)
			f.after(f.Extend/2, func() { rule["state"] = "applying" })
			f.after(f.Extend, func() {
				rule["state"] = "active"
				if in["access_type"] == "cephx" {
					rule["access_key"] = "key"
				}
			})
			return reply{code: 200, body: dict{"access": maps.Clone(rule)}}
		case "deny_access":
			of := func(r dict) bool { return fmt.Sprint(r["id"]) == fmt.Sprint(in["access_id"]) }
			at := slices.IndexFunc(f.access[e.id], of)
			if at < 0 {
				return notFound("Share access rule", str(in, "access_id"))
			}
			f.access[e.id][at]["state"] = "queued_to_deny"
			f.after(f.Extend/2, func() { f.access[e.id] = slices.DeleteFunc(f.access[e.id], of) })
			return reply{code: 202}
		case "access_list":
			if c.minor >= 45 {
				return noPath()
			}
			return reply{code: 200, body: dict{"access_list": f.accessList(e.id)}}
		}
	}
	return badRequest("There is no such action")
}
