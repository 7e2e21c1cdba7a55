"""Opt-in categories: what they need beside the suite's own packages, and when they are asked for.

Their packages are large and go with single releases of torch, or they take longer than the rest of the suite: no run
holds these checks unless it names them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import Any

PACKAGES: dict[str, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "executorch": ("executorch",),
    "more-models": (),
    "patches": (),
    "generate": (),
    "architectures": (),
    "aoti": (),
}
"""The packages of each opt-in category, by the name they are imported and installed under."""

INSTALL = {
    "onnx": "python -m pip install onnx onnxruntime onnxscript",
    "executorch": "python -m pip install executorch (the release that goes with torch: matrix/data/optin.toml)",
    "more-models": "",
    "patches": "",
    "generate": "",
    "architectures": "",
    "aoti": "",
}
"""The next command where they are missing."""


def is_wanted(category: str, check: str, categories: Iterable[str], exactly: str | None, *, everything: bool) -> bool:
    """Whether a run holds a check.

    ======================  ==================  =============  ==========
    the run asks for        a check of it       opt-in, of it  other ones
    ======================  ==================  =============  ==========
    nothing in particular   yes                 no             --
    categories              yes                 yes            no
    one id, or one check    yes                 yes            no
    everything (listing)    yes                 yes            --
    ======================  ==================  =============  ==========
    """
    named = exactly in {check, check.partition("[")[0]}
    if exactly is not None and not named:
        return False
    asked = set(categories)
    if asked:
        return category in asked
    return everything or named or category not in PACKAGES


def holds(category: str, config: Any) -> bool:
    """Whether a run of pytest may hold checks of an opt-in category, by the options of its workers."""
    exactly = config.getoption("--kvconform-exactly") or ""
    named = category in config.getoption("--kvconform-category") or exactly.startswith(f"{category}/")
    return bool(named or config.getoption("--kvconform-everything"))


def asked_for(categories: Iterable[str], keyword: str | None) -> list[str]:
    """The opt-in categories that a command line names: as a category, or in one whole id."""
    of_id = (keyword or "").split("/", 1)[0] if "/" in (keyword or "") and " " not in (keyword or "") else ""
    named = list(categories) or [of_id]
    return [category for category in PACKAGES if category in named]


def missing(category: str) -> list[str]:
    """The packages of an opt-in category that are not installed here."""
    return [package for package in PACKAGES[category] if importlib.util.find_spec(package) is None]


def explain_missing(categories: Iterable[str]) -> str:
    """What to install before these categories can run; empty where nothing is missing."""
    lines = [
        f"category {category}: {', '.join(gone)} not installed here: {INSTALL[category]}"
        for category in categories
        if (gone := missing(category))
    ]
    return "; ".join(lines)
