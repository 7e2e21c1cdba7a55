"""What broke, as an Atom feed: an entry a release, dated by the registry's date of the release."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from matrix.cells.axes import Axes
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
    updated = facts.results.dates[1] or "1970-01-01"
    parts = [
        '<?xml version="1.0" encoding="utf-8"?>',
        f'<feed xmlns="{NAMESPACE}">',
        "<title>What broke: KV caches of transformers through torch.export</title>",
        "<id>urn:kvconform:changes</id>",
        f"<updated>{updated}T00:00:00Z</updated>",
        "<author><name>kvconform</name></author>",
        '<link href="index.html"/>',
    ]
    for date, (axis, name), text in entries:
        parts += [
            "<entry>",
            f"<title>{escape(f'{axis} {name}')}</title>",
            f"<id>urn:kvconform:changes:{axis}:{name}</id>",
            f"<updated>{date or updated}T00:00:00Z</updated>",
            f"<link href={quoteattr(f'../{axis}/{name}/index.html')}/>",
            f"<summary>{escape(printable(text))}</summary>",
            "</entry>",
        ]
    return "\n".join([*parts, "</feed>", ""])
