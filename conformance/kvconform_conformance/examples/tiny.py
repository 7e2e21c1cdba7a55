"""Tiny random models and how they are called: what a step of each kind of model takes and gives, on every release."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from kvconform.checks.needs import Need, has, lookup

VOCABULARY, SOURCE = 32, 5
Encode = Callable[[Any, int], Any]
Start = Callable[[Any, int], Any]


def tokens(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    """Token ids of shape `(batch, length)`, none of them special."""
    generator = torch.Generator().manual_seed(100 + seed)
    return torch.randint(3, VOCABULARY, (batch, length), generator=generator)


def encode_tokens(model: Any, batch: int) -> Any:
    """The encoder's output for a text of 5 tokens."""
    return model.get_encoder()(tokens(batch, SOURCE, seed=9))


def encode_features(model: Any, batch: int) -> Any:
    """The encoder's output for a spectrogram; the encoder halves its length, to 5."""
    generator = torch.Generator().manual_seed(9)
    return model.get_encoder()(torch.randn(batch, model.config.num_mel_bins, 2 * SOURCE, generator=generator))


def chosen_by_model(model: Any, batch: int) -> None:
    """No cache: the model makes one of the class that it wants."""


def encoder_decoder(model: Any, batch: int) -> Any:  # noqa: ARG001 - a Start
    """An empty pair of growing caches, for a model that takes caches."""
    if not _takes_caches(model):
        return None
    return lookup("transformers.cache_utils:EncoderDecoderCache")(_dynamic(), _dynamic())


def hybrid(model: Any, batch: int) -> Any:
    """A HybridCache of 32 tokens, on releases whose `generate` makes one for this model.

    On these releases the model itself makes one that is only as long as the prompt, or none.
    """
    if getattr(model.config, "cache_implementation", None) != "hybrid":
        return None
    cls = lookup("transformers.cache_utils:HybridCache")
    return cls(model.config, max_batch_size=batch, max_cache_len=32, dtype=torch.float32)


def own_class(path: str) -> Start:
    """The cache class of a model that makes none by itself, or that takes no other, where the release has that class.

    Of a configuration, a batch size, a dtype and devices the class gets those that its constructor takes, as `generate`
    of those releases gives them. Without a device, transformers 4.49 makes a MambaCache on the device "meta".
    """

    def start(model: Any, batch: int) -> Any:
        cls = lookup(path)
        if cls is None:
            return None
        taken = inspect.signature(cls.__init__).parameters
        # Some releases take both names of the batch size; the older one is deprecated and warns.
        size = {"max_batch_size" if "max_batch_size" in taken else "batch_size": batch}
        places = {"device": "cpu", "devices": ["cpu"] * _layers(model)}
        offered = {"config": model.config, **size, "dtype": torch.float32, **places}
        return cls(**{name: value for name, value in offered.items() if name in taken})

    return start


def _layers(model: Any) -> int:
    return int(model.config.num_hidden_layers)


@dataclass(frozen=True)
class TinyModel:
    """A model class with the settings of a tiny configuration.

    `start` gives the cache before the first token, `encode` the encoder's output of an encoder-decoder;
    `argument` is the model's name for the cache, as input and as output.
    """

    name: str
    config: str
    model: str
    settings: dict[str, Any] = field(default_factory=dict)
    about: str = ""
    start: Start = chosen_by_model
    encode: Encode = chosen_by_model
    argument: str = "past_key_values"

    @property
    def needs(self) -> tuple[Need, ...]:
        """The release has both classes, and its model works with caches.

        Asking imports the modelling module, which registers its outputs for good, before any subject.
        """
        classes = (has(f"transformers:{self.config}"), has(f"transformers:{self.model}"))
        return (*classes, Need(self.returns_cache, f"{self.model} of this release takes and returns tuples, no cache"))

    def returns_cache(self) -> bool:
        """Whether the model answers with a cache.

        Raises:
            Exception: what building or running the model raises. A check of such a model fails, it is not n/a.
        """
        if self.name not in _RETURNS_CACHE:
            _RETURNS_CACHE[self.name] = not isinstance(self.prefill(self.build()), tuple)
        return _RETURNS_CACHE[self.name]

    def build(self) -> Any:
        """The model, with the same random weights every time."""
        torch.manual_seed(0)
        config = lookup(f"transformers:{self.config}")(**self.settings)
        model = lookup(f"transformers:{self.model}")(config)
        return model.eval().requires_grad_(requires_grad=False)

    def prefill(self, model: Any, batch: int = 2, length: int = 6) -> Any:
        """The cache after a prompt, of the class that the model chooses; a DynamicCache where it would be tuples."""
        encoded, ids = self.encode(model, batch), tokens(batch, length)
        cache = self.cache_of(model(**self.step(model, ids, self.start(model, batch), encoded)))
        if isinstance(cache, tuple) and _takes_caches(model):
            cache = self.cache_of(model(**self.step(model, ids, _dynamic(), encoded)))
        return cache

    def step(self, model: Any, ids: torch.Tensor, cache: Any, encoded: Any = None, start: int = 0) -> dict[str, Any]:
        """The arguments of a step at position `start`, `cache_position` among them where the model takes it."""
        called: dict[str, Any] = {self.argument: cache, "use_cache": True}
        called |= {"input_ids": ids} if encoded is None else {"encoder_outputs": encoded, "decoder_input_ids": ids}
        if "cache_position" in inspect.signature(model.forward).parameters:
            called["cache_position"] = torch.arange(start, start + ids.shape[1])
        return called

    def cache_of(self, output: Any) -> Any:
        """The cache in the model's answer."""
        return getattr(output, self.argument)


_RETURNS_CACHE: dict[str, bool] = {}


def _dynamic() -> Any:
    return lookup("transformers.cache_utils:DynamicCache")()


def _takes_caches(model: Any) -> bool:
    """Whether the model takes a DynamicCache.

    Until transformers 4.53 a class attribute says so. A model without it fails in one of many ways when it gets one.
    """
    return bool(getattr(model, "_supports_cache_class", True))
