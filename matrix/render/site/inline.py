"""What a page holds itself: its style, its script and its data, and the policy that lets just these through."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

INLINE = (("style", "css"), ("script", "js"))
"""What the first page holds itself, each with the ending of its file."""


def policy(inline: Mapping[str, Any] | None) -> dict[str, str]:
    """What the page's own policy lets through: two files of the site, or the two texts that the page holds."""
    if inline is None:
        return {"style": "'self' file:", "script": "'self' file:"}
    return {name: f"'sha256-{_hash(text)}'" for name, text in inline.items()}


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def script(document: Any) -> Markup:
    """JSON that can stand in a script element."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704 - no tag can begin in it
