package main

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// twins: c identical calls at once must make one object.
func (r *Rig) twins(p *Report, c int) error {
	before, err := r.cloud.Inventory()
	if err != nil {
		return err
	}
	created := func(kind string) (n int) {
		inv, err := r.cloud.Inventory()
		if err != nil {
			return -1
		}
		for k := range inv {
			if _, was := before[k]; !was && len(k) > len(kind) && k[:len(kind)+1] == kind+"/" {
				n++
			}
		}
		return n
	}
	all := func(fn step) (ok int) {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range c {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), r.RPCLimit)
				defer cancel()
				if fn(ctx) == nil {
					mu.Lock()
					ok++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		return ok
	}
	kind, snaps := "volumes", "snapshots"
	if r.driver.Kind == "share" {
		kind, snaps = "shares", "share_snapshots"
	}
	name, snap := r.name("twin"), r.name("twin-snap")
	var mu sync.Mutex
	ids := map[string]bool{}
	p.set("twins.CreateVolume.ok", float64(all(func(ctx context.Context) error {
		v, err := r.create(ctx, name, gib, "")
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			ids[v.VolumeId] = true
		}
		return err
	})))
	p.set("twins.CreateVolume.calls", float64(c))
	p.set("twins.CreateVolume.objects", float64(created(kind)))
	p.set("twins.CreateVolume.different_ids", float64(len(ids)))
	for id := range ids {
		if err := r.settle(id); err != nil {
			return err
		}
		p.set("twins.CreateSnapshot.ok", float64(all(func(ctx context.Context) error {
			_, err := r.snapshot(ctx, snap, id, false)
			return err
		})))
		p.set("twins.CreateSnapshot.objects", float64(created(snaps)))
		break
	}
	r.sweep()
	return nil
}

// truth: does the driver say that something works which does not?  The fake
// lets the next object end in status error, with the reason in /messages.
func (r *Rig) truth(p *Report) error {
	if r.cloud.Fake == nil || r.driver.Kind != "block" {
		return nil
	}
	fails := func(n int) {
		r.cloud.Fake.mu.Lock()
		r.cloud.Fake.failures = n
		r.cloud.Fake.mu.Unlock()
	}
	yes := func(name string, b bool) {
		v := 0.0
		if b {
			v = 1
		}
		p.set("truth."+name, v)
	}
	// until it succeeds, with the first error
	try := func(fn step) (attempts int, first, last error) {
		attempts, last = r.again(nil, func(ctx context.Context) error {
			err := fn(ctx)
			if first == nil {
				first = err
			}
			return err
		})
		return
	}
	name := r.name("error")
	var v *csi.Volume
	create := func(ctx context.Context) (err error) { v, err = r.create(ctx, name, gib, ""); return }
	fails(1)
	attempts, first, err := try(create)
	bad := false
	if err == nil {
		// as the sidecar would: the volume that the driver hands out must work
		var cur struct{ Volume object }
		for range 50 {
			if _, err := r.cloud.Do("GET", "cinder", "/volumes/"+v.VolumeId, nil, &cur); err != nil || cur.Volume.Status != "creating" {
				break
			}
		}
		bad = cur.Volume.Status == "error"
	}
	yes("error_volume_reported_as_success", bad)
	yes("error_volume_has_reason", first != nil && strings.Contains(first.Error(), strings.SplitN(reasonVolume, ":", 2)[1]))
	yes("error_volume_recovers", err == nil && !bad)
	p.set("truth.error_volume_attempts", float64(attempts))
	p.Details["truth.error_volume"] = fmt.Sprint(first)
	inv, err := r.cloud.Inventory()
	if err != nil {
		return err
	}
	n := 0
	for _, o := range inv {
		if o.Status == "error" {
			n++
		}
	}
	p.set("truth.error_volumes_left", float64(n))
	r.sweep()

	name = r.name("error")
	fails(0)
	if _, err := r.again(nil, create); err != nil {
		return err
	}
	if err := r.settle(v.VolumeId); err != nil {
		return err
	}
	fails(1)
	attempts, first, err = try(func(ctx context.Context) error {
		_, err := r.snapshot(ctx, name+"-snap", v.VolumeId, false)
		return err
	})
	p.set("truth.error_snapshot_attempts", float64(attempts))
	yes("error_snapshot_never_recovers", err != nil)
	p.Details["truth.error_snapshot"] = fmt.Sprint(first)
	r.sweep()
	fails(0)
	return nil
}
