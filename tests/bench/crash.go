package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// flow is an operation that must survive a fault at any of its API calls.
// do may be repeated; undo takes away what prepare and do made.
type flow struct {
	name    string
	prepare []step
	do      step
	undo    []step
}

// flows of a driver; each call makes fresh names.
func (r *Rig) flows() []flow {
	var v, w *csi.Volume
	var s string
	name, snap := r.name("crash"), r.name("crash-snap")
	node := r.driver.NodeName()
	create := func(ctx context.Context) (err error) {
		v, err = r.create(ctx, name, gib, "")
		return
	}
	settle := func(context.Context) error { return r.settle(v.VolumeId) }
	publish := func(ctx context.Context) error { _, err := r.publish(ctx, v, node); return err }
	unpublish := func(ctx context.Context) error { return r.unpublish(ctx, v.VolumeId, node) }
	snapshot := func(ctx context.Context) (err error) { s, err = r.snapshot(ctx, snap, v.VolumeId, false); return }
	backup := func(ctx context.Context) (err error) { s, err = r.snapshot(ctx, snap, v.VolumeId, true); return }
	unsnap := func(ctx context.Context) error { return r.deleteSnapshot(ctx, s) }
	remove := func(ctx context.Context) error { return r.delete(ctx, v.VolumeId) }
	restore := func(ctx context.Context) (err error) { w, err = r.create(ctx, name+"-r", gib, s); return }
	unrestore := func(ctx context.Context) error { return r.delete(ctx, w.VolumeId) }
	all := []flow{
		{"create", nil, create, []step{remove}},
		{"delete", []step{create, settle}, remove, nil},
		{"expand", []step{create, settle}, func(ctx context.Context) error { return r.expand(ctx, v.VolumeId, 2*gib) }, []step{remove}},
		{"snapshot", []step{create, settle}, snapshot, []step{unsnap, remove}},
		{"delete-snapshot", []step{create, settle, snapshot}, unsnap, []step{remove}},
		{"restore", []step{create, settle, snapshot}, restore, []step{unrestore, unsnap, remove}},
	}
	if r.driver.Publish {
		closed := func(context.Context) error { return r.closed(v.VolumeId) }
		all = append(all, flow{"publish", []step{create, settle}, publish, []step{unpublish, closed, remove}},
			flow{"unpublish", []step{create, settle, publish}, unpublish, []step{closed, remove}})
	}
	if r.driver.BackupPars != nil {
		all = append(all, flow{"backup", []step{create, settle}, backup, []step{unsnap, remove}},
			flow{"delete-backup", []step{create, settle, backup}, unsnap, []step{remove}})
	}
	return all
}

// settle waits until the volume is available, so that a case is about its own
// operation only.
func (r *Rig) settle(id string) error {
	if r.driver.Kind != "block" {
		return nil
	}
	return r.cloud.wait("cinder", "volume", id, "available", 20*time.Millisecond, nil)
}

// closed says whether nobody is let in to a share any more: its rules go with
// it, so taking stock in the end would not show one that was left.
func (r *Rig) closed(id string) error {
	if r.driver.Kind != "share" {
		return nil
	}
	var list struct {
		Rules []struct {
			To    string `json:"access_to"`
			State string
		} `json:"access_list"`
	}
	if _, err := r.cloud.Do("GET", "manila", "/share-access-rules?share_id="+id, nil, &list); err != nil {
		return err
	}
	if len(list.Rules) > 0 {
		return fmt.Errorf("share %s is still open: %v", id, list.Rules)
	}
	return nil
}

// Case is one fault and what came of it.
type Case struct {
	Flow     string   `json:"flow"`
	Fault    string   `json:"fault"`
	Call     int      `json:"call"`
	At       string   `json:"at"`
	Result   string   `json:"result"` // ok, stuck, undo stuck, not reached
	Error    string   `json:"error,omitempty"`
	Attempts int      `json:"attempts"`
	Died     int      `json:"died,omitempty"` // exits of the driver by itself
	Seconds  float64  `json:"seconds"`
	Leaked   []string `json:"leaked,omitempty"`
}

// Faults of the crash scenario.
//
// slow: the call is held up, the RPC's deadline passes, the sidecar repeats
// the RPC, and then the call reaches the cloud after all.
var faults = []string{"kill-before", "kill-after", "lost", "reset", "503", "429", "slow"}

const (
	slowDeadline = 2 * time.Second // of the RPC's first attempt
	slowDelay    = 5 * time.Second // of the call
)

// oneCase puts one fault at the nth call of one flow; it also says which calls
// the flow made.
func (r *Rig) oneCase(flowName, fault string, nth int) (c Case, trace []string) {
	c = Case{Flow: flowName, Fault: fault, Call: nth}
	all := r.flows()
	f := all[slices.IndexFunc(all, func(f flow) bool { return f.name == flowName })]
	before, err := r.cloud.Inventory()
	if err != nil {
		c.Result, c.Error = "broken", err.Error()
		return
	}
	for _, st := range f.prepare {
		if _, err := r.again(nil, st); err != nil {
			c.Result, c.Error = "broken", err.Error()
			return
		}
	}
	rule := &Rule{Match: ".", Nth: nth}
	switch fault {
	case "none":
		rule.Match = "^$"
	case "kill-before", "kill-after":
		rule.Action = strings.TrimPrefix(fault, "kill-")
		rule.Hook = r.driver.Kill
	case "lost", "reset":
		rule.Action = fault
	case "503":
		rule.Action, rule.Status = "status", 503
	case "429":
		rule.Action, rule.Status, rule.RetryAfter = "status", 429, "1"
	case "slow":
		rule.Action, rule.DelayMs = "delay", int(slowDelay.Milliseconds())
	}
	_ = r.proxy.Set(rule)
	t0 := time.Now()
	first := true
	do := func(ctx context.Context) error {
		if fault == "slow" && first {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, slowDeadline)
			defer cancel()
		}
		first = false
		return f.do(ctx)
	}
	c.Attempts, err = r.again(nil, r.revive(&c.Died, do))
	if strings.HasPrefix(fault, "kill") && c.Died > 0 {
		c.Died-- // that was us
	}
	c.Seconds = time.Since(t0).Seconds()
	c.Result = "ok"
	if err != nil {
		c.Result, c.Error = "stuck", err.Error()
	}
	trace, hit := r.proxy.Trace(), r.proxy.Hit(rule)
	if fault != "none" && !hit {
		c.Result = "not reached"
	}
	_ = r.proxy.Set()
	if fault == "slow" { // let the held call arrive
		time.Sleep(time.Until(t0.Add(slowDelay + slowDeadline)))
	}
	if err == nil {
		for _, st := range f.undo {
			if _, err := r.again(nil, r.revive(&c.Died, st)); err != nil {
				c.Result, c.Error = "undo stuck", err.Error()
				break
			}
		}
	}
	c.Leaked = r.leaks(before)
	return
}

// revive restarts a driver that is gone after a step, as the kubelet would.
func (r *Rig) revive(n *int, fn step) step {
	return func(ctx context.Context) error {
		err := fn(ctx)
		select {
		case <-r.driver.done:
			*n++
			if _, e := r.driver.Start(); e != nil {
				return e
			}
		default:
		}
		return err
	}
}

// leaks is what is there now, was not before, and does not go by itself.
func (r *Rig) leaks(before map[string]object) (left []string) {
	for range 30 {
		inv, err := r.cloud.Inventory()
		if err != nil {
			return []string{"inventory failed: " + err.Error()}
		}
		left = nil
		for k, o := range inv {
			if _, was := before[k]; !was {
				left = append(left, strings.TrimSpace(fmt.Sprintf("%s %s %s", k, o.Name, o.Status)))
			}
		}
		slices.Sort(left)
		if len(left) == 0 {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return left
}

// sweep removes leftovers without the driver, so that cases stay apart.
func (r *Rig) sweep() {
	if r.cloud.Fake != nil {
		r.cloud.Fake.Wipe()
		return
	}
	for range 3 {
		inv, _ := r.cloud.Inventory()
		for k, o := range inv {
			kind, _, _ := strings.Cut(k, "/")
			if strings.HasPrefix(o.Name, r.run) && kind != "attachments" {
				service := "cinder"
				if strings.HasPrefix(kind, "share") {
					service, kind = "manila", strings.TrimPrefix(kind, "share_")
				}
				if kind == "volumes" && o.Status == "in-use" {
					_, _ = r.cloud.Do("DELETE", "nova", "/servers/"+r.node.ServerID+"/os-volume_attachments/"+o.ID, nil, nil)
				}
				_, _ = r.cloud.Do("DELETE", service, "/"+kind+"/"+o.ID, nil, nil)
			}
		}
		time.Sleep(time.Second)
	}
}

// crashFilter chooses cases; empty fields choose all.
type crashFilter struct {
	flows, faults []string
	call          int            // 1 is the flow's first
	at            *regexp.Regexp // over "METHOD service /path"
}

func (c Case) bad() bool {
	return c.Result != "ok" && c.Result != "not reached" || c.Leaked != nil || c.Died > 0
}

// String is all that is needed to look at a case again.
func (c Case) String() string {
	s := fmt.Sprintf("%s, call %d (%s), %s: %s after %d attempts", c.Flow, c.Call, c.At, c.Fault, c.Result, c.Attempts)
	if c.Died > 0 {
		s += fmt.Sprintf("; driver died %d times", c.Died)
	}
	if c.Leaked != nil {
		s += "; leaked " + strings.Join(c.Leaked, ", ")
	}
	if c.Error != "" {
		s += "; " + c.Error[:min(len(c.Error), 240)]
	}
	return s
}

// crash runs every fault at every API call of every flow, on several rigs.
func crash(o Options, spec *Spec, p *Report, rigs int, only crashFilter) error {
	if o.Info != "" {
		rigs = 1 // one project: leftovers of one rig would be another's
	}
	type job struct {
		flow, fault string
		nth         int
		at          string
	}
	pool := make([]*Rig, rigs)
	for i := range pool {
		r, err := NewRig(o, spec)
		if err != nil {
			return err
		}
		defer r.Close()
		if _, err := r.driver.Start(); err != nil {
			return err
		}
		pool[i] = r
	}
	// which calls does each flow make, undisturbed?  Before any fault, because
	// on a real cloud everything happens in one project.
	var todo []job
	broken := 0
	for _, f := range pool[0].flows() {
		if len(only.flows) > 0 && !slices.Contains(only.flows, f.name) {
			continue
		}
		c, trace := pool[0].oneCase(f.name, "none", 0)
		pool[0].sweep()
		if c.Result != "ok" || c.Leaked != nil { // the flow itself does not work: nothing to learn from faults
			fmt.Fprintln(os.Stderr, "    "+c.String())
			broken++
			if c.Result != "ok" {
				continue
			}
		}
		p.set("crash."+f.name+".calls", float64(len(trace)))
		for _, fault := range faults {
			if len(only.faults) > 0 && !slices.Contains(only.faults, fault) {
				continue
			}
			for i, call := range trace {
				if only.call > 0 && only.call != i+1 || only.at != nil && !only.at.MatchString(call) {
					continue
				}
				todo = append(todo, job{f.name, fault, i + 1, call})
			}
		}
	}

	p.set("crash.flows_broken", float64(broken))

	jobs := make(chan job)
	var mu sync.Mutex
	var cases []Case
	var wg sync.WaitGroup
	for _, r := range pool {
		wg.Go(func() {
			for j := range jobs {
				c, _ := r.oneCase(j.flow, j.fault, j.nth)
				c.At = j.at
				r.sweep()
				if j.fault == "slow" { // what is still under way must not end in the next case
					r.driver.Kill()
					_, _ = r.driver.Start()
				}
				mu.Lock()
				cases = append(cases, c)
				mu.Unlock()
				if c.bad() {
					fmt.Fprintln(os.Stderr, "    "+c.String())
				}
			}
		})
	}
	for _, j := range todo {
		jobs <- j
	}
	close(jobs)
	wg.Wait()

	for _, c := range cases {
		if c.Result == "not reached" && c.Leaked == nil {
			continue
		}
		for _, k := range []string{"crash." + c.Fault, "crash.all"} {
			for _, m := range []string{".cases", ".stuck", ".with_leaks", ".objects_leaked", ".died", ".seconds"} {
				p.Metrics[k+m] += 0
			}
			p.Metrics[k+".cases"]++
			if c.Result != "ok" && c.Result != "not reached" {
				p.Metrics[k+".stuck"]++
			}
			if len(c.Leaked) > 0 {
				p.Metrics[k+".with_leaks"]++
			}
			p.Metrics[k+".objects_leaked"] += float64(len(c.Leaked))
			p.Metrics[k+".died"] += float64(c.Died)
			p.Metrics[k+".seconds"] += c.Seconds
		}
	}
	slices.SortFunc(cases, func(a, b Case) int {
		return cmp.Or(strings.Compare(a.Flow, b.Flow), a.Call-b.Call, strings.Compare(a.Fault, b.Fault))
	})
	var bad []string
	for _, c := range cases {
		if c.bad() {
			bad = append(bad, c.String())
		}
	}
	p.Details["crash"], p.Details["crash.bad"] = cases, bad
	return nil
}
