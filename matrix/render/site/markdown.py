"""The little Markdown that the pages of docs/known-failures use, as HTML: paragraphs, fenced code, `code`, links."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

from markupsafe import Markup

_INLINE = re.compile(r"`([^`]+)`|\[([^\]]+)\]\(([^)\s]+)\)|<(https?://[^>\s]+)>")


def render(text: str, link: Callable[[str], str | None]) -> Markup:
    """A page without its title as HTML; everything in it is escaped.

    Args:
        text: the page.
        link: the address of a link's target on the site, or None where it has none; then its text stays.
    """
    body = re.sub(r"\A# .*\n", "", text)
    parts = []
    for number, part in enumerate(re.split(r"^```[a-z]*\n(.*?)^```$", body, flags=re.MULTILINE | re.DOTALL)):
        if number % 2:
            parts.append(f"<pre>{html.escape(part)}</pre>")
        else:
            paragraphs = [one.strip() for one in re.split(r"\n\s*\n", part) if one.strip()]
            parts += [f"<p>{_inline(' '.join(one.split()), link)}</p>" for one in paragraphs]
    return Markup("\n".join(parts))  # noqa: S704 - every piece was escaped


def _inline(text: str, link: Callable[[str], str | None]) -> str:
    out, at = [], 0
    for found in _INLINE.finditer(text):
        out.append(html.escape(text[at : found.start()], quote=False))
        at = found.end()
        code, label, target, address = found.groups()
        if code is not None:
            out.append(f"<code>{html.escape(code, quote=False)}</code>")
        else:
            label, target = label or address, target or address
            place = link(target)
            shown = html.escape(label, quote=False)
            out.append(f'<a href="{html.escape(place)}">{shown}</a>' if place else shown)
    return "".join([*out, html.escape(text[at:], quote=False)])
