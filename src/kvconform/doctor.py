"""`python -m kvconform doctor`: this environment in ten seconds.

Which versions are here, how caches are stored, which classes are registered by whom and which of those wrongly, and one
round trip and one export of each class that can be made. Exit 1 if this environment cannot be made right.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as py_pytree

from kvconform import build, known, probes
from kvconform._version import __version__
from kvconform.errors import KVConformError
from kvconform.register import register_flattening_functions

__all__ = ["Diagnosis", "diagnose", "main"]

_PACKAGES = ("torch", "transformers", "optree", "numpy")
_CLASSES = ("DynamicCache", "StaticCache", "EncoderDecoderCache", "SlidingWindowCache", "HybridCache", "QuantizedCache")


@dataclass(frozen=True)
class Trial:
    """One class, tried inside the registration.

    Attributes:
        name: what was tried.
        round_trip: "ok", or what went wrong.
        export: the same for `torch.export.export(strict=False)` with the cache as input and output.
    """

    name: str
    round_trip: str
    export: str

    @property
    def fine(self) -> bool:
        """Whether both went well."""
        return self.round_trip == self.export == "ok"


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found.

    Attributes:
        versions: installed versions, null for what is not installed.
        python: the interpreter's version.
        storage: "layers" (4.54 and later), "lists" (before), or "none" without transformers.
        registered: by whom each cache class is registered outside kvconform's context: a module, or null.
        wrong: registrations that lose something, each with what.
        trials: one a class.
        problem: why nothing could be tried, if so.
        measured: what the published measurements say of this pair of releases, in lines.
    """

    versions: dict[str, str | None]
    python: str
    storage: str
    registered: dict[str, str | None] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    trials: tuple[Trial, ...] = ()
    problem: str | None = None
    measured: tuple[str, ...] = ()

    @property
    def fine(self) -> bool:
        """Whether kvconform makes this environment right."""
        return self.problem is None and all(trial.fine for trial in self.trials)

    def to_json(self) -> dict[str, Any]:
        """The diagnosis as plain data, `fine` included."""
        return {**asdict(self), "fine": self.fine}


def diagnose() -> Diagnosis:
    """Examine this environment. Nothing stays registered."""
    versions = {name: _version(name) for name in _PACKAGES} | {"kvconform": __version__}
    python = platform.python_version()
    measured = tuple(known.about(known.load(), versions["torch"], versions["transformers"]))
    try:
        probes.transformers_cache_utils()
    except KVConformError as error:
        return Diagnosis(versions, python, "none", problem=str(error), measured=measured)
    classes = [cls for name in _CLASSES if (cls := probes.cache_class(name)) is not None]
    registered = {cls.__name__: _owner(cls) for cls in classes}
    storage = "layers" if probes.has_layers() else "lists"
    wrong = {name: why for name in registered if (why := _wrong(name)) is not None}
    return Diagnosis(versions, python, storage, registered, wrong, tuple(_trials()), measured=measured)


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit code: 0 right or made right, 1 cannot be made right, 2 usage."""
    parser = argparse.ArgumentParser(prog="kvconform doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the diagnosis as JSON")
    options = parser.parse_args(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = diagnose()
    sys.stdout.write((json.dumps(found.to_json(), indent=2) if options.json else _text(found)) + "\n")
    return 0 if found.fine else 1


def _trials() -> list[Trial]:
    pair = (torch.randn(2, 2, 3, 4), torch.randn(2, 2, 3, 4))
    makers: dict[str, Callable[[], Any]] = {
        "DynamicCache": lambda: build.make_dynamic_cache([pair, pair]),
        "StaticCache": lambda: build.make_static_cache([pair, pair], 8),
        "EncoderDecoderCache": lambda: build.make_encoder_decoder_cache(
            build.make_dynamic_cache([pair]), build.make_dynamic_cache([pair])
        ),
        "sliding window, static": lambda: build.make_sliding_window_cache([pair, pair], 4, 8),
    }
    window = probes.cache_class("DynamicSlidingWindowLayer")
    if window is not None:
        makers["sliding window, dynamic"] = lambda: build.make_dynamic_cache([pair], window, {"sliding_window": 8})
    with register_flattening_functions():
        return [Trial(name, _attempt(_round_trip, make), _attempt(_export, make)) for name, make in makers.items()]


def _attempt(trial: Callable[[Any], str], make: Callable[[], Any]) -> str:
    try:
        return trial(make())
    except Exception as error:  # noqa: BLE001 (a doctor reports what it meets)
        return (
            f"{type(error).__name__}: {str(error).strip().splitlines()[0][:160]}"
            if str(error).strip()
            else type(error).__name__
        )


def _round_trip(cache: Any) -> str:
    leaves, spec = py_pytree.tree_flatten(cache)
    again, spec_again = py_pytree.tree_flatten(py_pytree.tree_unflatten(leaves, spec))
    same = len(leaves) == len(again) and all(a is b for a, b in zip(leaves, again, strict=False))
    return "ok" if same and spec == spec_again and leaves else f"{spec} came back as {spec_again}"


class _Pass(torch.nn.Module):
    """Adds 1 to what a cache holds, through its tree."""

    def forward(self, cache: Any) -> Any:
        """The cache, changed."""
        return py_pytree.tree_map(lambda leaf: leaf + 1, cache)


def _export(cache: Any) -> str:
    program = torch.export.export(_Pass(), (cache,), strict=False)
    found = py_pytree.tree_leaves(program.module()(cache))
    expected = [leaf + 1 for leaf in py_pytree.tree_leaves(cache)]
    same = len(found) == len(expected) and all(
        bool(torch.as_tensor(a == b).all()) for a, b in zip(found, expected, strict=False)
    )
    return "ok" if same else "the program answers differently from the module"


def _owner(cls: type) -> str | None:
    node = py_pytree.SUPPORTED_NODES.get(cls)
    return None if node is None else str(getattr(node.flatten_fn, "__module__", "?"))


def _wrong(name: str) -> str | None:
    """What a registration from elsewhere loses, tried with a skipped layer and with the leaf order."""
    cls = probes.cache_class(name)
    owner = None if cls is None else _owner(cls)
    if cls is None or owner is None or owner.startswith("kvconform") or name != "DynamicCache":
        return None
    tensors = [torch.zeros(1, 1, 1, 1) for _ in range(4)]
    cache = build.make_dynamic_cache([(tensors[0], tensors[1]), (tensors[2], tensors[3])])
    leaves = py_pytree.tree_leaves(cache)
    if [id(leaf) for leaf in leaves] != [id(tensor) for tensor in tensors]:
        return "its leaves are all keys, then all values: flat dynamic shapes do not fit"
    return None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _text(found: Diagnosis) -> str:
    lines = [
        f"Python {found.python}",
        *(f"{name} {version or 'not installed'}" for name, version in found.versions.items()),
    ]
    if found.problem is not None:
        return "\n".join([*lines, "", found.problem, *found.measured])
    lines += ["", f"caches are stored as {found.storage}", "", "outside kvconform's context:"]
    for name, owner in found.registered.items():
        wrong = f" - wrong: {found.wrong[name]}" if name in found.wrong else ""
        lines.append(f"  {name:22} {'registered by ' + owner if owner else 'not registered'}{wrong}")
    lines += ["", "inside it:"]
    lines += [f"  {trial.name:24} round trip {trial.round_trip}, export {trial.export}" for trial in found.trials]
    lines += ["", *found.measured]
    verdict = "kvconform makes this environment right" if found.fine else "something above cannot be made right here"
    return "\n".join([*lines, "", f"{verdict}. The whole suite: python -m kvconform check"])
