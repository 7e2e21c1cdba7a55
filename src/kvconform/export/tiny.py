"""A tiny random model of any architecture, made from its config class by rules: nothing is downloaded.

The rules stand in `tiny.json`: patterns of the names of settings, each with a value. No architecture is named but where
the rules do not fit it. Lists with one entry a layer are shortened to layers that differ, so that a model with
sliding and full attention keeps one of each.

A configuration has settings that follow from others, and layers of a kind that may come late. So there are several
ways to read the rules (`_WAYS`), and the first one counts whose model generates and has a layer of every kind.
"""

from __future__ import annotations

import copy
import inspect
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from kvconform import probes
from kvconform.export.architectures import entries
from kvconform.export.errors import TinyConfigError
from kvconform.export.prompts import make_prompt, text_part
from kvconform.export.watch import generation_class

__all__ = ["make_tiny", "make_tiny_of", "tiny_config"]

_MOST_LAYERS = 4


@dataclass(frozen=True)
class _Way:
    """How the rules are read.

    Attributes:
        layers: how many there are at least.
        which: the settings that get values: "given" (whose default is a value), "all" (None too), or "declared" (whose
            default is a value in the signature: those that the class derives are left to it).
    """

    layers: int = 2
    which: str = "given"


_WAYS = tuple(_Way(layers, which) for layers in (2, 4, 8) for which in ("given", "declared", "all"))


def make_tiny(config_class: type | str, **settings: Any) -> Any:
    """A tiny model in evaluation mode, with the same random weights every time.

    Args:
        config_class: a config class, or its name in transformers.
        settings: settings that win over the rules.

    Raises:
        TinyConfigError: there is no such class, it has no model that generates, or the config or the model refuses.
    """
    name = config_class if isinstance(config_class, str) else config_class.__name__
    for entry in entries():
        if entry.config_name == name:
            return make_tiny_of(entry.config_class(), entry.model_class(), **settings)
    raise TinyConfigError(
        f"no config class {name!r} with a model that generates in {probes.release()}: give one such as "
        "LlamaConfig, or the folder of a model"
    )


def make_tiny_of(cls: type, model_class: Any, **settings: Any) -> Any:
    """A tiny model of one class in evaluation mode.

    The first way to read the rules counts whose model generates and has layers of every kind that the class has by
    default. Where none does, the first model counts that generates, and where none generates, the first that can be
    made: what it fails on is its own answer.

    Raises:
        TinyConfigError: no way gives a model. The reason is that of the first one.
    """
    generates: Any = None
    made: Any = None
    reasons: list[TinyConfigError] = []
    for way in _WAYS:
        try:
            model = _model(cls, model_class, way, settings)
        except TinyConfigError as error:
            reasons.append(error)
            continue
        made = made or model
        whole = not _lacks_kinds(model)
        if (whole or generates is None) and _generates(model):
            if whole:
                return model
            generates = model
    if made is None:
        raise reasons[0]
    return generates or made


def _lacks_kinds(model: Any) -> bool:
    """Whether a kind of layer is missing, such as the attention of Jamba, where it is the fifth layer."""
    return bool(_kinds(_default(type(model.config))) - _kinds(model.config))


def _kinds(config: Any) -> set[tuple[str, str]]:
    """The kinds of a configuration's layers, each with the name of the list that has it."""
    part = text_part(config)
    lists = {name: getattr(part, name, None) for name in ("layer_types", "layers_block_type")}
    return {(name, str(kind)) for name, kinds in lists.items() for kind in kinds or ()}


def _model(cls: type, model_class: Any, way: _Way, settings: dict[str, Any]) -> Any:
    config = _config_for(cls, model_class, way, settings)
    if getattr(config, "is_decoder", None) is False and not getattr(config, "is_encoder_decoder", False):
        # Encoders of the time of BERT keep no cache without.
        config.is_decoder = True
    torch.manual_seed(0)
    try:
        model = model_class(config)
    except Exception as error:
        raise TinyConfigError(
            f"{model_class.__name__} cannot be made of a tiny {cls.__name__} on {probes.release()}: "
            f"{type(error).__name__}: {' '.join(str(error).split())[:300]}. Give it the settings that it lacks"
        ) from error
    return model.eval().requires_grad_(requires_grad=False)


def _config_for(cls: type, model_class: Any, way: _Way, settings: dict[str, Any]) -> Any:
    """The tiny configuration that a model class takes: that of its decoder, where `cls` is of a model of several parts.

    Musicgen's has no defaults for its parts, but its decoder's config class has.
    """
    wanted = getattr(model_class, "config_class", None)
    if wanted in {None, cls}:
        return tiny_config(cls, way, **settings)
    try:
        config = tiny_config(cls, way, **settings)
    except TinyConfigError as error:
        try:
            return tiny_config(wanted, way, **settings)
        except TinyConfigError:
            raise error from None
    part = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    return part if isinstance(part, wanted) else config


def _generates(model: Any) -> bool:
    try:
        with torch.no_grad():
            prompt = make_prompt(model, 2, 4, padding=1)
            generation_class().generate(model, **prompt, max_new_tokens=2, do_sample=False)
    except Exception:  # noqa: BLE001 - a question; who uses the model meets the error itself
        return False
    return True


def tiny_config(cls: type, way: _Way = _WAYS[0], **settings: Any) -> Any:
    """The tiny configuration of a class.

    Raises:
        TinyConfigError: the class refuses its own defaults, or the tiny values.
    """
    try:
        return cls(**_values(_default(cls), way) | settings)
    except Exception as error:
        raise TinyConfigError(
            f"{cls.__name__} cannot be made tiny on {probes.release()}: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error


@lru_cache(maxsize=1)
def _rules() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(Path(__file__).with_name("tiny.json").read_text(encoding="utf-8"))
    return document


def _overrides(cls: type) -> dict[str, Any]:
    own: dict[str, Any] = _rules()["overrides"].get(cls.__name__, {})
    # Classes take values out of the dicts that they are given.
    return copy.deepcopy(own)


def _default(cls: type) -> Any:
    """The configuration of a class by its defaults. Some classes have none for their parts; overrides give these."""
    try:
        return cls()
    except Exception:
        if not _overrides(cls):
            raise
        return cls(**_overrides(cls))


def _settings(config: Any) -> dict[str, Any]:
    """The settings of a configuration. One that differs from layer to layer cannot be asked for as an attribute."""
    found = config.to_dict()
    for name in found:
        try:
            found[name] = getattr(config, name, None)
        except Exception:  # noqa: BLE001, S112 - to_dict has given its value
            continue
    return dict(found)


def _declared(cls: type) -> set[str]:
    """The settings that have a value before anything is derived."""
    parameters = inspect.signature(cls).parameters.values()
    return {one.name for one in parameters if one.default is not None and one.default is not inspect.Parameter.empty}


def _values(config: Any, way: _Way) -> dict[str, Any]:
    """The settings of a configuration that become others, parts of it included; overrides as they stand."""
    default = _settings(config)
    overrides = _overrides(type(config))
    kept = _kept_layers(default, way.layers)
    declared = _declared(type(config))
    chosen: dict[str, Any] = {}
    for name, value in default.items():
        if name in overrides:
            continue
        if hasattr(value, "to_dict"):
            chosen[name] = _part(value, way)
        elif isinstance(value, dict):
            chosen |= _mended(name, value)
        elif way.which == "declared" and name not in declared:
            continue
        elif _is_per_layer(value, default):
            chosen[name] = [value[layer] for layer in kept]
        else:
            chosen |= _by_rule(name, default, len(kept), nulls=way.which == "all")
    if "pad_token_id" not in default:
        # Phi, StableLM, JetMoe and EXAONE 4 of 5.0 read it, though their config classes do not have it.
        chosen |= _by_rule("pad_token_id", {"pad_token_id": None}, len(kept), nulls=True)
    return chosen | overrides


def _part(config: Any, way: _Way) -> Any:
    """A configuration inside another: as its own class makes it, else as a dict."""
    cls = type(config)
    return cls(**_values(config, way)).to_dict()


def _mended(name: str, value: dict[str, Any]) -> dict[str, Any]:
    """Settings in a dict that the class leaves without a value, though its model needs one."""
    nulls = {key: _rules()["nulls"][key] for key, one in value.items() if one is None and key in _rules()["nulls"]}
    return {name: value | nulls} if nulls else {}


def _by_rule(name: str, default: dict[str, Any], layers: int, *, nulls: bool) -> dict[str, Any]:
    """The value that the rules give a setting, under its name; empty where it stays what it is."""
    value = default[name]
    for rule in _rules()["rules"]:
        if re.fullmatch(rule["names"], name) is None:
            continue
        wanted = layers if rule["value"] == "layers" else rule["value"]
        if "as" in rule and value is not None and default.get(rule["as"]) == value:
            return dict.fromkeys([name], *_by_rule(rule["as"], default, layers, nulls=nulls).values())
        number = isinstance(value, int) or (nulls and value is None)
        fits = rule.get("always") or (number and isinstance(wanted, int))
        return {name: wanted} if fits and not (value is None and wanted is None) else {}
    return {}


def _layer_count(default: dict[str, Any]) -> int | None:
    for name in ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers"):
        if isinstance(default.get(name), int):
            return int(default[name])
    return None


def _is_per_layer(value: Any, default: dict[str, Any]) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == _layer_count(default) and len(value) > 1


def _kept_layers(default: dict[str, Any], least: int) -> list[int]:
    """Which layers stay: the first of each kind, in order, and as many as asked for."""
    count = _layer_count(default)
    lists: list[list[Any]] = [value for value in default.values() if _is_per_layer(value, default)]
    if count is None or not lists:
        return list(range(least))
    telling = [entry for entry in lists if not _numbers(entry)]
    kinds = [repr([entry[layer] for entry in telling]) for layer in range(count)]
    first = [layer for layer in range(count) if kinds.index(kinds[layer]) == layer][: max(least, _MOST_LAYERS)]
    more = [layer for layer in range(count) if layer not in first]
    return sorted(first + more[: max(0, least - len(first))])


def _numbers(entry: list[Any]) -> bool:
    """A number that is another for each layer tells no kinds apart."""
    return len({repr(item) for item in entry}) > _MOST_LAYERS
