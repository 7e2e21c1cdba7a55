"""`python -m kvconform pins --goal GOAL`: the pair of releases that was measured good for a goal, as constraints.

    python -m kvconform pins --goal newest > constraints.txt
    pip install -c constraints.txt torch transformers

The rule by which a pair is chosen stands in the file's first lines.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from kvconform.known import Goal, Known, load

__all__ = ["constraints", "main"]


def constraints(goal: Goal, known: Known) -> str:
    """The lines of a constraints file for a goal, with what they rest on as comments; needs `goal.pins`."""
    if goal.pins is None:
        raise ValueError(f"nothing was measured good to {goal.title}")
    head = [
        f"# To {goal.title}: torch {goal.pins.torch} with transformers {goal.pins.transformers}.",
        f"# It is {goal.rule}.",
        f"# Measured until {known.measured[1]}.",
    ]
    return "\n".join([*head, goal.pins.constraints()])


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit code: 0, 1 if nothing was measured good for the goal, 2 usage."""
    parser = argparse.ArgumentParser(
        prog="kvconform pins", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--goal", metavar="GOAL", help="what the pair is for; without it, all goals are listed")
    parser.add_argument("--json", action="store_true", help="print the goal, or all of them, as JSON")
    options = parser.parse_args(arguments)
    known = load()
    if options.goal is None:
        listed = [asdict(goal) for goal in known.goals]
        sys.stdout.write(json.dumps(listed, indent=2) + "\n" if options.json else _list(known))
        return 0
    goal = next((goal for goal in known.goals if goal.name == options.goal), None)
    if goal is None:
        names = ", ".join(goal.name for goal in known.goals)
        sys.stderr.write(f"error: no goal {options.goal!r}: the goals are {names}\n")
        return 2
    if options.json:
        sys.stdout.write(json.dumps(asdict(goal), indent=2) + "\n")
    elif goal.pins:
        sys.stdout.write(constraints(goal, known))
    else:
        sys.stderr.write(f"nothing measured yet: no published record asks to {goal.title}\n")
    return 0 if goal.pins else 1


def _list(known: Known) -> str:
    width = max(len(goal.name) for goal in known.goals)
    lines = []
    for goal in known.goals:
        pair = (
            f"torch {goal.pins.torch}, transformers {goal.pins.transformers}" if goal.pins else "nothing measured yet"
        )
        lines.append(f"{goal.name:{width}}  {pair:34}  to {goal.title}\n")
    return "".join(lines)
