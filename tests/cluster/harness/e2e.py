"""Kubernetes' own end-to-end tests of CSI drivers, External.Storage, on the driver."""

import collections
import json
import os
import re
import subprocess

from . import deployment
from .cluster import HERE, PROGRAM
from .truth import leftovers
from rig.terminal import say

FOLDER = os.path.join(HERE, "e2e")
PROVIDERS = ("cinder", "manila")
# what is run in one go: its name, which specs, which of those not, how many at once
SELECTIONS = (
    ("usual", "External.Storage", r"Serial|Slow|Disruptive|Feature:", 4),
    ("slow", r"External.Storage.*Slow", r"Serial|Disruptive|Feature:", 4),
    # a populator's spec waits for images of a registry
    ("serial", r"External.Storage.*(Serial|Disruptive)", r"Feature:|any volume data source", 1),
)


def run(cluster, cloud, words=()):
    """(passed, failed, skipped), of the providers and selections that the words name; without, of all."""
    totals = [0, 0, 0]
    for provider in PROVIDERS:
        if provider in words or not set(PROVIDERS) & set(words):
            totals = [a + b for a, b in zip(totals, of(provider, cluster, cloud, words), strict=True)]
    return totals


def of(provider, cluster, cloud, words):
    overlay = os.path.join(FOLDER, provider)
    if provider == "cinder":
        deployment.install(cluster, cloud, overlay)
    else:
        deployment.add_shares(cluster, cloud, overlay)
    cluster.kubectl("apply", "-f", os.path.join(FOLDER, "fuxi-%s-class.yaml" % provider))
    totals, names = [0, 0, 0], {s[0] for s in SELECTIONS} & set(words)
    try:
        for name, focus, skip, at_once in SELECTIONS:
            if names and name not in names:
                continue
            passed, failed, skipped, seconds = selection(provider, cluster, focus, skip, at_once)
            say("External.Storage, %s, %s: %d passed, %d failed, %d skipped, %d s" % (
                provider, name, passed, len(failed), sum(skipped.values()), seconds))
            for why, times in skipped.most_common():
                say("      skipped %3d: %s" % (times, why))
            for spec in failed:
                say("FAIL  " + spec)
            totals = [totals[0] + passed, totals[1] + len(failed), totals[2] + sum(skipped.values())]
        left = leftovers(cluster, cloud)
        say("%s  nothing is left after External.Storage" % ("FAIL" if left else "ok  "))
        for one in left:
            say("      " + one)
        totals[1 if left else 0] += 1
    finally:
        cluster.kubectl("delete", "-f", os.path.join(FOLDER, "fuxi-%s-class.yaml" % provider))
        if provider == "cinder":
            deployment.install(cluster, cloud)
        else:
            deployment.remove(cluster, overlay, provider)
    return totals


def reason(message):
    """Why a spec was skipped, without what differs from one to the next of the same kind."""
    return re.sub(r'"[^"]*"|\d+', "...", message.strip().split("\n")[0])[:110]


def selection(provider, cluster, focus, skip, at_once):
    report = os.path.join(cluster.state, "e2e", "report.json")
    if os.path.exists(report):
        os.unlink(report)
    log = os.path.join(cluster.state, "e2e.log")
    with open(log, "w") as out:
        subprocess.run([PROGRAM, "e2e", os.path.join(FOLDER, "fuxi-%s.yaml" % provider), "--json-report=report.json"],
                       stdout=out, stderr=subprocess.STDOUT,
                       env=dict(os.environ, E2E_FOCUS=focus, E2E_SKIP=skip, E2E_PROCS=str(at_once)))
    if not os.path.exists(report):
        raise RuntimeError("the suite did not run: see " + log)
    with open(report) as f:
        suites = json.load(f)
    passed, failed, skipped, seconds = 0, [], collections.Counter(), 0
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
                if message := spec.get("Failure", {}).get("Message"):
                    skipped[reason(message)] += 1
            elif spec["State"] != "pending":
                failed.append(" ".join(spec["ContainerHierarchyTexts"] + [spec["LeafNodeText"]]))
    return passed, failed, skipped, seconds
