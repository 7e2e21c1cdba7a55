"""A folder of programs and a manifest: written, read in a fresh process, refused where it cannot run.

    manifest.json        schema, versions, how each input follows from the tokens, what each program takes
    prefill-1.pt2        one file a program, as torch.export.save writes it
    weights.safetensors  the weights, which the programs share

The manifest is plain JSON. The `.pt2` files hold pickled tensors: they are read with torch's safe unpickler only.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as py_pytree

from kvconform import probes
from kvconform._version import __version__
from kvconform.export import weights
from kvconform.export.cover import Programs
from kvconform.export.errors import BundleError
from kvconform.export.greedy import Settings
from kvconform.export.plan import Phase, Plan
from kvconform.export.program import Program, leaves_of
from kvconform.export.rules import rule_named

if TYPE_CHECKING:
    from kvconform.export.decoder import ExportedDecoder

__all__ = ["is_bundle", "load", "made_by", "refuse", "save"]

SCHEMA = 3
READABLE = (1, 2, 3)
"""Schema 1 had the weights in each program; 2 knew nothing of padding that is refused, and no plan that begins anew."""
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
_SAVING = ".saving-"
_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_FORCE_NOT = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
# Members of a .pt2 file that torch unpickles without asking the safe unpickler.
_UNSAFE = ("opaque_obj_", "custom_obj_")
Loaded = tuple[Plan, Programs, Settings, dict[str, str]]


def made_by(model: Any, patched: list[str]) -> dict[str, str]:
    """What a bundle says of its origin."""
    return {
        "model": type(model).__name__,
        "release": probes.release(),
        "kvconform": __version__,
        "patched": ", ".join(patched),
    }


def save(exported: ExportedDecoder, folder: Path, *, share_weights: bool) -> Path:
    """Write the folder; the manifest last, so that a folder without one is known to be unfinished.

    Raises:
        BundleError: the folder holds something that is no bundle, or a setting cannot be written.
    """
    refuse(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for unfinished in folder.glob(f"{_SAVING}*"):
        shutil.rmtree(unfinished)
    own = uuid.uuid4().hex
    # Beside what is there, which stays until all of the new one is written.
    beside = folder / f"{_SAVING}{own}"
    beside.mkdir()
    try:
        _write(exported, beside, own, share_weights=share_weights)
        for old in (folder / MANIFEST, folder / WEIGHTS, *folder.glob("*.pt2")):
            old.unlink(missing_ok=True)
        for new in sorted(beside.iterdir(), key=lambda one: one.name == MANIFEST):
            new.replace(folder / new.name)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def refuse(folder: Path) -> None:
    """Refuse a folder that holds something which is no bundle, nor what is left of saving one.

    Raises:
        BundleError: it does.
    """
    held = [one for one in folder.iterdir() if not one.name.startswith(_SAVING)] if folder.is_dir() else []
    if folder.is_file() or (held and not is_bundle(folder)):
        raise BundleError(f"{folder} holds something else: give a new or an empty folder")


def is_bundle(folder: Path) -> bool:
    """Whether a manifest in it is one of a bundle: other programs have files of that name too."""
    try:
        document = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and {"schema", "made_by", "programs"} <= set(document)


def _write(exported: ExportedDecoder, folder: Path, own: str, *, share_weights: bool) -> None:
    tensors, names = weights.together(program.exported for program in exported.programs.all if share_weights)
    if tensors:
        weights.write(folder / WEIGHTS, tensors, own)
    counts: dict[str, int] = {}
    entries = []
    for at, program in enumerate(exported.programs.all):
        counts[program.kind] = counts.get(program.kind, 0) + 1
        name = f"{program.kind}-{counts[program.kind]}.pt2"
        apart = names[at] if tensors else {}
        with weights.stand_ins(program.exported, apart):
            # With their example inputs: torch reads there how to write the conditions on sizes into the module.
            torch.export.save(program.exported, folder / name)
        entries.append({**_entry(program, name), "weights": apart})
    plan = asdict(exported.plan)
    # What is loaded exports nothing, and no manifest names a class that somebody might import.
    del plan["encoded"]
    document = {
        "schema": SCHEMA,
        "bundle": own,
        "made_by": exported.made_by,
        "settings": asdict(exported.settings),
        "plan": plan,
        "programs": entries,
    }
    try:
        text = json.dumps(document, indent=2)
    except TypeError as error:
        raise BundleError(
            f"generate() gives this model an argument that no manifest can hold ({error}): give it to the model when "
            "it is made, or keep the programs in this process"
        ) from error
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def _entry(program: Program, name: str) -> dict[str, Any]:
    return {
        "file": name,
        "kind": program.kind,
        "names": list(program.names),
        "structure": py_pytree.treespec_dumps(program.spec),
        "leaves": [{"name": leaf.name, "dtype": leaf.dtype, "sizes": leaf.sizes} for leaf in program.leaves],
    }


def load(folder: Path) -> Loaded:
    """Read the folder.

    Raises:
        BundleError: the message says which of the reasons above it is.
    """
    document = _manifest(folder)
    try:
        plan = document["plan"]
        phases = {kind: Phase(**plan[kind]) for kind in ("prefill", "decode")}
        for phase in phases.values():
            for rule in phase.rules.values():
                rule_named(rule)
        tuples = {name: tuple(plan[name]) for name in ("start", "encoder")}
        settings = document["settings"]
        made_by = {str(name): str(value) for name, value in document["made_by"].items()}
        programs = [_program(folder, entry, made_by) for entry in document["programs"]]
        if not {"prefill", "decode"} <= {program.kind for program in programs}:
            raise ValueError("it names no prefill or no decode program")  # noqa: TRY301 - told with the file below
        _attach(folder, programs, document)
        for program, entry in zip(programs, document["programs"], strict=True):
            _refuse_unasked(program, folder / Path(entry["file"]).name, made_by)
        return (
            Plan(**{**plan, **phases, **tuples}),
            Programs(programs),
            Settings(tuple(map(int, settings["eos"])), None if settings["pad"] is None else int(settings["pad"])),
            made_by,
        )
    except BundleError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(
            f"{folder / MANIFEST} is damaged ({type(error).__name__}: {error}): save the bundle again"
        ) from error


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError(
            f"{folder} has no {MANIFEST}: it is no bundle, or saving it did not end. Save it again: "
            "export_decoder(model).save(folder)"
        )
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        schema = document["schema"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{path} is no manifest ({type(error).__name__}: {error}): save the bundle again") from error
    if schema not in READABLE:
        raise BundleError(
            f"{folder} has schema {schema}, kvconform {__version__} reads {SCHEMA}: install the kvconform that wrote "
            f"it (see made_by in {MANIFEST}), or save it again with this one"
        )
    return dict(document)


def _attach(folder: Path, programs: list[Program], document: dict[str, Any]) -> None:
    names = [dict(entry.get("weights", {})) for entry in document["programs"]]
    for program, entry, apart in zip(programs, document["programs"], names, strict=True):
        missing = weights.stood_in(program.exported) - set(apart)
        if missing:
            raise BundleError(
                f"{MANIFEST} does not say where the weights of {entry['file']} are ({', '.join(sorted(missing)[:3])}): "
                "save the bundle again"
            )
    if not any(names):
        return
    tensors = weights.read(folder / WEIGHTS, document["bundle"])
    for program, apart in zip(programs, names, strict=True):
        weights.attach(program.exported, apart, tensors)


def _program(folder: Path, entry: dict[str, Any], origin: dict[str, str]) -> Program:
    path = folder / Path(entry["file"]).name
    if not path.is_file():
        raise BundleError(f"{path} is missing: copy the whole folder, or save the bundle again")
    spec = _structure(entry, path, origin)
    _refuse_pickles(path)
    try:
        with _safe_unpickling():
            exported = torch.export.load(path)
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise BundleError(
            f"{path} cannot be loaded with {probes.release()}: {type(error).__name__}: {text}. It was written with "
            f"{origin.get('release')}: load it there, or export again here"
        ) from error
    program = Program(entry["kind"], tuple(entry["names"]), exported, leaves_of(exported))
    if program.spec != spec:
        raise BundleError(f"{path} takes another structure than {MANIFEST} says: save the bundle again")
    return program


def _refuse_unasked(program: Program, path: Path, origin: dict[str, str]) -> None:
    """Refuse a program whose conditions on its inputs raise here: torch 2.9 cannot ask those on a counter of 2.15.

    The inputs that it was exported with meet them.
    """
    conditions = program.conditions()
    inputs = program.exported.example_inputs
    if conditions is None or inputs is None:
        return
    leaves = py_pytree.tree_leaves(inputs)
    try:
        conditions(*leaves)
    except Exception as error:  # code that another torch generated: AttributeError and RuntimeError were seen
        raise BundleError(
            f"{path} has conditions that {probes.release()} cannot ask: {type(error).__name__}: {error}. "
            f"It was written with {origin.get('release')}: load it there, or export again here"
        ) from error


def _structure(entry: dict[str, Any], path: Path, origin: dict[str, str]) -> Any:
    """The structure of a program's inputs; a class that this release lacks is told before torch stumbles over it."""
    try:
        return py_pytree.treespec_loads(entry["structure"])
    except Exception as error:
        raise BundleError(
            f"{path} takes a structure that {probes.release()} cannot make ({type(error).__name__}: {error}): it was "
            f"written with {origin.get('release')}. Export again here, or load it there"
        ) from error


def _refuse_pickles(path: Path) -> None:
    """Refuse a file that torch would unpickle by itself.

    Raises:
        BundleError: it holds such a member, or is no archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise BundleError(f"{path} is no .pt2 file, or a damaged one ({error}): save the bundle again") from error
    unsafe = [name for name in names if name.rpartition("/")[2].startswith(_UNSAFE)]
    if unsafe:
        raise BundleError(
            f"{path} holds pickled objects ({', '.join(unsafe)}), which run code when they are loaded, and is refused: "
            "kvconform writes none"
        )


@contextmanager
def _safe_unpickling() -> Iterator[None]:
    """Have every torch.load inside the block use the safe unpickler.

    torch.export.load calls torch.load(weights_only=False) in all releases; torch's own variable overrides that.
    """
    before = {name: os.environ.get(name) for name in (_FORCE, _FORCE_NOT)}
    os.environ.pop(_FORCE_NOT, None)
    os.environ[_FORCE] = "1"
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
