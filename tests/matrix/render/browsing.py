"""What the tests that open the site in a real browser share."""

from __future__ import annotations

import http.server
import shutil
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
MASKS = "AssertionError: Current active mode <proxy_tensor.ProxyTorchDispatchMode object at 0x7fb8> not registered"
SLOW = {"offline": False, "latency": 40, "downloadThroughput": 1.6e6 / 8, "uploadThroughput": 0.75e6 / 8}
DESKTOP, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}
BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH"),
    # Playwright's own loop closes after the test that used it last.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and says nothing about it."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base
        pass


def fits(page: Any) -> bool:
    """Whether nothing but the inside of a region scrolls sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))
