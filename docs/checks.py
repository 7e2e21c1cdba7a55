"""Writes docs/checks.md: `python -m kvconform check --list | python docs/checks.py > docs/checks.md`."""

from __future__ import annotations

import sys
from collections import defaultdict

HEAD = """# The checks

Made by `python -m kvconform check --list | python docs/checks.py > docs/checks.md`. Each name stands for the checks of
that name, one a cache or setting; `--list` shows every id.
"""


def main() -> None:
    """Group the ids on standard input by category and name."""
    found: dict[str, dict[str, tuple[int, str]]] = defaultdict(dict)
    for line in sys.stdin:
        identity, category, about = line.rstrip("\n").split("\t")
        name = identity.split("[")[0]
        count, _ = found[category].get(name, (0, ""))
        # What stands in parentheses at the end is about one cache, not about the question.
        words = about.rsplit(" (", 1)[0] if "[" in identity else about
        found[category][name] = (count + 1, words)
    sys.stdout.write(HEAD)
    for category in sorted(found):
        sys.stdout.write(f"\n## {category}\n\n| check | how many | what a pass proves |\n|---|---|---|\n")
        for name, (count, about) in sorted(found[category].items()):
            sys.stdout.write(f"| `{name}` | {count} | {about} |\n")


if __name__ == "__main__":
    main()
