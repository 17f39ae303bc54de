#!/usr/bin/env python3
"""tests/run counts what each runner of its stages says."""

import importlib.machinery
import importlib.util
import os
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


if __name__ == "__main__":
    unittest.main()
