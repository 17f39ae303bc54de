package main

// A stateful Keystone, Cinder, Nova and Manila in memory: what a driver can
// see of the real ones, fast enough that a storm measures the driver.
// Fake is an http.RoundTripper, so nothing but the proxy needs a socket.

import (
	"bytes"
	"cmp"
	"container/heap"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Profile is how long the cloud takes.  Call is the service time of every API
// call, of which Workers run at once in each service; Row is what each row of a
// list adds to it.  Record is how long Nova keeps its record of an attachment
// after Cinder has called the volume available.
type Profile struct {
	Call, Row, Create, Delete, Attach, Detach, Record, Snapshot, Backup, Extend time.Duration

	Workers         int
	SerialPerServer bool // Nova attaches one disk at a time per server
	WholeSeconds    bool // stamps without a fraction, as MySQL keeps them
}

// Profiles: "cloud" is a busy public cloud, "fast" shows the driver alone,
// "local" takes about what tests/openstack takes.
var Profiles = map[string]Profile{
	"cloud": {Call: 30 * time.Millisecond, Row: 300 * time.Microsecond, Create: 2 * time.Second, Delete: time.Second, Attach: 3 * time.Second,
		Detach: 2 * time.Second, Record: 100 * time.Millisecond, Snapshot: 2 * time.Second, Backup: 10 * time.Second, Extend: time.Second,
		Workers: 32, WholeSeconds: true},
	"fast": {Call: time.Millisecond, Create: 20 * time.Millisecond, Delete: 20 * time.Millisecond, Attach: 20 * time.Millisecond,
		Detach: 20 * time.Millisecond, Snapshot: 20 * time.Millisecond, Backup: 50 * time.Millisecond, Extend: 20 * time.Millisecond, Workers: 64},
	"local": {Call: 25 * time.Millisecond, Row: 300 * time.Microsecond, Create: 120 * time.Millisecond, Delete: 120 * time.Millisecond,
		Attach: 250 * time.Millisecond, Detach: 200 * time.Millisecond, Record: 60 * time.Millisecond, Snapshot: 100 * time.Millisecond,
		Backup: 300 * time.Millisecond, Extend: 150 * time.Millisecond, Workers: 1},
}

type dict = map[string]any

// entity is a volume, snapshot, backup, share or share snapshot.
type entity struct {
	id, name, status string
	size             int
	created, updated time.Time
	meta             any
	extra            dict // further fields, as they stand in the answer
	atts             []*attachment
	source           string // the volume or share a snapshot or backup is of
	seq              int    // order of creation
}

type attachment struct {
	id, volume, server, status, device, mode string
	connector                                any
	at                                       time.Time
	seq                                      int
}

type table struct {
	byID  map[string]*entity
	order []*entity // oldest first
	seq   int
}

func (t *table) add(e *entity) {
	t.seq++
	e.seq = t.seq
	t.byID[e.id] = e
	t.order = append(t.order, e)
}

func (t *table) remove(id string) {
	delete(t.byID, id)
	t.order = slices.DeleteFunc(t.order, func(e *entity) bool { return e.id == id })
}

type event struct {
	at time.Time
	fn func()
}
type events []event

func (h events) Len() int           { return len(h) }
func (h events) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h events) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *events) Push(x any)        { *h = append(*h, x.(event)) }
func (h *events) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	return e
}

// Fake is the cloud.
type Fake struct {
	Profile
	slots map[string]chan struct{}

	mu       sync.Mutex
	failures int       // how many of the next creations end in status error
	clock    time.Time // when what happens now happens
	pending  events
	tokens   map[string]bool
	cinder   map[string]*table // volumes, snapshots, backups
	manila   map[string]*table // shares, snapshots
	atts     map[string]*attachment
	disks    map[string][]*attachment // by server
	servers  map[string]string        // id -> name
	busy     map[string]time.Time     // when Nova is done with a server
	access   map[string][]dict        // share -> rules
	records  map[string][]*attachment // Nova's, by volume
	attSeq   int
	messages []dict // Cinder's and Manila's, newest last
}

const fakeProject = "0123456789abcdef0123456789abcdef"

// NewFake makes an empty cloud.
func NewFake(p Profile) *Fake {
	f := &Fake{Profile: p, slots: map[string]chan struct{}{}}
	for s := range serviceTypes {
		f.slots[s] = make(chan struct{}, max(p.Workers, 1))
	}
	f.Wipe()
	return f
}

// Wipe forgets everything.
func (f *Fake) Wipe() {
	f.mu.Lock()
	defer f.mu.Unlock()
	newTable := func() *table { return &table{byID: map[string]*entity{}} }
	if f.tokens == nil {
		f.tokens, f.servers = map[string]bool{}, map[string]string{}
	}
	f.pending, f.messages = nil, nil
	f.cinder = map[string]*table{"volumes": newTable(), "snapshots": newTable(), "backups": newTable()}
	f.manila = map[string]*table{"shares": newTable(), "snapshots": newTable()}
	f.records = map[string][]*attachment{}
	f.atts, f.disks, f.busy, f.access = map[string]*attachment{}, map[string][]*attachment{}, map[string]time.Time{}, map[string][]dict{}
}

// AuthURL is Keystone's.
func (f *Fake) AuthURL() string { return "http://keystone.fake/v3" }

// Revoke makes every token invalid, as a change of password does.
func (f *Fake) Revoke() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.tokens)
}

// AddServer makes a server.
func (f *Fake) AddServer(name string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := newID()
	f.servers[id] = name
	return id
}

// Seed makes n available volumes without any API call.
func (f *Fake) Seed(prefix string, n int) (ids []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range n {
		e := f.newVolume(fmt.Sprintf("%s-%d", prefix, i), 1)
		e.status = "available"
		ids = append(ids, e.id)
	}
	return ids
}

func newID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// after schedules a change; due applies those whose time has come.
func (f *Fake) after(d time.Duration, fn func()) {
	heap.Push(&f.pending, event{time.Now().Add(d), fn})
}

func (f *Fake) due() {
	for now := time.Now(); len(f.pending) > 0 && !f.pending[0].at.After(now); {
		e := heap.Pop(&f.pending).(event)
		f.clock = e.at
		e.fn()
	}
	f.clock = time.Now()
}

// set changes the status and stamps it.
func (f *Fake) set(e *entity, status string) { e.status, e.updated = status, f.clock }

func (f *Fake) become(e *entity, status string, d time.Duration) {
	f.after(d, func() { f.set(e, status) })
}

// Reasons that the cloud gives, in /messages only, for what ends in error.
const (
	reasonVolume   = "schedule allocate volume:Could not find any available weighted backend."
	reasonSnapshot = "create snapshot:Snapshot failed to create."
	reasonBackup   = "create backup:Backup driver failed to create backup."
	reasonShare    = "allocate host: No storage could be allocated for this share request. Trying again with a different size or share type may succeed."
)

// finish ends a creation; how is what becomes of it if all goes well.
func (f *Fake) finish(e *entity, d time.Duration, resource, reason string) {
	if f.failures == 0 {
		f.become(e, "available", d)
		return
	}
	f.failures--
	f.after(d, func() {
		f.set(e, "error")
		f.messages = append(f.messages, dict{"id": newID(), "resource_uuid": e.id, "resource_type": resource, "user_message": reason,
			"message_level": "ERROR", "event_id": resource + "_001_001", "request_id": "req-" + newID(), "created_at": f.stamp(f.clock),
			"guaranteed_until": f.stamp(f.clock.Add(720 * time.Hour)), "links": []any{}})
	})
}

func (f *Fake) stamp(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	if f.WholeSeconds {
		t = t.Truncate(time.Second)
	}
	return stamp6(t)
}

// call is a request; minor is its microversion, 59 for 3.59.
type call struct {
	service, method string
	seg             []string // the path after version and project
	q               url.Values
	body            dict
	minor           int
}

// reply is an answer: body nil means none.
type reply struct {
	code   int
	body   any
	header map[string]string
	rows   int // of a list
}

func fault(kind string, code int, format string, a ...any) reply {
	return reply{code: code, body: dict{kind: dict{"code": code, "message": fmt.Sprintf(format, a...)}}}
}
func notFound(what, id string) reply {
	return fault("itemNotFound", 404, "%s %s could not be found.", what, id)
}
func badRequest(format string, a ...any) reply { return fault("badRequest", 400, format, a...) }

// noPath is what the services answer to a path that they do not have.
func noPath() reply {
	return reply{code: 404, body: dict{"message": "The resource could not be found."}}
}

// RoundTrip answers requests to http://<service>.fake/.
func (f *Fake) RoundTrip(r *http.Request) (*http.Response, error) {
	c := &call{service: strings.TrimSuffix(r.URL.Host, ".fake"), method: r.Method, q: r.URL.Query()}
	if r.Body != nil {
		b, _ := io.ReadAll(r.Body)
		r.Body.Close()
		_ = json.Unmarshal(b, &c.body)
	}
	slot := f.slots[c.service]
	slot <- struct{}{}
	time.Sleep(f.Call)
	f.mu.Lock()
	f.due()
	a := f.route(c, r)
	var b []byte
	if a.body != nil {
		b, _ = json.Marshal(a.body)
	}
	f.mu.Unlock()
	time.Sleep(time.Duration(a.rows) * f.Row)
	<-slot
	id := "req-" + newID()
	h := http.Header{"Content-Type": {"application/json"}, "Date": {time.Now().UTC().Format(http.TimeFormat)}, "X-Openstack-Request-Id": {id}}
	if c.service != "keystone" {
		h.Set("X-Compute-Request-Id", id)
		h.Set("Vary", "OpenStack-API-Version")
	}
	for _, k := range []string{"OpenStack-API-Version", "X-OpenStack-Nova-API-Version", "X-OpenStack-Manila-API-Version"} {
		if v := r.Header.Get(k); v != "" {
			h.Set(k, v)
		}
	}
	for k, v := range a.header {
		h.Set(k, v)
	}
	return &http.Response{StatusCode: a.code, Status: strconv.Itoa(a.code), Header: h, Body: io.NopCloser(bytes.NewReader(b)),
		ContentLength: int64(len(b)), Request: r, ProtoMajor: 1, ProtoMinor: 1}, nil
}

// apis are the services' versions: Cinder's and Manila's documents below / need
// a token, Nova's do not.
var apis = map[string]struct {
	id, kind, path, min string
	major, low, high    int
}{
	"cinder": {"v3.0", "volume", "v3", "3.0", 3, 0, 71},
	"nova":   {"v2.1", "compute", "v2.1", "2.1", 2, 1, 104},
	"manila": {"v2.0", "shared-file-system", "v2", "2.0", 2, 0, 99},
}

var unauthorized = reply{code: 401, header: map[string]string{"WWW-Authenticate": `Keystone uri="http://keystone.fake/v3"`},
	body: dict{"error": dict{"code": 401, "title": "Unauthorized", "message": "The request you have made requires authentication."}}}

func (f *Fake) route(c *call, r *http.Request) reply {
	seg := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if c.service == "keystone" {
		return f.keystone(r, seg, c.body)
	}
	api := apis[c.service]
	if seg[0] != "" && seg[0] != api.path {
		return noPath()
	}
	if seg[0] == "" || len(seg) == 1 && c.service == "nova" {
		return versions(c.service, seg[0])
	}
	if !f.tokens[r.Header.Get("X-Auth-Token")] {
		return unauthorized
	}
	if len(seg) == 1 {
		return versions(c.service, seg[0])
	}
	asked := r.Header.Get("X-OpenStack-Nova-API-Version") + r.Header.Get("X-OpenStack-Manila-API-Version")
	for _, v := range r.Header.Values("OpenStack-API-Version") {
		if kind, version, _ := strings.Cut(v, " "); kind == api.kind {
			asked = version
		}
	}
	c.minor = api.low
	if asked == "latest" {
		c.minor = api.high
	} else if asked != "" {
		major, minor, _ := strings.Cut(asked, ".")
		n, err := strconv.Atoi(minor)
		if c.minor = n; err != nil || major != strconv.Itoa(api.major) || n < api.low || n > api.high {
			return fault("computeFault", 406, "Version %s is not supported by the API. Minimum is %s and maximum is %d.%d.", asked, api.min, api.major, api.high)
		}
	}
	seg = seg[1:]
	if len(seg) > 0 && seg[0] == fakeProject {
		seg = seg[1:]
	}
	c.seg = append(seg, "", "", "", "")
	switch c.service {
	case "cinder":
		return f.block(c)
	case "nova":
		return f.compute(c)
	}
	return f.share(c)
}

func versions(service, one string) reply {
	api := apis[service]
	v := dict{"id": api.id, "status": "CURRENT", "version": fmt.Sprintf("%d.%d", api.major, api.high), "min_version": api.min,
		"updated": "2023-08-31T00:00:00Z", "links": []dict{{"rel": "self", "href": "http://" + service + ".fake/" + api.path + "/"}},
		"media-types": []dict{{"base": "application/json", "type": "application/vnd.openstack." + api.kind + "+json;version=" + strconv.Itoa(api.major)}}}
	switch {
	case service == "nova" && one == "":
		old := dict{"id": "v2.0", "status": "DEPRECATED", "version": "", "min_version": "", "updated": "2025-07-04T12:00:00Z",
			"links": []dict{{"rel": "self", "href": "http://nova.fake/v2/"}}}
		return reply{code: 200, body: dict{"versions": []dict{old, v}}}
	case service == "nova":
		return reply{code: 200, body: dict{"version": v}}
	case one == "":
		return reply{code: 300, body: dict{"versions": []dict{v}}}
	}
	return reply{code: 200, body: dict{"versions": []dict{v}}}
}

func (f *Fake) keystone(r *http.Request, seg []string, body dict) reply {
	if len(seg) < 3 {
		v := dict{"id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z", "links": []dict{{"rel": "self", "href": "http://keystone.fake/v3/"}}}
		if seg[0] == "" {
			return reply{code: 300, body: dict{"versions": dict{"values": []dict{v}}}}
		}
		return reply{code: 200, body: dict{"version": v}}
	}
	if seg[1] != "auth" || seg[2] != "tokens" {
		return noPath()
	}
	if r.Method != "POST" {
		if subject := r.Header.Get("X-Subject-Token"); !f.tokens[r.Header.Get("X-Auth-Token")] {
			return unauthorized
		} else if !f.tokens[subject] {
			return notFound("Token", "")
		} else if r.Method == "DELETE" {
			delete(f.tokens, subject)
			return reply{code: 204}
		}
		return reply{code: 200, body: dict{"token": dict{"project": dict{"id": fakeProject}}}}
	}
	identity := sub(sub(body, "auth"), "identity")
	if len(sub(identity, "application_credential")) == 0 && len(sub(identity, "password")) == 0 && len(sub(identity, "token")) == 0 {
		return unauthorized
	}
	tok := newID()
	f.tokens[tok] = true
	var catalog []dict
	for s, path := range map[string]string{"keystone": "/v3", "cinder": "/v3/" + fakeProject, "nova": "/v2.1", "manila": "/v2"} {
		for _, t := range serviceTypes[s] {
			u := "http://" + s + ".fake" + path
			catalog = append(catalog, dict{"id": newID(), "type": t, "name": s, "endpoints": []dict{
				{"id": newID(), "interface": "public", "region": "RegionOne", "region_id": "RegionOne", "url": u},
				{"id": newID(), "interface": "internal", "region": "RegionOne", "region_id": "RegionOne", "url": u}}})
		}
	}
	now := time.Now().UTC()
	return reply{code: 201, header: map[string]string{"X-Subject-Token": tok}, body: dict{"token": dict{
		"methods": []string{"application_credential"}, "user": dict{"id": newID(), "name": "csi", "domain": dict{"id": "default", "name": "Default"}},
		"issued_at": stamp6(now) + "Z", "expires_at": stamp6(now.Add(24*time.Hour)) + "Z", "audit_ids": []string{"x"},
		"project": dict{"id": fakeProject, "name": "demo", "domain": dict{"id": "default", "name": "Default"}},
		"roles":   []dict{{"id": "1", "name": "member"}}, "catalog": catalog}}}
}

func stamp6(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000") }

// listing is one of a service's lists: which filters it has, and its limits.
type listing struct {
	kind, path string
	filters    []string
	view       func(*entity) dict
}

// page serves filters, order and pages; the most recent come first.
func (f *Fake) page(c *call, t *table, l listing) reply {
	q := c.q
	limit := 1000
	if s := q.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			return badRequest("limit param must be an integer")
		} else if n < 0 {
			return badRequest("limit param must be positive")
		}
		limit = min(limit, n)
	}
	if c.service == "cinder" && c.minor >= 31 {
		var bad []string
		for k := range q {
			if !slices.Contains([]string{"limit", "marker", "offset", "sort", "sort_key", "sort_dir", "with_count", "all_tenants"}, k) && !slices.Contains(l.filters, k) {
				bad = append(bad, k)
			}
		}
		if len(bad) > 0 {
			slices.Sort(bad)
			return badRequest("Invalid filters %s are found in query options.", strings.Join(bad, ", "))
		}
	}
	match, err := f.matcher(q, l.filters)
	if err != nil {
		return badRequest("%v", err)
	}
	order := t.order
	keys := strings.Split(q.Get("sort"), ",")
	if k := q.Get("sort_key"); k != "" {
		keys = []string{k + ":" + q.Get("sort_dir")}
	}
	key, dir, _ := strings.Cut(keys[0], ":")
	compare := map[string]func(a, b *entity) int{
		"id":         func(a, b *entity) int { return strings.Compare(a.id, b.id) },
		"name":       func(a, b *entity) int { return strings.Compare(a.name, b.name) },
		"size":       func(a, b *entity) int { return a.size - b.size },
		"status":     func(a, b *entity) int { return strings.Compare(a.status, b.status) },
		"updated_at": func(a, b *entity) int { return a.updated.Compare(b.updated) },
		"created_at": func(a, b *entity) int { return a.seq - b.seq },
	}[cmp.Or(key, "created_at")]
	if compare == nil {
		return badRequest("Invalid input received: Sort key supplied is invalid: %s", key)
	}
	if key != "" && key != "created_at" {
		order = slices.SortedStableFunc(slices.Values(order), compare)
	}
	marker, past := q.Get("marker"), q.Get("marker") == ""
	if !past && t.byID[marker] == nil {
		return notFound(title(l.kind), marker)
	}
	offset, _ := strconv.Atoi(q.Get("offset"))
	out, last, count := []dict{}, "", 0
	for i := range order {
		e := order[len(order)-1-i]
		if dir == "asc" {
			e = order[i]
		}
		if !match(e) {
			past = past || e.id == marker
			continue
		}
		count++
		if !past {
			past = e.id == marker
			continue
		}
		if offset--; offset < 0 && len(out) < limit {
			out, last = append(out, l.view(e)), e.id
		}
	}
	body := dict{l.kind: out}
	if w := q.Get("with_count"); (w == "true" || w == "True" || w == "1") && c.minor >= 45 {
		body["count"] = count
	}
	if c.service == "cinder" && len(out) == limit && limit > 0 {
		next := maps.Clone(q)
		next.Set("marker", last)
		next.Del("offset")
		body[l.kind+"_links"] = []dict{{"rel": "next", "href": "http://cinder.fake/v3/" + fakeProject + l.path + "?" + next.Encode()}}
	}
	return reply{code: 200, body: body, rows: len(out)}
}

// matcher makes one test out of the query's filters.
func (f *Fake) matcher(q url.Values, filters []string) (func(*entity) bool, error) {
	var all []func(*entity) bool
	for _, k := range filters {
		v := q.Get(k)
		if v == "" {
			continue
		}
		switch k {
		case "name":
			all = append(all, func(e *entity) bool { return e.name == v })
		case "name~":
			all = append(all, func(e *entity) bool { return strings.Contains(e.name, v) })
		case "status":
			all = append(all, func(e *entity) bool { return e.status == v })
		case "volume_id", "share_id":
			all = append(all, func(e *entity) bool { return e.source == v })
		case "snapshot_id", "availability_zone", "share_type_id", "bootable":
			all = append(all, func(e *entity) bool { return fmt.Sprint(e.extra[k]) == v })
		case "created_at", "updated_at":
			test, err := timeFilter(v)
			if err != nil {
				return nil, err
			}
			all = append(all, func(e *entity) bool {
				t := e.created
				if k == "updated_at" {
					t = e.updated
				}
				if f.WholeSeconds {
					t = t.Truncate(time.Second)
				}
				return !t.IsZero() && test(t)
			})
		case "metadata": // a Python or JSON dictionary
			want := map[string]string{}
			if json.Unmarshal([]byte(v), &want) != nil && json.Unmarshal([]byte(strings.ReplaceAll(v, "'", `"`)), &want) != nil {
				return nil, fmt.Errorf("Invalid metadata filter %s", v)
			}
			all = append(all, func(e *entity) bool {
				meta, _ := e.meta.(dict)
				for k, w := range want {
					if meta[k] != w {
						return false
					}
				}
				return true
			})
		}
	}
	return func(e *entity) bool {
		for _, test := range all {
			if !test(e) {
				return false
			}
		}
		return true
	}, nil
}

// timeFilter is Cinder's (3.60): "gte:2026-11-21T08:54:16", several with commas.
func timeFilter(filter string) (func(time.Time) bool, error) {
	var tests []func(time.Time) bool
	for _, part := range strings.Split(filter, ",") {
		op, at, _ := strings.Cut(part, ":")
		at = strings.Replace(at, " ", "T", 1)
		want, err := time.Parse("2006-01-02T15:04:05", strings.TrimSuffix(strings.TrimSuffix(at, "Z"), "+00:00"))
		if err != nil {
			return nil, fmt.Errorf("filters %s are not valid time", part)
		}
		ok := map[string]func(int) bool{"gt": func(c int) bool { return c > 0 }, "gte": func(c int) bool { return c >= 0 }, "lt": func(c int) bool { return c < 0 },
			"lte": func(c int) bool { return c <= 0 }, "eq": func(c int) bool { return c == 0 }, "neq": func(c int) bool { return c != 0 }}[op]
		if ok == nil {
			return nil, fmt.Errorf("Invalid time comparison operator %s", op)
		}
		tests = append(tests, func(t time.Time) bool { return ok(t.UTC().Truncate(time.Microsecond).Compare(want)) })
	}
	return func(t time.Time) bool {
		for _, test := range tests {
			if !test(t) {
				return false
			}
		}
		return true
	}, nil
}

// metadataCall serves .../metadata and .../metadata/KEY.
func metadataCall(c *call, e *entity) reply {
	meta, _ := e.meta.(dict)
	if meta == nil {
		meta = dict{}
	}
	key := c.seg[3]
	switch c.method {
	case "DELETE":
		if _, ok := meta[key]; !ok {
			return fault("itemNotFound", 404, "Metadata item was not found")
		}
		delete(meta, key)
		return reply{code: 200}
	case "PUT":
		if key == "" {
			clear(meta)
		} else if one := sub(c.body, "meta"); one != nil {
			maps.Copy(meta, one)
		}
		fallthrough
	case "POST":
		maps.Copy(meta, sub(c.body, "metadata"))
	}
	e.meta = meta
	return reply{code: 200, body: dict{"metadata": meta}}
}

// messageList serves /messages, of either service.
func (f *Fake) messageList(c *call) reply {
	out := []dict{}
	for _, m := range slices.Backward(f.messages) {
		of, id := c.q.Get("resource_uuid")+c.q.Get("resource_id"), c.seg[1]
		if id != "" && id == m["id"] {
			return reply{code: 200, body: dict{"message": m}}
		}
		if of == "" || of == m["resource_uuid"] {
			out = append(out, m)
		}
	}
	if c.seg[1] != "" {
		return notFound("Message", c.seg[1])
	}
	return reply{code: 200, body: dict{"messages": out}, rows: len(out)}
}

// title is "volumes" as error messages have it: "Volume".
func title(kind string) string { return strings.ToUpper(kind[:1]) + strings.TrimSuffix(kind[1:], "s") }

func str(d dict, k string) string { s, _ := d[k].(string); return s }
func num(d dict, k string) int    { n, _ := d[k].(float64); return int(n) }
func sub(d dict, k string) dict   { m, _ := d[k].(dict); return m }
