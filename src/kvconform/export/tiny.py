"""A tiny random model of any architecture, made from its config class by rules: nothing is downloaded.

The rules stand in `tiny.json`: patterns of the names of settings, each with a value. No architecture is named but where
the rules do not fit it. Lists with one entry a layer are shortened to layers that differ, so that a model with
sliding and full attention keeps one of each.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from kvconform import probes
from kvconform.export.errors import TinyConfigError

__all__ = ["config_classes", "make_tiny", "tiny_config"]

_MAPPINGS = (
    "MODEL_FOR_CAUSAL_LM_MAPPING",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING",
)
_LAYERS = 2
_MOST_LAYERS = 4


def config_classes(mappings: tuple[str, ...] = _MAPPINGS) -> Iterator[type]:
    """The config classes of this release's auto mappings, each once; a mapping that it lacks has none."""
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    found: dict[type, None] = {}
    for name in mappings:
        mapping = getattr(auto, name, None)
        found.update(dict.fromkeys(mapping.keys() if mapping is not None else ()))
    return iter(found)


def make_tiny(config_class: type | str, **settings: Any) -> Any:
    """A tiny model in evaluation mode, with the same random weights every time.

    Args:
        config_class: a config class, or its name in transformers.
        settings: settings that win over the rules.

    Raises:
        TinyConfigError: there is no such class, it has no model that generates, or the config or the model refuses.
    """
    cls = _config_class(config_class) if isinstance(config_class, str) else config_class
    model_class = _model_class(cls)
    config = tiny_config(cls, **settings)
    torch.manual_seed(0)
    try:
        model = model_class(config)
    except Exception as error:
        raise TinyConfigError(
            f"{model_class.__name__} cannot be made of a tiny {cls.__name__} on {probes.release()}: "
            f"{type(error).__name__}: {' '.join(str(error).split())[:300]}. Give it the settings that it lacks"
        ) from error
    return model.eval().requires_grad_(requires_grad=False)


def tiny_config(cls: type, **settings: Any) -> Any:
    """The tiny configuration of a class.

    Raises:
        TinyConfigError: the class refuses its own defaults, or the tiny values.
    """
    try:
        default = cls()
        chosen = _values(default) | _rules()["overrides"].get(cls.__name__, {}) | settings
        return cls(**chosen)
    except Exception as error:
        raise TinyConfigError(
            f"{cls.__name__} cannot be made tiny on {probes.release()}: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error


@lru_cache(maxsize=1)
def _rules() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(Path(__file__).with_name("tiny.json").read_text(encoding="utf-8"))
    return document


def _values(config: Any) -> dict[str, Any]:
    """The settings of a configuration that become others, parts of it included."""
    default: dict[str, Any] = {name: getattr(config, name, None) for name in config.to_dict()}
    kept = _kept_layers(default)
    chosen: dict[str, Any] = {}
    for name, value in default.items():
        if hasattr(value, "to_dict"):
            chosen[name] = _part(value)
        elif _is_per_layer(value, default):
            chosen[name] = [value[layer] for layer in kept]
        else:
            chosen |= _by_rule(name, value, len(kept))
    return chosen


def _part(config: Any) -> Any:
    """A configuration inside another: as its own class makes it, else as a dict."""
    return type(config)(**_values(config)).to_dict()


def _by_rule(name: str, value: Any, layers: int) -> dict[str, Any]:
    for rule in _rules()["rules"]:
        if re.fullmatch(rule["names"], name) is None:
            continue
        wanted = layers if rule["value"] == "layers" else rule["value"]
        fits = rule.get("always") or (isinstance(value, int) and isinstance(wanted, int))
        return {name: wanted} if fits and not (value is None and wanted is None) else {}
    return {}


def _layer_count(default: dict[str, Any]) -> int | None:
    for name in ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers"):
        if isinstance(default.get(name), int):
            return int(default[name])
    return None


def _is_per_layer(value: Any, default: dict[str, Any]) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == _layer_count(default) and len(value) > 1


def _kept_layers(default: dict[str, Any]) -> list[int]:
    """Which layers stay: the first of each kind, in order, and at least two."""
    count = _layer_count(default)
    lists: list[list[Any]] = [value for value in default.values() if _is_per_layer(value, default)]
    if count is None or not lists:
        return list(range(_LAYERS))
    telling = [entry for entry in lists if not _numbers(entry)]
    kinds = [repr([entry[layer] for entry in telling]) for layer in range(count)]
    first = [layer for layer in range(count) if kinds.index(kinds[layer]) == layer][:_MOST_LAYERS]
    more = [layer for layer in range(count) if layer not in first]
    return sorted(first + more[: max(0, _LAYERS - len(first))])


def _numbers(entry: list[Any]) -> bool:
    """A number that is another for each layer tells no kinds apart."""
    return len({repr(item) for item in entry}) > _MOST_LAYERS


def _config_class(name: str) -> type:
    found = next((cls for cls in config_classes() if cls.__name__ == name), None)
    if found is None:
        raise TinyConfigError(
            f"no config class {name!r} with a model that generates in {probes.release()}: give one such as "
            "LlamaConfig, or the folder of a model"
        )
    return found


def _model_class(cls: type) -> Any:
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    for name in _MAPPINGS:
        mapping = getattr(auto, name, None)
        if mapping is not None and cls in mapping.keys():  # noqa: SIM118 - a lazy mapping loads what it is asked for
            found = mapping[cls]
            return found[0] if isinstance(found, (list, tuple)) else found
    raise TinyConfigError(f"{cls.__name__} has no model that generates in {probes.release()}")
