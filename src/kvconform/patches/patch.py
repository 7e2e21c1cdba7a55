"""What a patch is: a reversible replacement in torch or transformers that makes models export."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

__all__ = ["Answer", "Need", "Patch", "Replacement", "needed", "not_applicable", "not_needed"]


class Need(enum.Enum):
    """Whether this environment needs a patch."""

    NEEDED = "needed"
    NOT_NEEDED = "not needed"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class Answer:
    """What a probe found, and the sentence that says so.

    Attributes:
        need: needed; not needed, since the release does it right; or not applicable, since the release has
            no such code.
        reason: one sentence for a reader who wonders why.
    """

    need: Need
    reason: str


def needed(reason: str) -> Answer:
    """The release does it wrong."""
    return Answer(Need.NEEDED, reason)


def not_needed(reason: str) -> Answer:
    """The release has the code, and does it right."""
    return Answer(Need.NOT_NEEDED, reason)


def not_applicable(reason: str) -> Answer:
    """The release has no such code."""
    return Answer(Need.NOT_APPLICABLE, reason)


@dataclass(frozen=True)
class Replacement:
    """One attribute of a module or class, or one entry of a dict, and what stands there inside the block.

    A function that other modules import by name must not be replaced in the module that defines it: importers keep
    what they took, and a module that is first imported inside the block would keep the replacement after it. Replace
    what the function looks up when it is called.

    Attributes:
        owner: a module, a class or a dict.
        name: the attribute, or the key.
        make: gives the new value, of the old one as it stands there (a staticmethod is not unwrapped).
    """

    owner: Any
    name: str
    make: Callable[[Any], Any]


@dataclass(frozen=True)
class Patch:
    """One patch.

    Attributes:
        name: as it is given to `patch_functions`.
        replaces: the code that is replaced, and in which releases it is.
        why: what goes wrong without it.
        page: the page of docs/known-failures/ with the lines that show it, or the address of an upstream issue.
        probe: whether this environment needs it. It asks what the release does, never its version, and leaves nothing
            behind; it is asked once a process.
        replacements: what is replaced; called when the patch is entered.
        repairs: whether eager results change, because the release's own are wrong. Everywhere else they do not.
        of_module: what is replaced in a module of `transformers.models` that is imported while the patch is in force.
    """

    name: str
    replaces: str
    why: str
    page: str
    probe: Callable[[], Answer]
    replacements: Callable[[], tuple[Replacement, ...]]
    repairs: bool = False
    of_module: Callable[[ModuleType], tuple[Replacement, ...]] | None = None

    def to_json(self, answer: Answer) -> dict[str, Any]:
        """What `python -m kvconform patches --json` says of it, with its probe's answer."""
        return {
            "name": self.name,
            "need": answer.need.value,
            "reason": answer.reason,
            "replaces": self.replaces,
            "why": self.why,
            "page": self.page,
            "repairs": self.repairs,
        }
