package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Spec says how to run a driver.  Every string is a template over Vars.
type Spec struct {
	Name         string            `json:"name"`
	Binary       string            `json:"binary"`
	Args         []string          `json:"args"`
	Env          []string          `json:"env"`
	Files        map[string]string `json:"files"` // written to .Dir before each start
	Kind         string            `json:"kind"`  // "block" (default) or "share"
	Publish      bool              `json:"publish"`
	Node         bool              `json:"node"`    // the same process serves the node
	Forward      bool              `json:"forward"` // needs a node driver's socket at .Forward
	NodeID       string            `json:"node_id"` // default .ServerID
	Parameters   map[string]string `json:"parameters"`
	SnapshotPars map[string]string `json:"snapshot_parameters"`
	BackupPars   map[string]string `json:"backup_parameters"`
	Secrets      map[string]string `json:"secrets"`
}

// Vars fills the templates of a Spec.
type Vars struct {
	Dir, Socket, Forward, Bin    string
	AuthURL, AppID, AppSecret    string
	Region, ServerID, ServerName string
	Fuxi                         string // $FUXI_CSI, the driver of this project
}

func fuxi() string {
	path := os.Getenv("FUXI_CSI")
	if path == "" {
		path = "../../target/release/fuxi-csi"
	}
	path, _ = filepath.Abs(path)
	return path
}

func expand(s string, v Vars) string {
	var b bytes.Buffer
	t, err := template.New("").Option("missingkey=error").Parse(s)
	if err == nil {
		err = t.Execute(&b, v)
	}
	if err != nil {
		fatal("template %q: %v", s, err)
	}
	return b.String()
}

func expandMap(m map[string]string, v Vars) map[string]string {
	out := map[string]string{}
	for k, s := range m {
		out[k] = expand(s, v)
	}
	return out
}

// LoadSpec reads a driver's JSON file.
func LoadSpec(path string) (*Spec, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s := &Spec{Kind: "block"}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return s, d.Decode(s)
}

// Driver is a running driver and the connection to it.
type Driver struct {
	*Spec
	vars Vars
	node *Node
	cmd  *exec.Cmd
	conn *grpc.ClientConn
	log  *os.File
	done chan struct{}

	Identity   csi.IdentityClient
	Controller csi.ControllerClient
	NodeSvc    csi.NodeClient
}

// NewDriver prepares the files; Start runs it.
func NewDriver(s *Spec, bin, dir string, p *Proxy, node *Node) (*Driver, error) {
	d := &Driver{Spec: s, node: node}
	d.vars = Vars{Dir: dir, Socket: filepath.Join(dir, "csi.sock"), Forward: filepath.Join(dir, "fwd.sock"), Bin: bin, AuthURL: p.AuthURL(),
		AppID: p.cloud.AppID, AppSecret: p.cloud.AppSecret, Region: p.cloud.Region, ServerID: node.ServerID, ServerName: node.Name, Fuxi: fuxi()}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if s.Forward {
		if err := serveForward(d.vars.Forward); err != nil {
			return nil, err
		}
	}
	log, err := os.Create(filepath.Join(dir, "driver.log"))
	d.log = log
	return d, err
}

// Path is the driver's binary.
func (d *Driver) Path() string { return expand(d.Spec.Binary, d.vars) }

// Start runs the driver and returns the time until Probe succeeded.
func (d *Driver) Start() (time.Duration, error) {
	for name, text := range d.Files {
		if err := os.WriteFile(filepath.Join(d.vars.Dir, name), []byte(expand(text, d.vars)), 0o600); err != nil {
			return 0, err
		}
	}
	os.Remove(d.vars.Socket)
	var args []string
	for _, a := range d.Args {
		args = append(args, expand(a, d.vars))
	}
	d.cmd = d.node.Command(d.Path(), args...)
	for _, e := range d.Env {
		d.cmd.Env = append(d.cmd.Env, expand(e, d.vars))
	}
	d.cmd.Env = append(os.Environ(), d.cmd.Env...)
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	d.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	t0 := time.Now()
	if err := d.cmd.Start(); err != nil {
		return 0, err
	}
	d.done = make(chan struct{})
	go func(c *exec.Cmd, done chan struct{}) { c.Wait(); close(done) }(d.cmd, d.done)
	if d.conn != nil {
		d.conn.Close()
	}
	for time.Since(t0) < 30*time.Second {
		if _, err := os.Stat(d.vars.Socket); err == nil {
			break
		}
		select {
		case <-d.done:
			return 0, fmt.Errorf("%s exited at once, see %s", d.Name, d.log.Name())
		case <-time.After(time.Millisecond):
		}
	}
	conn, err := grpc.NewClient("unix://"+d.vars.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0, err
	}
	d.conn, d.Identity, d.Controller, d.NodeSvc = conn, csi.NewIdentityClient(conn), csi.NewControllerClient(conn), csi.NewNodeClient(conn)
	for time.Since(t0) < 30*time.Second {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_, err = d.Identity.Probe(ctx, &csi.ProbeRequest{}, grpc.WaitForReady(true))
		cancel()
		if err == nil {
			return time.Since(t0), nil
		}
		time.Sleep(time.Millisecond)
	}
	return 0, fmt.Errorf("probe: %w", err)
}

// Restart kills the driver and starts it anew, so that its peak of memory is
// that of what follows, and lets it log in.
func (d *Driver) Restart() error {
	d.Kill()
	if _, err := d.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := d.Controller.ListVolumes(ctx, &csi.ListVolumesRequest{MaxEntries: 1})
	return err
}

// Kill is kill -9.
func (d *Driver) Kill() {
	if d.cmd != nil {
		d.cmd.Process.Kill()
		<-d.done
	}
}

// Process figures of the driver (nsenter executes it, so the pid is its own).

func (d *Driver) status(field string) float64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == field+":" {
			n, _ := strconv.ParseFloat(f[1], 64)
			return n
		}
	}
	return 0
}

// RSS and PeakRSS are in MiB.
func (d *Driver) RSS() float64     { return d.status("VmRSS") / 1024 }
func (d *Driver) PeakRSS() float64 { return d.status("VmHWM") / 1024 }

// CPU is in seconds, with that of finished children.
func (d *Driver) CPU() float64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.cmd.Process.Pid))
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 15 {
		return 0
	}
	var ticks float64
	for _, s := range f[11:15] {
		n, _ := strconv.ParseFloat(s, 64)
		ticks += n
	}
	return ticks / 100
}

// NodeName is the node ID to publish to.
func (d *Driver) NodeName() string {
	if d.Spec.NodeID != "" {
		return expand(d.Spec.NodeID, d.vars)
	}
	return d.vars.ServerID
}
