"""Patches: entering and leaving, nested, after exceptions, in threads, by name and by need."""

import importlib
import importlib.util
import json
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kvconform
from kvconform.checks.patches import whole_snapshot
from kvconform.errors import KVConformError, UnknownPatchError
from kvconform.patches import (
    PATCHES,
    Need,
    Patch,
    Replacement,
    answer,
    applied,
    patch_functions,
    patches_needed,
    registry,
)
from kvconform.patches.command import main
from kvconform.patches.patch import needed

# A patch of models replaces in those that are imported, and each test may be the first to import one.
for name in ("mixtral", "granitemoe", "jetmoe", "jamba", "bart"):
    if importlib.util.find_spec(f"transformers.models.{name}") is not None:
        importlib.import_module(f"transformers.models.{name}.modeling_{name}")
# What the exporter registers when it is loaded belongs to the state before.
importlib.import_module("torch.export._trace")
NEEDED = [patch.name for patch in patches_needed()]


class Owner:
    """Something to be replaced in."""

    @staticmethod
    def static():
        return "before"


def one_patch(name, *replacements):
    return Patch(name, "Owner", "a test", "none", lambda: needed("always"), lambda: replacements)


def replacing(name, owner=Owner, attribute="static", value=None):
    return one_patch(name, Replacement(owner, attribute, lambda _: value or staticmethod(lambda: name)))


def adding(name):
    """A patch that says its name after what is said without it."""
    return one_patch(name, Replacement(Owner, "static", lambda before: staticmethod(lambda: before.__func__() + name)))


@pytest.fixture(autouse=True)
def _nothing_in_force():
    assert applied.in_force() == ()
    yield
    assert applied.in_force() == ()


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.name)
def test_leaving_restores_everything(patch):
    if answer(patch).need is Need.NOT_APPLICABLE:
        assert answer(patch).reason
        return
    before = whole_snapshot()
    with patch_functions(patch.name) as entered:
        assert [one.name for one in entered] == [patch.name]
        added = before.added()
        assert before.changed() or added, "the patch replaces nothing that this test can see"
    assert before.changed() == []
    assert not set(added) & set(before.added())


def test_leaving_restores_everything_after_an_exception_and_nested():
    before = whole_snapshot()

    def fails_inside():
        with patch_functions():
            with patch_functions():
                assert list(applied.in_force()) == NEEDED
            assert list(applied.in_force()) == NEEDED
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails_inside()
    assert before.changed() == []


def test_patches_are_entered_by_name_and_left_out_by_name():
    applicable = [patch.name for patch in PATCHES if answer(patch).need is not Need.NOT_APPLICABLE]
    for name in applicable:
        with patch_functions(name):
            assert applied.in_force() == (name,)
    with kvconform.exportable(without=NEEDED) as entered:
        assert entered == ()
    with pytest.raises(UnknownPatchError, match="did you mean 'vmap-masks'"), patch_functions("vmap-mask"):
        pass


def test_a_probe_that_raises_names_its_patch_and_how_to_go_on_without_it(monkeypatch):
    def raises():
        raise ZeroDivisionError("of a new release")

    broken = replace(PATCHES[0], probe=raises)
    monkeypatch.setattr(registry, "PATCHES", (broken, *PATCHES[1:]))
    monkeypatch.setattr(registry, "_ANSWERS", {})
    says = rf"{broken.name}.*of a new release.*without=\['{broken.name}'\]"
    with pytest.raises(KVConformError, match=says), kvconform.exportable():
        pass
    with kvconform.exportable(without=[broken.name]) as entered:
        assert broken.name not in {patch.name for patch in entered}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=8))
def test_patches_of_one_place_are_made_of_each_other_and_left_in_any_order(steps):
    """Each letter enters its patch, or leaves it if it is entered; what stands there tells which are, in order."""
    patches = {name: adding(name) for name in "abc"}
    original, entered = vars(Owner)["static"], []
    for name in (*steps, *"abc"):
        if name in entered:
            applied.leave(patches[name])
            entered.remove(name)
        elif name in steps:
            applied.enter(patches[name])
            entered.append(name)
        assert Owner.static() == "before" + "".join(entered)
    for name in list(entered):
        applied.leave(patches[name])
        entered.remove(name)
        assert Owner.static() == "before" + "".join(entered)
    assert vars(Owner)["static"] is original


def test_all_patches_of_this_release_can_be_in_force_at_once():
    before = whole_snapshot()
    with patch_functions(*(patch.name for patch in PATCHES)):
        pass
    assert before.changed() == []


def test_what_a_patch_replaced_before_it_failed_is_put_back():
    def fails(_):
        raise ZeroDivisionError

    original = vars(Owner)["static"]
    table = {"key": 1}
    patch = one_patch(
        "fails",
        Replacement(Owner, "static", lambda _: staticmethod(lambda: "patched")),
        Replacement(Owner, "added", lambda before: (before, "new")),
        Replacement(table, "key", lambda before: before + 1),
        Replacement(table, "other", lambda before: before),
        Replacement(Owner, "more", fails),
    )
    with pytest.raises(ZeroDivisionError):
        applied.enter(patch)
    assert vars(Owner)["static"] is original
    assert not hasattr(Owner, "added")
    assert table == {"key": 1}


def test_the_last_thread_that_leaves_takes_the_patch_back():
    patch, inside, may_leave = replacing("threads"), threading.Event(), threading.Event()

    def other():
        applied.enter(patch)
        inside.set()
        may_leave.wait(10)
        applied.leave(patch)

    applied.enter(patch)
    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(10)
    applied.leave(patch)
    assert Owner.static() == "threads"
    may_leave.set()
    thread.join()
    assert Owner.static() == "before"


def test_a_model_that_is_imported_inside_is_patched_and_put_back():
    name = "transformers.models.qwen2_moe.modeling_qwen2_moe"
    code = f"""
import importlib, sys, kvconform
with kvconform.exportable() as entered:
    assert "experts-by-data" in [patch.name for patch in entered]
    module = importlib.import_module({name!r})
    changed = [
        (cls, member)
        for cls in vars(module).values() if isinstance(cls, type) and cls.__module__ == {name!r}
        for member in vars(cls).values()
        if getattr(getattr(member, "__code__", None), "co_filename", "").endswith("experts_by_data.py")
    ]
    assert changed, "nothing was replaced"
for cls, member in changed:
    assert member not in vars(cls).values(), (cls, member)
assert not any(type(finder).__module__.startswith("kvconform") for finder in sys.meta_path)
assert module.__spec__.loader is module.__loader__
assert "kvconform" not in type(module.__loader__).__module__
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=280, check=True)


def test_many_threads_leave_no_trace():
    before = whole_snapshot()

    def work():
        for _ in range(20):
            with patch_functions():
                torch.ones(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert before.changed() == []


def test_the_command_lists_every_patch_with_its_reason(capsys):
    line = [sys.executable, "-m", "kvconform", "patches"]
    told = subprocess.run(line, capture_output=True, text=True, timeout=300, check=True).stdout
    main(["--json"])
    listed = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in listed["patches"]] == [patch.name for patch in PATCHES]
    for patch, one in zip(PATCHES, listed["patches"], strict=True):
        assert one["need"] == answer(patch).need.value
        assert one["reason"] == answer(patch).reason
        assert patch.name in told
        assert answer(patch).reason in told
