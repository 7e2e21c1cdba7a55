"""The kinds of caches that are asked about in great numbers, by name: what is drawn, and from what.

Beside what is drawn at random, every size of each dimension is asked once (:data:`SWEEPS`): a registration that goes
wrong from the eleventh layer on, or at one length only, has nowhere to hide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from kvconform.checks.caches import EXAMPLES
from kvconform.checks.cases import PLAIN, Case, Choices, draw, each_of
from kvconform.checks.making import held
from kvconform.checks.needs import Need

_SMALL = (0, 1, 2, 3, 4, 5, 8, 13)
_LENGTHS = (*_SMALL, 31, 64, 127, 255, 256, 257, 400, 700)
_SIZES: Choices = {"batch": (1, 1, 2, 3, 7), "heads": (1, 2, 5), "length": _SMALL}
_FLOATS = ("float64", "float32", "float16", "bfloat16")
_EIGHT_BITS = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "int8", "uint8")
_KINDS = ("dynamic", "configured", "static", "pair", "static-pair", "sliding-pair", "both-static")
_TENSORS = (
    "grad",
    "graph",
    "keys-grad",
    "strided",
    "sliced",
    "expanded",
    "one-storage",
    "values-are-keys",
    "layers-alike",
    "shared-elements",
    "parameters",
    "own-tensors",
    "inference",
    "marked",
)


@dataclass(frozen=True)
class Space:
    """Cases that are drawn together: a name for ids, a line about them, how many, and what from."""

    name: str
    about: str
    count: int
    choices: Choices

    @property
    def needs(self) -> tuple[Need, ...]:
        """What a check of these cases needs of the release: that it can hold one."""
        return (held(self.cases),)

    def cases(self) -> Iterator[Case]:
        """The cases, the same every time."""
        return draw(self.name, self.count, self.choices)

    def some(self, count: int, **plainer: Any) -> list[Case]:
        """The first few cases, with some fields as given: for questions that take longer."""
        return [replace(case, **plainer) for case in islice(self.cases(), count)]


SPACES: tuple[Space, ...] = (
    Space(
        "many-layers",
        "up to 48 layers of one or several kinds",
        40,
        {**_SIZES, "layers": (9, 10, 11, 12, 24, 33, 48), "kind": _KINDS, "pattern": ("full", "mixed", "rare")},
    ),
    Space(
        "more-than-hundred-layers",
        "so many layers that their numbers have three digits",
        5,
        {"layers": (101, 126, 200), "kind": ("dynamic", "configured", "pair"), "batch": (1,), "heads": (1,)},
    ),
    Space(
        "sizes",
        "one to three layers of any batch, heads, length and widths",
        200,
        {
            "layers": (1, 2, 3),
            "batch": (1, 2, 3, 8, 33),
            "heads": (1, 2, 3, 8, 16),
            "length": _LENGTHS,
            "width": (1, 2, 3, 8),
            "values": (1, 2, 3, 8),
            "step": (0, 0, 0, 50),
        },
    ),
    Space(
        "values-of-another-width",
        "values wider or narrower than keys, as in models of latent attention",
        120,
        {
            **_SIZES,
            "kind": _KINDS,
            "layers": (1, 2, 4, 11),
            "width": (4, 6, 24, 72),
            "values": (1, 3, 8, 16, 64),
            "pattern": ("full", "mixed"),
        },
    ),
    Space(
        "types",
        "each type of elements, one for all layers or several",
        120,
        {
            **_SIZES,
            "kind": _KINDS,
            "layers": (1, 2, 4),
            "dtype": (*_FLOATS, *_EIGHT_BITS),
            "dtypes": ("one", "each", "parts"),
        },
    ),
    Space(
        "gradients",
        "keys and values that require a gradient, or were computed from what does",
        80,
        {**_SIZES, "layers": (1, 2, 5), "kind": _KINDS, "tensors": ("grad", "graph", "keys-grad")},
    ),
    Space(
        "views",
        "keys and values that are not contiguous, are views of one storage, or of a user's class",
        120,
        {
            **_SIZES,
            "layers": (1, 2, 5),
            "kind": _KINDS,
            "tensors": (
                "strided",
                "sliced",
                "expanded",
                "one-storage",
                "shared-elements",
                "parameters",
                "own-tensors",
                "inference",
                "marked",
            ),
        },
    ),
    Space(
        "shared",
        "values that are the keys, and layers that share them",
        60,
        {**_SIZES, "layers": (1, 2, 3, 12), "kind": _KINDS, "tensors": ("values-are-keys", "layers-alike")},
    ),
    Space(
        "windows",
        "layers with windows of many sizes, below them, at them and past them",
        240,
        {
            "kind": ("configured", "configured", "static", "hybrid", "sliding-window"),
            "layers": (1, 1, 2, 3, 13),
            "pattern": ("sliding", "sliding", "mixed", "rare"),
            "window": (2, 3, 4, 5, 8, 16, 32, 100),
            "windows": ("one", "one", "each"),
            "length": (*_LENGTHS, 6, 7, 9, 14, 15, 16, 17, 30, 32, 33, 99, 100, 101),
            "batch": (1, 2),
        },
    ),
    Space(
        "windows-in-steps",
        "layers with small windows, filled some tokens at a time",
        120,
        {
            "kind": ("configured", "configured", "static", "hybrid", "sliding-window"),
            "layers": (1, 2, 3),
            "pattern": ("sliding", "mixed"),
            "window": (2, 3, 4, 5, 8),
            "windows": ("one", "one", "each"),
            "length": (*_SMALL, 6, 7, 9, 10),
            "batch": (1, 2),
            "step": (1, 2, 3),
        },
    ),
    Space(
        "static",
        "preallocated caches of many lengths, empty, part full and full",
        100,
        {
            "kind": ("static", "static-pair", "both-static"),
            "layers": (1, 2, 12),
            "batch": (1, 2, 5),
            "heads": (1, 3),
            "length": _LENGTHS,
            "room": (0, 1, 7, 60),
            "dtype": _FLOATS,
        },
    ),
    Space(
        "skipped",
        "layers that nothing was written to, or that hold no token",
        120,
        {
            **_SIZES,
            "kind": ("dynamic", "configured", "pair"),
            "layers": (1, 2, 3, 4, 12),
            "skipped": ("first", "odd", "last", "half"),
            "pattern": ("full", "mixed"),
        },
    ),
    Space(
        "attributes",
        "attributes that a user set on the cache or its layers",
        60,
        {**_SIZES, "kind": _KINDS, "layers": (1, 2, 4, 11), "attributes": ("cache", "layers", "both")},
    ),
    Space(
        "examples",
        "each of the example caches at other sizes",
        250,
        {
            "kind": tuple(example.name for example in EXAMPLES),
            "batch": (1, 2, 3, 5),
            "heads": (1, 2, 4),
            "width": (2, 4, 6),
            "values": (4, 4, 6),
            "length": (1, 2, 3, 5, 9, 11),
            "uneven": ("no", "no", "yes"),
            "window": (4, 3, 6),
            "room": (4, 4, 7),
        },
    ),
    Space(
        "uneven",
        "layers that each have heads and widths of their own",
        80,
        {**_SIZES, "kind": _KINDS, "layers": (2, 3, 5, 12), "uneven": ("yes",), "pattern": ("full", "mixed")},
    ),
    Space(
        "anything",
        "every property at once",
        160,
        {
            "kind": _KINDS,
            "layers": (1, 2, 3, 6, 13),
            "batch": (1, 2, 4),
            "heads": (1, 2, 3),
            "length": _LENGTHS,
            "width": (4, 6),
            "values": (4, 4, 6, 2),
            "pattern": ("full", "full", "sliding", "mixed"),
            "window": (2, 4, 7, 30),
            "windows": ("one", "one", "each"),
            "room": (0, 3),
            "skipped": ("none", "none", "none", "odd", "last"),
            "dtype": _FLOATS,
            "dtypes": ("one", "one", "each"),
            "tensors": ("plain", "plain", *_TENSORS),
            "attributes": ("none", "none", "cache", "both"),
            "step": (0, 0, 90),
        },
    ),
)


@dataclass(frozen=True)
class Sweep:
    """Every size of one dimension in turn."""

    name: str
    about: str
    field: str
    values: tuple[int, ...]
    base: Case = PLAIN

    @property
    def needs(self) -> tuple[Need, ...]:
        """What a check of these cases needs of the release: that it can hold one."""
        return (held(self.cases),)

    def cases(self) -> Iterator[Case]:
        """One case a size."""
        return each_of(self.field, self.values, self.base)


def _past(top: int, *more: int) -> tuple[int, ...]:
    return (*range(1, top + 1), *more)


_LARGE = (1_234_567, 2**20, 2**31 + 1, 10**12 + 7)
"""Numbers that lose digits as a float of 32 bits, or written with six or seven; no tensor is as long."""
_NARROW = Case(batch=1, heads=1, width=1, values=1)
SWEEPS: tuple[Sweep, ...] = (
    Sweep(
        "layers", "every number of layers to 50", "layers", _past(50, 64, 65, 101, 126, 129), replace(_NARROW, length=1)
    ),
    Sweep(
        "batch", "every batch to 130", "batch", _past(130, 255, 256, 257, 512, 1000, 1024), replace(_NARROW, length=1)
    ),
    Sweep("heads", "every number of heads to 130", "heads", _past(130, 255, 256), replace(_NARROW, length=1)),
    Sweep("length", "every length to 520", "length", (0, *_past(520, 1000, 1023, 1024, 1025, 2048, 4096)), _NARROW),
    Sweep("width", "every width of keys to 260", "width", _past(260, 512, 576), replace(_NARROW, values=64)),
    Sweep("values", "every width of values to 260", "values", _past(260, 512, 576), replace(_NARROW, width=64)),
    Sweep(
        "window",
        "every window to 70, at 5 tokens",
        "window",
        (*range(2, 71), 127, 128, 512, 1024, 4096, 32768, 131072, *_LARGE),
        replace(_NARROW, kind="configured", pattern="sliding", length=5),
    ),
    Sweep(
        "past-window",
        "every length to 90 of a window of 8",
        "length",
        _past(90, 400, 1025, 4097, 33000, 66000),
        replace(_NARROW, kind="configured", pattern="sliding", window=8),
    ),
    Sweep(
        "past-window-of-half-precision",
        "lengths that 8 bits of a number do not hold, of a window of 8",
        "length",
        (257, 301, 2049, 4099, 33001),
        replace(_NARROW, kind="configured", pattern="sliding", window=8, dtype="bfloat16"),
    ),
    Sweep(
        "maximum",
        "every maximum length to 70, at 2 tokens",
        "room",
        _past(70, 128, 1024, 4096, 33000, 66000, 1_234_567),
        replace(_NARROW, kind="static", length=2),
    ),
    Sweep(
        "cross-layers", "every number of layers of a decoder to 26", "layers", _past(26), replace(_NARROW, kind="pair")
    ),
)

EACH_EXAMPLE = tuple(replace(PLAIN, kind=example.name, length=example.length) for example in EXAMPLES)
"""One case of each kind of cache."""

BY_NAME = {space.name: space for space in SPACES}
