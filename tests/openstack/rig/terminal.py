"""Lines for the reader, and an orderly end on Ctrl-C."""

import os
import signal
import subprocess
import sys
import threading
import time

# how long an interrupted program may take to undo what it did
UNDO_SECONDS = 120
PROGRAM = "/".join(os.path.realpath(sys.argv[0]).split("/")[-2:])


def say(text=""):
    print(text, flush=True)


def fail(text):
    sys.exit("%s: %s" % (PROGRAM, text))


def quote(line):
    """A line of a program that we run."""
    say(("   | " + line).rstrip())


def strong(text):
    """Bold on a terminal."""
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        return "\033[1m%s\033[0m" % text
    return text


def indented(text, by="    "):
    return "".join(by + line if line.strip() else line for line in text.splitlines(True))


def tail(path, lines=20):
    with open(path, errors="replace") as f:
        return indented("".join(f.readlines()[-lines:]))


def new_folder(parent):
    """For the logs of this run; its name sorts by time."""
    folder = os.path.join(parent, time.strftime("run-%Y%m%d-%H%M%S-") + str(os.getpid()))
    os.makedirs(folder)
    return folder


def end_in_order():
    """Let the first Ctrl-C or SIGTERM end us through every context; further ones do not disturb that."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end(number, _):
        # ignored, not handled: the programs that clean up inherit it
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        say("\n%s: interrupted, cleaning up" % PROGRAM)
        sys.exit(128 + number)

    for each in signals:
        signal.signal(each, end)


def run_shown(command, show, log_path=None, env=None):
    """Run a program, show its lines as they come, keep them in a file; its exit code.

    When we are interrupted the program gets SIGINT, once, and time to undo what it did.
    """
    with open(log_path or os.devnull, "a") as log:
        # a session of its own: the terminal's Ctrl-C comes from us only
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True, errors="replace",
                                   start_new_session=True)

        def follow():
            for line in process.stdout:
                log.write(line)
                show(line.rstrip("\n"))
        try:
            follow()
        except BaseException:
            process.send_signal(signal.SIGINT)
            killer = threading.Timer(UNDO_SECONDS, process.kill)
            killer.start()
            try:
                follow()
            finally:
                killer.cancel()
            raise
        finally:
            process.wait()
            process.stdout.close()
    return process.returncode
