"""Kubernetes' own end-to-end tests of CSI drivers, External.Storage, on the driver."""

import json
import os
import subprocess

from . import deployment
from .cluster import HERE, PROGRAM
from .truth import leftovers
from rig.terminal import say

FOLDER = os.path.join(HERE, "e2e")
# what is run in one go: its name, which specs, which of those not, how many at once
SELECTIONS = (
    ("usual", "External.Storage", r"Serial|Slow|Disruptive|Feature:", 4),
    ("slow", r"External.Storage.*Slow", r"Serial|Disruptive|Feature:", 4),
    ("serial", r"External.Storage.*(Serial|Disruptive)", r"Feature:", 1),
)


def run(cluster, cloud, names=None):
    """(passed, failed, skipped), of the selections of these names or of all."""
    deployment.install(cluster, cloud, os.path.join(FOLDER, "overlay"))
    cluster.kubectl("apply", "-f", os.path.join(FOLDER, "fuxi-cinder-class.yaml"))
    totals = [0, 0, 0]
    try:
        for name, focus, skip, at_once in SELECTIONS:
            if names and name not in names:
                continue
            passed, failed, skipped, seconds = selection(cluster, focus, skip, at_once)
            say("External.Storage, %s: %d passed, %d failed, %d skipped by declaration, %d s" % (
                name, passed, len(failed), skipped, seconds))
            for spec in failed:
                say("FAIL  " + spec)
            totals = [totals[0] + passed, totals[1] + len(failed), totals[2] + skipped]
        left = leftovers(cluster, cloud)
        say("%s  nothing is left after External.Storage" % ("FAIL" if left else "ok  "))
        for one in left:
            say("      " + one)
        totals[1 if left else 0] += 1
    finally:
        cluster.kubectl("delete", "-f", os.path.join(FOLDER, "fuxi-cinder-class.yaml"))
        deployment.install(cluster, cloud)
    return totals


def selection(cluster, focus, skip, at_once):
    report = os.path.join(cluster.state, "e2e", "report.json")
    if os.path.exists(report):
        os.unlink(report)
    log = os.path.join(cluster.state, "e2e.log")
    with open(log, "w") as out:
        subprocess.run([PROGRAM, "e2e", os.path.join(FOLDER, "fuxi-cinder.yaml"), "--json-report=report.json"],
                       stdout=out, stderr=subprocess.STDOUT,
                       env=dict(os.environ, E2E_FOCUS=focus, E2E_SKIP=skip, E2E_PROCS=str(at_once)))
    if not os.path.exists(report):
        raise RuntimeError("the suite did not run: see " + log)
    with open(report) as f:
        suites = json.load(f)
    passed, failed, skipped, seconds = 0, [], 0, 0
    for suite in suites:
        seconds += suite["RunTime"] / 1e9
        for spec in suite["SpecReports"] or ():
            if spec["LeafNodeType"] != "It":
                if spec["State"] not in ("passed", "skipped"):
                    failed.append("%s %s" % (spec["LeafNodeType"], spec.get("Failure", {}).get("Message", "")))
                continue
            # what neither focus nor skip let through was not chosen; what was chosen and skipped says why
            if spec["State"] == "passed":
                passed += 1
            elif spec["State"] == "skipped":
                skipped += bool(spec.get("Failure", {}).get("Message"))
            elif spec["State"] != "pending":
                failed.append(" ".join(spec["ContainerHierarchyTexts"] + [spec["LeafNodeText"]]))
    return passed, failed, skipped, seconds
