package main

// A counting, faulting reverse proxy between a driver and OpenStack.  Each
// service gets a port of its own; addresses in answers (the catalogue, links)
// are rewritten, so that the driver never leaves the proxy.

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Rule is one fault.  It hits the calls whose "METHOD service /path" matches
// Match, from the Nth (counted from 1 when the rule is set), Count times.
//
//	lost    forward, then close the connection without an answer
//	reset   reset the connection without forwarding
//	status  answer Status (with RetryAfter, if set) without forwarding
//	delay   wait DelayMs, then forward
//	hang    never answer
//	before, after   run Hook before or after forwarding, then close
type Rule struct {
	Match      string `json:"match"`
	Nth        int    `json:"nth"`
	Count      int    `json:"count"`
	Action     string `json:"action"`
	Status     int    `json:"status"`
	RetryAfter string `json:"retry_after"`
	DelayMs    int    `json:"delay_ms"`

	Hook func()         `json:"-"`
	re   *regexp.Regexp `json:"-"`
	seen int
	hits int
}

// Counts is the number of calls by "METHOD service /path/{id}".
type Counts map[string]int

func (c Counts) total() (n int) {
	for _, v := range c {
		n += v
	}
	return
}

func (c Counts) minus(o Counts) Counts {
	d := Counts{}
	for k, v := range c {
		if v > o[k] {
			d[k] = v - o[k]
		}
	}
	return d
}

// Proxy stands between a driver and one cloud.
type Proxy struct {
	cloud   *Cloud
	client  *http.Client
	ports   map[string]int    // service -> port
	rewrite *strings.Replacer // upstream addresses -> ours

	mu       sync.Mutex
	counts   Counts
	statuses map[string]int
	latency  time.Duration
	rules    []*Rule
	trace    []string // calls since Set
	inflight int
	peak     int
}

// NewProxy listens on a free port for each service of the cloud.
func NewProxy(cloud *Cloud, latency time.Duration) (*Proxy, error) {
	p := &Proxy{cloud: cloud, ports: map[string]int{}, counts: Counts{}, statuses: map[string]int{}, latency: latency}
	p.client = &http.Client{Timeout: 5 * time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if cloud.Fake != nil {
		p.client.Transport = cloud.Fake
	} else {
		p.client.Transport = &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}
	}
	var pairs []string
	for service, host := range cloud.Upstreams() {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		p.ports[service] = l.Addr().(*net.TCPAddr).Port
		pairs = append(pairs, host, fmt.Sprintf("127.0.0.1:%d", p.ports[service]))
		p.serve(service, l)
	}
	p.rewrite = strings.NewReplacer(pairs...)
	return p, nil
}

func (p *Proxy) serve(service string, l net.Listener) {
	host := p.cloud.Upstreams()[service]
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.handle(w, r, service, host) }))
}

// ServeIn listens on the same ports in another network namespace, and on the
// address of the metadata service there.
func (p *Proxy) ServeIn(netns string, metadata http.Handler) error {
	for service, port := range p.ports {
		l, err := listenIn(netns, fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return err
		}
		p.serve(service, l)
	}
	l, err := listenIn(netns, "169.254.169.254:80")
	if err != nil {
		return err
	}
	go http.Serve(l, metadata)
	return nil
}

// AuthURL is Keystone's, through the proxy.
func (p *Proxy) AuthURL() string {
	u, _ := url.Parse(p.cloud.AuthURL)
	return fmt.Sprintf("http://127.0.0.1:%d%s", p.ports["keystone"], u.Path)
}

var idPattern = regexp.MustCompile(`[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}`)
var projectPattern = regexp.MustCompile(`^/v[0-9.]+(/\{id\})?`)

// pattern names a call: "GET cinder /volumes/{id}", list filters by key only.
func pattern(method, service string, u *url.URL) string {
	path := idPattern.ReplaceAllString(u.Path, "{id}")
	if p := projectPattern.ReplaceAllString(path, ""); service != "keystone" && p != "" && p != "/" {
		path = p
	}
	s := method + " " + service + " " + path
	if keys := slices.Sorted(maps.Keys(u.Query())); len(keys) > 0 {
		s += "?" + strings.Join(keys, "&")
	}
	return s
}

func (p *Proxy) pick(call string) *Rule {
	var hit *Rule
	for _, r := range p.rules {
		if !r.re.MatchString(call) {
			continue
		}
		r.seen++
		if hit == nil && r.seen >= max(r.Nth, 1) && r.hits < max(r.Count, 1) {
			r.hits++
			hit = r
		}
	}
	return hit
}

func (p *Proxy) handle(w http.ResponseWriter, r *http.Request, service, host string) {
	if r.URL.Path == "/_csibench" {
		p.control(w, r)
		return
	}
	body, _ := io.ReadAll(r.Body)
	call := pattern(r.Method, service, r.URL)
	if strings.HasSuffix(r.URL.Path, "/action") {
		var a map[string]any
		if json.Unmarshal(body, &a) == nil {
			for k := range a {
				call += " " + k
			}
		}
	}
	p.mu.Lock()
	p.counts[call]++
	p.trace = append(p.trace, call)
	rule := p.pick(call)
	latency := p.latency
	p.inflight++
	p.peak = max(p.peak, p.inflight)
	p.mu.Unlock()
	defer func() { p.mu.Lock(); p.inflight--; p.mu.Unlock() }()

	time.Sleep(latency)
	if rule != nil {
		switch rule.Action {
		case "reset":
			closeConn(w, true)
			return
		case "before":
			rule.Hook()
			closeConn(w, true)
			return
		case "status":
			if rule.RetryAfter != "" {
				w.Header().Set("Retry-After", rule.RetryAfter)
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(rule.Status)
			fmt.Fprintf(w, `{"fault": {"code": %d, "message": "injected by csibench"}}`, rule.Status)
			p.note(rule.Status)
			return
		case "delay":
			time.Sleep(time.Duration(rule.DelayMs) * time.Millisecond)
		case "hang":
			<-r.Context().Done()
			return
		}
	}

	out, err := http.NewRequest(r.Method, "http://"+host+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		http.Error(w, err.Error(), 502)
		return
	}
	out.Header = r.Header.Clone()
	out.Header.Del("Accept-Encoding")
	resp, err := p.client.Do(out)
	if err != nil {
		http.Error(w, err.Error(), 502)
		p.note(502)
		return
	}
	answer, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		http.Error(w, err.Error(), 502)
		return
	}
	p.note(resp.StatusCode)
	if rule != nil && rule.Action == "after" {
		rule.Hook()
		closeConn(w, true)
		return
	}
	if rule != nil && rule.Action == "lost" {
		closeConn(w, false)
		return
	}
	for k, vs := range resp.Header {
		for _, v := range vs {
			w.Header().Add(k, p.rewrite.Replace(v))
		}
	}
	text := p.rewrite.Replace(string(answer))
	if resp.StatusCode == http.StatusNoContent {
		w.Header().Del("Content-Length")
	} else {
		w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	}
	w.WriteHeader(resp.StatusCode)
	io.WriteString(w, text)
}

func closeConn(w http.ResponseWriter, reset bool) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok && reset {
		tcp.SetLinger(0)
	}
	conn.Close()
}

func (p *Proxy) note(status int) {
	p.mu.Lock()
	p.statuses[strconv.Itoa(status)]++
	p.mu.Unlock()
}

// Set replaces the rules.
func (p *Proxy) Set(rules ...*Rule) error {
	for _, r := range rules {
		re, err := regexp.Compile(r.Match)
		if err != nil {
			return err
		}
		r.re = re
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules, p.trace = rules, nil
	return nil
}

// Trace is the calls since Set, in order.
func (p *Proxy) Trace() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.trace)
}

// Hit says whether a rule was applied.
func (p *Proxy) Hit(r *Rule) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return r.hits > 0
}

// Counts is a copy of the counters.
func (p *Proxy) Counts() Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.counts)
}

// control: GET /_csibench gives the statistics; POST sets latency and rules, and
// revokes the fake's tokens: {"latency_ms": 30, "rules": [...], "clear": true, "revoke": true}
func (p *Proxy) control(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		var c struct {
			LatencyMs *int    `json:"latency_ms"`
			Rules     []*Rule `json:"rules"`
			Clear     bool    `json:"clear"`
			Revoke    bool    `json:"revoke"`
		}
		if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
			http.Error(w, err.Error(), 400)
			return
		}
		for _, rule := range c.Rules {
			if rule.Action == "before" || rule.Action == "after" {
				http.Error(w, "before and after need a hook: not over HTTP", 400)
				return
			}
		}
		if err := p.Set(c.Rules...); err != nil {
			http.Error(w, err.Error(), 400)
			return
		}
		if c.Revoke && p.cloud.Fake != nil {
			p.cloud.Fake.Revoke()
		}
		p.mu.Lock()
		if c.LatencyMs != nil {
			p.latency = time.Duration(*c.LatencyMs) * time.Millisecond
		}
		if c.Clear {
			p.counts, p.statuses, p.peak = Counts{}, map[string]int{}, 0
		}
		p.mu.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"calls": p.counts, "total": p.counts.total(),
		"statuses": p.statuses, "peak_inflight": p.peak, "latency_ms": p.latency.Milliseconds()})
}
