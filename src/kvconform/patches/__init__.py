"""Patches of torch and transformers that make models export, entered apart from registration.

    from kvconform import exportable

    with exportable():                      # registration, and the patches that this environment needs
        program = torch.export.export(model, (), kwargs=inputs, dynamic_shapes=...)

`python -m kvconform patches` lists them, each with whether this environment needs it and why.
"""

from __future__ import annotations

from kvconform.patches.context import exportable, patch_functions
from kvconform.patches.patch import Answer, Need, Patch, Replacement
from kvconform.patches.registry import PATCHES, answer, patches_needed

__all__ = [
    "PATCHES",
    "Answer",
    "Need",
    "Patch",
    "Replacement",
    "answer",
    "exportable",
    "patch_functions",
    "patches_needed",
]
