"""Classes of the user's, and of models, that are registered before a context or inside it: what becomes of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch.utils._pytree as pytree

from kvconform.checks import making, trees
from kvconform.checks.cases import PLAIN
from kvconform.checks.errors import expect, expect_equal
from kvconform.checks.needs import lookup
from kvconform.checks.trees import expect_registered

Enter = Callable[[], AbstractContextManager[Any]]


def expect_others_untouched(enter: Enter) -> None:
    """Prove that the nodes of other classes are the same in a context and after it."""
    __tracebackhide__ = True

    class Mine:
        """A class of the user's."""

    pytree.register_pytree_node(Mine, lambda value: ([], None), lambda values, context: Mine())  # noqa: ARG005
    watched = (list, tuple, dict, OrderedDict, Mine)
    before = {cls: pytree.SUPPORTED_NODES[cls] for cls in watched}
    with enter():
        expect_registered(making.build(PLAIN))
        inside = {cls: pytree.SUPPORTED_NODES.get(cls) for cls in watched}
    after = {cls: pytree.SUPPORTED_NODES.get(cls) for cls in watched}
    for where, found in (("inside", inside), ("after", after)):
        changed = [cls.__name__ for cls in watched if found[cls] != before[cls]]
        expect_equal(f"classes with another node {where}", changed, [])


def expect_late_output_stays(enter: Enter) -> None:
    """Prove that a ModelOutput class which is defined in a context, as by importing a model, is a node after it."""
    __tracebackhide__ = True
    generic = lookup("transformers.utils.generic:ModelOutput")
    with enter():
        expect_registered(making.build(PLAIN))

        @dataclass
        class LateOutput(generic):  # type: ignore[misc,valid-type]
            logits: Any = None

    expect(LateOutput in pytree.SUPPORTED_NODES, "a ModelOutput class defined inside is no node any more")


def expect_late_class_stays(enter: Enter) -> None:
    """Prove that a class which the user registers in a context is known after it: as a node, and by its name."""
    __tracebackhide__ = True

    class Mine:
        """A class of the user's."""

    with enter():
        expect_registered(making.build(PLAIN))
        pytree.register_pytree_node(
            Mine, lambda _: ([1], None), lambda *_: Mine(), serialized_type_name="own.registered-inside"
        )
    expect(Mine in pytree.SUPPORTED_NODES, "a class that was registered inside is no node any more")
    spec = pytree.tree_structure([Mine()])
    read = trees.read_spec(pytree.treespec_dumps(spec))
    expect(read == spec, f"the spec of a class that was registered inside is read as {read}, expected {spec}")


def expect_newest_class(enter: Enter) -> None:
    """Prove that a cache class which the user defines again comes back as the new one, in the next context."""
    __tracebackhide__ = True
    for time in (1, 2):
        cls = making.defined_again("AgainCache")
        with enter():
            cache = making.build(PLAIN)
            cache.__class__ = cls
            expect_registered(cache)
            got = type(pytree.tree_unflatten(*pytree.tree_flatten(cache)))
        expect(got is cls, f"defined for time {time}, it comes back as {got}, another class of that name")
