"""`python -m kvconform_conformance.portability save|load DIR`: programs saved in one environment, run in another.

`save` exports a decode step of each example with dynamic batch and length and writes `NAME.pt2`, with `NAME.json`
and `NAME.leaves` beside it: the cache's tree spec as text, and its leaves. `load` asks two questions of each:

program   the archive loads and, given this environment's own cache of an unseen batch and length, equals eager
context   the spec's text and the leaves make a cache that equals this environment's own

Each answer is a line of JSON in `--record`, flushed when written. Exit codes: 0 every program was asked (whatever it
answered), 2 usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
import torch.utils._pytree as pytree

from kvconform.checks import archive, shapes, trees
from kvconform.checks.caches import Example, examples
from kvconform.checks.errors import ExpectationError, expect_equal
from kvconform.checks.exporting import expect_program_equals_eager, export
from kvconform.checks.modules import UpdateCache
from kvconform.checks.needs import NotApplicableError, lookup
from kvconform.checks.observe import differences, essence, observe
from kvconform_conformance.examples.caches import SLIDING, step_inputs
from kvconform_conformance.runner.environment import Environment
from kvconform_conformance.runner.recorder import clean, now
from kvconform_conformance.runner.subjects import resolve

SCHEMA = 1
BATCH, MORE_TOKENS = 3, 2
EXAMPLES = (*examples("dynamic-two-layers", "encoder-decoder", "static-below", "static-sliding-past"), *SLIDING)
QUESTIONS = ("program", "context")
Answer = tuple[str, str]


@dataclass(frozen=True)
class Record:
    """Streams answers to a file."""

    stream: IO[str]

    def write(self, kind: str, **fields: Any) -> None:
        """Write one line and flush it."""
        self.stream.write(json.dumps({"kind": kind, **fields}, sort_keys=True) + "\n")
        self.stream.flush()


def main(argv: list[str]) -> int:
    """Run one command; the answers are in the record."""
    parser = argparse.ArgumentParser(prog="python -m kvconform_conformance.portability")
    parser.add_argument("act", choices=("save", "load"))
    parser.add_argument("folder", type=Path, metavar="DIR", help="where the programs are")
    parser.add_argument("--subject", default="kvconform", help="kvconform, native, exporter or module:attribute")
    parser.add_argument("--record", type=Path, metavar="FILE", help="default: standard output")
    parser.add_argument("--header", default="{}", help="JSON that the record's first line takes over")
    options = parser.parse_args(argv)
    if options.act == "load" and not options.folder.is_dir():
        print(f"error: no folder {options.folder}; save programs there first", file=sys.stderr)  # noqa: T201
        return 2
    torch.set_num_threads(1)
    if options.record is None:
        _run(options, Record(sys.stdout))
    else:
        with options.record.open("w", encoding="utf-8") as stream:
            _run(options, Record(stream))
    return 0


def _run(options: argparse.Namespace, record: Record) -> None:
    here = Environment.here("cpu")
    versions = {"torch": here.torch, "transformers": here.transformers, "python": here.python}
    given = json.loads(options.header)
    record.write("portability", act=options.act, schema=SCHEMA, subject=options.subject, **versions, **given)
    asked = _save if options.act == "save" else _load
    options.folder.mkdir(parents=True, exist_ok=True)
    subject = resolve(options.subject)
    for example in EXAMPLES:
        for question, answer in asked(example, options.folder):
            # The subject is entered for each question: what one leaves behind must not help the next.
            with subject.activate():
                status, message = _answer(answer)
            record.write("answer", program=example.name, question=question, status=status, message=clean(message))
    record.write("end", finished=now())


def _answer(ask: Callable[[], None]) -> Answer:
    """The status and the message of a question.

    | what it raises     | status |
    |--------------------|--------|
    | nothing            | pass   |
    | NotApplicableError | na     |
    | ExpectationError   | fail   |
    | anything else      | error  |
    """
    try:
        ask()
    except NotApplicableError as reason:
        return "na", str(reason)
    except ExpectationError as failure:
        return "fail", str(failure)
    except Exception as error:  # noqa: BLE001 - it is an answer, and the next program is asked all the same
        return "error", f"{type(error).__name__}: {' '.join(str(error).split())[:600]}"
    return "pass", ""


def _save(example: Example, folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    for path in folder.glob(f"{example.name}.*"):
        path.unlink()
    yield "program", lambda: save_program(example, folder)
    yield "context", lambda: save_context(example, folder)


def _load(example: Example, folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    yield "program", lambda: load_program(example, folder)
    yield "context", lambda: load_context(example, folder)


def save_program(example: Example, folder: Path) -> None:
    """Export the decode step of an example, batch and length dynamic, and write the archive."""
    _require(example, "the saving release: ")
    cache = example.build()
    trees.expect_registered(cache, example.where)
    module = UpdateCache.like(cache)
    dims = shapes.named(example.longest)
    asked: Any = ({0: dims.batch}, shapes.dynamic_shapes(example.build, 2, example.length, dims), {})
    program = export(module, step_inputs(cache), asked, where=example.where)
    expect_program_equals_eager(program, module, step_inputs(cache), where=example.where)
    archive.save(program, folder / f"{example.name}.pt2", example.where)


def save_context(example: Example, folder: Path) -> None:
    """Write the tree spec of an example as text, and its leaves."""
    _require(example, "the saving release: ")
    cache = example.build()
    trees.expect_registered(cache, example.where)
    leaves, spec = pytree.tree_flatten(cache)
    facts = {"spec": pytree.treespec_dumps(spec), "context": _context(spec), "storage": storage()}
    torch.save(leaves, folder / f"{example.name}.leaves")
    (folder / f"{example.name}.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")


def load_program(example: Example, folder: Path) -> None:
    """Load an archive and run it on this environment's own cache, at a batch and length it was not exported with."""
    _require(example, "the loading release: ")
    _require_same_storage(example, folder)
    path = folder / f"{example.name}.pt2"
    _expect_saved(path, example)
    program = archive.expect_loads(path, example.where)
    module = UpdateCache.like(example.build())
    args = step_inputs(example.build(BATCH, example.length + MORE_TOKENS), BATCH)
    try:
        expect_program_equals_eager(program, module, args, where=f"{example.where}; batch {BATCH}")
    except ExpectationError as failure:
        raise ExpectationError(f"{_context_difference(example, folder)}{failure}") from failure


def load_context(example: Example, folder: Path) -> None:
    """Make a cache from the spec's text and the leaves: class, layers, lengths and tensors equal this release's own."""
    _require(example, "the loading release: ")
    _require_same_storage(example, folder)
    path = folder / f"{example.name}.json"
    _expect_saved(path, example)
    spec = pytree.treespec_loads(_facts(example, folder)["spec"])
    leaves: list[Any] = torch.load(folder / f"{example.name}.leaves", weights_only=True)
    got, expected = pytree.tree_unflatten(leaves, spec), example.build()
    expect_equal("the class", type(got).__name__, type(expected).__name__, example.where)
    expect_equal("the sequence length", int(got.get_seq_length()), int(expected.get_seq_length()), example.where)
    found = differences(essence(observe(got)), essence(observe(expected)))
    trees.expect_no_differences(found, "the cache made from the text differs from this release's own", example.where)


def storage() -> str:
    """Where caches of this release keep their tensors: in a list of layers (4.54 and later), or in two lists."""
    return "layers" if "layers" in vars(lookup("transformers.cache_utils:DynamicCache")()) else "two lists"


def _require(example: Example, whose: str) -> None:
    for need in example.needs:
        if not need.met():
            raise NotApplicableError(f"{whose}{need.reason}")


def _require_same_storage(example: Example, folder: Path) -> None:
    """Leave out the pairs of releases that cannot work, where a cache has layers in one of them and not in the other.

    Where caches have layers (transformers 4.54 and later) a context names their classes; where they are two lists there
    are no classes to name, and neither release can read the context of the other. Contexts that name no class are the
    same text in both, and then the question is asked.

    Raises:
        NotApplicableError: the storage and the contexts differ; the message holds both contexts.
    """
    if not (folder / f"{example.name}.json").exists():
        return
    facts = _facts(example, folder)
    mine = _own_context(example)
    if facts["storage"] != storage() and facts["context"] != mine:
        raise NotApplicableError(
            f"saved where caches are {facts['storage']}, context {facts['context']}; here they are {storage()}, {mine}"
        )


def _context_difference(example: Example, folder: Path) -> str:
    """The saved context and this environment's, as the beginning of a message; empty where they are the same."""
    if not (folder / f"{example.name}.json").exists():
        return ""
    saved, mine = _facts(example, folder)["context"], _own_context(example)
    return "" if saved == mine else f"the context saved is {saved}, here it is {mine}: "


def _expect_saved(path: Path, example: Example) -> None:
    if not path.exists():
        raise ExpectationError(f"{path.name} was not saved, expected a file [{example.where}]")


def _facts(example: Example, folder: Path) -> dict[str, str]:
    facts: dict[str, str] = json.loads((folder / f"{example.name}.json").read_text("utf-8"))
    return facts


def _own_context(example: Example) -> str:
    return _context(pytree.tree_flatten(example.build())[1])


def _context(spec: Any) -> str:
    """The contexts of a spec and its children, as one text."""
    # torch 2.15 warns about the attribute `children_specs`, and earlier releases have no method `children`.
    children = spec.children() if hasattr(spec, "children") else spec.children_specs
    inner = [_context(child) for child in children if not child.is_leaf()]
    return " ".join([json.dumps(spec.context, default=str), *inner])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
