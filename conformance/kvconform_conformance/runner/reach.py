"""What the answer of a check can depend on, in this repository: one digest for each subject and category.

A check is answered by its test module, by what that module imports, by the runner, and by the subject. Imports are
read from the sources, also those inside functions, those in the text of scripts for another process, and names that a
package looks up when they are used. Comments and docstrings count for nothing: a digest is of the syntax tree.

The host asks the same question by running this module, so it uses the standard library alone:

    PYTHONPATH=conformance python -m kvconform_conformance.runner.reach
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kvconform_conformance.runner.syntax import Module, absolute, functions_of_subjects, walk

METHOD = 1
"""To be raised when the same sources are to have other digests: every answer is then asked again."""
HERE = Path(__file__).resolve()
SUITE = HERE.parents[1]
RUNNER = "kvconform_conformance.runner"
START = f"{RUNNER}.cli"
SUBJECTS = f"{RUNNER}.subjects"
PRINTING = frozenset(f"{RUNNER}.{name}" for name in ("listing", "repeat", "selection", "summary"))
"""Modules of the runner that print, and decide no answer."""
LENGTH = 16

_DOTTED = re.compile(r"kvconform\w*(?:\.\w+)+")
_FROM = re.compile(r"from\s+(kvconform[\w.]*)\s+import\s+\(?([\w, ]+)")


def library() -> Path:
    """The folder of the library that this suite goes with: beside it where both are installed, or in the checkout."""
    beside = SUITE.parent / "kvconform"
    return beside if beside.is_dir() else SUITE.parents[1] / "src" / "kvconform"


def digests(suite: Path = SUITE, packages: Iterable[Path] | None = None) -> dict[str, dict[str, str]]:
    """The digest of each subject and category.

    Args:
        suite: the folder of the test modules.
        packages: the folders of the library and of the suite; those that belong to this file unless a test has others.

    Returns:
        By subject, then by category, 16 hexadecimal digits. A subject of the user's own is not among them, since its
        sources are elsewhere.
    """
    sources = Sources.of(packages or (library(), SUITE))
    tests = {path: sources.of_test(path) for path in sorted(suite.glob("test_*.py"))}
    around = [sources.of_test(path) for path in sorted(suite.glob("conftest.py"))]
    subjects = sources.subjects()
    return {
        subject: {
            _category(path): sources.digest([START, *around, test, *subjects[subject]]) for path, test in tests.items()
        }
        for subject in subjects
    }


def suite_digest(found: dict[str, dict[str, str]]) -> str:
    """One digest for all of them: it stays the same as long as no answer can have changed."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def _category(path: Path) -> str:
    return path.stem.removeprefix("test_").replace("_", "-")


@dataclass
class Sources:
    """The modules and data files of some packages, and what each reaches.

    Attributes:
        modules: the file of each module, by its dotted name.
        data: the other files, by their path from the folder that holds the packages.
    """

    modules: dict[str, Path]
    data: dict[str, Path]
    _known: dict[str, Module] = field(default_factory=dict)
    _reached: dict[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, packages: Iterable[Path]) -> Sources:
        """Find the files of some packages."""
        modules: dict[str, Path] = {}
        data: dict[str, Path] = {}
        for package in packages:
            for path in sorted(package.rglob("*")):
                relative = path.relative_to(package.parent)
                if path.is_dir() or "__pycache__" in relative.parts:
                    continue
                if path.suffix == ".py":
                    modules[".".join(relative.with_suffix("").parts).removesuffix(".__init__")] = path
                else:
                    data[relative.as_posix()] = path
        return cls(modules, data)

    def of_test(self, path: Path) -> str:
        """The name of a test module, which may lie outside the packages."""
        known = next((name for name, file in self.modules.items() if file == path), None)
        if known is None:
            known = f"suite:{path.stem}"
            self.modules[known] = path
        return known

    def digest(self, starts: Iterable[str]) -> str:
        """The digest of everything that some modules reach."""
        reached = sorted(frozenset().union(*(self.reach(start) for start in starts)))
        text = json.dumps([METHOD, [(name, self._own(name)) for name in reached]])
        return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]

    def reach(self, start: str) -> frozenset[str]:
        """The modules and data files that a module reaches, itself among them."""
        if start not in self._reached:
            seen: set[str] = set()
            waiting = [start]
            while waiting:
                name = waiting.pop()
                if name not in seen and name not in PRINTING:
                    seen.add(name)
                    waiting += self._next(name)
            self._reached[start] = frozenset(seen)
        return self._reached[start]

    def subjects(self) -> dict[str, list[str]]:
        """What each built-in subject imports on being entered, by its name."""
        if SUBJECTS not in self.modules:
            return {"": []}
        return {
            subject: [target for node in nodes for target in self._targets(self.module(SUBJECTS), node)]
            for subject, nodes in self._of_subjects.items()
        }

    def module(self, name: str) -> Module:
        """A module, parsed once."""
        if name not in self._known:
            self._known[name] = Module.parse(name, self.modules[name])
        return self._known[name]

    @functools.cached_property
    def _of_subjects(self) -> dict[str, list[ast.AST]]:
        return functions_of_subjects(self.module(SUBJECTS).tree)

    def _own(self, name: str) -> str:
        if name in self.data:
            return hashlib.sha256(self.data[name].read_bytes()).hexdigest()
        return self.module(name).digest

    def _next(self, name: str) -> set[str]:
        if name in self.data:
            return set()
        module = self.module(name)
        # A subject's own imports belong to the subject.
        apart = {id(node) for nodes in self._of_subjects.values() for node in nodes} if name == SUBJECTS else set()
        return self._targets(module, module.tree, apart) | set(self._ancestors(name))

    def _targets(self, module: Module, root: ast.AST, apart: Iterable[int] = ()) -> set[str]:
        found: set[str] = set()
        for node in walk(root, frozenset(apart)):
            if isinstance(node, ast.Import):
                for each in node.names:
                    found |= self._imported(each.name)
                    # `import kvconform` gives a name whose attributes are looked up when they are used.
                    if "." not in each.name and each.name in self.modules:
                        found |= self._attributes(root, each.asname or each.name, each.name)
            elif isinstance(node, ast.ImportFrom):
                base = absolute(node, module)
                found |= self._imported(base)
                for each in node.names:
                    found |= self._named(base, each.name)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= self._in_text(node.value, module)
        return found

    def _imported(self, name: str) -> set[str]:
        """A module and the packages that hold it, as far as they are among the sources."""
        return ({name} if name in self.modules else set()) | set(self._ancestors(name))

    def _ancestors(self, name: str) -> Iterator[str]:
        parts = name.split(".")
        for length in range(1, len(parts)):
            above = ".".join(parts[:length])
            if above in self.modules:
                yield above

    def _named(self, base: str, name: str) -> set[str]:
        """What a name of a module stands for, where that is another module."""
        if base not in self.modules:
            return set()
        if f"{base}.{name}" in self.modules:
            return {f"{base}.{name}"}
        module = self.module(base)
        if not module.lazy or name in module.names:
            return set()
        table = {key: f"{base}.{value}" for key, value in module.table() if f"{base}.{value}" in self.modules}
        found = {table[name]} if name in table else set(table.values())
        return {part for target in found for part in self._imported(target)}

    def _attributes(self, root: ast.AST, alias: str, package: str) -> set[str]:
        found: set[str] = set()
        used = {id(node.value): node.attr for node in ast.walk(root) if isinstance(node, ast.Attribute)}
        for node in ast.walk(root):
            if isinstance(node, ast.Name) and node.id == alias:
                name = used.get(id(node), "")
                if not name.startswith("__"):
                    # Without an attribute, any name of the package may be meant.
                    found |= self._named(package, name)
        return found

    def _in_text(self, text: str, module: Module) -> set[str]:
        """What the text of a script imports, or the file that a text names."""
        found: set[str] = set()
        if _DOTTED.fullmatch(text) or "import " in text:
            for name in _DOTTED.findall(text):
                found |= self._imported(name)
                base, _, last = name.rpartition(".")
                found |= self._named(base, last)
            for base, names in _FROM.findall(text):
                found |= self._imported(base)
                for name in names.split(","):
                    found |= self._named(base, name.strip())
        if "." in text and "\n" not in text and not text.startswith("."):
            found |= {name for name in self.data if name.endswith(f"/{text}")}
            beside = module.path.with_name(text) if text.endswith(".py") and "/" not in text else None
            found |= {name for name, path in self.modules.items() if path == beside}
        return found


if __name__ == "__main__":
    found = digests()
    print(json.dumps({"suite": suite_digest(found), "checks": found}))  # noqa: T201 - the answer
