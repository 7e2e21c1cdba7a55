"""The suite asked without pytest: the same checks, the same answers, and nothing left behind."""

import subprocess
import sys

import pytest

from kvconform.checks.registry import expect_registry_unchanged, registry_snapshot
from kvconform_conformance.runner.subjects import Subject
from mutants import asking
from mutants.planted import MUTANTS

pytest.importorskip("transformers", reason="the suite is about transformers")

# What passed the whole suite until its examples were drawn at random, and the check that was missing.
PASSED_ONCE = {
    "layers_sorted_as_text": "round-trip/every-size[layers]",
    "values_as_wide_as_keys": "round-trip/generated[values-of-another-width]",
    "window_of_the_last_flattened": "round-trip/in-flight[windows]",
    "gradients_detached": "round-trip/generated[gradients]",
    "context_tells_batch_of_one": "registration/spec-sizes[dynamic]",
    "context_tells_length_of_one": "registration/spec-sizes[dynamic]",
    "no_tokens_no_layer": "round-trip/every-size[length]",
    "own_class_lost": "round-trip/own-class",
    "gradients_turned_off": "round-trip/process-unchanged[dynamic-two-layers]",
    "random_numbers_drawn": "round-trip/process-unchanged[dynamic-two-layers]",
    "device_of_the_layer_stale": "device/moves[meta-types]",
    "known_to_one_thread": "round-trip/across-threads",
    "cast_to_the_default_type": "round-trip/under[double]",
    "new_tensors_where_the_default_is": "round-trip/under[device-meta]",
    "copies_in_inference_mode": "round-trip/under[inference-mode]",
    "names_sorted_as_text": "registration/promises[many-layers]",
    "keys_named_values": "registration/key-paths[dynamic-two-layers]",
    "context_has_number_of_entering": "registration/spec-every-time",
    "forgets_who_was_registered": "registration/own-node-back",
    "leaves_logging_silent": "registration/process-unchanged",
    "own_layers_lost": "round-trip/own-layers[dynamic-two-layers]",
    "own_parts_lost": "round-trip/own-class",
    "known_by_name_alone": "round-trip/own-class-promises",
    "an_exception_undoes_all": "registration/nested-exception",
    "own_classes_without_fx": "round-trip/own-class-promises",
    "counters_of_fifteen_bits": "round-trip/every-size[maximum]",
    "plans_by_number_of_leaves": "round-trip/in-flight[anything]",
    "attributes_on_tensors": "registration/promises[attributes]",
    "not_a_number_is_nothing": "round-trip/generated[attributes]",
}


def by_id(wanted):
    return next(check for check in asking.checks() if check.id == wanted)


def test_ids_are_the_suite_s():
    command = [sys.executable, "-m", "kvconform", "check", "--list"]
    command += [f"--category={name.replace('_', '-')}" for name in asking.CATEGORIES]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=280, check=True).stdout
    known = {line.split("\t")[0] for line in listed.splitlines()}
    here = [check.id for check in asking.checks()]
    assert len(here) == len(set(here))
    assert {name for name in known if "cuda-" not in name and "import-registers-nothing" not in name} == set(here)


@pytest.mark.parametrize("name", PASSED_ONCE)
def test_what_passed_once_is_caught(name):
    check = by_id(PASSED_ONCE[name])
    assert asking.ask(check, Subject("none", MUTANTS["none"])).status == "pass"
    before = registry_snapshot()
    answer = asking.ask(check, Subject(name, MUTANTS[name]))
    assert answer.status in ("fail", "error"), answer
    expect_registry_unchanged(before)
