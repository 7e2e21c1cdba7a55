"""What can this release do? The only place that may ask, and it asks the release, not its version number.

Every probe is cached: a release does not change while a process runs.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from types import MemberDescriptorType, ModuleType
from typing import Any, TypeVar, cast

import torch

from kvconform.errors import MissingTransformersError

__all__ = ["cache_class", "cache_classes", "has_layers", "release", "statically_equal", "transformers_cache_utils"]


_Function = TypeVar("_Function", bound=Callable[..., Any])


def constant(function: _Function) -> _Function:
    """Cache a function's answers, and have torch.export(strict=True) ask it instead of tracing it.

    Since torch 2.13 strict export traces through the flatten and unflatten functions of its inputs. The mark is the one
    that torch.compiler.assume_constant_result sets; that function would import all of dynamo to do so.
    """
    answers: dict[tuple[Any, ...], Any] = {}

    @functools.wraps(function)
    def answer(*arguments: Any) -> Any:
        if arguments not in answers:
            answers[arguments] = function(*arguments)
        return answers[arguments]

    answer._dynamo_marked_constant = True  # type: ignore[attr-defined]
    answer.cache_clear = answers.clear  # type: ignore[attr-defined]
    return cast("_Function", answer)


@constant
def transformers_cache_utils() -> ModuleType:
    """The module that holds transformers' cache classes.

    Raises:
        MissingTransformersError: transformers is not installed here.
    """
    try:
        return importlib.import_module("transformers.cache_utils")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "transformers":
            raise
        raise MissingTransformersError(
            "transformers is not installed in this environment, and its caches cannot be registered without it: "
            "`pip install transformers`, or call register_flattening_functions(patch_transformers=False)"
        ) from error


def release() -> str:
    """`torch x with transformers y`, for messages only."""
    try:
        transformers = importlib.import_module("transformers").__version__
    except ModuleNotFoundError:
        transformers = "not installed"
    return f"torch {torch.__version__} with transformers {transformers}"


_CLASSES: dict[str, type | None] = {}


def cache_class(name: str) -> type | None:
    """The class called `name` in transformers.cache_utils, or None where the release has none."""
    # A plain table: what strict export meets in a cached answer first, it cannot guard on when it meets it again.
    if name not in _CLASSES:
        # What the module has, not what it makes: 4.54 and 4.55, asked for MambaCache, define another class each time.
        found = vars(transformers_cache_utils()).get(name)
        _CLASSES[name] = found if isinstance(found, type) else None
    return _CLASSES[name]


@constant
def has_layers() -> bool:
    """Whether a cache is a list of layers (transformers 4.54 and later) or two lists of tensors (before).

    Asked of an instance: the attribute is set by the constructor.
    """
    dynamic = cache_class("DynamicCache")
    return dynamic is not None and hasattr(dynamic(), "layers")


def cache_classes() -> Iterator[type]:
    """Every cache class that is imported now, subclasses in other modules included.

    Not cached: importing a model adds classes. Some caches are caches by name alone: MambaCache (in cache_utils until
    4.53, with its model since), and those of a few hybrid models.
    """
    seen: set[type] = set()
    base = cache_class("Cache")
    modules = imported(("transformers.models.", "transformers.cache_u"))
    todo = [*(cls for module in modules for cls in caches_by_name(module)), *([] if base is None else [base])]
    while todo:
        cls = todo.pop()
        if cls not in seen and not stands_in(cls):
            seen.add(cls)
            yield cls
            todo.extend(cls.__subclasses__())


_NAMES: dict[tuple[str, ...], tuple[int, str, tuple[str, ...]]] = {}


def imported(prefixes: tuple[str, ...]) -> list[ModuleType]:
    """The modules that are imported now whose names begin so.

    Some thousands are imported, and a context asks several times as it is entered: the names are kept until a module
    comes or goes, which the number of all and the last one tell.
    """
    count, last = len(sys.modules), next(reversed(sys.modules))
    known = _NAMES.get(prefixes)
    if known is None or known[:2] != (count, last):
        known = count, last, tuple(name for name in sys.modules.copy() if name.startswith(prefixes))
        _NAMES[prefixes] = known
    found = [sys.modules.get(name) for name in known[2]]
    return [module for module in found if module is not None]


def stands_in(cls: type) -> bool:
    """Whether a class pretends to be its base: torch.export makes such ones for modules, as caches were until 4.48.

    They outlive the export, and registering one would take over the name under which its base is saved. While such a
    class is made it still has the name of a module of torch.
    """
    return cls.__module__.startswith("torch.") or any(
        (base.__module__, base.__qualname__) == (cls.__module__, cls.__qualname__) for base in cls.__mro__[1:]
    )


def caches_by_name(module: ModuleType) -> list[type]:
    """The classes that a module of transformers defines and calls caches. They need not be subclasses of Cache.

    Layers of caches are called so too (DeepseekV4HCACache, 5.23), and are none.
    """
    others = (dict, *(cls for cls in (cache_class("CacheLayerMixin"),) if cls is not None))
    return [cls for cls in classes_in(module) if cls.__name__.endswith("Cache") and not issubclass(cls, others)]


def classes_in(module: ModuleType) -> list[type]:
    """The classes that a module defines."""
    values: list[Any] = list(vars(module).values())
    return [value for value in values if isinstance(value, type) and value.__module__ == module.__name__]


def model_output_class() -> type:
    """The base of all ModelOutput classes."""
    found: type = importlib.import_module("transformers.utils.generic").ModelOutput
    return found


def model_output_classes() -> Iterator[type]:
    """Every ModelOutput class that is imported now. None is imported for it: importing one registers it for good."""
    todo: list[type] = list(model_output_class().__subclasses__())
    while todo:
        cls = todo.pop()
        if not stands_in(cls):
            yield cls
            todo.extend(cls.__subclasses__())


@constant
def _statically_known_true() -> Callable[[Any], bool] | None:
    module = importlib.import_module("torch.fx.experimental.symbolic_shapes")
    found: Callable[[Any], bool] | None = getattr(module, "statically_known_true", None)
    return found


def statically_equal(left: Any, right: Any) -> bool:
    """Whether two numbers are equal for certain, without making torch.export guard on it.

    Plain numbers are compared. Symbols are equal only if the shape environment proves it.
    """
    if not isinstance(left, torch.SymInt) and not isinstance(right, torch.SymInt):
        return bool(left == right)
    prove = _statically_known_true()
    return bool(prove(left == right)) if prove is not None else left is right


def parameters_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the parameters of `function`, in order."""
    return tuple(inspect.signature(function).parameters)


@constant
def constructor_parameters(cls: type) -> frozenset[str]:
    """Names of the parameters of a class's constructor, and of those of its bases that it passes `**kwargs` on to."""
    names: set[str] = set()
    for base in cls.__mro__:
        init = base.__dict__.get("__init__")
        if init is None:
            continue
        parameters = inspect.signature(init).parameters.values()
        names |= {parameter.name for parameter in parameters}
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return frozenset(names)


@constant
def allocation_parameters(cls: type) -> tuple[str, ...] | None:
    """Parameters of a layer's `lazy_initialization`, without `self`; None where it has no such method (4.55).

    It takes the keys in 4.57, keys and values in 5.5, and states of a convolution in layers of linear attention.
    """
    method = getattr(cls, "lazy_initialization", None)
    return None if method is None else parameters_of(method)[1:]


@constant
def allocates_on_demand(cls: type) -> bool:
    """Whether a static cache has `early_initialization` (4.57, not 4.55); others allocate in their constructor."""
    return hasattr(cls, "early_initialization")


@constant
def takes_cache_kwargs(cls: type) -> bool:
    """Whether `update` takes `cache_kwargs` (until 5.3)."""
    return "cache_kwargs" in parameters_of(cls.update)  # type: ignore[attr-defined]


@constant
def crops(cls: type) -> bool:
    """Whether a cache class has `crop`. Static caches until 4.53 have none."""
    return hasattr(cls, "crop")


@constant
def crops_by_count(cls: type) -> bool:
    """Whether `crop` takes a count to remove (5.15 and later) or a length to keep (before)."""
    return "tokens_to_remove" in parameters_of(cls.crop)  # type: ignore[attr-defined]


@constant
def tells_mask_sizes(cls: type) -> bool:
    """Whether a cache class has `get_mask_sizes` (4.53 and later)."""
    return hasattr(cls, "get_mask_sizes")


@constant
def masks_by_query_length(cls: type) -> bool:
    """Whether `get_mask_sizes` takes a query length (5.4 and later) or the cache positions (before)."""
    return "query_length" in parameters_of(cls.get_mask_sizes)  # type: ignore[attr-defined]


@constant
def takes_masks_by_kind(cls: type) -> bool:
    """Whether a model takes one mask a kind of layer (Gemma 2 and others since 4.53), read in its own code."""
    return "causal_mask_mapping" in inspect.getsource(importlib.import_module(cls.__module__))


@constant
def has_text_config(cls: type) -> bool:
    """Whether a configuration gives the part of the decoder by `get_text_config` (4.44 has none)."""
    return hasattr(cls, "get_text_config")


def model_class(model: str, name: str) -> type | None:
    """The class called `name` in the code of a model, `mamba` for one, or None where the release has none there."""
    found = getattr(importlib.import_module(f"transformers.models.{model}.modeling_{model}"), name, None)
    return found if isinstance(found, type) else None


@constant
def automatic_dimension() -> Any:
    """`torch.export.Dim.AUTO`, or None where torch has none (2.5 has it)."""
    return getattr(getattr(torch.export, "Dim", None), "AUTO", None)


@constant
def dynamo_lists_attributes() -> bool:
    """Whether a trace can list the attributes of an object that it made (it flattens results since torch 2.10).

    In 2.10 and 2.11 it can only look names up; what does that has this method in 2.9 to 2.11.
    """
    variables = importlib.import_module("torch._dynamo.variables.misc")
    return not hasattr(variables.GetAttrVariable, "get_forwarded_dict")


@constant
def slots(cls: type) -> tuple[str, ...]:
    """The names that a class and its bases keep in slots (`__slots__`), beside the mapping of each object."""
    bases = [base for base in cls.__mro__ if base.__module__ != "builtins"]
    return tuple(
        name for base in bases for name, value in vars(base).items() if isinstance(value, MemberDescriptorType)
    )


@constant
def names_in_code(cls: type) -> tuple[str, ...]:
    """The names that the methods of a class and its bases mention: among them those of all attributes that they set."""
    functions = [value for base in cls.__mro__ for value in vars(base).values() if inspect.isfunction(value)]
    return tuple(sorted({name for function in functions for name in function.__code__.co_names}))


@constant
def takes_dynamic_int() -> bool:
    """Whether torch.export accepts an int input as dynamic.

    torch 2.7 answers "Cannot associate shape ... to non-tensor type". What torch 2.8 and later wrap such an int in is
    asked for its shape, in a tenth of a millisecond; where that gives no yes, the smallest program is exported.
    """
    auto = automatic_dimension()
    if auto is None:
        return False
    shapes = importlib.import_module("torch.export.dynamic_shapes")
    # These are torch's own names: one that is gone or takes other arguments is no answer, so the export is asked then.
    with contextlib.suppress(Exception):
        shapes._check_dynamic_shapes({"n": shapes._IntWrapper(7)}, {"n": auto})
        return True
    try:
        return _exports_dynamic_int(auto)
    except Exception:  # noqa: BLE001 (whatever torch raises here, its answer is no)
        return False


def _exports_dynamic_int(auto: Any) -> bool:
    class Add(torch.nn.Module):
        def forward(self, x: torch.Tensor, n: int) -> torch.Tensor:
            return x + n

    program = torch.export.export(Add(), (torch.zeros(2), 7), dynamic_shapes=(None, auto), strict=False)
    return bool(torch.equal(program.module()(torch.zeros(2), 8), torch.full((2,), 8.0)))
