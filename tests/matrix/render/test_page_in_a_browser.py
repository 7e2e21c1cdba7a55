"""The page in a real browser: no request, accessible, usable with a keyboard, on a phone and without a script."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from matrix.judge.baseline import Baseline
from matrix.render import page
from matrix.render.grid import results
from tests.matrix import factories
from tests.matrix.factories import record, run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
CELL = "torch2.15-tf5.5-py3.11-cpu"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH"),
    # Playwright's own loop closes after the test that used it last.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    runs = [
        *factories.smoke_runs(),
        run(
            record("a/x", "crash", message="<img src=http://example.org/x onerror=alert(1)>"),
            torch="2.15",
            transformers="5.5",
            digest=None,
        ),
        run(torch="2.5", transformers="5.23", unresolved="torch is too old"),
        run(record(), complete=False, torch="2.13", transformers="5.23", digest=None),
    ]
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(page.render(results(runs, Baseline())), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Any]:
    """Opens the page in a context of its own; requests beside the page, errors and messages fail."""
    contexts, noise = [], []

    def opening(fragment: str = "", **options: Any) -> Any:
        context = browser.new_context(**options)
        contexts.append(context)
        tab = context.new_page()
        tab.on("request", lambda request: noise.append(request.url) if request.url.split("#")[0] != address else None)
        tab.on("console", lambda message: noise.append(message.text))
        tab.on("pageerror", lambda error: noise.append(str(error)))
        tab.on("dialog", lambda dialog: noise.append(dialog.message))
        tab.goto(address + fragment)
        return tab

    yield opening
    for context in contexts:
        context.close()
    assert [line for line in noise if not line.startswith("data:")] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 900), (390, 844)], ids=["desktop", "phone"])
@pytest.mark.parametrize("opened", ["", f"#{CELL}"], ids=["grid", "cell"])
def test_axe_finds_nothing(visit: Any, scheme: str, size: tuple[int, int], opened: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    tab = visit(opened, color_scheme=scheme, viewport={"width": size[0], "height": size[1]})
    found = axe.Axe().run(tab)
    assert found.violations_count == 0, found.generate_report()


def test_a_phone_scrolls_the_grid_and_not_the_page(visit: Any) -> None:
    tab = visit(viewport={"width": 360, "height": 740})
    assert tab.evaluate("document.documentElement.scrollWidth") == 360
    assert tab.evaluate("(e => e.scrollWidth > e.clientWidth)(document.querySelector('.scroll'))")
    tab.click(".lane:not([hidden]) td a >> nth=0")
    assert tab.evaluate("document.querySelector('dialog[open]').scrollWidth <= 360")


def test_a_cell_opens_and_closes_with_the_keyboard_and_gives_the_focus_back(visit: Any) -> None:
    tab = visit()
    tab.focus(f"a[href='#{CELL}'] >> visible=true")
    tab.keyboard.press("Enter")
    dialog = tab.locator(f"dialog[id='{CELL}']")
    assert dialog.is_visible()
    assert "<img src=http://example.org/x onerror=alert(1)>" in dialog.inner_text()
    assert tab.evaluate("document.activeElement.closest('dialog') !== null")
    tab.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    assert tab.evaluate("document.activeElement.getAttribute('href')") == f"#{CELL}"


def test_a_link_to_a_cell_opens_it(visit: Any) -> None:
    tab = visit(f"#{CELL}")
    assert tab.locator(f"dialog[id='{CELL}']").is_visible()
    tab.click("dialog[open] .close")
    tab.locator(f"dialog[id='{CELL}']").wait_for(state="hidden")


def test_the_two_selects_answer(visit: Any) -> None:
    tab = visit()
    tab.select_option(".ask select >> nth=0", "2.15")
    tab.select_option(".ask select >> nth=1", "5.5")
    assert tab.inner_text("output").startswith("Not entirely.")
    assert "With kvconform: 0 of 1 checks pass (1 crash)." in tab.inner_text("output")
    tab.select_option(".ask select >> nth=0", "2.5")
    assert tab.inner_text("output") == "Nobody has measured this pair yet."
    tab.select_option(".ask select >> nth=1", "5.23")
    assert tab.inner_text("output").startswith("No: these two cannot be installed together.")


@pytest.mark.parametrize("script", [True, False], ids=["script", "no-script"])
def test_a_category_shows_its_grid_and_only_that(visit: Any, *, script: bool) -> None:
    tab = visit(java_script_enabled=script)
    assert tab.locator(".lane:visible").count() == 1
    tab.get_by_role("radio", name="export").check()
    assert tab.locator(".lane:visible").count() == 1
    assert "Checks of export" in tab.locator(".lane:visible .caption").inner_text()


def test_without_a_script_a_cell_still_opens_and_closes(visit: Any) -> None:
    tab = visit(java_script_enabled=False)
    assert tab.locator("dialog:visible").count() == 0
    assert not tab.locator(".ask").is_visible()
    tab.click(f"a[href='#{CELL}'] >> visible=true")
    assert tab.locator(f"dialog[id='{CELL}']").is_visible()
    tab.click("dialog:visible .close")
    assert tab.locator("dialog:visible").count() == 0


def test_the_marks_differ_without_colours(visit: Any) -> None:
    tab = visit(forced_colors="active")
    marks = tab.locator(".lane:visible td .mark")
    tones = {"good": "✓", "bad": "✗!?", "open": "◐⊘"}
    for tone, signs in tones.items():
        texts = marks.and_(tab.locator(f".{tone}")).all_inner_texts()
        # What only screen readers hear stands on a line of its own before the sign.
        assert texts
        assert {text.strip().splitlines()[-1].strip()[0] for text in texts} <= set(signs), tone
