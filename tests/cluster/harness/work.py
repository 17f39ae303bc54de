"""Whose work the machine does: seconds of its cores, by part."""

import os

PARTS = {
    "driver": ("fuxi-csi", "floor-csi", "cinder-csi-plugin"),
    "sidecars": ("csi-provisioner", "csi-attacher", "csi-resizer", "csi-snapshotter", "snapshot-controller", "livenessprobe",
                 "csi-node-driver-registrar"),
    "Kubernetes": ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"),
    "containers": ("containerd", "containerd-shim-runc-v2"),
}
TICK = os.sysconf("SC_CLK_TCK")


def part_of(words):
    name = os.path.basename(words[0])
    if "cloud_runtime.serve" in words or any(os.path.basename(word) == "relay.py" for word in words[:3]):
        return "OpenStack"
    return next((part for part, names in PARTS.items() if name in names), None)


def done():
    """{part: seconds} since each of its processes began, with what those have waited for; "all" is the whole machine's."""
    seconds = dict.fromkeys([*PARTS, "OpenStack"], 0.0)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid) as f:
                part = part_of(f.read().split("\0"))
            with open("/proc/%s/stat" % pid) as f:
                numbers = f.read().rsplit(")", 1)[1].split()
        except OSError:     # it has ended
            continue
        if part:
            seconds[part] += sum(map(int, numbers[11:15])) / TICK
    with open("/proc/stat") as f:
        user, nice, system, _, _, irq, softirq = map(int, f.readline().split()[1:8])
    seconds["all"] = (user + nice + system + irq + softirq) / TICK
    return seconds


def since(before):
    """What was done since then, in words."""
    now = done()
    spent = {part: now[part] - before[part] for part in now}
    known = " ".join("%s %.1f" % (part, spent[part]) for part in spent if part != "all")
    return "%.1f s of %d cores: %s, others %.1f" % (
        spent["all"], os.cpu_count(), known, spent["all"] - sum(s for part, s in spent.items() if part != "all"))
