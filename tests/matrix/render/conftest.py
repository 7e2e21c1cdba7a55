"""One small site for the tests that read it and for those that walk it in a browser."""

from __future__ import annotations

import dataclasses
import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from matrix.cells import axes as axes_module
from matrix.cells.axes import Axes
from matrix.judge.baseline import Baseline, BaselineRow
from matrix.judge.publications import publication
from matrix.judge.table import judge_table, table_of
from matrix.records import parquet
from matrix.records.lines import CellRun, Record, Selection
from matrix.records.optin import joined
from matrix.render.grid import Results, results
from matrix.render.site import build
from tests.matrix.factories import record, run
from tests.matrix.render.browsing import CHROMIUM, DESKTOP, FLAGS, PHONE, Quiet

NASTY = '<img src=x onerror=alert(1)> & "quotes" </pre></script><script>alert(2)</script> \x07\x1b[31m\ud800'
PATCHED = "kvconform with patches"
VMAP = "docs/known-failures/vmap-masks.md"
ROWS = (
    BaselineRow(
        "model/exported-{decode,prefill}[llama]",
        ("fail",),
        "Masks are made with vmap.",
        "transformers",
        torch="<2.9",
        transformers=">=4.53,<5.0",
        link=VMAP,
    ),
    BaselineRow(
        "registration/odd",
        ("fail",),
        "An odd <b>reason</b>.",
        "torch",
        torch="==2.9",
        transformers="==5.0",
        link="https://example.org/?a=1&b",
    ),
)
EXPORTED = ("cache-in-and-out[named-{}]", "decode[{}]")
OLDER = ("2.9", "5.23")
TORCHES, RELEASES = ("2.7", "2.8", "2.9", "2.15"), ("4.53", "4.57", "5.0", "5.23")


def small_axes() -> Axes:
    """The known releases, cut to a few, so that a site has few pages."""
    axes = axes_module.load()
    return dataclasses.replace(
        axes,
        torch={name: axes.torch[name] for name in ("2.6", *TORCHES)},
        transformers={name: axes.transformers[name] for name in ("4.52", *RELEASES)},
    )


def patched(torch: str, release: str) -> bool:
    """Whether a pair was asked about patches: where they add nothing, and where they heal the masks."""
    return torch == "2.15" or (torch, release) == ("2.8", "4.53")


def _records(torch: str, release: str) -> list[Record]:
    masks = torch in ("2.7", "2.8") and release.startswith("4.")
    message = (
        "torch.export raised AssertionError: Current active mode <ProxyTorchDispatchMode object at 0x7f> not registered"
    )
    made = [record(f"dynamic-shape/{stem.format('dynamic-two-layers')}") for stem in EXPORTED]
    made += [record(f"dynamic-shape/{stem.format('static-32')}") for stem in EXPORTED]
    made += [
        record(f"model/exported-{kind}[llama]", "fail" if masks else "pass", message=message)
        for kind in ("decode", "prefill")
    ]
    made.append(record("dynamic-shape/decode[encoder-decoder]", "na"))
    made += [
        record(each.id, "na" if each.status == "na" else "pass", PATCHED) for each in made if patched(torch, release)
    ]
    alone = "StaticCache is not registered as a pytree node"
    made += [
        record(each.id, "na" if each.status == "na" else "fail", "native", alone)
        for each in made
        if each.subject == "kvconform"
    ]
    return made


def site_runs() -> list[CellRun]:
    """A run of each kind: works, works with known failures, fails, odd texts, partial, a second lane, no install."""
    made = []
    for torch in TORCHES:
        for release in RELEASES:
            if (torch, release) not in {("2.7", "5.23"), ("2.9", "5.0"), ("2.8", "5.23")}:
                subjects = ("kvconform", "native") + ((PATCHED,) if patched(torch, release) else ())
                # One pair was measured earlier, by another suite, and has an answer from before that.
                older = {"digest": "e" * 64, "started": "2026-11-20T10:00:00Z"} if (torch, release) == OLDER else {}
                records = _records(torch, release)
                if older:
                    records[0] = dataclasses.replace(records[0], asked="2026-11-18T09:00:00Z")
                about = {"torch": torch, "transformers": release, "subjects": subjects, **older}
                made.append(run(*records, **about))
    odd = [record("registration/odd", "crash", message=NASTY), *_records("2.9", "5.0")]
    made.append(run(*odd, torch="2.9", transformers="5.0", digest=None))
    made.append(run(torch="2.8", transformers="5.23", unresolved=f"torch is too old {NASTY}"))
    gpu = run(*_records("2.15", "5.23"), torch="2.15", transformers="5.23")
    cell = "torch2.15-tf5.23-py3.11-cuda"
    return [*made, dataclasses.replace(gpu, environment=dataclasses.replace(gpu.environment, cell=cell))]


def opt_in_runs() -> list[CellRun]:
    """Answers to opt-in categories: of the newest pair all, of an older one the architectures."""

    def asked(subject: str, *, loses: bool) -> list[Record]:
        made = [record("onnx/decode-step[llama]", "pass" if subject == "kvconform" else "fail", subject, "no ONNX")]
        made += [record("aoti/as-the-model[llama]", "pass", subject)]
        for model in ("MistralForCausalLM", "MistralForTokens", "Qwen3MoeForCausalLM", "OddForCausalLM"):
            odd, moe = model.startswith("Odd"), model.startswith("Qwen3Moe")
            made.append(
                record(f"architectures/round-trip[{model}]", "na" if odd else "pass", subject, "no cache at all")
            )
            status = "na" if odd else "fail" if subject == "native" or (moe and loses) else "pass"
            for kind in ("decode", "prefill"):
                says = "Guard failed: input_ids.size()[1] == 4" if kind == "prefill" else f"cannot {NASTY}"
                made.append(record(f"architectures/exported-{kind}[{model}]", status, subject, says))
        return made

    subjects = ("kvconform", PATCHED, "native")
    records = [each for subject in subjects for each in asked(subject, loses=subject == "kvconform")]
    categories = ("onnx", "aoti", "architectures")
    newest = run(
        *records, torch="2.15", transformers="5.23", subjects=subjects, selection=Selection(categories=categories)
    )
    packages = {**newest.environment.packages, "onnx": "1.20.0", "onnxscript": "0.6.0"}
    newest = dataclasses.replace(newest, environment=dataclasses.replace(newest.environment, packages=packages))
    older = [each for each in records if each.category == "architectures" and each.subject != PATCHED]
    about = {"torch": "2.9", "transformers": "4.57", "selection": Selection(categories=("architectures",))}
    return [newest, run(*older, **about)]


def site_results() -> Results:
    """All of them, judged."""
    extra = judge_table(table_of(joined(opt_in_runs())), Baseline(ROWS))
    return dataclasses.replace(results(site_runs(), Baseline(ROWS)), extra=extra)


def earlier_runs() -> list[CellRun]:
    """What was published before: one cell had no answer, one answered otherwise, one had not been asked a check."""
    made = {one.cell: one for one in site_runs()}
    changed = made["torch2.9-tf4.53-py3.11-cpu"]
    records = [dataclasses.replace(changed.records[0], status="fail", message="it was wrong"), *changed.records[1:]]
    before = dataclasses.replace(changed.environment, digest="c" * 64)
    made[changed.cell] = dataclasses.replace(changed, records=tuple(records), environment=before)
    asked = made["torch2.9-tf5.23-py3.11-cpu"]
    made[asked.cell] = dataclasses.replace(asked, records=asked.records[1:])
    del made["torch2.7-tf5.0-py3.11-cpu"]
    return list(made.values())


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole site in a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    published = tmp_path_factory.mktemp("reports") / "records.parquet"
    parquet.write(published, site_runs())
    parquet.write(published.with_name("optin.parquet"), opt_in_runs())
    found = site_results()
    since = [publication(earlier_runs(), site_runs(), Baseline(ROWS))]
    build.write(found, folder, published, "https://example.org/kvconform", small_axes(), publications=since)
    return folder


@pytest.fixture(scope="module")
def served(site: Path) -> Iterator[str]:
    """A server that has the output folder and nothing else."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    """Opens a page in a context of its own; requests elsewhere, errors and messages fail the test."""
    contexts, noise = [], []

    def open_page(address: str, line: dict[str, Any] | None = None, **options: Any) -> Any:
        contexts.append(browser.new_context(**options))
        opened = contexts[-1].new_page()
        if line is not None:
            client = contexts[-1].new_cdp_session(opened)
            client.send("Network.enable")
            client.send("Network.emulateNetworkConditions", line)
        origin = address.split("/", 3)[2]
        opened.on("request", lambda request: noise.append(request.url) if origin not in request.url else None)
        opened.on("pageerror", lambda error: noise.append(str(error)))
        opened.on("console", lambda message: noise.append(message.text))
        opened.on("dialog", lambda dialog: noise.append(dialog.message))
        opened.goto(address)
        return opened

    yield open_page
    for context in contexts:
        context.close()
    assert [one for one in noise if not one.startswith("data:")] == []


@pytest.fixture(params=["server", "file"])
def address(request: pytest.FixtureRequest, site: Path, served: str) -> str:
    return served if request.param == "server" else f"{site.as_uri()}/index.html"


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def size(request: pytest.FixtureRequest) -> dict[str, int]:
    return request.param  # type: ignore[no-any-return]
