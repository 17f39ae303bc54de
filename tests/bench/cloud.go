package main

// A minimal OpenStack client: what the benchmark itself needs to prepare a
// cloud, to take stock of it, and to measure the floor that no driver beats.

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Cloud is an OpenStack to run against: a real one, or the fake.
type Cloud struct {
	AuthURL   string `json:"auth_url"`
	AppID     string `json:"app_cred_id"`
	AppSecret string `json:"app_cred_secret"`
	Region    string `json:"region"`
	NodesDir  string `json:"-"` // <dir>/<server>/dev/disk/by-id, where disks appear
	Fake      *Fake  `json:"-"`

	mu        sync.Mutex
	client    *http.Client
	token     string
	project   string
	endpoints map[string]string
}

// OpenCloud reads info.json of tests/openstack; an empty path means the fake.
func OpenCloud(info string, fake *Fake) (*Cloud, error) {
	c := &Cloud{Fake: fake, client: &http.Client{Timeout: 2 * time.Minute}}
	if fake != nil {
		c.AuthURL, c.AppID, c.AppSecret, c.Region = fake.AuthURL(), "fake", "fake", "RegionOne"
		c.client.Transport = fake
	} else {
		b, err := os.ReadFile(info)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(b, c); err != nil {
			return nil, err
		}
		c.NodesDir = filepath.Join(filepath.Dir(info), "nodes")
		c.client.Transport = &http.Transport{MaxIdleConnsPerHost: 64}
	}
	return c, c.login()
}

func (c *Cloud) login() error {
	body, _ := json.Marshal(map[string]any{"auth": map[string]any{"identity": map[string]any{
		"methods":                []string{"application_credential"},
		"application_credential": map[string]any{"id": c.AppID, "secret": c.AppSecret},
	}}})
	resp, err := c.client.Post(c.AuthURL+"/auth/tokens", "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var t struct {
		Token struct {
			Project struct{ ID string }
			Catalog []struct {
				Type      string
				Endpoints []struct{ Interface, URL string }
			}
		}
	}
	if resp.StatusCode != 201 {
		return fmt.Errorf("login at %s: %s", c.AuthURL, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(&t); err != nil {
		return err
	}
	eps := map[string]string{"identity": c.AuthURL}
	for _, s := range t.Token.Catalog {
		for _, e := range s.Endpoints {
			if e.Interface == "public" && s.Type != "identity" {
				eps[s.Type] = strings.TrimSuffix(e.URL, "/")
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token, c.project, c.endpoints = resp.Header.Get("X-Subject-Token"), t.Token.Project.ID, eps
	return nil
}

var serviceTypes = map[string][]string{
	"keystone": {"identity"},
	"cinder":   {"block-storage", "volumev3"},
	"nova":     {"compute"},
	"manila":   {"shared-file-system", "sharev2"},
}

// Endpoint is the service's URL in the catalogue, or "".
func (c *Cloud) Endpoint(service string) string {
	for _, t := range serviceTypes[service] {
		if u := c.endpoints[t]; u != "" {
			return u
		}
	}
	return ""
}

// Upstreams maps each service to its scheme and host.
func (c *Cloud) Upstreams() map[string]string {
	m := map[string]string{}
	for s := range serviceTypes {
		if u, err := url.Parse(c.Endpoint(s)); err == nil && u.Host != "" {
			m[s] = u.Host
		}
	}
	return m
}

var microversions = map[string]string{"cinder": "volume 3.59", "nova": "compute 2.60", "manila": "shared-file-system 2.60"}

// Do makes one call and decodes the answer into out.
func (c *Cloud) Do(method, service, path string, body, out any) (int, error) {
	var rd io.Reader
	if body != nil {
		b, _ := json.Marshal(body)
		rd = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, c.Endpoint(service)+path, rd)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Auth-Token", c.token)
	req.Header.Set("OpenStack-API-Version", microversions[service])
	if service == "manila" {
		req.Header.Set("X-OpenStack-Manila-API-Version", "2.60")
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.StatusCode, err
	}
	if resp.StatusCode >= 300 {
		return resp.StatusCode, fmt.Errorf("%s %s: %d %s", method, path, resp.StatusCode, b)
	}
	if out != nil {
		return resp.StatusCode, json.Unmarshal(b, out)
	}
	return resp.StatusCode, nil
}

type object struct {
	ID, Name, Status string
	VolumeID         string `json:"volume_id"`
}

// collections that a driver can leave something behind in
var collections = []struct{ service, kind, path string }{
	{"cinder", "volumes", "/volumes/detail"},
	{"cinder", "snapshots", "/snapshots/detail"},
	{"cinder", "backups", "/backups/detail"},
	{"cinder", "attachments", "/attachments"},
	{"manila", "shares", "/shares/detail"},
	{"manila", "snapshots", "/snapshots/detail"},
}

// Inventory lists everything there is, by kind and ID.
func (c *Cloud) Inventory() (map[string]object, error) {
	inv := map[string]object{}
	for _, col := range collections {
		if c.Endpoint(col.service) == "" {
			continue
		}
		var r map[string]json.RawMessage
		if _, err := c.Do("GET", col.service, col.path, nil, &r); err != nil {
			if col.service == "manila" {
				continue
			}
			return nil, err
		}
		var objs []object
		if err := json.Unmarshal(r[col.kind], &objs); err != nil {
			return nil, err
		}
		kind := col.kind
		if col.service == "manila" && kind == "snapshots" {
			kind = "share_snapshots"
		}
		for _, o := range objs {
			inv[kind+"/"+o.ID] = o
		}
	}
	return inv, nil
}

// NewServer makes a server to attach volumes to.
func (c *Cloud) NewServer(name string) (string, error) {
	if c.Fake != nil {
		return c.Fake.AddServer(name), nil
	}
	var r struct{ Server struct{ ID, Status string } }
	for range 5 { // a cloud that has just started may have no host yet
		_, err := c.Do("POST", "nova", "/servers", map[string]any{"server": map[string]any{
			"name": name, "flavorRef": "1", "networks": "none", "availability_zone": "nova",
			"imageRef": "00000000-0000-0000-0000-000000000001"}}, &r)
		if err != nil {
			return "", err
		}
		id := r.Server.ID
		for end := time.Now().Add(time.Minute); time.Now().Before(end) && r.Server.Status != "ERROR"; time.Sleep(300 * time.Millisecond) {
			if _, err := c.Do("GET", "nova", "/servers/"+id, nil, &r); err == nil && r.Server.Status == "ACTIVE" {
				return id, nil
			}
		}
		c.DeleteServer(id)
		r.Server.Status = ""
		time.Sleep(2 * time.Second)
	}
	return "", fmt.Errorf("no server becomes active")
}

// DeleteServer removes what NewServer made.
func (c *Cloud) DeleteServer(id string) {
	if c.Fake == nil {
		_, _ = c.Do("DELETE", "nova", "/servers/"+id, nil, nil)
	}
}

// NewVolume makes a volume without the driver, and waits for it.
func (c *Cloud) NewVolume(name string) (string, error) {
	var r struct{ Volume object }
	if _, err := c.Do("POST", "cinder", "/volumes", map[string]any{"volume": map[string]any{"name": name, "size": 1}}, &r); err != nil {
		return "", err
	}
	return r.Volume.ID, c.wait("cinder", "volume", r.Volume.ID, "available", 250*time.Millisecond, nil)
}

// wait polls an object until its status is want ("" means gone).
func (c *Cloud) wait(service, kind, id, want string, every time.Duration, calls *int) error {
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(every) {
		var r map[string]object
		if calls != nil {
			*calls++
		}
		code, err := c.Do("GET", service, "/"+kind+"s/"+id, nil, &r)
		if code == 404 && want == "" {
			return nil
		}
		if err != nil {
			return err
		}
		if st := r[kind].Status; st == want {
			return nil
		} else if strings.HasPrefix(st, "error") {
			return fmt.Errorf("%s %s is %s", kind, id, st)
		}
	}
	return fmt.Errorf("%s %s never became %q", kind, id, want)
}
