"""What patches cost: entering and leaving the context, and an eager decode step with patches in force and without.

    python benchmarks/patches.py [--rounds N]

The two decode loops take turns, so that what else the machine does falls on both; the ratio is of their medians.
The first entry, which also asks what this environment needs, is shown apart. Goals: a context costs at most 50 ms, and
a step with patches at most 1.05 times one without. Exit 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import torch
import transformers

from kvconform import probes
from kvconform.patches import applied, exportable, patch_functions

CONTEXT_GOAL, DECODE_GOAL, STEPS = 0.050, 1.05, 16


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


def main() -> int:
    """Measure, print, and say whether the goals are met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    first, contexts = context(), [context() for _ in range(rounds)]
    without, within, llama = [], [], model()
    with torch.no_grad():
        for _ in range(rounds):
            without.append(decode(llama))
            with patch_functions():
                names = applied.in_force()
                within.append(decode(llama))
    seconds, ratio = statistics.median(contexts), statistics.median(within) / statistics.median(without)
    print(f"{probes.release()}; patches needed: {', '.join(names) or 'none'}")
    print(
        f"enter and leave exportable(): first {first * 1e3:.1f} ms, then {seconds * 1e3:.1f} ms "
        f"(goal {CONTEXT_GOAL * 1e3:.0f} ms)"
    )
    print(f"eager decoding, patches on / off: {ratio:.3f} (goal {DECODE_GOAL})")
    return int(seconds > CONTEXT_GOAL or ratio > DECODE_GOAL)


if __name__ == "__main__":
    sys.exit(main())
