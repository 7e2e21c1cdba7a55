"""`python -m kvconform validate MODEL`: export a model, and compare each step of its programs with the model.

MODEL is a local folder with a model, or the name of a config class, of which a tiny random model is made. Prints what
was patched and the largest difference of each step. Exit code 0: equal at every step; 1: a step differs, or the model
does not export; 2: wrong input.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kvconform import probes
from kvconform.errors import KVConformError
from kvconform.export import bundle
from kvconform.export.compare import Difference
from kvconform.export.decoder import ExportedDecoder, GreedyWarning, export_decoder
from kvconform.export.errors import BundleError, SavedInputsError, TinyConfigError
from kvconform.export.prompts import make_prompt
from kvconform.export.replay import replay
from kvconform.export.steps import compare_steps
from kvconform.export.tiny import make_tiny

__all__ = ["Report", "main", "validate"]

EQUAL, DIFFERS, USAGE = 0, 1, 2


@dataclass(frozen=True)
class Report:
    """What validating found.

    Attributes:
        model: the class of the model.
        release: torch and transformers.
        patched: the patches that were entered.
        programs: how many of each kind there are.
        steps: how far each step is from the model.
    """

    model: str
    release: str
    patched: str
    programs: dict[str, int]
    steps: tuple[Difference, ...]

    @property
    def worst(self) -> Difference | None:
        """The first step that differs; None where none does."""
        return next((step for step in self.steps if not step.fine), None)

    def to_json(self) -> dict[str, Any]:
        """The report as plain data, `fine` included; a difference that is no number is a string."""
        steps = [{**asdict(step), "fine": step.fine} for step in self.steps]
        for step in steps:
            step.update({name: _plain(step[name]) for name in ("logits", "cache")})
        head = {"model": self.model, "release": self.release, "patched": self.patched, "programs": self.programs}
        return {**head, "fine": self.worst is None, "steps": steps}


def validate(model: Any, exported: ExportedDecoder, tokens: int) -> Report:
    """Compare the programs with the model for `tokens` steps, at two batch sizes, with padding on the left.

    Args:
        model: the model.
        exported: its programs.
        tokens: steps after the prefill.
    """
    steps: list[Difference] = []
    for batch, length, padding in ((2, 7, 3), (3, 12, 0)):
        prompt = make_prompt(model, batch, length, padding=padding, seed=batch + length)
        steps.extend(compare_steps(model, exported, prompt, tokens))
    counts: dict[str, int] = {}
    for program in exported.programs.all:
        counts[program.kind] = counts.get(program.kind, 0) + 1
    return Report(type(model).__name__, probes.release(), exported.made_by.get("patched", ""), counts, tuple(steps))


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="kvconform validate", description=__doc__)
    parser.add_argument("model", help="a local folder with a model, or a config class such as LlamaConfig")
    parser.add_argument("--tokens", type=int, default=16, help="decode steps to compare (default: 16)")
    parser.add_argument("--save", metavar="FOLDER", help="save the programs there if they are right")
    parser.add_argument("--inputs", metavar="FILE", help="replay the export that left this file, and nothing else")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    options = parser.parse_args(arguments)
    if options.tokens < 1:
        parser.error("--tokens: give 1 or more")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if options.save:
                bundle.refuse(Path(options.save))
            model = _model(options.model)
            if options.inputs:
                return _told(replay(model, options.inputs), EQUAL)
            return _run(model, options, caught)
        except (TinyConfigError, SavedInputsError, BundleError) as error:
            return _complained(error, USAGE)
        except KVConformError as error:
            return _complained(error, DIFFERS)


def _run(model: Any, options: argparse.Namespace, caught: list[warnings.WarningMessage]) -> int:
    exported = export_decoder(model, tell=_progress)
    _progress("comparing step by step")
    report = validate(model, exported, options.tokens)
    _progress("")
    for told in caught:
        if issubclass(told.category, GreedyWarning):
            sys.stderr.write(f"note: {told.message}\n")
    text = json.dumps(report.to_json(), indent=2, allow_nan=False) if options.json else _text(report)
    if report.worst is not None:
        return _told(text, DIFFERS)
    if options.save:
        exported.save(options.save)
    return _told(text, EQUAL)


def _model(name: str) -> Any:
    """The model that is meant.

    Raises:
        TinyConfigError: neither a folder with a model nor a config class.
    """
    if not Path(name).is_dir():
        return make_tiny(name)
    auto: Any = importlib.import_module("transformers")
    try:
        config = auto.AutoConfig.from_pretrained(name, local_files_only=True)
        family = "AutoModelForSeq2SeqLM" if getattr(config, "is_encoder_decoder", False) else "AutoModelForCausalLM"
        if getattr(config, "num_mel_bins", None):
            family = "AutoModelForSpeechSeq2Seq"
        model = getattr(auto, family).from_pretrained(name, local_files_only=True)
    except (OSError, ValueError, RuntimeError, _damaged()) as error:
        # RuntimeError is that of a checkpoint which does not fit its configuration.
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:600]}"
        raise TinyConfigError(
            f"{name} holds no model that {probes.release()} can load: {text}. With code of its own, load it in Python "
            "and call kvconform.export.export_decoder(model)"
        ) from error
    return model.eval().requires_grad_(requires_grad=False)


def _damaged() -> type[Exception]:
    """What safetensors raises for a damaged file, which is no subclass of another error."""
    error: type[Exception] = importlib.import_module("safetensors").SafetensorError
    return error


def _plain(value: float) -> float | str:
    return value if value == value and abs(value) != float("inf") else str(value)  # noqa: PLR0124 - a NaN is not itself


def _text(report: Report) -> str:
    programs = ", ".join(f"{count} {kind}" for kind, count in report.programs.items())
    worst = report.worst
    answer = "equal at every step" if worst is None else f"DIFFERS. {worst}"
    lines = [
        f"{report.model}: {answer}",
        f"{report.release}; patched: {report.patched or 'nothing'}; programs: {programs}",
        "",
        f"{'step':55} {'logits':>10} {'cache':>10}",
    ]
    for step in report.steps:
        verdict = "" if step.fine else f"  <- more than {step.tolerance:g}"
        lines.append(f"{step.step:55} {step.logits:10.3g} {step.cache:10.3g}{verdict}")
    return "\n".join(lines)


def _progress(text: str) -> None:
    """One line that is written over, on a terminal only."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()


def _told(text: str, code: int) -> int:
    sys.stdout.write(text + "\n")
    return code


def _complained(error: Exception, code: int) -> int:
    _progress("")
    sys.stderr.write(f"error: {error}\n")
    return code
