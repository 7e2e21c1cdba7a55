"""What patches cost: the context, eager decoding inside it, and a decode step that takes every length of a window.

    python benchmarks/patches.py [--rounds N]

What is compared takes turns, so that what else the machine does falls on both; a ratio is of the medians. The first
entry also asks what this environment needs, once a process. It is measured after what everybody who exports loads in
any case: a model, and torch's exporter. Goals: entering and leaving costs at most 50 ms, the first time too, an eager
step with patches at most 1.05 times one without, and a step of the program for every length of a window at most 1.1
times one of a program for one length. Exit 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers

from kvconform import dynamic_shapes_for, probes
from kvconform.patches import applied, exportable, patch_functions, sliding_windows

CONTEXT_GOAL, DECODE_GOAL, WINDOW_GOAL, STEPS = 0.050, 1.05, 1.1, 16
WINDOW, LENGTH = 8, 5


def model() -> transformers.PreTrainedModel:
    """A Llama of two layers."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=64, **sizes)).eval()


def decode(llama: transformers.PreTrainedModel) -> float:
    """Seconds for a prompt and some steps with a mask."""
    begun, cache = time.perf_counter(), None
    for step in range(STEPS):
        count = 8 if cache is None else 1
        ids, mask = torch.full((2, count), 5), torch.ones(2, 8 + step, dtype=torch.long)
        cache = llama(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True).past_key_values
    return time.perf_counter() - begun


def context() -> float:
    """Seconds to enter and leave."""
    begun = time.perf_counter()
    with exportable():
        pass
    return time.perf_counter() - begun


def loading() -> float:
    """Seconds to load torch's exporter, which a process that exports pays in any case."""
    begun = time.perf_counter()
    torch.export.export(torch.nn.Identity(), (torch.zeros(1),), strict=False)
    return time.perf_counter() - begun


class Step(torch.nn.Module):
    """A decode step: a token and a cache in, logits out."""

    def __init__(self, mistral: transformers.PreTrainedModel) -> None:
        super().__init__()
        self.model = mistral

    def forward(self, ids: torch.Tensor, cache: Any) -> torch.Tensor:
        """Logits of the token."""
        logits: torch.Tensor = self.model(input_ids=ids, past_key_values=cache, use_cache=True).logits
        return logits


def steps_of_windows() -> tuple[Callable[[], float], Callable[[], float]] | None:
    """Two functions that run one decode step and give its seconds: a program for one length, one for every length.

    Both take every batch, so that what differs is the length. None where the patch for every length is not in force.
    """
    if sliding_windows.PATCH not in patches_of(exportable):
        return None
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2}
    config = transformers.MistralConfig(vocab_size=64, num_key_value_heads=2, sliding_window=WINDOW, **sizes)
    mistral = transformers.MistralForCausalLM(config).eval()

    def cache(batch: int, length: int) -> Any:
        return mistral(input_ids=torch.full((batch, length), 5), use_cache=True).past_key_values

    def program(left_out: tuple[str, ...]) -> Callable[[], float]:
        ids = torch.full((2, 1), 5)
        with exportable(without=left_out):
            auto = torch.export.Dim.AUTO
            length = torch.export.Dim.STATIC if left_out else auto
            shapes = ({0: auto}, dynamic_shapes_for(cache(2, LENGTH), auto, length))
            exported = torch.export.export(Step(mistral), (ids, cache(2, LENGTH)), dynamic_shapes=shapes, strict=False)
            module = exported.module()
            if not left_out:
                module(ids, cache(2, WINDOW + 3))  # refused by a program that does not take every length

        def seconds() -> float:
            with exportable(without=left_out):
                held = cache(2, LENGTH)
                begun = time.perf_counter()
                module(ids, held)
                return time.perf_counter() - begun

        return seconds

    return program((sliding_windows.PATCH.name,)), program(())


def patches_of(block: Callable[[], Any]) -> tuple[Any, ...]:
    """The patches that a block enters."""
    with block() as entered:
        return tuple(entered)


def ratio_of(rounds: int, one: Callable[[], float], other: Callable[[], float]) -> float:
    """The median of `other` over that of `one`, each run in turn, without the collector, as timeit does."""
    gc.collect()
    gc.disable()
    try:
        pairs = [(one(), other()) for _ in range(rounds)]
    finally:
        gc.enable()
    ones, others = zip(*pairs, strict=True)
    return statistics.median(others) / statistics.median(ones)


def main() -> int:
    """Measure, print, and say whether the goals are met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    llama, loaded, first = model(), loading(), context()
    seconds = statistics.median(context() for _ in range(rounds))
    with patch_functions():
        names = applied.in_force()

    def within() -> float:
        with patch_functions():
            return decode(llama)

    with torch.no_grad():
        eager = ratio_of(4 * rounds, lambda: decode(llama), within)
        steps = steps_of_windows()
        window = ratio_of(10 * rounds, *steps) if steps else None
    print(f"{probes.release()}; patches needed: {', '.join(names) or 'none'}")
    print(
        f"enter and leave exportable(): loading the exporter {loaded * 1e3:.0f} ms, first {first * 1e3:.0f} ms, "
        f"then {seconds * 1e3:.1f} ms (goal {CONTEXT_GOAL * 1e3:.0f} ms)"
    )
    print(f"eager decoding, patches on / off: {eager:.3f} (goal {DECODE_GOAL})")
    said = "not asked, this environment has no such patch" if window is None else f"{window:.3f} (goal {WINDOW_GOAL})"
    print(f"exported decode step, every length / one length: {said}")
    return int(max(first, seconds) > CONTEXT_GOAL or eager > DECODE_GOAL or (window or 0) > WINDOW_GOAL)


if __name__ == "__main__":
    sys.exit(main())
