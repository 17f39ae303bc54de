"""Fault injection for the out-of-tree drivers.

A test writes JSON to $CLOUD_STATE/faults/<name>.json, for example

    {"create_volume": {"delay": 5},
     "delete_volume": {"error": "array on fire", "count": 1}}

and the next matching driver call sleeps and/or raises.  "count" is how many
calls are hit (default: all, until the file is removed).
"""

import json
import os
import threading
import time

_lock = threading.Lock()


def path(name):
    return os.path.join(os.environ["CLOUD_STATE"], "faults", name + ".json")


def hit(name, op):
    """Return None or (delay_seconds, error_or_None) for this call."""
    p = path(name)
    if not os.path.exists(p):
        return None
    with _lock:
        try:
            with open(p) as f:
                table = json.load(f)
        except (OSError, ValueError):
            return None
        rule = table.get(op)
        if not rule:
            return None
        if "count" in rule:
            if rule["count"] <= 0:
                return None
            rule["count"] -= 1
            tmp = p + ".tmp"
            with open(tmp, "w") as f:
                json.dump(table, f)
            os.replace(tmp, p)
    return float(rule.get("delay", 0)), rule.get("error")


def check(name, op, exc=RuntimeError):
    r = hit(name, op)
    if r:
        delay, error = r
        if delay:
            time.sleep(delay)
        if error:
            raise exc(error)
