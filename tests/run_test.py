#!/usr/bin/env python3
"""tests/run counts what each runner of its stages says, and ends no stage before it has cleared up."""

import importlib.machinery
import importlib.util
import os
import signal
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.realpath(__file__))


def load(path):
    """The program at `path` as a module."""
    loader = importlib.machinery.SourceFileLoader("run", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("run", loader))
    sys.modules["run"] = module     # dataclasses look their own module up
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


runner = load(os.path.join(HERE, "run"))


def counted(*lines):
    result = runner.Result(stage=None)
    for line in lines:
        runner.count(result, line)
    return result.passed, result.failed, result.skipped


class Count(unittest.TestCase):
    def test_cargo(self):
        line = "test result: {}. {} passed; {} failed; {} ignored; 0 measured; 0 filtered out; finished in 0.01s"
        self.assertEqual(counted(line.format("ok", 3, 0, 1), line.format("FAILED", 2, 1, 0)), (5, 1, 1))

    def test_own_runners(self):
        self.assertEqual(counted("sanity: 85 passed, 0 failed, 17 skipped", "4 passed, 1 failed"), (89, 1, 17))

    def test_go(self):
        self.assertEqual(counted("--- PASS: TestOne (0.00s)", "    --- FAIL: TestOne/two (0.00s)", "PASS"), (1, 1, 0))

    def test_unittest_that_passes(self):
        self.assertEqual(counted("Ran 6 tests in 16.425s", "", "OK"), (6, 0, 0))

    def test_unittest_that_fails(self):
        self.assertEqual(counted("Ran 6 tests in 1.0s", "", "FAILED (failures=1, errors=1, skipped=2)"), (2, 2, 2))

    def test_unittest_whose_set_up_failed(self):
        self.assertEqual(counted("Ran 0 tests in 0.0s", "", "FAILED (errors=1)"), (0, 1, 0))

    def test_a_word_alone_is_no_result(self):
        self.assertEqual(counted("OK", "FAILED", "Ran out of disk"), (0, 0, 0))


class End(unittest.TestCase):
    """A run whose only stage waits for its end, and then says that it clears up."""

    RUN = """
import sys
sys.path.insert(0, {here!r})
from run_test import runner
runner.STAGES = [runner.Stage("waiting", "it waits", [sys.executable, "-uc", {stage!r}], ()),
                 runner.Stage("next", "it must not run", ["echo", "went on"], ())]
sys.argv = ["run"]
sys.exit(runner.main())
"""
    STAGE = """
import time
try:
    print("ready")
    time.sleep(600)
except KeyboardInterrupt:
    time.sleep(0.3)
    print("cleared up")
"""

    def ended_by(self, tell):
        """Exit code and last words of a run that is told to end by `tell`, once its stage waits."""
        with subprocess.Popen([sys.executable, "-c", self.RUN.format(here=HERE, stage=self.STAGE)],
                              stdout=subprocess.PIPE, text=True, process_group=0) as process:
            while process.stdout.readline() != "ready\n":
                self.assertIsNone(process.poll())
            tell(process)
            said = process.stdout.read()
        return process.returncode, said

    def test_a_stage_clears_up_when_the_run_is_terminated(self):
        code, said = self.ended_by(lambda process: process.terminate())
        self.assertIn("cleared up", said)
        self.assertNotIn("went on", said)
        self.assertEqual(code, 128 + signal.SIGTERM)

    def test_a_stage_clears_up_when_a_terminal_interrupts_it(self):
        code, said = self.ended_by(lambda process: os.killpg(process.pid, signal.SIGINT))
        self.assertIn("cleared up", said)
        self.assertNotIn("went on", said)
        self.assertEqual(code, 128 + signal.SIGINT)


if __name__ == "__main__":
    unittest.main()
