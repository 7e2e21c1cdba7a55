"""How soon the first page can be used on a slow machine and a slow line, and how much of it travels.

    python -m matrix report --out /tmp/reports && python benchmarks/page.py /tmp/reports

Opens the first page in Chromium with a quarter of this processor, at 1.6 Mb/s and 40 ms, from a server that compresses
nothing, several times. Prints the milliseconds until the look-up answers, of each visit, beside what an empty page
takes on the same emulated machine, and the page's compressed size. It ends with 1 where a budget is broken.

Milliseconds are only worth something on an idle machine: the load of this one is printed beside them, and a run at a
load above 1 a processor judges the size alone.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import http.server
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

USABLE_MS, COMPRESSED = 1000, 60_000
LINE = {"offline": False, "latency": 40, "downloadThroughput": 1.6e6 / 8, "uploadThroughput": 0.75e6 / 8}
EMPTY = "<!doctype html><title>empty</title><p>empty</p><script>performance.mark('answered')</script>"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base
        pass


def visit(browser: Any, address: str) -> float:
    """Milliseconds until the page's script has run, which answers the pair that is selected first."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    client = context.new_cdp_session(page)
    client.send("Network.enable")
    client.send("Network.emulateNetworkConditions", LINE)
    client.send("Emulation.setCPUThrottlingRate", {"rate": 4})
    page.goto(address)
    milliseconds = float(page.evaluate("performance.getEntriesByName('answered')[0].startTime"))
    context.close()
    return milliseconds


def measure(folder: Path, visits: int) -> dict[str, list[float]]:
    """The visits of the page and of an empty one, in turns."""
    from playwright.sync_api import sync_playwright

    found: dict[str, list[float]] = {"page": [], "empty": []}
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as api:
        shutil.copyfile(folder / "index.html", Path(temporary) / "page.html")
        (Path(temporary) / "empty.html").write_text(EMPTY, encoding="utf-8")
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=temporary))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = api.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        for _ in range(visits):
            for name, times in found.items():
                times.append(visit(browser, f"http://127.0.0.1:{server.server_port}/{name}.html"))
        browser.close()
        server.shutdown()
    return found


def main() -> int:
    """Measure, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path, help="the folder of a built site")
    parser.add_argument("--visits", type=int, default=7)
    options = parser.parse_args()
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    compressed = len(gzip.compress((options.site / "index.html").read_bytes(), 6))
    times = measure(options.site, options.visits)
    median = {name: statistics.median(each) for name, each in times.items()}
    idle = load <= 1
    good = compressed <= COMPRESSED and (median["page"] <= USABLE_MS or not idle)
    result = {
        "compressed_bytes": compressed,
        "compressed_budget": COMPRESSED,
        "usable_ms": sorted(round(each) for each in times["page"]),
        "empty_ms": sorted(round(each) for each in times["empty"]),
        "median_ms": round(median["page"]),
        "budget_ms": USABLE_MS,
        "times_the_empty_page": round(median["page"] / median["empty"], 2),
        "load_a_processor": round(load, 2),
        "milliseconds_judged": idle,
        "within_budget": good,
    }
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
