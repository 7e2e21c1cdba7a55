"""The patches there are, and which of them this environment needs."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from kvconform.errors import KVConformError, UnknownPatchError
from kvconform.patches import (
    branch_on_mask,
    branch_on_position,
    convolution_states,
    experts_by_data,
    experts_in_groups,
    experts_in_pieces,
    guarded_objects,
    length_of_tensor,
    masks_too_long,
    processor_arguments,
    returned_objects,
    rope_of_a_length,
    scan_of_tokens,
    skipped_layers,
    slice_of_modules,
    sliding_window_made,
    sliding_windows,
    variadic_keywords,
    vmap_masks,
    windows_in_pieces,
)
from kvconform.patches.patch import Answer, Need, Patch

__all__ = ["PATCHES", "answer", "find", "patches_needed"]

PATCHES: tuple[Patch, ...] = (
    vmap_masks.PATCH,
    length_of_tensor.PATCH,
    slice_of_modules.PATCH,
    sliding_windows.PATCH,
    experts_by_data.PATCH,
    experts_in_pieces.PATCH,
    experts_in_groups.PATCH,
    branch_on_position.PATCH,
    branch_on_mask.PATCH,
    convolution_states.PATCH,
    scan_of_tokens.PATCH,
    rope_of_a_length.PATCH,
    masks_too_long.PATCH,
    returned_objects.PATCH,
    guarded_objects.PATCH,
    processor_arguments.PATCH,
    variadic_keywords.PATCH,
    windows_in_pieces.PATCH,
    skipped_layers.PATCH,
    sliding_window_made.PATCH,
)
"""Every patch, in the order in which they are entered."""

_ANSWERS: dict[str, Answer] = {}


def answer(patch: Patch) -> Answer:
    """What the patch's probe says; asked once, outside the patches, since what it asks does not change.

    Raises:
        KVConformError: the probe raised, as it may on a release that nobody has run it on.
    """
    if patch.name not in _ANSWERS:
        try:
            _ANSWERS[patch.name] = patch.probe()
        except Exception as error:
            raise KVConformError(
                f"whether this release needs the patch {patch.name!r} cannot be told, since its probe raised "
                f"{type(error).__name__}: {error}; leave it out with exportable(without=[{patch.name!r}]), "
                "and please report it"
            ) from error
    return _ANSWERS[patch.name]


def patches_needed(without: Collection[str] = ()) -> tuple[Patch, ...]:
    """The patches that this environment needs; those that are left out are not asked about."""
    return tuple(patch for patch in PATCHES if patch.name not in without and answer(patch).need is Need.NEEDED)


def find(name: str) -> Patch:
    """The patch of this name.

    Raises:
        UnknownPatchError: there is none; the message names the nearest.
    """
    named = {patch.name: patch for patch in PATCHES}
    if name not in named:
        near = difflib.get_close_matches(name, named, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise UnknownPatchError(f"there is no patch {name!r}{meant} List them: python -m kvconform patches")
    return named[name]
