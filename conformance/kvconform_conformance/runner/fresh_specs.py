"""`python -m kvconform_conformance.runner.fresh_specs`: take specs of another process for caches that are made here.

The arguments are the subject, a file of cases and the JSON of their specs, and the file for the result: what is wrong.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch.utils import _pytree as pytree

from kvconform.checks import making
from kvconform.checks.cases import Case
from kvconform.checks.errors import ExpectationError, expect
from kvconform.checks.trees import read_spec
from kvconform.checks.whole import expect_same_cache
from kvconform_conformance.runner.subjects import resolve


def main(arguments: list[str]) -> None:
    """Enter the subject, compare each spec with that of the same cache made here, and rebuild the cache with it."""
    subject, told, result = arguments
    torch.set_num_threads(1)
    wrong = []
    with resolve(subject).activate():
        for fields, text in json.loads(Path(told).read_text("utf-8")):
            try:
                _expect_taken(Case(**fields), text)
            except ExpectationError as error:
                wrong.append(str(error))
    torch.save(wrong, result)


def _expect_taken(case: Case, text: str) -> None:
    cache = making.build(case)
    leaves, spec = pytree.tree_flatten(cache)
    loaded = read_spec(text)
    expect(loaded == spec, f"the spec is {spec} in a fresh process, expected {loaded}", str(case))
    restored = pytree.tree_unflatten(leaves, loaded)
    expect_same_cache(restored, cache, "lost by a spec of another process", leaves, str(case))


if __name__ == "__main__":
    main(sys.argv[1:])
