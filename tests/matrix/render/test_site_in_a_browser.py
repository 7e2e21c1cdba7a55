"""The site walked in a real browser: each question from the first page to its answer."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from matrix.classes.table import PATH as CLASSES
from matrix.judge.failures import DEFAULT as FAILURES
from tests.matrix.render.browsing import BROWSER, MASKS, SLOW, fits

POSTED = tomllib.loads((Path(__file__).parents[2] / "posted_errors.toml").read_text(encoding="utf-8"))["posted"]
USABLE = 1000
"""Milliseconds until the look-up answers, on a quarter of this processor at 1.6 Mb/s."""

pytestmark = BROWSER


def test_does_my_pair_work(visit: Any, address: str, size: dict[str, int]) -> None:
    page = visit(address, viewport=size)
    assert fits(page)
    page.select_option("select[name=torch]", "2.8")
    page.select_option("select[name=transformers]", "4.57")
    answer = page.locator("#pick output")
    assert "With kvconform" in answer.inner_text()
    assert "Yes, except exported models (0 of 2)" in answer.inner_text()
    assert "No: plain caches (0 of 2)" in answer.inner_text()
    assert page.url.endswith("#pair/2.8/4.57")
    page.go_back()
    assert "Yes, except" not in answer.inner_text() or not page.url.endswith("4.57")
    page.go_forward()
    assert "Yes, except exported models" in answer.inner_text()
    answer.locator("a").click()
    page.wait_for_url("**/pair/2.8/4.57/**")
    assert page.locator("h1").inner_text() == "torch 2.8 with transformers 4.57"
    assert "pip install torch==2.8.1 transformers==4.57.3" in page.locator("main").inner_text()
    assert fits(page)


def test_a_selected_pair_stands_in_the_address(visit: Any, address: str) -> None:
    page = visit(f"{address}#pair/2.7/5.23")
    text = page.locator("#pick output").inner_text()
    assert "Nobody has measured it." in text
    assert "A guess from the nearest that were measured" in text
    assert page.input_value("select[name=torch]") == "2.7"


def test_a_message_that_no_page_explains_is_found_among_all_that_were_recorded(visit: Any, served: str) -> None:
    page = visit(served)
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url))
    answer = page.locator("#explain output")
    page.fill("textarea", "hello")
    page.locator("#explain output", has_text="recorded messages").wait_for()
    page.fill("textarea", "E   <IMG src=x onerror=alert(17)> & `quotes` </pre></script><script>alert(2)</script>")
    page.locator("#explain output", has_text="Measured, and no page explains it").wait_for()
    assert "was said to kvconform by registration/odd in 1 cell" in answer.inner_text()
    assert [url.rpartition("/")[2] for url in fetched] == ["messages.json"]
    answer.locator("a").click()
    page.wait_for_url("**/pair/2.9/5.0/**")


def test_the_page_and_the_command_answer_alike(visit: Any, served: str) -> None:
    """The same rules in two languages: posted messages, recorded ones, and texts made to differ."""
    page = visit(served)
    odd = [
        "",
        "E\tE x",
        "\r\nE  a\rE  b",
        "K\u212a \u017f s1\u00e9 u2_ 0x1G",
        "a/b\\c.py \u2018x\u2019",
        "$& $1 $$ 1.2.3 v1.2",
    ]
    messages = [row["message"] for row in POSTED] + [f"E   {row['message']}" for row in POSTED] + odd
    rules = tomllib.loads(FAILURES.read_text(encoding="utf-8"))["failure"]
    messages += ["\n".join(says["all"]) for row in rules for says in row["says"]]
    messages += _of_classes()
    script = """(messages) => { const read = (id) => JSON.parse(document.getElementById(id).textContent);
      const failures = read("failures"), classes = read("classes");
      return messages.map((one) => { const found = window.kvconform.explain(one, failures, classes);
        return [window.kvconform.normalise(one), found.failure && found.failure.page, found.detail,
          found.perhaps.map((each) => each[0].page)]; }); }"""
    told = page.evaluate(script, messages)
    expected = _by_the_library(messages)
    assert told == expected
    for row, (_, found, *_) in zip(POSTED, told, strict=False):
        assert (found or "") == row["page"], row["thread"]


def _of_classes() -> list[str]:
    """What Python says of every class, attribute and parameter in the table, and of some that are in none."""
    found = [
        "object of type 'DynamicCache' has no len()",
        "'DynamicCache' object has no attribute 'nonsense'",
        "'Nonsense' object has no attribute 'key_cache'",
        "'DynamicCache' object has no attribute 'layers' and 'StaticCache' object is not subscriptable, then x y z",
        "cannot import name 'DynamicCache' from 'transformers'",
        "module 'transformers.cache_utils' has no attribute 'SinkCache'",
        "type object 'DynamicCache' has no attribute 'from_legacy_cache'",
    ]
    for name, one in json.loads(CLASSES.read_text(encoding="utf-8"))["classes"].items():
        found += [f"'{name}' object has no attribute '{attribute}'" for attribute in one["attributes"]]
        found.append(f"cannot import name '{name}' from 'transformers.cache_utils'")
        for call in one["parameters"]:
            method, _, parameter = call.rstrip(")").partition("(")
            found.append(f"{name}.{method}() got an unexpected keyword argument '{parameter}'")
    return found


def _by_the_library(messages: list[str]) -> list[list[Any]]:
    """What `python -m kvconform explain` finds; the matrix's own code never imports the library, its tests may."""
    from kvconform import explain
    from kvconform.known import Failure, Known, Says

    rules = tomllib.loads(FAILURES.read_text(encoding="utf-8"))["failure"]
    failures = tuple(
        Failure(
            row["page"],
            *[""] * 7,
            instead=row.get("instead", {}),
            says=tuple(
                Says(tuple(one["all"]), tuple(one.get("unless", ())), one.get("perhaps", "")) for one in row["says"]
            ),
        )
        for row in rules
    )
    known = Known(("", ""), failures, (), ())
    found = []
    for message in messages:
        answer = explain.explain(message, known)
        perhaps = [failure.page for failure, _ in answer.perhaps]
        page = answer.failure.page if answer.failure else None
        found.append([explain.normalise(message), page, answer.detail, perhaps])
    return found


def test_the_reason_of_an_architecture_leads_to_the_page_that_explains_it(visit: Any, served: str) -> None:
    page = visit(f"{served}architecture/qwen3-moe/")
    named = page.locator("p.named")
    named.first.wait_for()
    assert "It may be: A prompt unrolled token by token, if the model" in named.first.inner_text()
    assert page.locator("pre.said").count() > named.count()
    named.first.locator("a").click()
    page.wait_for_url("**/failure/unrolled-prompts/**")


def test_by_keyboard_alone(visit: Any, address: str) -> None:
    page = visit(address)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the answer"
    page.focus("select[name=torch]")
    page.keyboard.press("ArrowDown")
    assert "#pair/2.9/5.23" in page.url
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/pair/2.9/5.23/**")
    page.go_back()
    page.focus("td a >> nth=0")
    for key, cell in (
        ("ArrowDown", "2.15/5.0"),
        ("ArrowRight", "2.9/5.0"),
        ("ArrowUp", "2.9/5.23"),
        ("ArrowLeft", "2.15/5.23"),
    ):
        page.keyboard.press(key)
        assert f"pair/{cell}/" in page.evaluate("document.activeElement.getAttribute('href')")
    page.keyboard.press("ArrowUp")
    assert "torch/2.15/" in page.evaluate("document.activeElement.getAttribute('href')")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**/pair/2.15/5.23/**")


def test_details_open_in_place_with_an_address(visit: Any, served: str) -> None:
    page = visit(served)
    page.click("td a[href*='pair/2.8/4.57/']")
    dialog = page.locator("dialog[open]")
    dialog.wait_for()
    assert page.url == f"{served}pair/2.8/4.57/"
    assert "Yes, except exported models" in dialog.inner_text()
    page.go_back()
    assert page.locator("dialog").count() == 0
    assert page.url == served
    page.go_forward()
    page.locator("dialog[open]").wait_for()
    page.keyboard.press("Escape")
    page.wait_for_url(served)
    assert page.locator("dialog").count() == 0
    page.click("td a[href*='pair/2.8/4.57/']")
    page.locator("dialog[open]").wait_for()
    page.reload()
    assert page.locator("h1").inner_text() == "torch 2.8 with transformers 4.57"


def test_without_a_script(visit: Any, address: str) -> None:
    page = visit(address, java_script_enabled=False)
    assert "Choose a pair in the table of every pair." in page.locator("main").inner_text()
    assert not page.locator("#pick").is_visible()
    page.click("td a[href*='pair/2.8/4.57/']")
    assert "Yes, except exported models" in page.locator("main").inner_text()


KINDS = (
    "",
    "pair/2.8/4.57",
    "pair/2.7/5.23",
    "pair/2.8/5.23",
    "pair/2.9/5.0",
    "torch/2.9",
    "transformers/5.0",
    "failure",
    "failure/vmap-masks",
    "architecture",
    "architecture/qwen3-moe",
)
KINDS += ("check", "check/model/exported-decode", "pins", "pins/newest", "changes", "data")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_of_page_has_an_accessibility_violation(visit: Any, served: str, kind: str, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    page = visit(f"{served}{kind}{'/' if kind else ''}", color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    found = axe.run(page)
    assert found.violations_count == 0, found.generate_report()
    if not kind:
        page.fill("textarea", MASKS)
        page.click("td a[href*='pair/2.9/5.0/']")
        page.locator("dialog[open]").wait_for()
        found = axe.run(page)
        assert found.violations_count == 0, found.generate_report()


def test_all_columns_are_visible_and_heads_stay(visit: Any, served: str) -> None:
    page = visit(served, viewport={"width": 1400, "height": 700})
    heads = "[...document.querySelectorAll('.grid thead th')]"
    right = page.evaluate(f"Math.max(...{heads}.map((each) => each.getBoundingClientRect().right))")
    assert right <= 1400
    page.locator(".grid tbody tr").last.scroll_into_view_if_needed()
    page.mouse.wheel(0, 4000)
    page.wait_for_timeout(100)
    head = page.evaluate("document.querySelector('.grid thead th').getBoundingClientRect().top")
    assert 0 <= head < 700


def test_print_has_what_is_folded(visit: Any, served: str) -> None:
    page = visit(f"{served}pair/2.8/4.57/")
    page.emulate_media(media="print")
    assert not page.locator("header.top").is_visible()


def test_usable_within_a_second_on_a_slow_line(visit: Any, browser: Any, served: str) -> None:
    """A quarter of this processor at 1.6 Mb/s; the server does not compress, so the bound is the harder one."""
    times = []
    for _ in range(3):
        context = browser.new_context(viewport={"width": 390, "height": 844})
        page = context.new_page()
        client = context.new_cdp_session(page)
        client.send("Network.enable")
        client.send("Network.emulateNetworkConditions", SLOW)
        client.send("Emulation.setCPUThrottlingRate", {"rate": 4})
        page.goto(served)
        assert page.locator("#pick output .answers li").count() > 0
        times.append(page.evaluate("performance.getEntriesByName('answered')[0].startTime"))
        context.close()
    sys.stdout.write(json.dumps({"usable_ms": sorted(times)}) + "\n")
    assert min(times) < USABLE, times
