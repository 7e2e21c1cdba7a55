"""`python -m kvconform patches`: each patch, whether this environment needs it, and why."""

from __future__ import annotations

import argparse
import json
import sys

from kvconform import probes
from kvconform.patches.registry import PATCHES, answer

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Print the patches; 0 always, since a patch that is needed is no failure."""
    parser = argparse.ArgumentParser(prog="python -m kvconform patches", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="as JSON: an object with a list of patches")
    options = parser.parse_args(argv)
    if options.json:
        found = [patch.to_json(answer(patch)) for patch in PATCHES]
        json.dump({"schema": 1, "release": probes.release(), "patches": found}, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return 0
    sys.stdout.write(f"{probes.release()}\n\n")
    width = max(len(patch.name) for patch in PATCHES)
    for patch in PATCHES:
        found_here = answer(patch)
        sys.stdout.write(f"{patch.name:{width}}  {found_here.need.value:14}  {found_here.reason}\n")
        sys.stdout.write(f"{'':{width}}  {'':14}  replaces {patch.replaces}\n")
        sys.stdout.write(f"{'':{width}}  {'':14}  because {patch.why}; see {patch.page}\n")
        if patch.repairs:
            sys.stdout.write(f"{'':{width}}  {'':14}  a repair: eager results change, which are wrong without it\n")
    sys.stdout.write("\n`with kvconform.exportable():` enters those that are needed, and registers the caches.\n")
    return 0
