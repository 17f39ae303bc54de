"""What a scenario is, and the program that runs them."""

import argparse
import re
import time
import traceback

from .case import Case
from .cluster import Cluster
from .deployment import driver_name
from .truth import Cloud, leftovers
from rig.terminal import end_in_order

SCENARIOS = []


class Skip(Exception):
    """This scenario cannot be had here; why."""


def scenario(title):
    """A function of one Case that fails by an exception. It runs in the order of the files."""
    def add(function):
        SCENARIOS.append((title, function))
        return function
    return add


def run(title, function, cluster, cloud):
    name = "t-" + re.sub("[^a-z0-9]+", "-", function.__name__.lower())[:40].strip("-")
    case = Case(cluster, cloud, name, driver_name(cluster))
    start = time.monotonic()
    try:
        with case:
            function(case)
    except Skip as reason:
        print("skip  %-66s %s" % (title, reason), flush=True)
        return "skipped"
    except Exception as problem:    # whatever it was, the others still run
        print("FAIL  %-66s %5.1f s" % (title, time.monotonic() - start))
        text = str(problem) if isinstance(problem, TimeoutError) else traceback.format_exc()
        print("      " + (text + "\n" + case.story).replace("\n", "\n      "), flush=True)
        return "failed"
    figures = "; ".join("%s %.1f s" % pair for pair in case.figures.items())
    print("ok    %-66s %5.1f s  %s" % (title, time.monotonic() - start, figures), flush=True)
    return "passed"


def nothing_is_left(cluster, cloud):
    left = leftovers(cluster, cloud)
    print("%s  nothing is left" % ("FAIL" if left else "ok  "), *left, sep="\n      ", flush=True)
    return "failed" if left else "passed"


def main(words):
    parser = argparse.ArgumentParser(prog="tests/cluster/scenarios")
    parser.add_argument("names", nargs="*", help="only scenarios whose title or function name has one of these words")
    parser.add_argument("--list", action="store_true", help="show them")
    options = parser.parse_args(words)
    chosen = [(title, function) for title, function in SCENARIOS
              if not options.names or any(n in title or n in function.__name__ for n in options.names)]
    if options.list:
        for title, function in chosen:
            print("%-40s %s" % (function.__name__, title))
        return 0
    end_in_order()
    cluster, cloud = Cluster(), Cloud()
    results = [run(title, function, cluster, cloud) for title, function in chosen]
    if not options.names:
        results.append(nothing_is_left(cluster, cloud))
    count = {result: results.count(result) for result in ("passed", "failed", "skipped")}
    print("%(passed)d passed, %(failed)d failed, %(skipped)d skipped" % count)
    return 1 if count["failed"] or not count["passed"] else 0
