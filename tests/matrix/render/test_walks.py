"""Every question of a visitor, walked in a real browser from the first page to its answer, in every way to get there.

A way is a desktop or a phone, from a server that has the output folder alone or from files, on a slow line, or with a
keyboard and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.matrix.render.browsing import BROWSER, DESKTOP, MASKS, PHONE, SLOW, fits

pytestmark = BROWSER
MOST_TABS = 200
"""Presses of the Tab key until a visitor would give up."""


@dataclass(frozen=True)
class Way:
    """How somebody gets to an answer."""

    name: str
    size: dict[str, int]
    served: bool = True
    slow: bool = False
    keyboard: bool = False


WAYS = (
    Way("desktop", DESKTOP),
    Way("phone", PHONE),
    Way("desktop, from files", DESKTOP, served=False),
    Way("phone, from files", PHONE, served=False),
    Way("desktop, slow", DESKTOP, slow=True),
    Way("phone, slow", PHONE, slow=True),
    Way("keyboard", DESKTOP, keyboard=True),
    Way("keyboard, from files", DESKTOP, served=False, keyboard=True),
)


@dataclass(frozen=True)
class Visitor:
    """A visitor on a page, who has a mouse, a finger, or a keyboard."""

    page: Any
    way: Way

    def follow(self, selector: str, address: str) -> None:
        """Take a link, and arrive."""
        if self.way.keyboard:
            self._reach(selector)
            self.page.keyboard.press("Enter")
        elif self.way.size is PHONE:
            self.page.locator(selector).first.tap()
        else:
            self.page.locator(selector).first.click()
        self.page.wait_for_url(f"**/{address}/**")
        assert fits(self.page), address

    def choose(self, name: str, value: str) -> None:
        """Choose from a list."""
        selector = f"select[name={name}]"
        if self.way.keyboard:
            self._reach(selector)
            self.page.keyboard.type(value)
            assert self.page.input_value(selector) == value
        else:
            self.page.select_option(selector, value)

    def write(self, text: str) -> None:
        """Paste a message and look it up."""
        if self.way.keyboard:
            self._reach("textarea")
            self.page.keyboard.press("Control+a")
            self.page.keyboard.insert_text(text)
            self.page.keyboard.press("Tab")
            self.page.keyboard.press("Enter")
        else:
            self.page.fill("textarea", text)
            self.page.click("text=Look it up")

    def sees(self, text: str, where: str = "main") -> None:
        """What stands there is what they came for."""
        self.page.locator(where, has_text=text).first.wait_for(timeout=10_000)

    def _reach(self, selector: str) -> None:
        for _ in range(MOST_TABS):
            if self.page.evaluate("(one) => document.activeElement.matches(one)", selector):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"no keyboard reaches {selector}")


@pytest.fixture(params=WAYS, ids=lambda way: way.name)
def visitor(request: pytest.FixtureRequest, visit: Callable[..., Any], site: Path, served: str) -> Visitor:
    """Somebody who opened the first page."""
    way: Way = request.param
    address = served if way.served else f"{site.as_uri()}/index.html"
    touch = way.size is PHONE
    page = visit(address, SLOW if way.slow else None, viewport=way.size, has_touch=touch, is_mobile=touch)
    assert fits(page)
    return Visitor(page, way)


def test_does_my_pair_work(visitor: Visitor) -> None:
    visitor.choose("torch", "2.8")
    visitor.choose("transformers", "4.57")
    visitor.sees("Yes, except exported models (0 of 2)", "#pick output")
    visitor.sees("No: plain caches (0 of 2)", "#pick output")
    visitor.sees("2026-11-21 by suite dddddddd", "#pick output")
    visitor.follow("#pick output a", "pair/2.8/4.57")
    visitor.sees("pip install torch==2.8.1 transformers==4.57.3")
    visitor.sees("What it is good for")


def test_my_pair_was_not_measured(visitor: Visitor) -> None:
    visitor.choose("torch", "2.7")
    visitor.choose("transformers", "5.23")
    visitor.sees("Nobody has measured it.", "#pick output")
    visitor.sees("A guess from the nearest that were measured", "#pick output")
    visitor.follow("#pick output a", "pair/2.7/5.23")
    visitor.sees("The nearest measured pairs")
    visitor.follow("main li a[href*='pair/2.8/5.0/']", "pair/2.8/5.0")
    visitor.sees("With kvconform")


def test_my_pair_cannot_be_made(visitor: Visitor) -> None:
    visitor.choose("torch", "2.8")
    visitor.choose("transformers", "5.23")
    visitor.sees("No: these two cannot be installed together.", "#pick output")
    visitor.follow("#pick output a", "pair/2.8/5.23")
    visitor.sees("torch is too old")


def test_which_pair_should_i_use(visitor: Visitor) -> None:
    visitor.follow("#which-pair a", "pins/plain")
    visitor.sees("torch 2.15.1 with transformers 5.23.3.", "main b")
    visitor.sees("torch==2.15.1", "pre")
    visitor.sees("python -m kvconform pins --goal plain", "pre")
    visitor.sees("It is the newest transformers")


def test_is_my_error_known(visitor: Visitor) -> None:
    visitor.write("hello")
    visitor.sees("Unknown: none of the", "#explain output")
    visitor.write(f"a log\nE   {MASKS}")
    visitor.sees("Known.", "#explain output")
    visitor.sees("transformers 5.0, or torch 2.9", "#explain output")
    visitor.follow("#explain output a", "failure/vmap-masks")
    visitor.sees("or use transformers 5.0 or later")
    visitor.sees("with exportable():", "pre")


def test_what_did_a_release_break(visitor: Visitor) -> None:
    visitor.sees("transformers 5.0 against 4.57: with kvconform: 2 repaired", "#what-broke")
    visitor.follow("#what-broke a[href*='transformers/5.0/']", "transformers/5.0")
    visitor.sees("What it broke and repaired, against 4.57")
    visitor.sees("masks are made with vmap")


def test_what_broke_since_the_last_publication(visitor: Visitor) -> None:
    visitor.follow("#what-broke a[href*='changes/index.html#']", "changes")
    visitor.sees("3 cells, 1 of them for the first time; with kvconform: 1 fixed")
    visitor.follow("summary", "changes")
    visitor.sees("1 of them for the first time", "details[open]")


def test_which_architectures_export(visitor: Visitor) -> None:
    visitor.sees("2 of 2 architectures export", "#which-architectures")
    visitor.follow("#which-architectures a", "architecture")
    visitor.follow("main th a", "architecture/mistral")
    visitor.sees("On torch 2.15 with transformers 5.23: with kvconform, yes")
