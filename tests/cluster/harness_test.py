#!/usr/bin/env python3
"""What the scenarios stand on, as far as it needs no cluster."""

import io
import os
import sys
import unittest
import urllib.error

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
from harness.cluster import reason      # noqa: E402


class Reason(unittest.TestCase):
    def reason(self, body):
        return reason(urllib.error.HTTPError("https://api", 404, "Not Found", {}, io.BytesIO(body)))

    def test_what_the_api_server_says_of_an_object(self):
        self.assertEqual(self.reason(b'{"kind":"Status","message":"pods \\"p\\" not found"}'), 'pods "p" not found')

    def test_plain_text_for_a_kind_that_is_not_served_yet(self):
        self.assertEqual(self.reason(b"404 page not found\n"), "404 page not found")

    def test_nothing_said(self):
        self.assertEqual(self.reason(b""), "HTTP Error 404: Not Found")


if __name__ == "__main__":
    unittest.main()
