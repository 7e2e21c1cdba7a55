"""Makes the cache of a `kvconform.checks.cases.Case`, through transformers' public constructors and `update`.

What a release cannot hold (values of another width in a static cache until 4.53, some types of 8 bits) is found by
trying the plainest such cache once, without any registration in it.
"""

from __future__ import annotations

import functools
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from typing import Any

import torch

from kvconform.checks import builders
from kvconform.checks.behave import append
from kvconform.checks.caches import BY_NAME
from kvconform.checks.cases import PLAIN, Case
from kvconform.checks.needs import Need, NotApplicableError, cache_class, lookup
from kvconform.checks.tensors import TENSORS

CROSS_LENGTH = 6
_TURNS = ("float32", "bfloat16", "float16")
_PERIOD = 6
_DYNAMIC_SLIDING = cache_class("DynamicSlidingWindowLayer")


def build(case: Case) -> Any:
    """The cache of a case; its elements are the same for the same case.

    Raises:
        NotApplicableError: this release has no such cache.
    """
    if case.kind in BY_NAME:
        return _example(case)
    making = _KINDS.get(case.kind)
    if making is None:
        raise ValueError(f"no kind of cache {case.kind!r}: there are {', '.join((*_KINDS, *BY_NAME))}")
    cache = making(case)
    part = getattr(cache, "self_attention_cache", cache)
    if case.tensors != "plain":
        TENSORS[case.tensors](part)
    if case.owner != "transformers":
        cache.__class__ = own_class(type(cache), namesake=case.owner == "namesake")
    if case.owner == "parts" and part is not cache:
        part.__class__ = own_class(type(part))
    _decorate(cache, part, case.attributes)
    return cache


def possible(case: Case) -> bool:
    """Whether this release can hold such a cache, asked of the plainest one with each of the case's properties."""
    kinds: dict[str, Any] = {"kind": case.kind, "pattern": case.pattern}
    asked = [
        replace(PLAIN, **kinds, dtype=case.dtype, dtypes=case.dtypes, layers=3),
        replace(PLAIN, **kinds, length=min(case.length, 1)),
        replace(PLAIN, **kinds, values=5 if case.values != case.width else PLAIN.values),
        replace(PLAIN, **kinds, skipped=case.skipped, layers=3),
        replace(PLAIN, **kinds, uneven=case.uneven, layers=3),
        replace(PLAIN, **kinds, tensors=case.tensors, dtype=case.dtype),
        replace(PLAIN, **kinds, attributes=case.attributes, owner=case.owner),
        replace(PLAIN, **kinds, windows=case.windows, layers=3),
    ]
    if case.step:
        # A static window of 4.56 takes a piece that ends past it as one prompt only.
        asked.append(
            replace(PLAIN, **kinds, length=case.length, window=case.window, room=case.room, step=case.step, layers=3)
        )
    return all(_tried(one) for one in asked)


def held(cases: Callable[[], Iterable[Case]], at_least: int = 1) -> Need:
    """The need of a check that is about these cases: without enough of them, nothing would be asked.

    Args:
        cases: makes the cases.
        at_least: how many of them the release has to hold.
    """

    def met() -> bool:
        return sum(1 for _ in islice(filter(possible, cases()), at_least)) == at_least

    return Need(met, "this release can hold no such cache" if at_least == 1 else "this release can hold no two of them")


@functools.cache
def _tried(case: Case) -> bool:
    try:
        build(case)
    except Exception:  # noqa: BLE001 - whatever this release raises where it cannot hold such a cache
        return False
    return True


# ------------------------------------------------------------------------------------------------ kinds


def _example(case: Case) -> Any:
    example = BY_NAME[case.kind]
    for need in example.needs:
        need.require()
    more, maximum = int(case.uneven == "yes"), builders.MAXIMUM + case.room - PLAIN.room
    at = builders.Sizes(case.heads, case.width, case.values, more, case.window, maximum)
    with builders.sizes(at):
        return example.builder(case.batch, case.length, getattr(torch, case.dtype), "cpu")


def _dynamic(case: Case) -> Any:
    return _filled(lookup("transformers.cache_utils:DynamicCache")(), case)


def _configured(case: Case) -> Any:
    _DYNAMIC_SLIDING.require()
    cache = lookup("transformers.cache_utils:DynamicCache")(config=_config(case))
    if case.windows == "each":
        cache.layers[:] = [_with_window(layer, case.window + index) for index, layer in enumerate(cache.layers)]
    return _filled(cache, case)


def _with_window(layer: Any, window: int) -> Any:
    """A layer as it is, or one like it with a window of its own, as models have whose layers have each another."""
    return type(layer)(sliding_window=window) if getattr(layer, "is_sliding", False) else layer


def _static(case: Case) -> Any:
    if case.pattern != "full":
        # Until 4.53 a StaticCache has no windows, and until 4.55 not by its layers.
        _DYNAMIC_SLIDING.require()
    cls = lookup("transformers.cache_utils:StaticCache")
    maximum, dtype = max(case.length + case.room, 1), getattr(torch, case.dtype)
    cache = cls(config=_config(case), max_batch_size=case.batch, max_cache_len=maximum, device="cpu", dtype=dtype)
    if case.windows == "each":
        cache.layers[:] = [_with_static_window(one, maximum, case.window + i) for i, one in enumerate(cache.layers)]
    return _filled(cache, case)


def _with_static_window(layer: Any, maximum: int, window: int) -> Any:
    sliding = getattr(layer, "is_sliding", False)
    return type(layer)(max_cache_len=maximum, sliding_window=window) if sliding else layer


def _windowed(name: str) -> Callable[[Case], Any]:
    """A class of preallocated caches with windows (4.44 to 4.57): its name tells which."""

    def made(case: Case) -> Any:
        cache_class(name).require()
        cls, maximum = lookup(f"transformers.cache_utils:{name}"), max(case.length + case.room, case.window + 1)
        sizes = {"max_batch_size": case.batch, "max_cache_len": maximum, "dtype": getattr(torch, case.dtype)}
        pattern = "sliding" if case.pattern == "full" else case.pattern
        return _filled(cls(config=_config(replace(case, pattern=pattern)), device="cpu", **sizes), case)

    return made


def _pair(case: Case) -> Any:
    return _crossed(_dynamic(case), case)


def _static_pair(case: Case) -> Any:
    return _crossed(_static(case), case)


def _sliding_pair(case: Case) -> Any:
    return _crossed(_configured(replace(case, pattern="sliding" if case.pattern == "full" else case.pattern)), case)


def _both_static(case: Case) -> Any:
    return _crossed(_static(case), case, _static)


def _crossed(itself: Any, case: Case, other: Callable[[Case], Any] | None = None) -> Any:
    cross = (other or _dynamic)(replace(case, length=CROSS_LENGTH, skipped="none", step=0, pattern="full"))
    cache = lookup("transformers.cache_utils:EncoderDecoderCache")(itself, cross)
    for layer in range(case.layers):
        # What a decoder layer does after it has written its cross attention; one has not.
        cache.is_updated[layer] = layer != 1
    return cache


_KINDS: dict[str, Callable[[Case], Any]] = {
    "dynamic": _dynamic,
    "configured": _configured,
    "static": _static,
    "sliding-window": _windowed("SlidingWindowCache"),
    "hybrid": _windowed("HybridCache"),
    "pair": _pair,
    "static-pair": _static_pair,
    "sliding-pair": _sliding_pair,
    "both-static": _both_static,
}


def _config(case: Case) -> Any:
    return _config_of(case.layers, case.pattern, case.window, case.heads, case.width)


@functools.lru_cache(maxsize=512)
def _config_of(layers: int, pattern: str, window: int, heads: int, width: int) -> Any:
    sizes: dict[str, Any] = {"num_key_value_heads": heads, "num_attention_heads": heads, "head_dim": width}
    sizes |= {"hidden_size": heads * width, "max_position_embeddings": 64}
    if pattern == "full":
        return builders.config(layers, **sizes)
    types = [_type_of(pattern, layer) for layer in range(layers)]
    return builders.config(layers, window=window, types=types, **sizes)


def _type_of(pattern: str, layer: int) -> str:
    full = {"sliding": False, "mixed": layer % 2 == 1, "rare": layer % _PERIOD == _PERIOD - 1}[pattern]
    return "full_attention" if full else "sliding_attention"


def _filled(cache: Any, case: Case) -> Any:
    written = [layer for layer in range(case.layers) if not _is_skipped(case.skipped, layer, case.layers)]
    for layer in written:
        keys, values = _states(case, layer)
        step = case.step or max(case.length, 1)
        for start in range(0, max(case.length, 1), step):
            append(cache, keys[:, :, start : start + step], values[:, :, start : start + step], layer, start)
    return cache


def _is_skipped(skipped: str, layer: int, layers: int) -> bool:
    return {
        "none": False,
        "first": layer == 0,
        "odd": layer % 2 == 1,
        "last": layer == layers - 1,
        "half": layer >= layers / 2,
    }[skipped]


def _states(case: Case, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    dtype = case.dtype if case.dtypes != "each" else _TURNS[layer % len(_TURNS)]
    other = "float64" if case.dtypes == "parts" else dtype
    more = layer % 3 if case.uneven == "yes" else 0
    sizes = (case.batch, case.heads + more, case.length)
    keys = _numbers((*sizes, case.width + 2 * more), 2 * layer, dtype)
    return keys, _numbers((*sizes, case.values + 4 * more), 2 * layer + 1, other)


def _numbers(shape: tuple[int, ...], start: int, dtype: str) -> torch.Tensor:
    """Elements that no two places of a small cache share, exact in every type: a count from `start`."""
    count, first = math.prod(shape), 7 * start
    found = _POOL.get(dtype)
    if found is None or len(found) < first + count:
        found = _POOL[dtype] = (torch.arange(2 * (first + count)) % 199 - 99).to(getattr(torch, dtype))
    return found[first : first + count].clone().reshape(shape)


_POOL: dict[str, torch.Tensor] = {}


# ------------------------------------------------------------------------------- what belongs to a user


_OWN: dict[tuple[type, bool], type] = {}


def own_class(cls: type, *, namesake: bool = False) -> type:
    """The user's subclass of a cache class; made once, so that a registration finds it when it is entered.

    Args:
        cls: a class of transformers.
        namesake: whether the subclass has the name of its base, in another module.
    """
    key = cls, namesake
    if key not in _OWN:
        name = cls.__name__ if namesake else f"Own{cls.__name__}"
        _OWN[key] = type(
            name, (cls,), {"__module__": __name__, "__qualname__": name, "__doc__": "A user's cache class."}
        )
        # A class that pickles has to be found in its module.
        globals()[name] = _OWN[key]
    return _OWN[key]


def defined_again(name: str) -> type:
    """A subclass of DynamicCache that takes the name of one that was defined before, as in a notebook."""
    namespace = {"__module__": __name__, "__qualname__": name, "__doc__": "A user's cache class."}
    globals()[name] = type(name, (lookup("transformers.cache_utils:DynamicCache"),), namespace)
    found: type = globals()[name]
    return found


def own_classes() -> list[type]:
    """The user's subclasses of every cache class that cases have."""
    names = ("DynamicCache", "StaticCache", "EncoderDecoderCache")
    found = [lookup(f"transformers.cache_utils:{name}") for name in names]
    return [own_class(cls, namesake=namesake) for cls in found for namesake in (False, True)]


def _decorate(cache: Any, part: Any, attributes: str) -> None:
    if attributes in ("cache", "both"):
        _set(cache, 0)
        if part is not cache:
            _set(part, 1)
    if attributes in ("layers", "both"):
        layers = vars(part).get("layers") or ()
        if not layers and "layers" not in vars(part):
            raise NotApplicableError("the layers of this release are no objects, and have no attributes")
        for index, layer in enumerate(layers):
            _set(layer, index + 2)


def _set(value: Any, number: int) -> None:
    """Attributes of every plain type; each object has others of its own."""
    mine = {
        "own_text": f"note {number}",
        "own_number": number + 1 / 3,
        "own_size": 2**40 + number,
        "own_count": number,
        "own_flag": number % 2 == 0,
        "own_nothing": None,
        "own_list": [number, [number, "two"]],
        "own_tuple": (number, (None,)),
        "own_table": {"b": number, "a": [1], 3: (number,), None: {}, True: OrderedDict(b=1, a=number)},
        "own_set": {number, -1},
        "own_frozen": frozenset({str(number), "b"}),
        "own_empty": [[], (), {}, set(), ""],
        "own_special": [math.nan, math.inf, -math.inf, 10**30 + number, '\u00fc\n"', "@", {"@": 0}],
        "own_precise": [number + 1 / 3, 2**-0.5, 1e-300, 0.1 + 0.2],
        "own_sizes": [2**31 + number, 2**53 + 1, 1_234_567, -1, 300],
        "own_kind": torch.Tensor if number % 2 else OrderedDict,
        "own_tensors": [torch.full((2,), float(number)), {"a": torch.tensor(number)}],
        "own_type": torch.float16,
        "own_device": torch.device("meta"),
        "own_devices": [torch.device("cpu"), torch.device("cuda"), torch.device("cuda", 1)],
        "own_tensor": torch.full((2, 3), float(number)),
    }
    for name, held in mine.items():
        setattr(value, name, held)
