"""Exported programs handed to other runtimes: onnxruntime, and code that AOTInductor compiled.

The result is an `ExportedDecoder` like the one it was made from: the same plan, the same greedy loop. Only what runs a
step differs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as py_pytree

from kvconform import probes
from kvconform.export.bundle import is_bundle
from kvconform.export.cover import Programs
from kvconform.export.decoder import ExportedDecoder
from kvconform.export.errors import ExportError
from kvconform.export.flat import carried, flat_program, output_counters, uncarried
from kvconform.export.leaf_names import input_names, output_names
from kvconform.export.program import Program, Refusal

__all__ = ["CompiledProgram", "to_aoti", "to_onnx"]

Call = Callable[[list[Any]], list[torch.Tensor]]


@dataclass
class CompiledProgram(Program):
    """A program that another runtime runs. What it takes is what the exported one takes, its conditions included.

    Attributes:
        path: the file that the runtime reads.
        call: runs the leaves of the inputs, and gives those of the outputs.
    """

    path: Path = Path()
    call: Call = lambda _: []

    def run(self, inputs: dict[str, Any]) -> Any:
        """What the program gives.

        A runtime does not ask the conditions that torch.export found, and would answer wrongly where one does not hold
        (past a window): they are asked here.

        Raises:
            Refusal: a condition that was traced does not hold for these inputs.
        """
        given = py_pytree.tree_leaves(((), {name: inputs[name] for name in self.names}))
        # Compiled code reads memory in the order that it was compiled for, and does not look at strides.
        leaves = [leaf.contiguous() if isinstance(leaf, torch.Tensor) else leaf for leaf in given]
        conditions = self.conditions()
        if conditions is not None:
            try:
                conditions(*leaves)
            except (AssertionError, RuntimeError) as error:
                raise Refusal(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
        values = [_plain(value) for value in self.call(leaves)]
        # Counters are integers in a cache, and scalars of int64 in a graph.
        return py_pytree.tree_unflatten(values, self.result)


def _plain(value: Any) -> Any:
    is_counter = isinstance(value, torch.Tensor) and value.dim() == 0 and value.dtype == torch.int64
    return int(value) if is_counter else value


def to_onnx(exported: ExportedDecoder, folder: str | Path) -> ExportedDecoder:
    """Convert each program to an ONNX file, run by onnxruntime on the CPU.

    Args:
        exported: the programs, as `export_decoder` gives them; those of a loaded bundle do as well.
        folder: gets `prefill-1.onnx`, `decode-1.onnx` and so on. Inputs are called as the model's arguments and
            `past_key_values.0.key`, outputs `logits` and `present.0.key`, in the order of the layers.

    Raises:
        ExportError: onnx, onnxscript or onnxruntime is not installed, or torch.onnx.export refuses.
    """
    _require("onnx", "onnxscript", "onnxruntime")
    return _converted(exported, Path(folder), ".onnx", _write_onnx, _onnx_call)


def to_aoti(exported: ExportedDecoder, folder: str | Path) -> ExportedDecoder:
    """Compile each program with AOTInductor and the C++ compiler at hand into a package, and load it.

    Args:
        exported: the programs, as `export_decoder` gives them.
        folder: gets a `.pt2` package a program, as `torch._inductor.aoti_load_package` reads. A package takes the
            leaves of the program's inputs as positional arguments, a counter as an empty tensor of shape (counter, 0),
            and gives the leaves of its outputs likewise: no cache class has to be registered to run it.

    Raises:
        ExportError: this torch has no packages of AOTInductor (2.6 has), or compiling fails.
    """
    if not hasattr(importlib.import_module("torch._inductor"), "aoti_load_package"):
        raise ExportError(f"{probes.release()} has no packages of AOTInductor: install torch 2.6 or later")
    return _converted(exported, Path(folder), ".pt2", _write_aoti, _aoti_call)


def _converted(
    exported: ExportedDecoder,
    folder: Path,
    suffix: str,
    write: Callable[[Program, Path], None],
    load: Callable[[Program, Path], Call],
) -> ExportedDecoder:
    if is_bundle(folder):
        raise ExportError(f"{folder} is a bundle, whose programs have the names of these files: give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    made: list[Program] = []
    for program in exported.programs.all:
        number = 1 + sum(one.kind == program.kind for one in made)
        path = folder / f"{program.kind}-{number}{suffix}"
        with exported.within():
            with _reported(program, path):
                write(program, path)
                call = load(program, path)
            converted = CompiledProgram(
                program.kind, program.names, program.exported, program.leaves, path=path, call=call
            )
            blind = converted.conditions() is None
        if blind and any(one.kind == program.kind and one.spec == program.spec for one in made):
            raise ExportError(
                f"{path.name} and another {program.kind} program take the same structure, and {probes.release()} does "
                "not say which of them an input belongs to: install a newer torch"
            )
        made.append(converted)
    return dataclasses.replace(exported, programs=Programs(made), differences=())


@contextlib.contextmanager
def _reported(program: Program, path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise ExportError(
            f"the {program.kind} program cannot be made into {path.name} with {probes.release()}: "
            f"{type(cause).__name__}: {' '.join(str(cause).split())[:600]}"
        ) from error


def _require(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f"{', '.join(missing)} not installed here: python -m pip install {' '.join(packages)}")


def _write_onnx(program: Program, path: Path) -> None:
    # Some releases fall back to the exporter without dynamo, which is another one; later ones have no such option.
    more: Any = {"fallback": False} if "fallback" in inspect.signature(torch.onnx.export).parameters else {}
    names = input_names(program.exported), output_names(program.exported, program.kind)
    made: Any = torch.onnx.export(
        program.exported, (), dynamo=True, input_names=names[0], output_names=names[1], verbose=False, **more
    )
    made.save(str(path))


def _onnx_call(program: Program, path: Path) -> Call:
    onnxruntime: Any = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    wanted = {value.name for value in session.get_inputs()}
    names = input_names(program.exported)

    def call(leaves: list[Any]) -> list[torch.Tensor]:
        # What the graph does not use is no input of it.
        given = {name: _array(leaf) for name, leaf in zip(names, leaves, strict=True) if name in wanted}
        return [torch.from_numpy(value) for value in session.run(None, given)]

    return call


def _array(leaf: Any) -> Any:
    return torch.as_tensor(leaf).detach().cpu().numpy()


def _write_aoti(program: Program, path: Path) -> None:
    inductor: Any = importlib.import_module("torch._inductor")
    inductor.aoti_compile_and_package(flat_program(program), package_path=str(path))


def _aoti_call(program: Program, path: Path) -> Call:
    inductor: Any = importlib.import_module("torch._inductor")
    package = inductor.aoti_load_package(str(path))
    counters = output_counters(program.exported)

    def call(leaves: list[Any]) -> list[Any]:
        return uncarried(py_pytree.tree_leaves(package(*carried(leaves))), counters)

    return call
