"""Entering patches, alone or together with the registration, and leaving no trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack

from kvconform.patches import applied, sliding_windows
from kvconform.patches.patch import Need, Patch
from kvconform.patches.registry import answer, find, patches_needed
from kvconform.register import register_flattening_functions
from kvconform.reusable import reusable

__all__ = ["exportable", "patch_functions"]


@reusable
def patch_functions(*names: str, without: Iterable[str] = ()) -> Iterator[tuple[Patch, ...]]:
    """Inside the block torch and transformers are patched so that models export; after it they are as they were.

    Also when the block ends in an exception and when blocks are nested. Patches are of the process: another thread
    sees them too, and the last block that leaves a patch takes it back. Eager results do not change, except where a
    patch says that it repairs a wrong one (`Patch.repairs`).

    Args:
        names: the patches; without names those that this environment needs. A named patch is entered unless this
            release has no such code, whether it is needed or not.
        without: patches that are left out.

    Yields:
        The patches that were entered.

    Raises:
        UnknownPatchError: no patch has that name.
    """
    left_out = {find(name).name for name in without}
    asked = [find(name) for name in names] if names else patches_needed(left_out)
    chosen = tuple(
        patch
        for patch in dict.fromkeys(asked)
        if patch.name not in left_out and answer(patch).need is not Need.NOT_APPLICABLE
    )
    with ExitStack() as stack:
        for patch in chosen:
            applied.enter(patch)
            stack.callback(applied.leave, patch)
        yield chosen


@reusable
def exportable(*, without: Iterable[str] = ()) -> Iterator[tuple[Patch, ...]]:
    """Inside the block models export: cache classes are correct pytree nodes, and the needed patches are in force.

    It is `register_flattening_functions()` and `patch_functions()` in one; after it everything is what it was.

    Args:
        without: patches that are left out, by name.

    Yields:
        The patches that were entered.

    Raises:
        MissingTransformersError: transformers is not installed.
        UnknownPatchError: no patch has that name.
    """
    with ExitStack() as stack:
        entered = stack.enter_context(patch_functions(without=without))
        # Layers that are traced without a branch on their length have one structure for all lengths.
        stack.enter_context(register_flattening_functions(counted=sliding_windows.PATCH in entered))
        yield entered
