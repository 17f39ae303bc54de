// csibench measures CSI drivers for OpenStack; see README.md.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const usage = `csibench COMMAND [flags]

  run -driver FILE[,FILE] -out FILE [-scenarios LIST] [flags]   measure drivers
  compare A.json B.json                                         ratios, B to A
  table DIR                                                     what "bench all" measured, against the targets
  show A.json                                                   the table again
  hold -driver FILE [flags]                                     start everything, print the socket, wait
  exec -driver FILE [flags] -- COMMAND ...                      a command next to the driver, {{.Socket}} and so on in it
  fake [flags]                                                  only the fake cloud behind the proxy

Scenarios: idle lifecycle floor reattach parallel storm list twins truth crash
`

func fatal(format string, a ...any) {
	fmt.Fprintf(os.Stderr, "csibench: "+format+"\n", a...)
	os.Exit(1)
}

func main() {
	if len(os.Args) < 2 {
		fmt.Print(usage)
		os.Exit(2)
	}
	cmd := os.Args[1]
	fs := flag.NewFlagSet(cmd, flag.ExitOnError)
	cache := os.Getenv("CSIBENCH_CACHE")
	if cache == "" {
		cache = "/var/tmp/fuxi-bench"
	}
	var o Options
	fs.StringVar(&o.Info, "info", "", "state/info.json of tests/openstack; without it, the fake cloud")
	fs.StringVar(&o.Profile, "profile", "cloud", "how long the fake takes: "+strings.Join(slices.Sorted(maps.Keys(Profiles)), ", "))
	fs.IntVar(&o.LatencyMs, "latency", 0, "milliseconds that the proxy adds to each call")
	fs.StringVar(&o.Bin, "bin", filepath.Join(cache, "bin"), "where driver binaries are (.Bin in a driver's file)")
	fs.StringVar(&o.Dir, "dir", filepath.Join(cache, "run"), "where to work")
	fs.StringVar(&o.FS, "fs", "xfs", "file system of volumes")
	fs.DurationVar(&o.RPCLimit, "rpc-limit", 3*time.Minute, "deadline of one RPC")
	fs.DurationVar(&o.OpLimit, "op-limit", 3*time.Minute, "deadline of one operation with its retries")
	driver := fs.String("driver", "", "the driver's JSON file; several with commas")
	out := fs.String("out", "", "where to write the figures")
	scenarios := fs.String("scenarios", "idle,lifecycle", "comma-separated, in order")
	n := fs.Int("n", 10, "lifecycles")
	idle := fs.Duration("idle", time.Minute, "length of the idle scenario")
	conc := fs.String("c", "1,10,50,100", "concurrencies of the parallel scenario")
	nodes := fs.Int("nodes", 50, "nodes of the storm")
	vols := fs.Int("volumes", 10, "volumes per node of the storm")
	stormC := fs.Int("storm-c", 0, "RPCs at once in the storm (0: all)")
	list := fs.Int("list", 10000, "volumes of the list scenario")
	twins := fs.Int("twins", 20, "identical calls of the twins scenario")
	rigs := fs.Int("rigs", 4, "crash cases at once (the fake only)")
	onlyFlows := fs.String("flows", "", "only these flows of the crash scenario")
	onlyFaults := fs.String("faults", "", "only these faults of the crash scenario: "+strings.Join(faults, ", "))
	onlyCall := fs.Int("call", 0, "only the nth API call of each flow")
	onlyAt := fs.String("at", "", "only at API calls that match this regular expression, such as 'POST nova'")
	_ = fs.Parse(os.Args[2:])
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		fatal("%v", err)
	}

	switch cmd {
	case "compare", "show":
		var reports []*Report
		for _, f := range fs.Args() {
			reports = append(reports, load(f))
		}
		if len(reports) == 0 || cmd == "compare" && len(reports) != 2 {
			fatal("which files?")
		}
		printTable(reports)
		return
	case "table":
		if fs.NArg() != 1 {
			fatal("which directory?")
		}
		check(targetTable(os.Stdout, fs.Arg(0)))
		return
	case "fake":
		cloud, err := OpenCloud("", NewFake(Profiles[o.Profile]))
		check(err)
		p, err := NewProxy(cloud, time.Duration(o.LatencyMs)*time.Millisecond)
		check(err)
		fmt.Printf("auth_url %s\napplication credential: anything\nserver %s\ncontrol %s/_csibench\n",
			p.AuthURL(), cloud.Fake.AddServer("node"), strings.TrimSuffix(p.AuthURL(), "/v3"))
		select {}
	case "run", "hold", "exec":
	default:
		fmt.Print(usage)
		os.Exit(2)
	}

	only := crashFilter{flows: split(*onlyFlows), faults: split(*onlyFaults), call: *onlyCall}
	if *onlyAt != "" {
		var err error
		only.at, err = regexp.Compile(*onlyAt)
		check(err)
	}

	var all []*contender
	for _, f := range split(*driver) {
		spec, err := LoadSpec(f)
		check(err)
		c := &contender{spec: spec, report: newReport(spec.Name, o)}
		c.rig, err = NewRig(o, spec)
		check(err)
		start, err := c.rig.driver.Start()
		check(err)
		all = append(all, c)
		if cmd == "run" {
			c.startup(start)
		}
	}
	closeAll := func() {
		for _, c := range all {
			c.rig.Close()
		}
	}
	if len(all) == 0 {
		fatal("which -driver?")
	}
	switch cmd {
	case "hold":
		for _, c := range all {
			c.rig.describe()
		}
		wait := make(chan os.Signal, 1)
		signal.Notify(wait, syscall.SIGINT, syscall.SIGTERM)
		<-wait
		closeAll()
		return
	case "exec":
		err := all[0].rig.exec(fs.Args())
		closeAll()
		check(err)
		return
	}

	scenario := func(c *contender, name string) error {
		r, p := c.rig, c.report
		switch name {
		case "idle":
			r.idle(p, *idle)
		case "lifecycle":
			r.lifecycle(p, *n)
		case "floor":
			return r.floor(p, *n)
		case "reattach":
			return r.reattach(p, *n)
		case "parallel":
			for _, w := range split(*conc) {
				w, _ := strconv.Atoi(w)
				r.parallel(p, max(w, 1), max(w, min(2*w, 20), 5))
			}
		case "storm":
			return r.storm(p, *nodes, *vols, *stormC)
		case "list":
			return r.listing(p, *list)
		case "twins":
			return r.twins(p, *twins)
		case "truth":
			return r.truth(p)
		case "crash":
			return crash(o, c.spec, p, *rigs, only)
		default:
			return fmt.Errorf("no such scenario")
		}
		return nil
	}
	// scenario by scenario, so that drivers meet the machine in like state
	for _, name := range split(*scenarios) {
		for _, c := range all {
			fmt.Fprintf(os.Stderr, "%s %s: %s\n", time.Now().Format("15:04:05"), c.spec.Name, name)
			if err := scenario(c, name); err != nil {
				fmt.Fprintln(os.Stderr, name, err)
			}
			c.save(*out, len(all) > 1) // after each, so that an interrupted run is not lost
		}
	}
	closeAll()
	var reports []*Report
	for _, c := range all {
		reports = append(reports, c.report)
	}
	printTable(reports)
}

// contender is a driver, its rig and its figures.
type contender struct {
	spec   *Spec
	rig    *Rig
	report *Report
}

func newReport(name string, o Options) *Report {
	p := &Report{Driver: name, Cloud: "fake:" + o.Profile, Date: time.Now().UTC().Format(time.RFC3339),
		Metrics: map[string]float64{}, Details: map[string]any{}, series: map[string]*Series{}}
	if o.Info != "" {
		p.Cloud = "real"
	}
	if o.LatencyMs > 0 {
		p.Cloud += fmt.Sprintf("+%dms", o.LatencyMs)
	}
	return p
}

// startup: the size of the binary, and the median of five starts.
func (c *contender) startup(first time.Duration) {
	if st, err := os.Stat(c.rig.driver.Path()); err == nil {
		c.report.set("process.binary_mib", float64(st.Size())/(1<<20))
	}
	starts := []float64{first.Seconds() * 1000}
	for range 4 {
		c.rig.driver.Kill()
		before := c.rig.proxy.Counts()
		d, err := c.rig.driver.Start()
		check(err)
		starts = append(starts, d.Seconds()*1000)
		c.report.set("process.start_api_calls", float64(c.rig.proxy.Counts().minus(before).total()))
	}
	c.report.set("process.start_ms", quantile(starts, .5))
}

// save writes the report; several drivers get a file each.
func (c *contender) save(out string, several bool) {
	if out == "" {
		return
	}
	if several {
		ext := filepath.Ext(out)
		out = strings.TrimSuffix(out, ext) + "-" + c.spec.Name + ext
	}
	b, err := json.MarshalIndent(c.report, "", " ")
	check(err)
	check(os.WriteFile(out, append(b, '\n'), 0o644))
}

func (r *Rig) describe() {
	fmt.Printf("driver  %s\nsocket  %s\nlog     %s\nnode    %s\ncontrol %s/_csibench\n", r.driver.Name, r.driver.vars.Socket, r.driver.log.Name(),
		r.driver.NodeName(), strings.TrimSuffix(r.proxy.AuthURL(), "/v3"))
	fmt.Printf("enter   %s\n", strings.Join(r.node.Command("").Args[:6], " "))
}

// exec runs a command next to the driver, in its node.  Besides Vars, its
// arguments can use {{.Dir}}/secrets.yaml and {{.Dir}}/parameters.yaml.
func (r *Rig) exec(args []string) error {
	d := r.driver
	if len(args) == 0 {
		return fmt.Errorf("exec what?")
	}
	var secrets, pars strings.Builder
	for _, rpc := range []string{"CreateVolume", "DeleteVolume", "ControllerPublishVolume", "ControllerUnpublishVolume", "ControllerValidateVolumeCapabilities",
		"NodeStageVolume", "NodePublishVolume", "CreateSnapshot", "DeleteSnapshot", "ControllerExpandVolume", "ListSnapshots"} {
		fmt.Fprintf(&secrets, "%sSecret:\n", rpc)
		for k, v := range r.secrets() {
			fmt.Fprintf(&secrets, "  %q: %q\n", k, v)
		}
	}
	for k, v := range expandMap(d.Parameters, d.vars) {
		fmt.Fprintf(&pars, "%q: %q\n", k, v)
	}
	check(os.WriteFile(filepath.Join(d.vars.Dir, "secrets.yaml"), []byte(secrets.String()), 0o600))
	check(os.WriteFile(filepath.Join(d.vars.Dir, "parameters.yaml"), []byte(pars.String()), 0o600))
	for i := range args {
		args[i] = expand(args[i], d.vars)
	}
	cmd := r.node.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}

func split(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

func check(err error) {
	if err != nil {
		fatal("%v", err)
	}
}

func load(path string) *Report {
	b, err := os.ReadFile(path)
	check(err)
	p := &Report{}
	check(json.Unmarshal(b, p))
	return p
}

// columns of an operation's row; other metrics get a line of their own
var columns = []string{"median_ms", "p90_ms", "attempts", "api_calls", "failed"}

// printTable prints a row for each operation and a line for each other
// metric; with two reports, both and the ratio B/A.
func printTable(reports []*Report) {
	rows, single := map[string]bool{}, map[string]bool{}
	for _, p := range reports {
		for k := range p.Metrics {
			if i := strings.LastIndex(k, "."); strings.HasSuffix(k, ".median_ms") {
				rows[k[:i]] = true
			}
		}
	}
	for _, p := range reports {
		for k := range p.Metrics {
			i := strings.LastIndex(k, ".")
			if last := k[i+1:]; !rows[k[:i]] || !slices.Contains(append(columns, "n", "max_ms"), last) {
				single[k] = true
			}
		}
	}
	for i, p := range reports {
		fmt.Printf("%c: %s on %s, %s\n", 'A'+i, p.Driver, p.Cloud, p.Date)
	}
	cell := func(k string) (s string) {
		var v [2]float64
		both := len(reports) == 2
		for i, p := range reports {
			x, ok := p.Metrics[k]
			if v[i], both = x, both && ok; ok {
				s += fmt.Sprintf(" %9s", strconv.FormatFloat(x, 'f', min(1, decimals(x)), 64))
			} else {
				s += fmt.Sprintf(" %9s", "-")
			}
		}
		if both && v[0] != 0 {
			s += fmt.Sprintf(" %6.2fx", v[1]/v[0])
		} else if len(reports) == 2 {
			s += strings.Repeat(" ", 8)
		}
		return s
	}
	width := len(cell(""))
	fmt.Printf("\n%-34s", "")
	for _, c := range columns {
		fmt.Printf(" |%*s", width, c)
	}
	fmt.Println()
	for _, row := range slices.Sorted(maps.Keys(rows)) {
		fmt.Printf("%-34s", row)
		for _, c := range columns {
			fmt.Printf(" |%s", cell(row+"."+c))
		}
		fmt.Println()
	}
	fmt.Println()
	for _, k := range slices.Sorted(maps.Keys(single)) {
		fmt.Printf("%-58s%s\n", k, cell(k))
	}
}

func decimals(x float64) int {
	if x == float64(int(x)) {
		return 0
	}
	return 1
}
