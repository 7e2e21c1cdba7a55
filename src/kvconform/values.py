"""Any value of an attribute, as JSON and leaves, and back.

A cache is more than its keys and values: windows, counters, flags, device maps, nested states. Tensors and symbols
become leaves in order of appearance, the rest becomes JSON. What neither can express is refused by name, never dropped.

The JSON forms beside JSON's own:

    {"@": 0}                       the next leaf
    {"tuple": [...]}  {"set": [...]}  {"dict": [[key, value], ...]}
    {"dtype": "float16"}  {"device": "cuda:0"}  {"class": "module:Name"}  {"enum": "module:Name", "name": "A"}
    {"object": "module:Name", "state": {...}}   an object that its attributes describe
    {"owner": 0}                   the cache itself (cache processors of 4.54 and 4.55 point back to it)
    {"stream": 0}                  a stream for prefetching, made anew
    {"known": "batch_size"}        a value that follows from the tensors of a layer, by its name
"""

from __future__ import annotations

import enum
import importlib
import json
import sys
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import torch

from kvconform import probes
from kvconform.attributes import in_slots
from kvconform.errors import CacheStructureError, UnknownLayerError
from kvconform.pytree import TENSOR_LIKE

__all__ = ["LEAF", "Reader", "Writer", "dumps", "loads"]

LEAF = {"@": 0}
_MAPPINGS: dict[type, str] = {dict: "dict", OrderedDict: "ordereddict"}
_CONTAINERS: dict[type, str] = {tuple: "tuple", set: "set", frozenset: "frozenset"}


@dataclass
class Writer:
    """Collects leaves and their names while values are written.

    Attributes:
        owner: the cache being written; a reference to it is not followed.
        leaves: the leaves so far.
        names: their names.
        seen: where each list, mapping, set and object was met that can be changed, by its id.
    """

    owner: Any
    leaves: list[Any] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    seen: dict[int, tuple[str, Any]] = field(default_factory=dict)

    def leaf(self, name: str, value: Any) -> dict[str, int]:
        """Add one leaf."""
        self.leaves.append(value)
        self.names.append(name)
        return LEAF

    def write(self, path: str, value: Any, suffix: str = "", *, changing: bool = False) -> Any:
        """Write `value` as JSON; its leaves are called `path` + `suffix`.

        Args:
            path: the attribute, and the path inside it.
            value: its value.
            suffix: what follows the path in the name of a leaf.
            changing: whether the whole numbers in it can change with the tokens. They are leaves then.

        Raises:
            UnknownLayerError: something in `value` is neither JSON nor a leaf.
        """
        if isinstance(value, (*TENSOR_LIKE, *_cache_types())):
            return self.leaf(path + suffix, value)
        if changing and (type(value) is int or _wraps_an_int(value)):
            return self.leaf(path + suffix, value)
        if value is None or type(value) in (bool, int, float, str):
            return value
        if value is self.owner:
            return {"owner": 0}
        if not isinstance(value, (tuple, frozenset)):
            self._meet(path + suffix, value)
        if isinstance(value, (list, tuple, set, frozenset, dict)):
            return self._container(path, value, suffix, changing=changing)
        return self._other(path, value, suffix)

    def _container(self, path: str, value: Any, suffix: str, *, changing: bool) -> Any:
        if isinstance(value, dict):
            kind = _MAPPINGS.get(type(value))
            pairs = [
                [self.write(f"{path}.key", k, suffix), self.write(f"{path}.{k}", v, suffix, changing=changing)]
                for k, v in value.items()
            ]
            return {kind: pairs} if kind else self._refuse(path, value)
        items = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        written = [self.write(f"{path}.{i}", item, suffix, changing=changing) for i, item in enumerate(items)]
        if type(value) is list:
            return written
        kind = _CONTAINERS.get(type(value))
        return {kind: written} if kind else self._refuse(path, value)

    def _other(self, path: str, value: Any, suffix: str) -> Any:  # noqa: PLR0911 (one return a form)
        if isinstance(value, torch.dtype):
            return {"dtype": str(value).removeprefix("torch.")}
        if isinstance(value, torch.device):
            return {"device": str(value)}
        if isinstance(value, type):
            return {"class": _reference(value)}
        if isinstance(value, enum.Enum) and value.name in type(value).__members__:
            return {"enum": _reference(type(value)), "name": value.name}
        if isinstance(value, torch.Stream):
            return {"stream": 0}
        reduces: Any = type(value).__reduce_ex__
        # Functions, modules and a user's kind of text have attributes too, which do not describe them.
        builtin = any(base.__module__ == "builtins" for base in type(value).__mro__[:-1])
        if builtin or reduces is not object.__reduce_ex__ or not hasattr(value, "__dict__") or in_slots(value):
            return self._refuse(path, value)
        state = {k: self.write(f"{path}.{k}", v, suffix) for k, v in vars(value).items()}
        return {"object": _reference(type(value)), "state": state}

    def _meet(self, path: str, value: Any) -> None:
        """Refuse what was met before: it would come back as two, and of something that holds itself there is no end."""
        if torch.compiler.is_dynamo_compiling() or isinstance(value, (type, torch.dtype, torch.device, enum.Enum)):
            return
        first, _ = self.seen.setdefault(id(value), (path, value))
        if first != path:
            owner = type(self.owner).__name__
            raise UnknownLayerError(
                f"{owner}.{path} is the very object that {owner}.{first} is, and would come back as another "
                f"({probes.release()}): give each its own, or describe the class with "
                f"kvconform.register_cache_adapter({owner}, ...)"
            )

    def _refuse(self, path: str, value: Any) -> Any:
        owner = type(self.owner).__name__
        raise UnknownLayerError(
            f"{owner}.{path} is a {type(value).__module__}.{type(value).__qualname__}, which is neither JSON nor a "
            f"leaf ({probes.release()}): describe the class with kvconform.register_cache_adapter({owner}, ...)"
        )


@dataclass
class Reader:
    """Hands out leaves in the order in which a Writer took them.

    Attributes:
        owner: the cache being read.
        leaves: its leaves.
        known: values that the text refers to by name.
        position: how many leaves are taken.
    """

    owner: Any
    leaves: list[Any]
    known: dict[str, Any] = field(default_factory=dict)
    position: int = 0

    def read(self, written: Any) -> Any:
        """The value that was written.

        Raises:
            CacheStructureError: there are fewer leaves than the structure names.
        """
        if isinstance(written, list):
            return [self.read(item) for item in written]
        if not isinstance(written, dict):
            return written
        kind, content = next(iter(written.items()))
        if kind == "@":
            return self.leaf()
        if kind == "object":
            return self._object(content, written["state"])
        return self._simple(kind, content, written)

    def leaf(self) -> Any:
        """The next leaf."""
        if self.position >= len(self.leaves):
            raise CacheStructureError(
                "fewer leaves than the context names: unflatten with the leaves that tree_flatten gave for this context"
            )
        self.position += 1
        return self.leaves[self.position - 1]

    def _simple(self, kind: str, content: Any, written: dict[str, Any]) -> Any:  # noqa: PLR0911 (one return a form)
        if kind in ("tuple", "set", "frozenset"):
            return {"tuple": tuple, "set": set, "frozenset": frozenset}[kind](self.read(content))
        if kind in ("dict", "ordereddict"):
            pairs = [(self.read(k), self.read(v)) for k, v in content]
            return dict(pairs) if kind == "dict" else OrderedDict(pairs)
        if kind == "dtype":
            return getattr(torch, content)
        if kind == "device":
            return torch.device(content)
        if kind == "class":
            return _class(content)
        if kind == "enum":
            return _resolve(content)[written["name"]]
        if kind == "owner":
            return self.owner
        if kind == "stream":
            return torch.Stream()
        if kind == "known" and content in self.known:
            return self.known[content]
        raise CacheStructureError(
            f"the context holds a {kind!r}, which this kvconform cannot read: install the one that wrote it, or newer"
        )

    def _object(self, reference: str, state: dict[str, Any]) -> Any:
        cls = _resolve(reference)
        made = cls.__new__(cls)
        made.__dict__.update({name: self.read(value) for name, value in state.items()})
        return made


def dumps(written: Any) -> str:
    """Compact JSON text, the same for the same structure."""
    return json.dumps(written, separators=(",", ":"))


dumps._dynamo_marked_constant = True  # type: ignore[attr-defined]  # see kvconform.probes.constant


def loads(text: str) -> Any:
    """What `dumps` wrote.

    A trace (strict export unflattens in one since torch 2.13) can neither follow the parser nor take a dict from a
    function that it does not follow: there, containers are put together from texts and numbers.
    """
    if not torch.compiler.is_dynamo_compiling():
        return json.loads(text)
    if text[0] == "{":
        return {_key(text, index) + "": loads(_item(text, index)) for index in range(_count(text))}
    if text[0] == "[":
        return [loads(_item(text, index)) for index in range(_count(text))]
    # Numbers are parsed by the trace itself: dynamo cannot ask the type of what a constant function returned.
    if text[0] == '"':
        return _string(text) + ""
    if text in {"null", "true", "false"}:
        return None if text == "null" else text == "true"
    return int(text) if text.lstrip("-").isdigit() else float(text)


@probes.constant
def _count(text: str) -> int:
    return len(json.loads(text))


@probes.constant
def _key(text: str, index: int) -> str:
    return str(list(json.loads(text))[index])


@probes.constant
def _item(text: str, index: int) -> str:
    found = json.loads(text)
    return dumps(list(found.values())[index] if isinstance(found, dict) else found[index])


@probes.constant
def _string(text: str) -> str:
    return str(json.loads(text))


def _wraps_an_int(value: Any) -> bool:
    """Whether torch.export put its wrapper in place of an int leaf, as it does while it looks at dynamic shapes."""
    return type(value).__module__ == "torch.export.dynamic_shapes" and hasattr(value, "val")


def _cache_types() -> tuple[type, ...]:
    """Caches inside caches (EncoderDecoderCache) are children of their own, whatever their class."""
    return tuple(cls for cls in (probes.cache_class("Cache"),) if cls is not None)


def _reference(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _class(reference: str) -> type:
    module, _, name = reference.partition(":")
    known = probes.cache_class(name) if module == "transformers.cache_utils" else None
    return _resolve(reference) if known is None else known


def _resolve(reference: str) -> Any:
    """The class a context names.

    A context may come from a file, so that naming a class must not run code: modules of transformers are imported,
    others are only looked up among what the process has imported by itself.
    """
    module, _, name = reference.partition(":")
    try:
        if module.split(".")[0] == "transformers":
            importlib.import_module(module)
        found: Any = sys.modules[module]
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, KeyError, AttributeError) as error:
        raise _no_such_class(reference) from error
    if not isinstance(found, type):
        raise _no_such_class(reference)
    return found


def _no_such_class(reference: str) -> CacheStructureError:
    return CacheStructureError(
        f"the context names the class {reference}, which does not exist here ({probes.release()}): "
        "load it with the release that wrote it, or one that has the class"
    )
