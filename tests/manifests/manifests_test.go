// Package manifests holds deploy/ to its promises without a cluster: the Helm chart renders the objects of the kustomize
// overlays, and every pod has the rights that docs/install.md says, no more.
package manifests

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"sort"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const deploy = "../../deploy"

type object map[string]any

func output(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	var complaint bytes.Buffer
	command := exec.Command(name, args...)
	// tools without C build faster, and are the same everywhere
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	command.Stderr = &complaint
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, complaint.String())
	}
	return out
}

// objects gives the documents of a YAML stream by kind, namespace and name.
func objects(t *testing.T, stream []byte) map[string]object {
	t.Helper()
	all := map[string]object{}
	for _, text := range strings.Split("\n"+string(stream), "\n---") {
		one := object{}
		if err := yaml.Unmarshal([]byte(text), &one); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if len(one) == 0 {
			continue
		}
		meta := one["metadata"].(map[string]any)
		namespace, _ := meta["namespace"].(string)
		key := strings.Join([]string{one["kind"].(string), namespace, meta["name"].(string)}, "/")
		if _, twice := all[key]; twice {
			t.Errorf("%s is there twice", key)
		}
		all[key] = one
	}
	return all
}

func kustomized(t *testing.T, folder string) map[string]object {
	t.Helper()
	return objects(t, output(t, "go", "tool", "kustomize", "build", folder))
}

func charted(t *testing.T, values ...string) map[string]object {
	t.Helper()
	args := []string{"tool", "helm", "template", "fuxi-csi", filepath.Join(deploy, "charts/fuxi-csi"), "--namespace", "kube-system", "--kube-version", "1.36.0"}
	for _, value := range values {
		args = append(args, "--set", value)
	}
	return objects(t, output(t, "go", args...))
}

func keys(all map[string]object) []string {
	var names []string
	for name := range all {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

func same(t *testing.T, chart, overlay map[string]object) {
	t.Helper()
	if !reflect.DeepEqual(keys(chart), keys(overlay)) {
		t.Errorf("the chart has\n%s\nthe overlay\n%s", strings.Join(keys(chart), "\n"), strings.Join(keys(overlay), "\n"))
	}
	for name := range overlay {
		a, _ := json.MarshalIndent(chart[name], "", " ")
		b, _ := json.MarshalIndent(overlay[name], "", " ")
		if !bytes.Equal(a, b) {
			t.Errorf("%s differs: the chart has\n%s\nthe overlay\n%s", name, a, b)
		}
	}
}

func TestTheChartRendersTheOvercloudOverlay(t *testing.T) {
	same(t, charted(t), kustomized(t, filepath.Join(deploy, "csi/overlays/overcloud")))
}

func TestTheChartRendersTheOverlayInThePlaceOfCinderCsi(t *testing.T) {
	same(t, charted(t, "driverName=cinder.csi.openstack.org", "classes.enabled=false"),
		kustomized(t, filepath.Join(deploy, "csi/overlays/cinder-csi")))
}

func TestTheChartRendersTheUndercloudOverlay(t *testing.T) {
	same(t, charted(t, "attach=host"), kustomized(t, filepath.Join(deploy, "csi/overlays/undercloud")))
}

func TestTheChartRendersTheManilaOverlay(t *testing.T) {
	same(t, charted(t, "provider=manila"), kustomized(t, filepath.Join(deploy, "csi/overlays/manila")))
}

func TestTheChartRendersTheOverlaysInThePlaceOfManilaCsi(t *testing.T) {
	for protocol, port := range map[string]string{"nfs": "29654", "cephfs": "29655"} {
		same(t, charted(t, "provider=manila", "nameSuffix=-"+protocol, "driverName="+protocol+".manila.csi.openstack.org",
			"classes.enabled=false", "classSecrets=true", "fsGroupPolicy=None", "node.healthPort="+port),
			kustomized(t, filepath.Join(deploy, "csi/overlays/manila-csi", protocol)))
	}
}

func TestTheChartRendersTheComponents(t *testing.T) {
	same(t, charted(t, "storageCapacity=true", "classSecrets=true"), kustomized(t, "all-components"))
}

// withComponents builds an overlay as a user's own kustomization adds components to it.
func withComponents(t *testing.T, overlay string, components ...string) map[string]object {
	t.Helper()
	folder, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	from := func(path string) string {
		absolute, err := filepath.Abs(filepath.Join(deploy, "csi", path))
		if err != nil {
			t.Fatal(err)
		}
		relative, err := filepath.Rel(folder, absolute)
		if err != nil {
			t.Fatal(err)
		}
		return relative
	}
	text := "resources: [" + from(filepath.Join("overlays", overlay)) + "]\ncomponents:\n"
	for _, component := range components {
		text += "  - " + from(filepath.Join("components", component)) + "\n"
	}
	if err := os.WriteFile(filepath.Join(folder, "kustomization.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return kustomized(t, folder)
}

func TestAnOlderKubernetesGetsNoFieldThatItDoesNotKnow(t *testing.T) {
	rendered := map[string]map[string]object{"chart": objects(t, output(t, "go", "tool", "helm", "template",
		"fuxi-csi", filepath.Join(deploy, "charts/fuxi-csi"), "--kube-version", "1.29.0"))}
	for _, overlay := range overlays {
		rendered[overlay] = withComponents(t, overlay, "before-1.33")
	}
	for what, all := range rendered {
		drivers := 0
		for _, one := range all {
			if one["kind"] != "CSIDriver" {
				continue
			}
			drivers++
			spec := one["spec"].(map[string]any)
			if _, has := spec["nodeAllocatableUpdatePeriodSeconds"]; has || spec["attachRequired"] != true {
				t.Errorf("%s: %v", what, spec)
			}
		}
		if drivers != 1 {
			t.Errorf("%s has %d drivers", what, drivers)
		}
	}
}

func TestAnOtherFolderOfTheKubeletIsTheOnlyOneThatTheNodeKnows(t *testing.T) {
	for name, one := range charted(t, "kubeletDir=/var/lib/k0s/kubelet") {
		if one["kind"] != "DaemonSet" {
			continue
		}
		text, _ := json.Marshal(one)
		if strings.Contains(string(text), "/var/lib/kubelet") {
			t.Errorf("%s: %s", name, text)
		}
	}
}

func TestTheNodeKeepsItsRecordsInItsOwnFolderOfTheKubelet(t *testing.T) {
	ofAll(t, func(t *testing.T, it driver) {
		folder := ""
		for _, each := range it.node["volumes"].([]any) {
			if volume := each.(map[string]any); volume["name"] == "plugin" {
				folder = volume["hostPath"].(map[string]any)["path"].(string)
			}
		}
		env := map[string]any{}
		for _, each := range containers(it.node)["fuxi-csi"]["env"].([]any) {
			one := each.(map[string]any)
			env[one["name"].(string)] = one["value"]
		}
		if folder == "" || env["FUXI_CSI_PLUGIN_DIR"] != folder || !strings.HasSuffix(folder, "/"+env["FUXI_CSI_DRIVER_NAME"].(string)) {
			t.Errorf("%v, mounted from %s", env, folder)
		}
	})
}

func TestSidecarsReadOnlyTheSecretsThatTheyAreTold(t *testing.T) {
	for what, all := range map[string]map[string]object{
		"nfs": kustomized(t, filepath.Join(deploy, "csi/overlays/manila-csi/nfs")), "components": kustomized(t, "all-components"),
		"cephfs": kustomized(t, filepath.Join(deploy, "csi/overlays/manila-csi/cephfs"))} {
		found := 0
		for name, one := range all {
			rules, _ := one["rules"].([]any)
			for _, each := range rules {
				rule := each.(map[string]any)
				if !reflect.DeepEqual(rule["resources"], []any{"secrets"}) {
					continue
				}
				found++
				if !reflect.DeepEqual(rule["verbs"], []any{"get"}) {
					t.Errorf("%s: %s may %v secrets", what, name, rule["verbs"])
				}
			}
		}
		if found != 1 {
			t.Errorf("%s: %d rules about secrets", what, found)
		}
	}
}

func TestTheChartWithoutSnapshotsHasNothingOfThem(t *testing.T) {
	for name, one := range charted(t, "sidecars.snapshotter.enabled=false") {
		text, _ := json.Marshal(one)
		if strings.Contains(name, "napshot") || strings.Contains(string(text), "csi-snapshotter") {
			t.Errorf("%s", name)
		}
	}
}

func TestTheChartRefusesValuesThatItDoesNotKnow(t *testing.T) {
	for value, word := range map[string]string{
		"controler.replicas=1":                "controler",
		"sidecars.resizer.enabled=false":      "enabled",
		"sidecars.livenessprobe.args={--v=5}": "args",
		"sidecars.registrar.enabled=false":    "enabled",
		"sidecars.snapshotter.replicas=1":     "replicas",
	} {
		refused := exec.Command("go", "tool", "helm", "template", "x", filepath.Join(deploy, "charts/fuxi-csi"),
			"--kube-version", "1.36.0", "--set", value)
		refused.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := refused.CombinedOutput()
		if err == nil || !strings.Contains(string(out), word) {
			t.Errorf("%s: %v: %s", value, err, out)
		}
	}
}

// podSpec gives what a Deployment or DaemonSet runs.
func podSpec(one object) map[string]any {
	return one["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)
}

func containers(spec map[string]any) map[string]map[string]any {
	all := map[string]map[string]any{}
	for _, each := range spec["containers"].([]any) {
		container := each.(map[string]any)
		all[container["name"].(string)] = container
	}
	return all
}

func mounts(container map[string]any) map[string]bool {
	all := map[string]bool{}
	for _, each := range container["volumeMounts"].([]any) {
		all[each.(map[string]any)["name"].(string)] = true
	}
	return all
}

// overlays are those that users apply.
var overlays = []string{"overcloud", "undercloud", "manila", "cinder-csi", "manila-csi/nfs", "manila-csi/cephfs"}

// driver is what an overlay installs.
type driver struct {
	objects          map[string]object
	controller, node map[string]any
}

func installed(t *testing.T, overlay string) driver {
	t.Helper()
	it := driver{objects: kustomized(t, filepath.Join(deploy, "csi/overlays", overlay))}
	for _, one := range it.objects {
		switch one["kind"] {
		case "Deployment":
			it.controller = podSpec(one)
		case "DaemonSet":
			it.node = podSpec(one)
		}
	}
	if it.controller == nil || it.node == nil {
		t.Fatalf("%s has\n%s", overlay, strings.Join(keys(it.objects), "\n"))
	}
	return it
}

// ofAll runs a test for each overlay.
func ofAll(t *testing.T, test func(*testing.T, driver)) {
	for _, overlay := range overlays {
		t.Run(strings.ReplaceAll(overlay, "/", "-"), func(t *testing.T) { test(t, installed(t, overlay)) })
	}
}

func TestOnlyTheDriverOfTheControllerGetsTheCredentialAndOnlyItsSidecarsTheToken(t *testing.T) {
	ofAll(t, func(t *testing.T, it driver) {
		for name, container := range containers(it.controller) {
			has := mounts(container)
			if has["cloud-config"] != (name == "fuxi-csi") {
				t.Errorf("credential in %s: %v", name, has["cloud-config"])
			}
			if want := strings.HasPrefix(name, "csi-"); has["token"] != want {
				t.Errorf("token in %s: %v", name, has["token"])
			}
		}
		text, _ := json.Marshal(it.node)
		if strings.Contains(string(text), "secret") || strings.Contains(string(text), "projected") {
			t.Error("the node's pods have a secret")
		}
		for _, spec := range []map[string]any{it.controller, it.node} {
			if spec["automountServiceAccountToken"] != false {
				t.Errorf("%v mounts the token everywhere", spec["serviceAccountName"])
			}
		}
	})
}

func TestTheControllerTouchesNothingOfItsHost(t *testing.T) {
	ofAll(t, func(t *testing.T, it driver) {
		for _, key := range []string{"hostNetwork", "hostPID", "hostIPC"} {
			if it.controller[key] != nil {
				t.Errorf("%s", key)
			}
		}
		for _, each := range it.controller["volumes"].([]any) {
			if each.(map[string]any)["hostPath"] != nil {
				t.Errorf("a path of the host: %v", each)
			}
		}
		if it.controller["securityContext"].(map[string]any)["runAsNonRoot"] != true {
			t.Error("may run as root")
		}
		for name, container := range containers(it.controller) {
			context := container["securityContext"].(map[string]any)
			if context["readOnlyRootFilesystem"] != true || context["allowPrivilegeEscalation"] != false || context["privileged"] != nil {
				t.Errorf("%s: %v", name, context)
			}
		}
	})
}

func TestOnlyTheDriverOfTheNodeIsPrivileged(t *testing.T) {
	ofAll(t, func(t *testing.T, it driver) {
		for name, container := range containers(it.node) {
			context := container["securityContext"].(map[string]any)
			if (context["privileged"] == true) != (name == "fuxi-csi") || context["readOnlyRootFilesystem"] != true {
				t.Errorf("%s: %v", name, context)
			}
		}
	})
}

func TestTheNodeSeesOfItsHostWhatItNeeds(t *testing.T) {
	usual := []string{"/var/lib/kubelet", "/var/lib/kubelet/plugins_registry"}
	hosts := append([]string{"/dev", "/etc/iscsi", "/etc/multipath", "/etc/nvme", "/lib/modules", "/run",
		"/usr/libexec/fuxi-csi/connectors", "/var/lib/iscsi"}, usual...)
	want := map[string][]string{"overcloud": append([]string{"/dev"}, usual...), "cinder-csi": append([]string{"/dev"}, usual...),
		"undercloud": hosts, "manila": usual, "manila-csi/nfs": usual, "manila-csi/cephfs": usual}
	for _, overlay := range overlays {
		var seen []string
		for _, each := range installed(t, overlay).node["volumes"].([]any) {
			if path, ok := each.(map[string]any)["hostPath"].(map[string]any); ok {
				if name := path["path"].(string); !strings.HasPrefix(name, "/var/lib/kubelet/plugins/") {
					seen = append(seen, name)
				}
			}
		}
		sort.Strings(seen)
		if !reflect.DeepEqual(seen, want[overlay]) {
			t.Errorf("%s: %v", overlay, seen)
		}
	}
}

func TestEveryContainerSaysWhatItNeedsAndWhichImageItIs(t *testing.T) {
	ofAll(t, func(t *testing.T, it driver) {
		for _, spec := range []map[string]any{it.controller, it.node} {
			for name, container := range containers(spec) {
				resources := container["resources"].(map[string]any)
				if resources["requests"] == nil || resources["limits"].(map[string]any)["memory"] == nil {
					t.Errorf("%s: %v", name, resources)
				}
				_, tag, found := strings.Cut(filepath.Base(container["image"].(string)), ":")
				if !found || tag == "latest" {
					t.Errorf("%s: image %v", name, container["image"])
				}
			}
		}
	})
}

func TestTheSidecarsAreThoseThatTheClusterOfTheTestsRuns(t *testing.T) {
	modules, err := os.ReadFile("../cluster/components/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	ofAll(t, func(t *testing.T, it driver) {
		for name, container := range containers(it.controller) {
			// livenessprobe and the registrar cannot be had as modules
			if module, ok := strings.CutPrefix(name, "csi-"); ok {
				_, tag, _ := strings.Cut(filepath.Base(container["image"].(string)), ":")
				major, _, _ := strings.Cut(tag, ".")
				if want := "kubernetes-csi/external-" + module + "/" + major + " " + tag + " "; !strings.Contains(string(modules), want) {
					t.Errorf("go.mod has no %s", want)
				}
				seen++
			}
		}
	})
	if seen != 4*len(overlays) {
		t.Errorf("%d sidecars", seen)
	}
}

func TestTheImageIsMadeOfWhatIsThereAndOfWhatTheDriverNeedsToBuild(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(deploy, "csi/Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	copied := map[string]bool{}
	for _, line := range strings.Split(string(text), "\n") {
		words := strings.Fields(line)
		if len(words) < 3 || words[0] != "COPY" || strings.HasPrefix(words[1], "--from") {
			continue
		}
		for _, source := range words[1 : len(words)-1] {
			if _, err := os.Stat(filepath.Join("../..", source)); err != nil {
				t.Error(err)
			}
			copied[source] = true
		}
	}
	for _, source := range []string{".cargo", "Cargo.lock", "Cargo.toml", "build.rs", "proto", "src", "deploy/csi/image"} {
		if !copied[source] {
			t.Errorf("the Dockerfile does not copy %s", source)
		}
	}
}

// programs gives what deploy/csi/image/programs lists.
func programs(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(deploy, "csi/image/programs"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, line := range strings.Split(string(text), "\n") {
		line, _, _ = strings.Cut(line, "#")
		if words := strings.Fields(line); len(words) > 1 {
			for _, name := range words[1:] {
				all[name] = true
			}
		}
	}
	return all
}

// called finds the programs that the driver's source names.
var called = regexp.MustCompile(`Command::new\("([a-z0-9.]+)"\)|mkfs: "([a-z0-9.]+)"|NFS_HELPER: &str = "([a-z.]+)"`)

func TestTheImageHasEveryProgramThatTheDriverCalls(t *testing.T) {
	has, seen := programs(t), map[string]bool{}
	err := filepath.WalkDir("../../src/node", func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".rs") || strings.Contains(path, "/tests") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		// what comes after is of the unit tests
		source, _, _ := strings.Cut(string(text), "#[cfg(test)]\nmod tests {")
		for _, match := range called.FindAllStringSubmatch(source, -1) {
			name := match[1] + match[2] + match[3]
			seen[name] = true
			if !has[name] {
				t.Errorf("%s calls %s, which deploy/csi/image/programs has not", path, name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"blkid", "mkfs.ext4", "iscsiadm", "multipathd", "mount.nfs"} {
		if !seen[name] {
			t.Errorf("the source is not read right: it calls %s", name)
		}
	}
}

// The steps of the Dockerfile's last stages, without docker: what comes out starts.
func TestEveryProgramOfTheImageStartsInIt(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, tool := range []string{"apt-get", "dpkg-deb", "chroot"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs Debian's packages: ", err)
		}
	}
	folder := t.TempDir()
	image, unpacked, root := filepath.Join(deploy, "csi/image"), filepath.Join(folder, "unpacked"), filepath.Join(folder, "root")
	output(t, filepath.Join(image, "unpack"), filepath.Join(image, "programs"), unpacked)
	t.Setenv("UNPACKED", unpacked)
	output(t, filepath.Join(image, "collect"), filepath.Join(image, "programs"), root)
	for name := range programs(t) {
		if strings.HasPrefix(name, "/") {
			if _, err := os.Stat(filepath.Join(root, name)); err != nil {
				t.Error(err)
			}
			continue
		}
		// most do not know the option, and say so; the loader's words and codes are others
		out, err := exec.Command("chroot", root, "/usr/sbin/"+name, "--version").CombinedOutput()
		var code *exec.ExitError
		if errors.As(err, &code) && (code.ExitCode() >= 126 || code.ExitCode() < 0) || err != nil && code == nil || strings.Contains(string(out), "shared librar") {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
	for _, none := range []string{"/bin/sh", "/usr/bin/sh", "/usr/bin/dpkg"} {
		if _, err := os.Stat(filepath.Join(root, none)); err == nil {
			t.Errorf("the image has %s", none)
		}
	}
}

func TestDriversBesideEachOtherHaveNamesAndPortsOfTheirOwn(t *testing.T) {
	seen := map[string]string{}
	for _, overlay := range []string{"overcloud", "manila", "manila-csi/nfs", "manila-csi/cephfs"} {
		it := installed(t, overlay)
		names := keys(it.objects)
		probe := containers(it.node)["fuxi-csi"]["livenessProbe"].(map[string]any)["httpGet"].(map[string]any)
		port, _ := json.Marshal(probe["port"])
		args, _ := json.Marshal(containers(it.node)["livenessprobe"]["args"])
		if !strings.Contains(string(args), ":"+string(port)+`"`) {
			t.Errorf("%s: the kubelet asks port %s, livenessprobe has %s", overlay, port, args)
		}
		for _, name := range append(names, "port "+string(port)) {
			if other, twice := seen[name]; twice {
				t.Errorf("%s: of %s and of %s", name, other, overlay)
			}
			seen[name] = overlay
		}
	}
}

func TestNoRoleMayDoEverythingAndOnlyManilaCsisClassesLetSecretsBeRead(t *testing.T) {
	ofAll(t, func(t *testing.T, it driver) {
		for name, one := range it.objects {
			if rules, ok := one["rules"]; ok {
				text, _ := json.Marshal(rules)
				if strings.Contains(string(text), `"*"`) ||
					strings.Contains(string(text), `"secrets"`) != strings.HasPrefix(name, "ClusterRole//fuxi-csi-manila-class-secrets-") {
					t.Errorf("%s: %s", name, text)
				}
			}
		}
	})
}

func TestEveryExampleIsOfThisDriverOrItsClasses(t *testing.T) {
	classes := map[string]bool{"": true}
	drivers := map[any]bool{"cinder.fuxi.openstack.org": true, "manila.fuxi.openstack.org": true}
	for _, provider := range []string{"cinder", "manila"} {
		for _, one := range kustomized(t, filepath.Join(deploy, "csi", provider+"-classes")) {
			classes[one["metadata"].(map[string]any)["name"].(string)] = true
		}
	}
	files, _ := filepath.Glob(filepath.Join(deploy, "csi/examples/*.yaml"))
	if len(files) < 10 {
		t.Fatalf("examples: %v", files)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all := objects(t, text)
		for _, one := range all {
			if one["kind"] == "StorageClass" {
				classes[one["metadata"].(map[string]any)["name"].(string)] = true
				if !drivers[one["provisioner"]] {
					t.Errorf("%s: %v", file, one["provisioner"])
				}
			}
		}
		for name, one := range all {
			spec, _ := one["spec"].(map[string]any)
			for _, key := range []string{"storageClassName", "volumeSnapshotClassName"} {
				if class, ok := spec[key].(string); ok && !classes[class] {
					t.Errorf("%s of %s: there is no class %s", name, file, class)
				}
			}
		}
	}
}
