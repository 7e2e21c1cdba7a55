"""The architectures of the installed release: the model classes of its auto mappings, as it names them.

A config class may have two: BartConfig that of a causal decoder and that of an encoder-decoder. Names are read without
importing any model.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Architecture", "architectures"]

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


def architectures(mappings: tuple[str, ...] = _MAPPINGS) -> Iterator[Architecture]:
    """The architectures of this release, each once; a mapping that it lacks has none."""
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    known = importlib.import_module("transformers.models.auto.configuration_auto").CONFIG_MAPPING_NAMES
    seen: set[str] = set()
    for mapping in mappings:
        for model_type, names in getattr(auto, f"{mapping}_NAMES", {}).items():
            for name in names if isinstance(names, (list, tuple)) else [names]:
                if name not in seen and model_type in known:
                    seen.add(name)
                    yield Architecture(name, model_type, mapping)
