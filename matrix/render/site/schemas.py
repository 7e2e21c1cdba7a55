"""JSON Schemas of the site's data; the tests hold every file against them."""

from __future__ import annotations

from typing import Any

from matrix.judge.compare import KINDS

_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}
_MAYBE = {"type": ["string", "null"]}
_COUNT = {"type": "integer", "minimum": 0}
_WORD = {"enum": ["yes", "partly", "no", "unknown"]}
_PAIR = {"type": "array", "items": _TEXT, "minItems": 2, "maxItems": 2}


def _object(**properties: Any) -> dict[str, Any]:
    """An object with exactly these keys; a name that ends in `_` may be left out."""
    required = [name for name in properties if not name.endswith("_")]
    return {
        "type": "object",
        "properties": {name.rstrip("_"): value for name, value in properties.items()},
        "required": sorted(required),
        "additionalProperties": False,
    }


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _map(values: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": values}


def _document(about: str, /, **properties: Any) -> dict[str, Any]:
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": about}
    return {**head, **_object(schema={"const": 1}, **properties)}


_ANSWER = _object(answer=_WORD, sentence=_TEXT, passed=_COUNT, asked=_COUNT, goals=_map(_WORD))
_CAUSE = _object(
    subject=_TEXT,
    verdict={"enum": ["known", "finding", "regressed", "fixed"]},
    status={"enum": ["pass", "fail", "error", "crash", "timeout", "missing"]},
    message=_TEXT,
    reproduce=_TEXT,
    failure=_MAYBE,
    checks=_TEXTS,
)
_CELL = _object(
    cell=_TEXT,
    python=_TEXT,
    device=_TEXT,
    complete={"type": "boolean"},
    unresolved=_MAYBE,
    started=_MAYBE,
    earliest=_MAYBE,
    commit=_MAYBE,
    digest=_MAYBE,
    packages=_map(_TEXT),
    causes=_list(_CAUSE),
)
_CHANGE = _object(
    kind={"enum": ["broke", "repaired", "newly asked and failing", "newly asked and passing", "no longer asked"]},
    subject=_TEXT,
    failure=_MAYBE,
    message=_TEXT,
    checks=_TEXTS,
    beside=_TEXTS,
)
_COMPARED = _object(
    before=_TEXT, beside=_TEXTS, suites_differ={"type": "boolean"}, left_out=_COUNT, changes=_list(_CHANGE)
)
_CHANGES = {"oneOf": [{"type": "null"}, _COMPARED]}
_SAYS = _list(_object(all=_TEXTS, unless_=_TEXTS, perhaps_=_TEXT))
_FAULT = {"enum": ["torch", "transformers", "kvconform"]}
_FAILURE = {
    "page": _TEXT,
    "title": _TEXT,
    "fault": _FAULT,
    "fix": _TEXT,
    "code": _TEXT,
    "first_bad": _TEXT,
    "first_good": _TEXT,
    "says": _SAYS,
}
_PINS = {"oneOf": [{"type": "null"}, _object(torch=_TEXT, transformers=_TEXT, packages=_map(_TEXT))]}

SCHEMAS: dict[str, dict[str, Any]] = {
    "pair": _document(
        "A pair of releases",
        torch=_TEXT,
        transformers=_TEXT,
        impossible=_MAYBE,
        subjects=_map(_ANSWER),
        nearest=_list(_PAIR),
        cells=_list(_CELL),
    ),
    "release": _document(
        "A release of torch or transformers",
        axis={"enum": ["torch", "transformers"]},
        release=_TEXT,
        pairs=_list(_object(torch=_TEXT, transformers=_TEXT, impossible={"type": "boolean"}, subjects=_map(_WORD))),
        changes=_CHANGES,
    ),
    "check": _document(
        "A check, with all its variants",
        check=_TEXT,
        variants=_TEXTS,
        subjects=_map(_list(_object(torch=_TEXT, transformers=_TEXT, passed=_COUNT, asked=_COUNT))),
    ),
    "failure": _document("A known failure", pairs=_list(_PAIR), **_FAILURE),
    "classes": _document(
        "In which releases of transformers each cache class, attribute and parameter is",
        releases=_TEXTS,
        classes=_map(_object(releases=_TEXT, attributes=_map(_TEXT), parameters=_map(_TEXT))),
    ),
    "messages": _document(
        "What failing checks said",
        messages=_list(
            _object(
                text=_TEXT,
                subject=_TEXT,
                check=_TEXT,
                torch=_TEXT,
                transformers=_TEXT,
                cells={"type": "integer", "minimum": 1},
                failure=_MAYBE,
            )
        ),
    ),
    "publications": _document(
        "What each publication changed against the one before it, the latest first",
        publications=_list(
            _object(
                date=_TEXT,
                cells=_TEXTS,
                suites=_TEXTS,
                left_out=_COUNT,
                causes=_list(
                    _object(
                        kind={"enum": list(KINDS)},
                        subject=_TEXT,
                        failure=_TEXT,
                        message=_TEXT,
                        old=_TEXT,
                        new=_TEXT,
                        checks=_COUNT,
                        examples=_TEXTS,
                        cells=_TEXTS,
                    )
                ),
            )
        ),
    ),
    "architecture": _document(
        "An architecture",
        architecture=_TEXT,
        classes=_TEXTS,
        cells=_list(_object(cell=_TEXT, subjects=_map(_object(answer=_WORD, checks=_map(_TEXT))))),
    ),
    "known": _document(
        "The summary that travels with the library",
        measured=_PAIR,
        failures=_list(_object(seen=_TEXT, instead_=_map(_TEXT), **_FAILURE)),
        pairs=_map(_map(_TEXT)),
        goals=_list(_object(name=_TEXT, title=_TEXT, rule=_TEXT, pins=_PINS)),
    ),
}
"""By the kind of document."""
