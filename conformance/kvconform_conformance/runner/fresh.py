"""`python -m kvconform_conformance.runner.fresh`: load a saved decode step and run it, in a process that saved nothing.

The arguments are the subject, the example, the batch size, the length, the archive, and the file for the result.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch.utils import _pytree as pytree

from kvconform.checks.archive import expect_loads
from kvconform_conformance.examples.caches import by_name, step_inputs
from kvconform_conformance.runner.subjects import resolve


def main(arguments: list[str]) -> None:
    """Enter the subject, load the program, run one step, and save the leaves of what it returns."""
    subject, example, batch, length, archive, result = arguments
    torch.set_num_threads(1)
    with resolve(subject).activate():
        program = expect_loads(Path(archive), "a fresh process")
        out = program.module()(*step_inputs(by_name(example).build(int(batch), int(length)), int(batch)))
        torch.save(list(pytree.tree_leaves(out)), result)


if __name__ == "__main__":
    main(sys.argv[1:])
