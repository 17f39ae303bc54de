package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/status"
)

// Options are what the command line sets.
type Options struct {
	Info      string // info.json of tests/openstack, "" for the fake
	Profile   string
	LatencyMs int
	Bin, Dir  string
	FS        string
	RPCLimit  time.Duration // one RPC
	OpLimit   time.Duration // one operation with its retries
}

// Rig is a cloud, the proxy in front of it, and one driver behind the proxy.
type Rig struct {
	Options
	cloud  *Cloud
	proxy  *Proxy
	driver *Driver
	node   *Node
	fs     string
	run    string // makes names unique
	seq    atomic.Int64
}

// NewRig prepares everything; the driver is not started yet.
func NewRig(o Options, spec *Spec) (*Rig, error) {
	r := &Rig{Options: o, fs: o.FS, run: fmt.Sprintf("csibench-%d", time.Now().UnixNano()%1e9)}
	var fake *Fake
	if o.Info == "" {
		p, ok := Profiles[o.Profile]
		if !ok {
			return nil, fmt.Errorf("no profile %q", o.Profile)
		}
		fake = NewFake(p)
	}
	var err error
	if r.cloud, err = OpenCloud(o.Info, fake); err != nil {
		return nil, err
	}
	if r.proxy, err = NewProxy(r.cloud, time.Duration(o.LatencyMs)*time.Millisecond); err != nil {
		return nil, err
	}
	// every driver gets a node, if only for its network: none may reach the
	// host's, whose metadata service is not ours to ask
	id := newID()
	if spec.NodeID == "" && (spec.Publish || spec.Node) {
		if id, err = r.cloud.NewServer(r.run + "-node"); err != nil {
			return nil, err
		}
	}
	if r.node, err = NewNode(r.proxy, id, r.run+"-node"); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(o.Dir, "rig-")
	if err != nil {
		return nil, err
	}
	r.driver, err = NewDriver(spec, o.Bin, dir, r.proxy, r.node)
	return r, err
}

// Close ends the driver and the node.
func (r *Rig) Close() {
	r.driver.Kill()
	r.node.Close()
	r.cloud.DeleteServer(r.node.ServerID)
}

func (r *Rig) name(what string) string { return fmt.Sprintf("%s-%s-%d", r.run, what, r.seq.Add(1)) }

// ---- figures ---------------------------------------------------------------

// Series is what one kind of operation took.
type Series struct {
	mu       sync.Mutex
	ms       []float64
	attempts int
	failed   int
	errs     map[string]int
	calls    Counts
}

func (s *Series) add(ms float64, attempts int, err error, calls Counts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.failed++
	} else {
		s.ms = append(s.ms, ms)
	}
	s.attempts += attempts
	if s.calls == nil {
		s.calls = Counts{}
	}
	for k, v := range calls {
		s.calls[k] += v
	}
}

func (s *Series) fault(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.errs == nil {
		s.errs = map[string]int{}
	}
	text := idPattern.ReplaceAllString(status.Convert(err).Message(), "{id}")
	s.errs[status.Code(err).String()+": "+text[:min(len(text), 160)]]++
}

func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(v))
	return s[min(int(q*float64(len(s))), len(s)-1)]
}

// Report collects metrics under dotted names, and details.
type Report struct {
	Driver  string             `json:"driver"`
	Cloud   string             `json:"cloud"`
	Date    string             `json:"date"`
	Metrics map[string]float64 `json:"metrics"`
	Details map[string]any     `json:"details"`
	mu      sync.Mutex
	order   []string
	series  map[string]*Series
}

func (p *Report) set(name string, v float64) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Metrics[name] = math.Round(v*1000) / 1000
}

func (p *Report) get(name string) *Series {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.series[name] == nil {
		p.series[name] = &Series{}
		p.order = append(p.order, name)
	}
	return p.series[name]
}

// flush turns the series into metrics.
func (p *Report) flush() {
	for _, name := range p.order {
		s := p.series[name]
		n := float64(len(s.ms) + s.failed)
		p.set(name+".median_ms", quantile(s.ms, .5))
		p.set(name+".p90_ms", quantile(s.ms, .9))
		p.set(name+".max_ms", quantile(s.ms, 1))
		p.set(name+".n", n)
		p.set(name+".failed", float64(s.failed))
		p.set(name+".attempts", float64(s.attempts)/n)
		if len(s.calls) > 0 {
			p.set(name+".api_calls", float64(s.calls.total())/n)
			per := map[string]float64{}
			for k, v := range s.calls {
				per[k] = math.Round(float64(v)/n*100) / 100
			}
			p.Details[name+".calls"] = per
		}
		if len(s.errs) > 0 {
			p.Details[name+".errors"] = s.errs
		}
	}
	p.series, p.order = map[string]*Series{}, nil
}

// ---- operations, repeated as the sidecars repeat them ----------------------

// again calls fn until it succeeds: 1 s after the first failure, then 2, 4, 8.
func (r *Rig) again(s *Series, fn func(context.Context) error) (attempts int, err error) {
	end := time.Now().Add(r.OpLimit)
	for wait := time.Second; ; wait = min(wait*2, 8*time.Second) {
		ctx, cancel := context.WithTimeout(context.Background(), r.RPCLimit)
		err = fn(ctx)
		cancel()
		attempts++
		if err == nil {
			return attempts, nil
		}
		if s != nil {
			s.fault(err)
		}
		if time.Now().Add(wait).After(end) {
			return attempts, err
		}
		time.Sleep(wait)
	}
}

// op measures one operation; calls are counted only where count is set (they
// belong to this operation only when nothing else runs).
func (r *Rig) op(s *Series, count bool, fn func(context.Context) error) error {
	var before Counts
	if count {
		before = r.proxy.Counts()
	}
	t0 := time.Now()
	n, err := r.again(s, fn)
	ms := float64(time.Since(t0).Microseconds()) / 1000
	var calls Counts
	if count {
		calls = r.proxy.Counts().minus(before)
	}
	s.add(ms, n, err, calls)
	return err
}

var errNotReady = errors.New("not ready")

func (r *Rig) capability() *csi.VolumeCapability {
	mode := csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	if r.driver.Kind == "share" {
		mode = csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	}
	fs := r.fs
	if r.driver.Kind == "share" {
		fs = ""
	}
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: fs}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode}}
}

func (r *Rig) secrets() map[string]string { return expandMap(r.driver.Secrets, r.driver.vars) }

const gib = int64(1) << 30

func (r *Rig) create(ctx context.Context, name string, size int64, snapshot string) (*csi.Volume, error) {
	req := &csi.CreateVolumeRequest{Name: name, CapacityRange: &csi.CapacityRange{RequiredBytes: size},
		VolumeCapabilities: []*csi.VolumeCapability{r.capability()}, Parameters: expandMap(r.driver.Parameters, r.driver.vars), Secrets: r.secrets()}
	if snapshot != "" {
		req.VolumeContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
			Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: snapshot}}}
	}
	resp, err := r.driver.Controller.CreateVolume(ctx, req)
	return resp.GetVolume(), err
}

func (r *Rig) delete(ctx context.Context, id string) error {
	_, err := r.driver.Controller.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: id, Secrets: r.secrets()})
	return err
}

func (r *Rig) publish(ctx context.Context, v *csi.Volume, node string) (map[string]string, error) {
	resp, err := r.driver.Controller.ControllerPublishVolume(ctx, &csi.ControllerPublishVolumeRequest{
		VolumeId: v.VolumeId, NodeId: node, VolumeCapability: r.capability(), VolumeContext: v.VolumeContext, Secrets: r.secrets()})
	return resp.GetPublishContext(), err
}

func (r *Rig) unpublish(ctx context.Context, id, node string) error {
	_, err := r.driver.Controller.ControllerUnpublishVolume(ctx, &csi.ControllerUnpublishVolumeRequest{VolumeId: id, NodeId: node, Secrets: r.secrets()})
	return err
}

func (r *Rig) expand(ctx context.Context, id string, size int64) error {
	_, err := r.driver.Controller.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{VolumeId: id,
		CapacityRange: &csi.CapacityRange{RequiredBytes: size}, VolumeCapability: r.capability(), Secrets: r.secrets()})
	return err
}

// snapshot is done when the snapshot is ready to use, as the sidecar has it.
func (r *Rig) snapshot(ctx context.Context, name, volume string, backup bool) (string, error) {
	pars := r.driver.SnapshotPars
	if backup {
		pars = r.driver.BackupPars
	}
	resp, err := r.driver.Controller.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: volume,
		Parameters: expandMap(pars, r.driver.vars), Secrets: r.secrets()})
	if err == nil && !resp.GetSnapshot().GetReadyToUse() {
		err = errNotReady
	}
	return resp.GetSnapshot().GetSnapshotId(), err
}

func (r *Rig) deleteSnapshot(ctx context.Context, id string) error {
	_, err := r.driver.Controller.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: id, Secrets: r.secrets()})
	return err
}

func (r *Rig) nodeID(server string) string {
	if r.driver.Spec.NodeID == "" {
		return server
	}
	v := r.driver.vars
	v.ServerID = server
	return expand(r.driver.Spec.NodeID, v)
}

// paths of a volume on the node
func (r *Rig) paths(id string) (staging, target string) {
	base := filepath.Join(r.driver.vars.Dir, "kubelet", strings.ReplaceAll(id, "/", "_"))
	return filepath.Join(base, "globalmount"), filepath.Join(base, "mount")
}
