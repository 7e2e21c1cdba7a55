"""Generated mutants: enough of them, each kind is noticed, and a survivor without a reason is told."""

import pytest

from kvconform.checks.registry import expect_registry_unchanged, registry_snapshot
from mutants import asking, harmless, running
from mutants.generated import Mutant
from mutants.harmless import Row
from mutants.plant import kvconform_context

pytest.importorskip("transformers", reason="the mutants are registrations of transformers' caches")

# One of each kind, and a check that notices it.
NOTICED = {
    "attributes/DynamicLayer.dtype/lost": "round-trip/whole[dynamic-two-layers]",
    "attributes/DynamicLayer.keys/neighbour": "round-trip/whole[dynamic-two-layers]",
    "attributes/StaticLayer.max_cache_len/earlier": "round-trip/in-flight[static]",
    "attributes/DynamicSlidingWindowLayer.cumulative_length/reset": "round-trip/whole[sliding-past]",
    "attributes/DynamicLayer.device/neighbour": "round-trip/mixed-devices[dynamic-two-layers]",
    "attributes/DynamicLayer.is_initialized/neighbour": "round-trip/each-attribute[dynamic-two-layers]",
    "thresholds/layers-past-9/reordered": "round-trip/every-size[layers]",
    "thresholds/batch-at-1/told": "registration/spec-sizes[dynamic]",
    "thresholds/length-at-0/copied": "round-trip/every-size[length]",
    "thresholds/values-past-64/cut": "round-trip/every-size[values]",
    "thresholds/bfloat16/cast": "round-trip/generated[types]",
    "leaves/unflatten-last/detached": "round-trip/whole[dynamic-two-layers]",
    "leaves/flatten-keys/contiguous": "round-trip/generated[views]",
    "leaves/unflatten-second/alias": "round-trip/whole[dynamic-two-layers]",
    "leaves/unflatten-first/no-gradient": "round-trip/generated[gradients]",
    "entries/nodes-StaticCache/missing": "registration/registered[StaticCache]",
    "entries/fx-DynamicCache/stale": "registration/fx-agrees[dynamic-two-layers]",
    "entries/serialized-DynamicCache/missing": "registration/json-spec[dynamic-two-layers]",
    "leftovers/nodes-after-leaving/lost": "registration/undone",
    "leftovers/fx-after-an-exception/left": "registration/undone-after-exception[ValueError]",
    "attributes/DynamicSlidingWindowLayer.sliding_window/neighbour": "round-trip/generated[windows]",
    "attributes/DynamicIndexedLayer.indexer_position_ids/neighbour": "round-trip/whole[indexed-positions]",
    "attributes/LinearAttentionAndSlidingWindowAttentionLayer.sliding_window/earlier": "round-trip/generated[examples]",
    "planted/undone_after_usual_exceptions": "registration/undone-after-exception[KeyboardInterrupt]",
    "planted/asks_whether_a_cache_is_long": "round-trip/symbolic[dynamic-two-layers]",
    "planted/numbers_of_six_digits": "round-trip/each-attribute[static-below]",
    "planted/marks_taken_from_tensors": "round-trip/generated[views]",
    "planted/what_is_false_is_nothing": "round-trip/placeholders",
    "planted/device_of_the_keys": "round-trip/each-attribute[dynamic-two-layers]",
    "planted/busy_after_an_error": "round-trip/after-an-error",
    "planted/class_by_its_name": "registration/class-defined-again",
    "planted/window_made_in_the_first_mode": "device/fake-round-trip[sliding-past]",
    "planted/contexts_are_equal_if_identical": "registration/promises[types]",
    "planted/forgets_late_names": "registration/own-class-inside-stays",
    "memory/keeps-leaves-from-1": "round-trip/nothing-kept",
    "memory/by-context": "round-trip/in-flight[sizes]",
    "memory/keys-as-text": "round-trip/generated[attributes]",
}


@pytest.fixture(scope="module")
def known():
    return running.prepare()


def test_hundreds(known):
    assert len(known) >= 150
    assert {name.split("/")[0] for name in known} == {
        "planted", "attributes", "thresholds", "leaves", "entries", "leftovers", "memory",
    }  # fmt: skip


@pytest.mark.parametrize("name", NOTICED)
def test_one_of_each_kind_is_noticed(known, name):
    if name not in known:
        pytest.skip(f"this release has no {name}")
    check = next(check for check in asking.checks() if check.id == NOTICED[name])
    before = registry_snapshot()
    assert asking.ask(check, running.right()).status == "pass"
    found = next(running.judge_all([known[name]], _only(check)))
    assert found.killer == check.id, found
    expect_registry_unchanged(before)


def _only(check):
    share = (check,)
    return running.Questions((), share, ()) if asking.enters_itself(check) else running.Questions(share, (), ())


def test_a_right_one_survives_and_a_dead_one_is_noticed():
    import os

    check = next(check for check in asking.checks() if check.id == "round-trip/whole[dynamic-two-layers]")
    right = Mutant("right", context=kvconform_context)
    dead = Mutant("dead", change=lambda: os._exit(3))
    verdicts = {verdict.mutant: verdict for verdict in running.judge_all([right, dead], _only(check))}
    assert (verdicts["right"].killer, verdicts["right"].status) == (None, "survived")
    assert verdicts["dead"].status == "crash"


def test_rows_are_strict():
    rows = [Row("a/*", "nobody sees it"), Row("b", "nor this"), Row("of-another-release", "nor that")]
    known = {"a/1", "a/2", "b", "c"}
    found = harmless.problems(rows, known, judged=known, survived={"a/1", "b", "c"})
    assert found.unexplained == ("c",)
    assert [line.split(":")[0] for line in found.lines] == ["harmless.toml", "c survived"]
    assert not harmless.problems(rows, known, judged=known, survived={"a/1", "a/2", "b"}).lines


def test_a_row_about_releases_that_lack_a_name_is_silent_on_others():
    lacking = Row("a", "nobody sees it", lacks="transformers.cache_utils:NeverThere")
    having = Row("b", "nor this", lacks="transformers.cache_utils:DynamicCache")
    found = harmless.problems([lacking, having], {"a", "b"}, judged={"a", "b"}, survived={"a", "b"})
    assert found.unexplained == ("b",)
    assert not harmless.problems([having], {"b"}, judged={"b"}, survived=set()).lines
    assert harmless.problems([lacking], {"a"}, judged={"a"}, survived=set()).lines


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('mutant = "a"\nreason = ""', "needs a mutant and a reason"),
        ('mutant = "a"\nreason = "b"\nlacks = "DynamicLayer"', "as module:Name"),
    ],
    ids=["no-reason", "no-name"],
)
def test_a_row_that_says_too_little_is_refused(tmp_path, row, said):
    path = tmp_path / "harmless.toml"
    path.write_text(f"[[harmless]]\n{row}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        harmless.load(path)


def test_the_rows_have_reasons():
    harmless.load()
