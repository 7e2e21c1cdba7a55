"""A bundle: the same tokens after loading, its weights once, and what is refused."""

import dataclasses
import json
import os
import pickle
import zipfile

import pytest
import torch

from kvconform.export import bundle, runtimes
from kvconform.export.decoder import load_decoder
from kvconform.export.errors import BundleError, ExportError
from kvconform.export.program import Program
from kvconform.export.prompts import make_prompt
from kvconform.export.tiny import make_tiny

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def folder(exported, tmp_path):
    return exported.save(tmp_path / "bundle")


def test_a_loaded_bundle_generates_the_same(model, exported, folder):
    prompt = make_prompt(model, 2, 7, padding=3, seed=2)
    wanted = exported.generate(prompt["input_ids"], prompt["attention_mask"], max_new_tokens=16)
    loaded = load_decoder(folder)
    assert torch.equal(loaded.generate(prompt["input_ids"], prompt["attention_mask"], max_new_tokens=16), wanted)
    assert loaded.plan == exported.plan
    assert loaded.settings == exported.settings
    assert [program.leaves for program in loaded.programs.all] == [p.leaves for p in exported.programs.all]


def test_the_weights_are_there_once_in_the_folder_and_in_memory(model, exported, folder, tmp_path):
    size = sum(weight.numel() * weight.element_size() for weight in model.state_dict().values())
    assert size <= (folder / "weights.safetensors").stat().st_size < 1.2 * size
    each = exported.save(tmp_path / "each", share_weights=False)
    assert not (each / "weights.safetensors").exists()
    for path in each.glob("*.pt2"):
        assert path.stat().st_size - (folder / path.name).stat().st_size > 0.8 * size
    programs = [program.exported for program in load_decoder(folder).programs.all]
    places = [{name: weight.data_ptr() for name, weight in one.state_dict.items()} for one in programs]
    assert len(programs) > 1
    assert all(one == places[0] for one in places)
    # Saving has changed nothing of what is in memory.
    for program in exported.programs.all:
        for name, weight in program.exported.state_dict.items():
            assert torch.equal(weight, model.state_dict()[name.removeprefix("model.")]), name


def test_a_bundle_without_shared_weights_generates_the_same(exported, tmp_path):
    prompt = make_prompt(make_tiny("LlamaConfig"), 2, 5, padding=1)
    loaded = load_decoder(exported.save(tmp_path / "each", share_weights=False))
    both = [one.generate(prompt["input_ids"], prompt["attention_mask"], max_new_tokens=8) for one in (loaded, exported)]
    assert torch.equal(*both)


def test_a_loaded_bundle_is_saved_again(folder, tmp_path):
    again = load_decoder(load_decoder(folder).save(tmp_path / "again"))
    assert (tmp_path / "again" / "weights.safetensors").stat().st_size == (
        folder / "weights.safetensors"
    ).stat().st_size
    assert again.plan == load_decoder(folder).plan


def test_weights_of_another_bundle_are_refused(exported, folder, tmp_path):
    """They have the same names and shapes, and would give other tokens."""
    other = exported.save(tmp_path / "other")
    (folder / "weights.safetensors").write_bytes((other / "weights.safetensors").read_bytes())
    with pytest.raises(BundleError, match="another bundle: copy the whole folder"):
        load_decoder(folder)


def first_schema(document):
    document["schema"] = 1
    del document["bundle"]
    for entry in document["programs"]:
        del entry["weights"]


def test_a_bundle_of_the_first_schema_is_read(exported, tmp_path):
    """It had the weights in each program, and nothing else was other."""
    folder = exported.save(tmp_path / "first", share_weights=False)
    changed_manifest(folder, first_schema)
    assert load_decoder(folder).plan == exported.plan


def test_the_manifest_says_what_is_in_the_folder(folder):
    document = json.loads((folder / "manifest.json").read_text())
    assert document["schema"] == bundle.SCHEMA
    assert torch.__version__ in document["made_by"]["release"]
    assert {entry["file"] for entry in document["programs"]} == {path.name for path in folder.glob("*.pt2")}
    decode = next(entry for entry in document["programs"] if entry["kind"] == "decode")
    assert "past_key_values" in decode["names"]
    assert decode["leaves"][0]["sizes"]
    assert "encoded" not in document["plan"], "a manifest names no class"


def changed_manifest(folder, change):
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_saving_onto_something_else_is_refused(exported, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="holds something else"):
        exported.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("manifest", ['{"name": "a web page"}', "[]", "no JSON", "[" * 100_000])
def test_a_manifest_of_another_program_is_no_bundle(exported, tmp_path, manifest):
    mine = {"manifest.json": manifest, "mine.pt2": "mine", "weights.safetensors": "mine"}
    for name, text in mine.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(BundleError, match="holds something else"):
        exported.save(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == mine


def test_what_is_left_of_a_save_that_was_killed_is_cleared(exported, folder, tmp_path):
    for place in (folder, tmp_path / "new"):
        (place / ".saving-of-another-time").mkdir(parents=True)
        exported.save(place)
        assert not list(place.glob(".saving-*"))
        load_decoder(place)


def test_saving_that_fails_leaves_the_bundle_that_was_there(exported, folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    settings = {**exported.plan.decode.settings, "how": torch.float32}
    odd = dataclasses.replace(exported.plan, decode=dataclasses.replace(exported.plan.decode, settings=settings))
    with pytest.raises(BundleError, match="no manifest can hold"):
        dataclasses.replace(exported, plan=odd).save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_conditions_that_cannot_be_asked_are_told_when_a_bundle_is_loaded(folder, monkeypatch):
    """As those of torch 2.15 on a counter, with torch 2.9."""

    def conditions(*_):
        raise RuntimeError("Boolean value of Tensor with more than one value is ambiguous")

    monkeypatch.setattr(Program, "conditions", lambda _: conditions)
    with pytest.raises(BundleError, match="cannot ask: RuntimeError: Boolean value"):
        load_decoder(folder)


def test_no_runtime_writes_into_a_bundle(exported, folder):
    with pytest.raises(ExportError, match="give another folder"):
        runtimes._converted(exported, folder, ".pt2", None, None)


def test_a_bundle_is_replaced_by_the_next(exported, folder):
    (folder / "decode-9.pt2").write_bytes(b"old")
    exported.save(folder)
    assert not (folder / "decode-9.pt2").exists()
    load_decoder(folder)


def other_weight(document):
    names = document["programs"][1]["weights"]
    norm, embedding = (next(name for name in names if part in name) for part in (".norm.", ".embed_tokens."))
    names[norm] = names[embedding]


def unknown_rule(document):
    document["plan"]["decode"]["rules"]["input_ids"] = "tokens of tomorrow"


def unknown_class(document):
    text = document["programs"][1]["structure"]
    document["programs"][1]["structure"] = text.replace("DynamicCache", "CacheOfTomorrow")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "has no manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "is no manifest"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "is no manifest"),
        (lambda folder: changed_manifest(folder, lambda one: one.update(schema=9)), "has schema 9"),
        (lambda folder: changed_manifest(folder, lambda one: one.pop("plan")), "damaged"),
        (lambda folder: changed_manifest(folder, lambda one: one["programs"][0].update(weights=[1])), "damaged"),
        (lambda folder: changed_manifest(folder, other_weight), "do not fit"),
        (lambda folder: changed_manifest(folder, lambda one: one["programs"][0].pop("weights")), "does not say where"),
        (lambda folder: changed_manifest(folder, lambda one: one.update(programs=[])), "no prefill or no decode"),
        (lambda folder: changed_manifest(folder, lambda one: one.update(made_by=None)), "damaged"),
        (lambda folder: changed_manifest(folder, lambda one: one["settings"].update(eos="no")), "damaged"),
        (lambda folder: changed_manifest(folder, unknown_rule), "damaged"),
        (lambda folder: (folder / "manifest.json").write_text("[" * 100_000), "is no manifest"),
        (lambda folder: (folder / "weights.safetensors").unlink(), "^[^(]*weights.safetensors is missing"),
        (lambda folder: (folder / "weights.safetensors").write_bytes(b"cut"), "holds no weights"),
        (lambda folder: changed_manifest(folder, unknown_class), "cannot make"),
        (lambda folder: (folder / "decode-1.pt2").unlink(), "is missing"),
        (lambda folder: (folder / "decode-1.pt2").write_bytes(b"no zip"), "is no .pt2 file"),
        (lambda folder: (folder / "decode-1.pt2").write_bytes((folder / "prefill-1.pt2").read_bytes()), "structure"),
    ],
    ids=[
        "none",
        "cut",
        "list",
        "schema",
        "part",
        "names",
        "weight",
        "no names",
        "no programs",
        "no origin",
        "no ends",
        "no rule",
        "nested",
        "no weights",
        "cut weights",
        "class",
        "missing",
        "zip",
        "other",
    ],
)
def test_a_bundle_that_cannot_run_is_refused(folder, damage, message):
    damage(folder)
    with pytest.raises(BundleError, match=message) as caught:
        load_decoder(folder)
    # The next step is in the message.
    assert any(word in str(caught.value) for word in ("save", "Export", "copy", "install")), caught.value


class Evil:
    def __reduce__(self):
        return (open, ("/tmp/kvconform-was-unpickled", "w"))


def test_no_pickle_of_a_bundle_is_executed(folder, tmp_path, monkeypatch):
    """Every pickled member of the archive is replaced by one that would write a file."""
    mark = tmp_path / "written"
    monkeypatch.setattr(Evil, "__reduce__", lambda self: (open, (str(mark), "w")))
    path = folder / "prefill-1.pt2"
    replaced = 0
    with zipfile.ZipFile(path) as archive:
        members = {info: archive.read(info) for info in archive.infolist()}
    evil = tmp_path / "evil.pt"
    torch.save({"x": Evil()}, evil)
    with zipfile.ZipFile(path, "w") as archive:
        for info, content in members.items():
            is_pickle = info.filename.endswith((".pt", ".pkl")) and content
            replaced += bool(is_pickle)
            archive.writestr(info, evil.read_bytes() if is_pickle else content)
    assert replaced
    with pytest.raises(BundleError, match="cannot be loaded"):
        load_decoder(folder)
    assert not mark.exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_an_archive_with_objects_is_refused(folder):
    with zipfile.ZipFile(folder / "prefill-1.pt2", "a") as archive:
        archive.writestr("archive/data/constants/opaque_obj_0", pickle.dumps([]))
    with pytest.raises(BundleError, match="pickled objects"):
        load_decoder(folder)
