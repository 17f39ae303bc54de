package main

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestPattern(t *testing.T) {
	for in, want := range map[string]string{
		"/v3/0123456789abcdef0123456789abcdef/volumes/detail?name=a&limit=3": "GET cinder /volumes/detail?limit&name",
		"/v3/volumes/01234567-89ab-cdef-0123-456789abcdef":                   "GET cinder /volumes/{id}",
	} {
		u, _ := url.Parse(in)
		if got := pattern("GET", "cinder", u); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
}

// The bare client through all of the fake, and a lost answer on the way.
func TestFakeAndProxy(t *testing.T) {
	fake := NewFake(Profiles["fast"])
	cloud, err := OpenCloud("", fake)
	if err != nil {
		t.Fatal(err)
	}
	r := &Rig{cloud: cloud, run: "test"}
	server := fake.AddServer("node")
	for _, s := range append(r.blockFloor(server), r.shareFloor()...) {
		if err := s.fn(&floorClient{cloud: cloud}); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
	}
	if inv, err := cloud.Inventory(); err != nil || len(inv) > 0 {
		t.Fatal("left:", inv, err)
	}

	p, err := NewProxy(cloud, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	through := &Cloud{AuthURL: p.AuthURL(), AppID: "a", AppSecret: "b", client: &http.Client{}}
	if err := through.login(); err != nil {
		t.Fatal(err)
	}
	if err := p.Set(&Rule{Match: "POST cinder /volumes", Action: "lost"}); err != nil {
		t.Fatal(err)
	}
	body := dict{"volume": dict{"name": "v", "size": 1}}
	if _, err := through.Do("POST", "cinder", "/volumes", body, nil); err == nil {
		t.Fatal("the answer was to be lost")
	}
	if _, err := through.Do("POST", "cinder", "/volumes", body, nil); err != nil {
		t.Fatal(err)
	}
	if n := p.Counts()["POST cinder /volumes"]; n != 2 {
		t.Fatal("counted", n)
	}
	if inv, _ := cloud.Inventory(); len(inv) != 2 {
		t.Fatal("volumes:", len(inv))
	}
}

// fakeClient makes calls to a fake as they stand, with a microversion.
func fakeClient(t *testing.T, f *Fake) func(method, url, version, body string) (int, http.Header, dict) {
	token := ""
	do := func(method, url, version, body string) (int, http.Header, dict) {
		t.Helper()
		r, _ := http.NewRequest(method, url, strings.NewReader(body))
		r.Header.Set("X-Auth-Token", token)
		if version != "" {
			r.Header.Set("OpenStack-API-Version", version)
		}
		resp, err := f.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		var d dict
		_ = json.NewDecoder(resp.Body).Decode(&d)
		return resp.StatusCode, resp.Header, d
	}
	code, h, _ := do("POST", "http://keystone.fake/v3/auth/tokens", "", `{"auth": {"identity": {"application_credential": {"id": "a", "secret": "b"}}}}`)
	if token = h.Get("X-Subject-Token"); code != 201 || token == "" {
		t.Fatal("no token:", code)
	}
	return do
}

// What the real services were seen to answer (tests/openstack).
func TestFakeAnswers(t *testing.T) {
	f := NewFake(Profiles["fast"])
	do := fakeClient(t, f)
	f.Seed("old", 1)
	root := "http://cinder.fake/v3/"
	for _, c := range []struct {
		method, url, version, body string
		want                       int
	}{
		{"GET", "http://cinder.fake/", "", "", 300},
		{"GET", "http://nova.fake/", "", "", 200},
		{"GET", root, "", "", 200},
		{"GET", root + fakeProject + "/limits", "", "", 200},
		{"GET", root + "limits", "volume 3.71", "", 200},
		{"GET", root + "limits", "volume 3.72", "", 406},
		{"GET", root + "volumes/detail?limit=-1", "", "", 400},
		{"GET", root + "volumes/detail?marker=x", "", "", 404},
		{"GET", root + "volumes/detail?id=x", "volume 3.71", "", 400},
		{"GET", root + "messages", "", "", 404},
		{"GET", root + "messages", "volume 3.3", "", 200},
		{"GET", root + "types/default", "volume 3.71", "", 200},
		{"POST", root + "volumes", "", `{"volume": {"size": 0}}`, 400},
		{"POST", root + "volumes", "", `{"volume": {"size": 1, "volume_type": "x"}}`, 404},
		{"POST", root + "volumes", "", `{"volume": {"size": 1, "snapshot_id": "x"}}`, 404},
		{"POST", root + "volumes", "", `{"volume": {"size": 1, "name": "n", "metadata": {"k": "v"}}}`, 202},
		{"GET", "http://nova.fake/v2.1/servers/x/os-volume_attachments", "compute 2.60", "", 404},
	} {
		if code, h, d := do(c.method, c.url, c.version, c.body); code != c.want || h.Get("X-Openstack-Request-Id") == "" || h.Get("Date") == "" {
			t.Errorf("%s %s: %d %v", c.method, c.url, code, d)
		}
	}
	count := func(query string) int {
		_, _, d := do("GET", root+"volumes/detail?"+query, "volume 3.71", "")
		l, _ := d["volumes"].([]any)
		return len(l)
	}
	now := time.Now().UTC()
	if n := count("updated_at=gte:2000-01-01T00:00:00"); n != 0 {
		t.Error("a volume that has not changed has no updated_at:", n)
	}
	time.Sleep(30 * time.Millisecond)
	for query, want := range map[string]int{
		"":                 2,
		"name=n":           1,
		"status=available": 2,
		"status=deleting":  0,
		"metadata=" + url.QueryEscape(`{"k":"v"}`): 1,
		"metadata=" + url.QueryEscape(`{'k':'w'}`): 0,
		"limit=1": 1,
		"updated_at=gte:" + now.Format("2006-01-02T15:04:05"):                1,
		"updated_at=gte:" + now.Add(time.Hour).Format("2006-01-02T15:04:05"): 0,
	} {
		if n := count(query); n != want {
			t.Errorf("%s: %d volumes", query, n)
		}
	}
	f.Seed("many", 1500)
	seen, next := 0, root+"volumes/detail?limit=5000"
	for next != "" {
		_, _, d := do("GET", next, "volume 3.71", "")
		seen += len(d["volumes"].([]any))
		next = ""
		if links, _ := d["volumes_links"].([]any); len(links) > 0 {
			next = links[0].(dict)["href"].(string)
		}
	}
	if seen != 1502 {
		t.Error("pages have", seen)
	}
	f.Revoke()
	if code, h, _ := do("GET", root+"limits", "", ""); code != 401 || h.Get("WWW-Authenticate") == "" {
		t.Error("a revoked token:", code)
	}
}

// Nova keeps its record for a moment after Cinder has let go.
func TestNovaRecordOutlivesCinder(t *testing.T) {
	p := Profiles["fast"]
	p.Record = 80 * time.Millisecond
	f := NewFake(p)
	do := fakeClient(t, f)
	server, vol := f.AddServer("s"), f.Seed("v", 1)[0]
	disks := "http://nova.fake/v2.1/servers/" + server + "/os-volume_attachments"
	attach := func() int {
		code, _, _ := do("POST", disks, "compute 2.60", `{"volumeAttachment": {"volumeId": "`+vol+`"}}`)
		return code
	}
	status := func(want string) {
		t.Helper()
		for range 200 {
			_, _, d := do("GET", "http://cinder.fake/v3/volumes/"+vol, "", "")
			if str(sub(d, "volume"), "status") == want {
				return
			}
		}
		t.Fatal("never", want)
	}
	if code := attach(); code != 200 {
		t.Fatal(code)
	}
	status("in-use")
	if code, _, _ := do("DELETE", disks+"/"+vol, "", ""); code != 202 {
		t.Fatal(code)
	}
	status("available")
	if code, _, _ := do("GET", disks+"/"+vol, "", ""); code != 200 {
		t.Error("the record is gone too early")
	}
	if code := attach(); code != 400 {
		t.Error("attached over the record:", code)
	}
	time.Sleep(p.Record)
	if code := attach(); code != 200 {
		t.Error("not after that either:", code)
	}
}

func TestTargetTable(t *testing.T) {
	dir := t.TempDir()
	for driver, calls := range map[string]string{ours: "1.1", rival: "6"} {
		text := `{"driver": "` + driver + `", "metrics": {"storm500x10.ControllerPublish.api_calls": ` + calls + `}}`
		if err := os.WriteFile(filepath.Join(dir, "cloud-"+driver+".json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var b strings.Builder
	if err := targetTable(&b, dir); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| storm 500x10: calls per attach | <= 1.20 | 1.10 | 6 | yes |", "not measured"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}
