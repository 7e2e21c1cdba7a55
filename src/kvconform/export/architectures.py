"""The architectures of the installed release: the model classes of its auto mappings, as it names them.

A config class may have two: BartConfig that of a causal decoder and that of an encoder-decoder. Names are read without
importing any model.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Architecture", "architectures", "entries"]

_MAPPINGS = (
    "MODEL_FOR_CAUSAL_LM_MAPPING",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING",
)


@dataclass(frozen=True)
class Architecture:
    """One model class.

    Attributes:
        name: its name.
        model_type: what transformers calls its configuration.
        mapping: the auto mapping that it stands in.
    """

    name: str
    model_type: str
    mapping: str

    @property
    def config_name(self) -> str:
        """The name of its config class."""
        auto = importlib.import_module("transformers.models.auto.configuration_auto")
        return str(auto.CONFIG_MAPPING_NAMES[self.model_type])

    def config_class(self) -> Any:
        """Its config class."""
        return importlib.import_module("transformers").CONFIG_MAPPING[self.model_type]

    def model_class(self) -> Any:
        """The class itself."""
        auto = importlib.import_module("transformers.models.auto.modeling_auto")
        found = getattr(auto, self.mapping)[self.config_class()]
        classes = found if isinstance(found, (list, tuple)) else [found]
        return next((cls for cls in classes if cls.__name__ == self.name), classes[0])


def entries(mappings: tuple[str, ...] = _MAPPINGS) -> Iterator[Architecture]:
    """Every pair of configuration and model class; a mapping that this release lacks has none."""
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    known = importlib.import_module("transformers.models.auto.configuration_auto").CONFIG_MAPPING_NAMES
    for mapping in mappings:
        for model_type, names in getattr(auto, f"{mapping}_NAMES", {}).items():
            for name in names if isinstance(names, (list, tuple)) else [names]:
                if model_type in known:
                    yield Architecture(name, model_type, mapping)


def architectures(mappings: tuple[str, ...] = _MAPPINGS) -> Iterator[Architecture]:
    """The architectures of this release, each once, with the configuration that is named as it is, else the first."""
    found: dict[str, Architecture] = {}
    for entry in entries(mappings):
        if entry.name not in found or (_own(entry) and not _own(found[entry.name])):
            found[entry.name] = entry
    return iter(found.values())


def _own(entry: Architecture) -> bool:
    """Whether a model class is named after the configuration."""
    return entry.name.startswith(entry.config_name.removesuffix("Config").removesuffix("Text"))
