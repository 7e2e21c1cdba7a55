"""What a generated token costs: eager, exported, compiled by AOTInductor, and in onnxruntime, beside each other.

    python benchmarks/decode.py [--model LlamaConfig] [--tokens 48] [--repeats 12] [--batch 1] [--check]

One process, interleaved: each repeat lets every contestant generate the same tokens once, so that a busy machine slows
all of them. Prints medians as ratios of eager, prefill and the loop included; times are not printed. What is not
installed here is named and left out. Every contestant has to generate the tokens of `model.generate()`.

- `eager`: the model itself, called in a loop with a DynamicCache, one token a call
- `generate`: `model.generate()`
- `exported`: the programs of `export_decoder`
- `aotinductor`, `onnxruntime`: the same programs, through `to_aoti` and `to_onnx`

Target: AOTInductor takes at most half of eager. `--check` exits with 1 where it is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from kvconform import probes
from kvconform.export import ExportError, export_decoder, make_tiny, to_aoti, to_onnx
from kvconform.export.prompts import make_prompt

TARGET = 0.5
PROMPT = 16
Contestants = dict[str, Callable[[], torch.Tensor]]


def eager(model: Any, prompt: dict[str, torch.Tensor], tokens: int) -> torch.Tensor:
    """Greedy decoding by calling the model, without what `generate()` does around it."""
    ids, mask, cache = prompt["input_ids"], prompt["attention_mask"], None
    given = ids
    with torch.no_grad():
        for _ in range(tokens):
            output = model(input_ids=given, attention_mask=mask, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            given = output.logits[:, -1].argmax(-1, keepdim=True)
            ids = torch.cat([ids, given], dim=1)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    return ids


def contestants(model: Any, prompt: dict[str, torch.Tensor], tokens: int, folder: Path) -> Contestants:
    """Everything that can run here, by name."""
    exported = export_decoder(model)
    found: Contestants = {
        "eager": lambda: eager(model, prompt, tokens),
        "generate": lambda: model.generate(**prompt, max_new_tokens=tokens, do_sample=False),
    }
    decoders = {"exported": exported}
    for name, convert in (("aotinductor", to_aoti), ("onnxruntime", to_onnx)):
        try:
            decoders[name] = convert(exported, folder / name)
        except ExportError as error:
            sys.stdout.write(f"{name} is left out: {error}\n")
    for name, decoder in decoders.items():
        found[name] = lambda one=decoder: one.generate(  # type: ignore[misc]
            prompt["input_ids"], prompt["attention_mask"], max_new_tokens=tokens
        )
    return found


def ratios(asked: Contestants, repeats: int) -> dict[str, float]:
    """The median of each contestant's time as a part of eager's in the same repeat."""
    parts: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(repeats):
        took = {}
        for name, run in asked.items():
            begin = time.perf_counter()
            run()
            took[name] = time.perf_counter() - begin
        for name in asked:
            parts[name].append(took[name] / took["eager"])
    return {name: statistics.median(values) for name, values in parts.items()}


def main() -> int:
    """The command. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="LlamaConfig", help="a config class (default: LlamaConfig)")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--check", action="store_true", help="exit with 1 where the target is missed")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    model = make_tiny(options.model)
    model.generation_config.eos_token_id = None
    prompt = make_prompt(model, options.batch, PROMPT)
    with tempfile.TemporaryDirectory() as folder:
        asked = contestants(model, prompt, options.tokens, Path(folder))
        wanted = asked["generate"]()
        for name, run in asked.items():
            if not torch.equal(run(), wanted):
                sys.stdout.write(f"{name} generates other tokens than model.generate()\n")
                return 1
        found = ratios(asked, options.repeats)
    sys.stdout.write(
        f"{type(model).__name__}, batch {options.batch}, {PROMPT} + {options.tokens} tokens, {probes.release()}, one "
        f"thread; median of {options.repeats} interleaved repeats, eager = 1\n"
    )
    for name, part in found.items():
        sys.stdout.write(f"{name:12} {part:6.3f}\n")
    missed = found.get("aotinductor", 0.0) > TARGET
    if missed:
        sys.stdout.write(f"target missed: aotinductor at most {TARGET} of eager\n")
    return int(options.check and ("aotinductor" not in found or missed))


if __name__ == "__main__":
    sys.exit(main())
