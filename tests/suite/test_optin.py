"""The opt-in categories: asked for by name only, never a silent pass, and able to fail.

Their packages are not installed where these tests run: the runtimes here are fakes, right or wrong in one way.
"""

import json
import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("xdist", reason="the suite runs in workers of pytest-xdist")
pytest.importorskip("transformers", reason="the suite is about transformers")

import torch
import torch.utils._pytree as pytree

from kvconform import register_flattening_functions
from kvconform.checks.caches import BY_NAME
from kvconform.checks.errors import ExpectationError
from kvconform.checks.modules import UpdateCache
from kvconform_conformance import portability, test_executorch, test_onnx
from kvconform_conformance.examples.caches import step_inputs
from kvconform_conformance.examples.models import DECODERS, tokens
from kvconform_conformance.runner import cli, optin
from kvconform_conformance.runner.listing import list_checks, print_checks

DYNAMIC = BY_NAME["dynamic-two-layers"]


@pytest.mark.parametrize(
    ("asked", "plain", "special"),
    [
        ({"categories": [], "exactly": None, "everything": False}, True, False),
        ({"categories": [], "exactly": None, "everything": True}, True, True),
        ({"categories": ["onnx"], "exactly": None, "everything": False}, False, True),
        ({"categories": ["export"], "exactly": None, "everything": False}, True, False),
        ({"categories": [], "exactly": "onnx/one", "everything": False}, False, True),
        ({"categories": [], "exactly": "export/one", "everything": False}, True, False),
        ({"categories": ["onnx"], "exactly": "onnx/two", "everything": False}, False, False),
    ],
)
def test_what_a_run_holds(asked, plain, special):
    rest = {"exactly": asked["exactly"], "everything": asked["everything"]}
    assert optin.is_wanted("export", "export/one", asked["categories"], **rest) is plain
    assert optin.is_wanted("onnx", "onnx/one", asked["categories"], **rest) is special


@pytest.mark.parametrize(
    ("check", "named", "held"),
    [
        ("round-trip/whole[static-below]", "round-trip/whole", True),
        ("round-trip/whole[static-below]", "round-trip/whole[static-below]", True),
        ("round-trip/whole[static-below]", "round-trip/whole[static]", False),
        ("round-trip/whole[static-below]", "round-trip/who", False),
        ("onnx/decode[llama]", "onnx/decode", True),
        ("onnx/decode[llama]", "onnx/dec", False),
    ],
)
def test_the_name_of_a_check_selects_it_with_each_of_its_examples(check, named, held):
    category = check.partition("/")[0]
    assert optin.is_wanted(category, check, [], named, everything=False) is held


def test_the_list_marks_them(capsys):
    assert print_checks(cli.SUITE, ["onnx", "recipe"], None) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("onnx/")]
    for line in lines:
        assert ("(opt-in)" in line) == line.startswith("onnx/"), line


def test_each_category_has_checks():
    assert set(optin.PACKAGES) <= {check.category for check in list_checks(cli.SUITE)}


@pytest.fixture
def suite(tmp_path):
    """A suite of one opt-in check, which needs what is not there, and one plain check."""
    folder = tmp_path / "suite"
    folder.mkdir()
    (folder / "test_plain.py").write_text("def test_one(subject): pass\n", encoding="utf-8")
    text = (
        "from kvconform_conformance.runner.needs import needs\nfrom kvconform.checks.needs import has\n"
        "pytestmark = needs(has('onnxruntime:NoSuchSession'))\ndef test_one(subject): pass\n"
    )
    (folder / "test_onnx.py").write_text(text, encoding="utf-8")
    return folder


def check(suite, *arguments):
    record = suite.parent / "record.jsonl"
    code = cli.main(
        ["--suite", str(suite), "--subject=native", "--device=cpu", "--jobs=1", "--record", str(record), *arguments]
    )
    lines = [json.loads(line) for line in record.read_text("utf-8").splitlines()] if record.exists() else []
    return code, {line["id"]: line["status"] for line in lines if line["kind"] == "check"}


def test_a_run_that_names_nothing_leaves_them_out(suite):
    assert check(suite) == (0, {"plain/one": "pass"})


@pytest.mark.parametrize(
    "arguments", [["--category=onnx"], ["--category=plain", "--category=onnx"], ["-k", "onnx/one"]]
)
def test_a_missing_package_is_a_usage_error_with_the_next_command(suite, monkeypatch, capsys, arguments):
    monkeypatch.setattr(optin, "missing", lambda category: ["onnxruntime"])
    assert check(suite, *arguments) == (2, {})
    assert (
        "onnxruntime not installed here: python -m pip install onnx onnxruntime onnxscript" in capsys.readouterr().err
    )


def test_a_package_without_what_is_needed_is_not_a_pass(suite, monkeypatch):
    monkeypatch.setattr(optin, "missing", lambda category: [])
    assert check(suite, "--category=onnx") == (0, {"onnx/one": "na"})


class Session:
    """onnxruntime's session around eager, with its outputs changed."""

    def __init__(self, module, spec, change=lambda outputs: outputs, inputs=None):
        self.module, self.spec, self.change, self.inputs = module, spec, change, inputs

    def get_inputs(self):
        names = [f"i{index}" for index in range(self.inputs or self.spec.num_leaves)]
        return [type("Value", (), {"name": name}) for name in names]

    def run(self, _, feeds):
        leaves = [torch.as_tensor(value) for value in feeds.values()]
        result = self.module(*pytree.tree_unflatten(leaves, self.spec))
        return self.change([leaf.numpy() for leaf in pytree.tree_leaves(result)])


WRONG = {
    "keys and values swapped": lambda out: [out[0], out[2], out[1], *out[3:]],
    "the cache as it came in": lambda out: [out[0], *(value[:, :, :-1] for value in out[1:])],
    "an output missing": lambda out: out[:-1],
    "a little off": lambda out: [out[0] + 1e-3, *out[1:]],
    "not a number": lambda out: [out[0] * float("nan"), *out[1:]],
}


def expect_onnx(**wrong):
    with register_flattening_functions(patch_transformers=True):
        cache = DYNAMIC.build()
        module = UpdateCache.like(cache)
        args = step_inputs(cache)
        session = Session(module, pytree.tree_structure(args), **wrong)
        test_onnx._expect_equals_eager(session, module, args, "a fake session")


def test_the_onnx_checks_pass_what_is_right():
    expect_onnx()


@pytest.mark.parametrize("name", WRONG)
def test_the_onnx_checks_fail_what_is_wrong(name):
    with pytest.raises(ExpectationError):
        expect_onnx(change=WRONG[name])


def test_the_onnx_checks_fail_a_graph_that_lost_an_input():
    with pytest.raises(ExpectationError, match="the number of the graph's inputs is 5, expected 6"):
        expect_onnx(inputs=5)


class Method:
    """A runtime around the eager model; one that forgets sees the last token only."""

    def __init__(self, *, forgets):
        self.model, self.forgets, self.ids = DECODERS[0].build(), forgets, torch.zeros((1, 0), dtype=torch.long)

    def execute(self, inputs):
        self.ids = inputs[0] if self.forgets else torch.cat([self.ids, inputs[0]], dim=1)
        return [self.model(input_ids=self.ids, use_cache=False).logits[:, -1:]]


@pytest.mark.parametrize("forgets", [False, True])
@pytest.mark.parametrize("name", ["test_static_cache", "test_release_recipe", "test_static_cache_is_read"])
def test_the_executorch_checks_tell_a_cache_from_none(monkeypatch, tmp_path, name, forgets):
    monkeypatch.setattr("kvconform.recipes.convert_and_export_with_cache", lambda model: None)
    monkeypatch.setattr(test_executorch, "exported_recipe", lambda: None)
    monkeypatch.setattr(test_executorch, "_lowered", lambda program, backend: b"")
    monkeypatch.setattr(test_executorch, "_method", lambda path: Method(forgets=forgets))
    arguments = (None, tmp_path) if name == "test_static_cache_is_read" else (None, "portable", tmp_path)
    with register_flattening_functions(patch_transformers=True):
        if forgets:
            with pytest.raises(ExpectationError):
                getattr(test_executorch, name)(*arguments)
        else:
            getattr(test_executorch, name)(*arguments)


def test_the_fake_tells_something():
    assert not torch.equal(tokens(1, 4), tokens(1, 4, seed=1))


@pytest.fixture
def saved(tmp_path):
    with register_flattening_functions(patch_transformers=True):
        portability.save_program(DYNAMIC, tmp_path)
        portability.save_context(DYNAMIC, tmp_path)
        yield tmp_path


def test_a_saved_program_and_its_context_load(saved):
    portability.load_program(DYNAMIC, saved)
    portability.load_context(DYNAMIC, saved)


def test_portability_fails_what_is_wrong(saved):
    facts = json.loads((saved / "dynamic-two-layers.json").read_text("utf-8"))
    leaves = torch.load(saved / "dynamic-two-layers.leaves", weights_only=True)
    torch.save([leaves[1], leaves[0], *leaves[2:]], saved / "dynamic-two-layers.leaves")
    with pytest.raises(ExpectationError, match="differs from this release's own"):
        portability.load_context(DYNAMIC, saved)
    Path(saved / "dynamic-two-layers.json").write_text(
        json.dumps({**facts, "spec": facts["spec"].replace("DynamicCache", "StaticCache")}), encoding="utf-8"
    )
    with pytest.raises(Exception, match=r"."):
        portability.load_context(DYNAMIC, saved)


def test_a_program_of_another_structure_is_no_pass(saved):
    three = BY_NAME["dynamic-three-layers"]
    portability.save_program(three, saved)
    shutil.move(saved / "dynamic-three-layers.pt2", saved / "dynamic-two-layers.pt2")
    with pytest.raises(ExpectationError):
        portability.load_program(DYNAMIC, saved)


def test_a_program_that_is_not_there_is_no_pass(tmp_path):
    with pytest.raises(ExpectationError, match="was not saved"):
        portability.load_program(DYNAMIC, tmp_path)


def test_another_storage_is_told_with_both_texts_and_only_where_they_differ(saved):
    path = saved / "dynamic-two-layers.json"
    facts = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**facts, "storage": "two lists"}), encoding="utf-8")
    portability.load_program(DYNAMIC, saved)
    path.write_text(json.dumps({**facts, "storage": "two lists", "context": "another"}), encoding="utf-8")
    with pytest.raises(portability.NotApplicableError, match=r"saved where caches are two lists, context another"):
        portability.load_program(DYNAMIC, saved)


def test_a_folder_that_is_not_there_is_a_usage_error(tmp_path, capsys):
    assert portability.main(["load", str(tmp_path / "none")]) == 2
    assert "save programs there first" in capsys.readouterr().err


def test_the_interpreter_is_the_one_that_runs(monkeypatch):
    # Releases of executorch before 1.1 look for their compiler on PATH, where no environment is activated.
    monkeypatch.setenv("PATH", "/nowhere")
    with test_executorch._lowering():
        assert str(Path(sys.executable).parent) in __import__("os").environ["PATH"]
    assert __import__("os").environ["PATH"] == "/nowhere"
