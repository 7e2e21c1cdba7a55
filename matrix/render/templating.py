"""The templates of pages and pictures: everything is escaped, and nothing that XML forbids comes through."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jinja2

from matrix.render import wording
from matrix.render.text import printable

TEMPLATES = Path(__file__).with_name("templates")


@functools.cache
def environment(folder: str = ".") -> jinja2.Environment:
    """The templates of a folder; a misspelled name is an error rather than an empty place."""
    loaded = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES / folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        finalize=_shown,
    )
    loaded.globals.update(
        marks=wording.MARKS, name=wording.subject_name, short=wording.short, command=wording.nox_command
    )
    return loaded


def _shown(value: Any) -> Any:
    # Markup was escaped before, and holds line breaks of its own.
    return printable(value) if type(value) is str else value
