package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
)

type step = func(context.Context) error

// lifecycle: one volume after the other, all RPCs, n times.
func (r *Rig) lifecycle(p *Report, n int) {
	cpu := r.driver.CPU()
	premature := 0
	for range n {
		if early, err := r.oneLife(p); err != nil {
			fmt.Fprintln(os.Stderr, "lifecycle:", err)
		} else if early {
			premature++
		}
	}
	p.set("lifecycle.created_before_available", float64(premature)/float64(n))
	p.set("process.cpu_s_per_100_lifecycles", (r.driver.CPU()-cpu)/float64(n)*100)
	p.set("process.rss_after_lifecycles_mib", r.driver.RSS())
	p.flush()
}

func (r *Rig) oneLife(p *Report) (premature bool, err error) {
	do := func(name string, fn step) {
		if err == nil {
			if err = r.op(p.get("lifecycle."+name), true, fn); err != nil {
				err = fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	var v, restored *csi.Volume
	var snap string
	t0 := time.Now()
	name, snapName := r.name("vol"), r.name("snap")
	do("CreateVolume", func(ctx context.Context) (err error) { v, err = r.create(ctx, name, gib, ""); return })
	if err != nil {
		return
	}
	if r.driver.Kind == "block" {
		var cur struct{ Volume object }
		if _, e := r.cloud.Do("GET", "cinder", "/volumes/"+v.VolumeId, nil, &cur); e == nil {
			premature = cur.Volume.Status != "available"
		}
	}
	node := r.driver.NodeName()
	if r.driver.Publish {
		var pub map[string]string
		do("ControllerPublish", func(ctx context.Context) (err error) { pub, err = r.publish(ctx, v, node); return })
		if r.driver.Spec.Node && r.cloud.Fake == nil {
			r.onNode(p, do, v, pub, t0)
		} else {
			p.get("lifecycle.usable").add(float64(time.Since(t0).Milliseconds()), 1, err, nil)
		}
		do("ControllerUnpublish", func(ctx context.Context) error { return r.unpublish(ctx, v.VolumeId, node) })
	}
	do("ControllerExpand", func(ctx context.Context) error { return r.expand(ctx, v.VolumeId, 3*gib) })
	do("CreateSnapshot", func(ctx context.Context) (err error) {
		snap, err = r.snapshot(ctx, snapName, v.VolumeId, false)
		return
	})
	do("Restore", func(ctx context.Context) (err error) {
		restored, err = r.create(ctx, name+"-restored", 3*gib, snap)
		return
	})
	do("DeleteRestored", func(ctx context.Context) error { return r.delete(ctx, restored.VolumeId) })
	do("DeleteSnapshot", func(ctx context.Context) error { return r.deleteSnapshot(ctx, snap) })
	do("DeleteVolume", func(ctx context.Context) error { return r.delete(ctx, v.VolumeId) })
	if err == nil {
		p.get("lifecycle.whole").add(float64(time.Since(t0).Milliseconds()), 1, nil, nil)
	}
	return
}

// onNode: stage, publish, expand while mounted, and back.
func (r *Rig) onNode(p *Report, do func(string, step), v *csi.Volume, pub map[string]string, t0 time.Time) {
	staging, target := r.paths(v.VolumeId)
	for _, d := range []string{staging, target} {
		_ = os.MkdirAll(d, 0o755)
	}
	do("NodeStage", func(ctx context.Context) error {
		_, err := r.driver.NodeSvc.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{VolumeId: v.VolumeId, PublishContext: pub,
			StagingTargetPath: staging, VolumeCapability: r.capability(), VolumeContext: v.VolumeContext, Secrets: r.secrets()})
		return err
	})
	do("NodePublish", func(ctx context.Context) error {
		_, err := r.driver.NodeSvc.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{VolumeId: v.VolumeId, PublishContext: pub,
			StagingTargetPath: staging, TargetPath: target, VolumeCapability: r.capability(), VolumeContext: v.VolumeContext, Secrets: r.secrets()})
		return err
	})
	p.get("lifecycle.usable").add(float64(time.Since(t0).Milliseconds()), 1, nil, nil)
	do("write", func(context.Context) error {
		return os.WriteFile(r.node.Path(target)+"/proof", make([]byte, 1<<20), 0o600)
	})
	do("ControllerExpandOnline", func(ctx context.Context) error { return r.expand(ctx, v.VolumeId, 2*gib) })
	do("NodeExpand", func(ctx context.Context) error {
		_, err := r.driver.NodeSvc.NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{VolumeId: v.VolumeId, VolumePath: target,
			StagingTargetPath: staging, CapacityRange: &csi.CapacityRange{RequiredBytes: 2 * gib}, VolumeCapability: r.capability()})
		return err
	})
	do("grown", func(context.Context) error {
		var st unix.Statfs_t
		if err := unix.Statfs(r.node.Path(target), &st); err != nil {
			return err
		}
		if got := int64(st.Blocks) * st.Bsize; got < gib*3/2 {
			return fmt.Errorf("the file system has %d MiB", got>>20)
		}
		return nil
	})
	do("NodeGetVolumeStats", func(ctx context.Context) error {
		_, err := r.driver.NodeSvc.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: v.VolumeId, VolumePath: target, StagingTargetPath: staging})
		return err
	})
	do("NodeUnpublish", func(ctx context.Context) error {
		_, err := r.driver.NodeSvc.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: v.VolumeId, TargetPath: target})
		return err
	})
	do("NodeUnstage", func(ctx context.Context) error {
		_, err := r.driver.NodeSvc.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: v.VolumeId, StagingTargetPath: staging})
		return err
	})
}

// floor: the same operations by the smallest client that waits for the truth,
// polling every 250 ms.
func (r *Rig) floor(p *Report, n int) error {
	var steps []floorStep
	if r.driver.Kind == "share" {
		steps = r.shareFloor()
	} else {
		server, err := r.cloud.NewServer(r.run + "-floor")
		if err != nil {
			return err
		}
		defer r.cloud.DeleteServer(server)
		steps = r.blockFloor(server)
	}
	for range n {
		life := time.Now()
		for _, st := range steps {
			c := &floorClient{cloud: r.cloud}
			t0 := time.Now()
			err := st.fn(c)
			p.get("floor."+st.name).add(float64(time.Since(t0).Microseconds())/1000, 1, err, Counts{"floor": c.calls})
			if err != nil {
				return fmt.Errorf("%s: %w", st.name, err)
			}
			if st.name == "ControllerPublish" {
				p.get("floor.usable").add(float64(time.Since(life).Microseconds())/1000, 1, nil, nil)
			}
		}
		p.get("floor.whole").add(float64(time.Since(life).Microseconds())/1000, 1, nil, nil)
	}
	p.flush()
	return nil
}

type floorStep struct {
	name string
	fn   func(*floorClient) error
}

type floorClient struct {
	cloud *Cloud
	calls int
}

func (c *floorClient) do(method, service, path string, body, out any) error {
	c.calls++
	_, err := c.cloud.Do(method, service, path, body, out)
	return err
}

func (c *floorClient) wait(service, kind, id, want string) error {
	return c.cloud.wait(service, kind, id, want, 250*time.Millisecond, &c.calls)
}

// then makes one call and waits for what comes of it.
func (c *floorClient) then(method, service, path string, body, out any, kind string, id *string, want string) error {
	if err := c.do(method, service, path, body, out); err != nil {
		return err
	}
	return c.wait(service, kind, *id, want)
}

func (r *Rig) blockFloor(server string) []floorStep {
	var v, w struct{ Volume object }
	var s struct{ Snapshot object }
	vid, wid, sid := &v.Volume.ID, &w.Volume.ID, &s.Snapshot.ID
	disks := "/servers/" + server + "/os-volume_attachments"
	return []floorStep{
		{"CreateVolume", func(c *floorClient) error {
			return c.then("POST", "cinder", "/volumes", dict{"volume": dict{"name": r.name("floor"), "size": 1}}, &v, "volume", vid, "available")
		}},
		{"ControllerPublish", func(c *floorClient) error {
			if err := c.do("POST", "nova", disks, dict{"volumeAttachment": dict{"volumeId": *vid}}, nil); err != nil {
				return err
			}
			return c.wait("cinder", "volume", *vid, "in-use")
		}},
		{"ControllerExpandOnline", func(c *floorClient) error {
			return c.then("POST", "cinder", "/volumes/"+*vid+"/action", dict{"os-extend": dict{"new_size": 2}}, nil, "volume", vid, "in-use")
		}},
		{"ControllerUnpublish", func(c *floorClient) error {
			if err := c.do("DELETE", "nova", disks+"/"+*vid, nil, nil); err != nil {
				return err
			}
			return c.wait("cinder", "volume", *vid, "available")
		}},
		{"ControllerExpand", func(c *floorClient) error {
			return c.then("POST", "cinder", "/volumes/"+*vid+"/action", dict{"os-extend": dict{"new_size": 3}}, nil, "volume", vid, "available")
		}},
		{"CreateSnapshot", func(c *floorClient) error {
			return c.then("POST", "cinder", "/snapshots", dict{"snapshot": dict{"name": r.name("floor"), "volume_id": *vid}}, &s, "snapshot", sid, "available")
		}},
		{"Restore", func(c *floorClient) error {
			return c.then("POST", "cinder", "/volumes", dict{"volume": dict{"name": r.name("floor"), "size": 3, "snapshot_id": *sid}}, &w, "volume", wid, "available")
		}},
		{"DeleteRestored", func(c *floorClient) error {
			return c.then("DELETE", "cinder", "/volumes/"+*wid, nil, nil, "volume", wid, "")
		}},
		{"DeleteSnapshot", func(c *floorClient) error {
			return c.then("DELETE", "cinder", "/snapshots/"+*sid, nil, nil, "snapshot", sid, "")
		}},
		{"DeleteVolume", func(c *floorClient) error {
			return c.then("DELETE", "cinder", "/volumes/"+*vid, nil, nil, "volume", vid, "")
		}},
	}
}

func (r *Rig) shareFloor() []floorStep {
	var v, w struct{ Share object }
	var s struct{ Snapshot object }
	vid, wid, sid := &v.Share.ID, &w.Share.ID, &s.Snapshot.ID
	// a share counts as created when a client may mount it
	create := func(c *floorClient, share dict, out any, id *string) error {
		share["name"], share["share_proto"], share["share_type"] = r.name("floor"), "NFS", "default"
		if err := c.then("POST", "manila", "/shares", dict{"share": share}, out, "share", id, "available"); err != nil {
			return err
		}
		rule := dict{"allow_access": dict{"access_type": "ip", "access_to": "127.0.0.1", "access_level": "rw"}}
		if err := c.do("POST", "manila", "/shares/"+*id+"/action", rule, nil); err != nil {
			return err
		}
		for {
			var rules struct {
				List []struct{ State string } `json:"access_list"`
			}
			if err := c.do("GET", "manila", "/share-access-rules?share_id="+*id, nil, &rules); err != nil {
				return err
			}
			if len(rules.List) > 0 && rules.List[0].State == "active" {
				return nil
			}
			time.Sleep(250 * time.Millisecond)
		}
	}
	return []floorStep{
		{"CreateVolume", func(c *floorClient) error { return create(c, dict{"size": 1}, &v, vid) }},
		{"ControllerExpand", func(c *floorClient) error {
			return c.then("POST", "manila", "/shares/"+*vid+"/action", dict{"extend": dict{"new_size": 3}}, nil, "share", vid, "available")
		}},
		{"CreateSnapshot", func(c *floorClient) error {
			return c.then("POST", "manila", "/snapshots", dict{"snapshot": dict{"name": r.name("floor"), "share_id": *vid}}, &s, "snapshot", sid, "available")
		}},
		{"Restore", func(c *floorClient) error { return create(c, dict{"size": 3, "snapshot_id": *sid}, &w, wid) }},
		{"DeleteRestored", func(c *floorClient) error {
			return c.then("DELETE", "manila", "/shares/"+*wid, nil, nil, "share", wid, "")
		}},
		{"DeleteSnapshot", func(c *floorClient) error {
			return c.then("DELETE", "manila", "/snapshots/"+*sid, nil, nil, "snapshot", sid, "")
		}},
		{"DeleteVolume", func(c *floorClient) error {
			return c.then("DELETE", "manila", "/shares/"+*vid, nil, nil, "share", vid, "")
		}},
	}
}

// phase runs n operations, c at a time (0: all at once).
func (r *Rig) phase(p *Report, name string, n, c int, fn func(ctx context.Context, i int) error) {
	if c == 0 || c > n {
		c = n
	}
	s := p.get(name)
	before, t0, cpu := r.proxy.Counts(), time.Now(), r.driver.CPU()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range c {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				r.op(s, false, func(ctx context.Context) error { return fn(ctx, i) })
			}
		})
	}
	wg.Wait()
	took := time.Since(t0).Seconds()
	s.calls = r.proxy.Counts().minus(before)
	p.set(name+".wall_s", took)
	p.set(name+".per_s", float64(n)/took)
	p.set(name+".cpu_s", r.driver.CPU()-cpu)
	p.flush()
}

// parallel: n volumes through the four phases, c at a time.
func (r *Rig) parallel(p *Report, c, n int) {
	name := fmt.Sprintf("parallel%d.", c)
	vols := make([]*csi.Volume, n)
	names := make([]string, n)
	for i := range names {
		names[i] = r.name("par")
	}
	node := r.driver.NodeName()
	r.phase(p, name+"CreateVolume", n, c, func(ctx context.Context, i int) (err error) {
		vols[i], err = r.create(ctx, names[i], gib, "")
		return
	})
	if r.driver.Publish {
		r.phase(p, name+"ControllerPublish", n, c, func(ctx context.Context, i int) error {
			_, err := r.publish(ctx, vols[i], node)
			return err
		})
		r.phase(p, name+"ControllerUnpublish", n, c, func(ctx context.Context, i int) error {
			return r.unpublish(ctx, vols[i].GetVolumeId(), node)
		})
	}
	r.phase(p, name+"DeleteVolume", n, c, func(ctx context.Context, i int) error { return r.delete(ctx, vols[i].GetVolumeId()) })
	p.set("process.peak_rss_mib", r.driver.PeakRSS())
}

// storm: nodes times vols existing volumes attached, then detached, c at once.
func (r *Rig) storm(p *Report, nodes, vols, c int) error {
	var servers []string
	for i := range nodes {
		id, err := r.cloud.NewServer(fmt.Sprintf("%s-storm-%d", r.run, i))
		if err != nil {
			return err
		}
		defer r.cloud.DeleteServer(id)
		servers = append(servers, id)
	}
	if err := r.driver.Restart(); err != nil {
		return err
	}
	var ids []string
	if r.cloud.Fake != nil {
		ids = r.cloud.Fake.Seed(r.run+"-storm", nodes*vols)
	} else {
		for range nodes * vols {
			id, err := r.cloud.NewVolume(r.name("storm"))
			if err != nil {
				return err
			}
			ids = append(ids, id)
		}
	}
	name := fmt.Sprintf("storm%dx%d.", nodes, vols)
	r.phase(p, name+"ControllerPublish", len(ids), c, func(ctx context.Context, i int) error {
		_, err := r.publish(ctx, &csi.Volume{VolumeId: ids[i]}, r.nodeID(servers[i%nodes]))
		return err
	})
	p.set(name+"rss_mib", r.driver.RSS())
	r.phase(p, name+"ControllerUnpublish", len(ids), c, func(ctx context.Context, i int) error {
		return r.unpublish(ctx, ids[i], r.nodeID(servers[i%nodes]))
	})
	p.set(name+"peak_rss_mib", r.driver.PeakRSS())
	if r.cloud.Fake != nil {
		r.cloud.Fake.Wipe()
		return nil
	}
	for _, id := range ids {
		_, _ = r.cloud.Do("DELETE", "cinder", "/volumes/"+id, nil, nil)
	}
	return nil
}

// listing: ListVolumes where there are n (the fake only).
func (r *Rig) listing(p *Report, n int) error {
	if r.cloud.Fake == nil {
		return nil
	}
	if err := r.driver.Restart(); err != nil {
		return err
	}
	r.cloud.Fake.Seed(r.run+"-list", n)
	for _, page := range []int32{0, 500} {
		name := fmt.Sprintf("list%d.page%d", n, page)
		got := 0
		err := r.op(p.get(name), true, func(ctx context.Context) error {
			got = 0
			for token := ""; ; {
				resp, err := r.driver.Controller.ListVolumes(ctx, &csi.ListVolumesRequest{MaxEntries: page, StartingToken: token})
				if err != nil {
					return err
				}
				got += len(resp.Entries)
				if token = resp.NextToken; token == "" || len(resp.Entries) == 0 {
					return nil
				}
			}
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, name, err)
		}
		p.set(name+".entries", float64(got))
	}
	p.set(fmt.Sprintf("list%d.rss_mib", n), r.driver.RSS())
	p.set(fmt.Sprintf("list%d.peak_rss_mib", n), r.driver.PeakRSS())
	p.flush()
	r.cloud.Fake.Wipe()
	return nil
}

// reattach: publish again at once after an unpublish, n times.  Nova's record
// outlives Cinder's, and refuses for so long.
func (r *Rig) reattach(p *Report, n int) error {
	if !r.driver.Publish {
		return nil
	}
	id, err := r.cloud.NewVolume(r.name("reattach"))
	if err != nil {
		return err
	}
	node, v := r.driver.NodeName(), &csi.Volume{VolumeId: id}
	for range n {
		steps := []struct {
			name string
			do   step
		}{
			{"ControllerPublish", func(ctx context.Context) error { _, err := r.publish(ctx, v, node); return err }},
			{"ControllerUnpublish", func(ctx context.Context) error { return r.unpublish(ctx, id, node) }},
		}
		for _, s := range steps {
			if err := r.op(p.get("reattach."+s.name), true, s.do); err != nil {
				return err
			}
		}
	}
	p.flush()
	_, err = r.cloud.Do("DELETE", "cinder", "/volumes/"+id, nil, nil)
	return err
}

// idle: nothing but a Probe every 10 s.
func (r *Rig) idle(p *Report, d time.Duration) {
	r.settle()
	before, cpu := r.proxy.Counts(), r.driver.CPU()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(min(10*time.Second, time.Until(end))) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		_ = r.op(p.get("idle.Probe"), false, func(context.Context) error {
			_, err := r.driver.Identity.Probe(ctx, &csi.ProbeRequest{})
			return err
		})
		cancel()
	}
	p.set("idle.seconds", d.Seconds())
	p.set("idle.api_calls", float64(r.proxy.Counts().minus(before).total()))
	p.set("idle.cpu_s", r.driver.CPU()-cpu)
	p.set("process.rss_idle_mib", r.driver.RSS())
	p.flush()
}

// settle waits until the driver has done what it does at its start: no API call
// for two seconds, after the first one if there is one at all within five.
func (r *Rig) settle() {
	const quiet, first = 2 * time.Second, 5 * time.Second
	began, last, since := time.Now(), r.proxy.Counts().total(), time.Now()
	for ; time.Since(since) < quiet || last == 0 && time.Since(began) < first; time.Sleep(50 * time.Millisecond) {
		if now := r.proxy.Counts().total(); now != last {
			last, since = now, time.Now()
		}
	}
}
