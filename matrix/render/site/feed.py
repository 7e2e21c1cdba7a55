"""What broke, as an Atom feed: an entry a release, dated by the registry's, and one a publication of answers."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from matrix.cells.axes import Axes
from matrix.render.site import since
from matrix.render.site.facts import AXES, Facts
from matrix.render.text import printable

NAMESPACE = "http://www.w3.org/2005/Atom"


def feed(facts: Facts, axes: Axes, texts: dict[tuple[str, str], str]) -> str:
    """The feed; `texts` says what each release changed, in a sentence."""
    dates = {
        (axis, name): released.released.isoformat()
        for axis in AXES
        for name, released in (axes.torch if axis == "torch" else axes.transformers).items()
    }
    entries = sorted(((dates.get(key, facts.results.dates[1]), key, text) for key, text in texts.items()), reverse=True)
    updated = max(facts.results.dates[1], *(one.date for one in facts.publications), "1970-01-01")
    parts = [
        '<?xml version="1.0" encoding="utf-8"?>',
        f'<feed xmlns="{NAMESPACE}">',
        "<title>What broke: KV caches of transformers through torch.export</title>",
        "<id>urn:kvconform:changes</id>",
        f"<updated>{updated}T00:00:00Z</updated>",
        "<author><name>kvconform</name></author>",
        '<link href="index.html"/>',
    ]
    for one in facts.publications:
        title, told = f"Measured {one.date or 'on an unknown day'}", since.text(one, facts.subjects)
        parts += _entry(
            title, f"publication:{since.name(one)}", one.date or updated, f"index.html#{since.name(one)}", told
        )
    for date, (axis, name), text in entries:
        title = f"{axis} {name}"
        parts += _entry(title, f"changes:{axis}:{name}", date or updated, f"../{axis}/{name}/index.html", text)
    return "\n".join([*parts, "</feed>", ""])


def _entry(title: str, name: str, date: str, link: str, text: str) -> list[str]:
    return [
        "<entry>",
        f"<title>{escape(title)}</title>",
        f"<id>urn:kvconform:{name}</id>",
        f"<updated>{date}T00:00:00Z</updated>",
        f"<link href={quoteattr(link)}/>",
        f"<summary>{escape(printable(text))}</summary>",
        "</entry>",
    ]
