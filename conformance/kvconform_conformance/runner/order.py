"""The order of a run: what takes long comes first, and checks that ask the same exported program stay together.

Workers get equal shares of the order and steal from each other's ends. With the long checks first and the
short ones last, no worker is left alone with a long one. A program is exported once a worker
(:mod:`kvconform_conformance.examples.programs`), so a worker that has exported it should get every check that asks it.
Both only save time: each check gives the same answer in any order and by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Key = tuple[str, ...]

LONG = (
    "registration/import-registers-nothing",
    "archive/fresh-process",
    "recipe/",
    "model/",
    "more-models/",
    "onnx/",
    "architectures/",
    "executorch/",
    "dynamic-shape/",
    "archive/",
    "export/",
)
"""How the ids begin of checks that export or start a process: seconds each, those of the others milliseconds."""

SHARING = frozenset({"dynamic-shape", "archive", "export", "architectures"})
"""Categories whose checks ask the same programs, those of each example, or the same tiny model.

The checks of `recipe` ask one by function.
"""


def key(subject: str, check: str, example: str) -> Key:
    """What checks have in common that should run on the same worker; the check itself where that is nothing."""
    category = check.partition("/")[0]
    if category in SHARING and example:
        return subject, example
    return (subject, check.partition("[")[0]) if category == "recipe" else (subject, example, check)


def arrange(items: Sequence[Item], workers: int, describe: Callable[[Item], tuple[str, str, str]]) -> list[Item]:
    """The items, each once, as shares for `workers`: every share has its long groups first, then its short checks.

    Args:
        items: what runs, in the order of the suite.
        workers: how many there are; the order is cut into as many equal shares.
        describe: the subject, the id and the name of the example of an item.
    """
    groups: dict[Key, list[Item]] = {}
    ranks: dict[Key, int] = {}
    for item in items:
        subject, check, example = describe(item)
        group = key(subject, check, example)
        rank = next((rank for rank, start in enumerate(LONG) if check.startswith(start)), len(LONG))
        groups.setdefault(group, []).append(item)
        ranks[group] = min(rank, ranks.get(group, rank))
    shares: list[list[Item]] = [[] for _ in range(workers)]
    long = sorted((group for group in groups if ranks[group] < len(LONG)), key=ranks.__getitem__)
    for number, group in enumerate(long):
        shares[number % workers] += groups[group]
    for group, members in groups.items():
        if ranks[group] == len(LONG):
            min(shares, key=len).extend(members)
    return [item for share in shares for item in share]
