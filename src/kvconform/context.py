"""The grammar of contexts: one class for each kind of entry, each with how it is parsed and how it is written.

A context is a list of text that stands in the tree spec of a flattened cache: one entry a leaf, in leaf order, and one
entry a fact that no leaf tells. It never tells a length, so that caches of one structure have one context whatever
their lengths, and a program exported with one cache takes the next.

Two storages write it: lists of layers (transformers 4.54 and later, `kvconform.layers`) and two lists of tensors (until
4.53, and caches of single models after it, `kvconform.lists`). The table of all entries is published in
`docs/context.md`.

A trace of torch.export(strict=True) writes contexts and cannot make instances of these classes on every release of
torch. Flattening therefore calls the static `text` of a class, which puts the entry together from its fields; `write`
of an instance is the same text. Parsing happens outside of traces, once for each context.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from kvconform.errors import CacheStructureError

__all__ = [
    "CLASS",
    "ENTRIES",
    "Absent",
    "CacheLeaf",
    "EmptyLayer",
    "Entry",
    "Fact",
    "Follows",
    "LayerLeaf",
    "Lists",
    "Past",
    "PastLayers",
    "Present",
    "code_text",
    "names_a_leaf",
    "parse",
    "parse_all",
]

CLASS = "class"
"""The fact that names the class of a layer which lives with its model. No attribute is called so: it is a keyword."""


def code_text(letters: str, number: int | None) -> str:
    """Letters and number of a layer's code: `W4`, or `D` for a layer without a number."""
    return letters if number is None else f"{letters}{number}"


@dataclass(frozen=True)
class Entry:
    """One entry of a context. A subclass has a field for each group of its pattern, and a `text` of these fields."""

    example: ClassVar[str]
    pattern: ClassVar[re.Pattern[str]]

    @classmethod
    def parse(cls, text: str) -> Entry | None:
        """The entry, or None if its pattern does not match."""
        match = cls.pattern.fullmatch(text)
        if match is None:
            return None
        return cls(**{name: _field(name, found) for name, found in match.groupdict().items()})

    def write(self) -> str:
        """The entry as text."""
        found: str = type(self).text(**vars(self))  # type: ignore[attr-defined]
        return found


def _field(name: str, found: str | None) -> str | int | tuple[int, ...] | None:
    if name in ("index", "number"):
        return int(found) if found else None
    return tuple(int(index) for index in (found or "").split(",")) if name == "layers" else found


@dataclass(frozen=True)
class LayerLeaf(Entry):
    """A leaf of one layer: its keys, its values, a counter past a window, a tensor inside a container.

    Attributes:
        name: `key`, `value`, or the attribute, with the path inside it (`conv_states.0`).
        letters: the code of the layer's class.
        number: the number of the code (a window, a maximum length), if its class has one.
        index: the layer.
    """

    example: ClassVar[str] = "key_W4_1"
    pattern: ClassVar[re.Pattern[str]] = re.compile(
        r"(?P<name>[^#].*)_(?P<letters>[A-Z]+)(?P<number>\d*)_(?P<index>\d+)", re.DOTALL
    )

    name: str
    letters: str
    number: int | None
    index: int

    def write(self) -> str:
        """The entry as text."""
        return self.text(self.name, code_text(self.letters, self.number), self.index)

    @staticmethod
    def text(name: str, code: str, index: int) -> str:
        """The entry of these fields, `code` with its number."""
        return f"{name}_{code}_{index}"


@dataclass(frozen=True)
class EmptyLayer(Entry):
    """A layer that exists and holds nothing: skipped so far, or not written to yet.

    Attributes:
        letters: the code of the layer's class.
        number: the number of the code, if its class has one.
        index: the layer.
    """

    example: ClassVar[str] = "#W4_3"
    pattern: ClassVar[re.Pattern[str]] = re.compile(r"#(?P<letters>[A-Z]+)(?P<number>\d*)_(?P<index>\d+)")

    letters: str
    number: int | None
    index: int

    def write(self) -> str:
        """The entry as text."""
        return self.text(code_text(self.letters, self.number), self.index)

    @staticmethod
    def text(code: str, index: int) -> str:
        """The entry of these fields, `code` with its number."""
        return f"#{code}_{index}"


@dataclass(frozen=True)
class CacheLeaf(Entry):
    """A leaf of the cache itself, called by its attribute and the path inside it.

    Attributes:
        path: `_seen_tokens`, `self_attention_cache`, `conv_states.0`.
    """

    example: ClassVar[str] = "_seen_tokens"
    pattern: ClassVar[re.Pattern[str]] = re.compile(r"(?P<path>[^#].*|)", re.DOTALL)

    path: str

    @staticmethod
    def text(path: str) -> str:
        """The entry of these fields."""
        return path


@dataclass(frozen=True)
class Fact(Entry):
    """The value of an attribute, as JSON (`kvconform.values`), where it is not the one a new layer or cache has.

    Attributes:
        index: the layer; None: the cache itself.
        name: the attribute.
        value: its JSON.
    """

    example: ClassVar[str] = "#1.record_past=true"
    pattern: ClassVar[re.Pattern[str]] = re.compile(
        r"#(?:(?P<index>\d+)\.)?(?P<name>[^\W\d]\w*)=(?P<value>.*)", re.DOTALL
    )

    index: int | None
    name: str
    value: str

    @staticmethod
    def text(index: int | None, name: str, value: str) -> str:
        """The entry of these fields."""
        return f"#{name}={value}" if index is None else f"#{index}.{name}={value}"


@dataclass(frozen=True)
class Follows(Entry):
    """An attribute that a new layer or cache lacks, and whose value follows from the tensors.

    Attributes:
        index: the layer; None: the cache itself.
        name: the attribute. In a cache of lists `dtype` also stands for `_dtype`, as 4.50 to 4.53 call it.
    """

    example: ClassVar[str] = "#1.max_batch_size"
    pattern: ClassVar[re.Pattern[str]] = re.compile(r"#(?:(?P<index>\d+)\.)?(?P<name>[^\W\d]\w*)")

    index: int | None
    name: str

    @staticmethod
    def text(index: int | None, name: str) -> str:
        """The entry of these fields."""
        return f"#{name}" if index is None else f"#{index}.{name}"


@dataclass(frozen=True)
class Absent(Entry):
    """An attribute that a new layer or cache has, and that this one lacks.

    Of a cache of lists also `#-key_cache`, a cache without the two lists, and `#-buffers`, a static cache whose tensors
    are not buffers too (until 4.49 Cache was a torch.nn.Module).

    Attributes:
        index: the layer; None: the cache itself.
        name: the attribute.
    """

    example: ClassVar[str] = "#1.-dtype"
    pattern: ClassVar[re.Pattern[str]] = re.compile(r"#(?:(?P<index>\d+)\.)?-(?P<name>[^\W\d]\w*)")

    index: int | None
    name: str

    @staticmethod
    def text(index: int | None, name: str) -> str:
        """The entry of these fields."""
        return f"#-{name}" if index is None else f"#{index}.-{name}"


@dataclass(frozen=True)
class Past(Entry):
    """A static sliding layer past its window, which an exported program treats otherwise than one below it.

    Attributes:
        index: the layer.
    """

    example: ClassVar[str] = "#1.past"
    pattern: ClassVar[re.Pattern[str]] = re.compile(r"#(?P<index>\d+)\.past")

    index: int

    @staticmethod
    def text(index: int) -> str:
        """The entry of these fields."""
        return f"#{index}.past"


@dataclass(frozen=True)
class PastLayers(Entry):
    """The layers of a cache of lists that are past their windows (HybridChunkedCache, until 4.53).

    Attributes:
        layers: their indices.
    """

    example: ClassVar[str] = "#past=[0,2]"
    pattern: ClassVar[re.Pattern[str]] = re.compile(r"#past=\[(?P<layers>\d+(?:,\d+)*)\]")

    layers: tuple[int, ...]

    @staticmethod
    def text(layers: Iterable[int]) -> str:
        """The entry of these fields."""
        return f"#past=[{','.join([str(index) for index in layers])}]"


@dataclass(frozen=True)
class Present(Entry):
    """Something that a new cache of lists of this kind lacks: the two lists (`key_cache`), or tensors as `buffers` too.

    Attributes:
        name: `key_cache` or `buffers`.
    """

    example: ClassVar[str] = "#key_cache"
    pattern: ClassVar[re.Pattern[str]] = re.compile(r"#(?P<name>key_cache|buffers)")

    name: str

    @staticmethod
    def text(name: str) -> str:
        """The entry of these fields."""
        return f"#{name}"


@dataclass(frozen=True)
class Lists(Entry):
    """The last entry of a cache that keeps two lists of tensors on a release whose own caches keep layers.

    Caches of single models did so after 4.54 (Jamba, Zamba). Without the entry the context would be read as layers.
    """

    example: ClassVar[str] = "#lists"
    pattern: ClassVar[re.Pattern[str]] = re.compile("#lists")

    @staticmethod
    def text() -> str:
        """The entry."""
        return "#lists"


ENTRIES: tuple[type[Entry], ...] = (
    *(EmptyLayer, Past, PastLayers, Present, Lists),
    *(LayerLeaf, CacheLeaf, Absent, Fact, Follows),
)
"""Every kind of entry. A text that fits the patterns of two kinds is of the first."""


def names_a_leaf(text: str) -> bool:
    """Whether an entry stands for a leaf; the others begin with `#`."""
    return not text.startswith("#")


def parse(text: str) -> Entry:
    """The entry that was written as `text`.

    Raises:
        CacheStructureError: no kind of entry is written so.
    """
    for kind in ENTRIES:
        entry = kind.parse(text)
        if entry is not None:
            return entry
    raise CacheStructureError(f"{text!r} is no entry of a cache's context: pass the context of a flatten")


def parse_all(context: Iterable[str]) -> list[Entry]:
    """The entries of a whole context."""
    return [parse(text) for text in context]
