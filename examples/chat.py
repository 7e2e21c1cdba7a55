"""A chat loop on an exported program. Nothing is downloaded: the model is tiny and random, so its answers are noise.

    python examples/chat.py                          # type lines; an empty one ends it
    python examples/chat.py "hello" "and you?"       # or give them
    python examples/chat.py --bundle chat.bundle     # keep the programs there; the next run needs no model

With a model of your own give `export_decoder` that, and its tokenizer's numbers instead of `ids_of`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kvconform.export import ExportedDecoder, export_decoder, load_decoder

VOCABULARY, END = 128, ord("\n")


def tiny_model() -> LlamaForCausalLM:
    """A random Llama whose tokens are the ASCII characters; a new line ends what it says."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        bos_token_id=1,
        eos_token_id=END,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


def exported(bundle: Path) -> ExportedDecoder:
    """The programs in a bundle; exported and saved there first where it holds none."""
    if not (bundle / "manifest.json").is_file():
        export_decoder(tiny_model()).save(bundle)
    return load_decoder(bundle)


def ids_of(text: str) -> list[int]:
    """A line as tokens."""
    return [*text.encode("ascii", "replace"), END]


def chat(programs: ExportedDecoder, lines: Iterable[str], say: Callable[[str], None], tokens: int = 40) -> list[int]:
    """Answer each line, a token at a time, knowing all that was said before. Returns the whole conversation.

    Each answer begins with a prefill of the conversation: the cache of the last one is not kept.
    """
    said: list[int] = []
    for line in lines:
        said += ids_of(line)
        answer = programs.generate(
            torch.tensor([said]),
            max_new_tokens=tokens,
            on_token=lambda chosen: say(chr(int(chosen[0]))),
        )
        said = answer[0].tolist()
        if said[-1] != END:
            said.append(END)
            say("\n")
    return said


def typed() -> Iterable[str]:
    """Lines from the terminal until an empty one."""
    while line := input("> "):
        yield line


def write(text: str) -> None:
    """Print without waiting for the end of the line; what is no printable character as a dot."""
    sys.stdout.write(text if text == "\n" or text.isprintable() else ".")
    sys.stdout.flush()


def main(get: Callable[[Path], ExportedDecoder] = exported) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", nargs="*", help="what to say; without any, lines are read from the terminal")
    parser.add_argument("--bundle", type=Path, help="the folder of the programs (default: a temporary one)")
    parser.add_argument("--tokens", type=int, default=40, help="the longest answer (default: 40)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        programs = get(options.bundle or Path(folder) / "bundle")
        chat(programs, options.lines or typed(), write, options.tokens)


if __name__ == "__main__":
    main()
