"""Python sources as syntax trees without docstrings: their digest, and the names and texts in them."""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_IGNORED = frozenset({"kind", "type_comment", "type_ignores"})


@dataclass(frozen=True)
class Module:
    """A parsed module, without its docstrings."""

    name: str
    path: Path
    tree: ast.Module

    @classmethod
    def parse(cls, name: str, path: Path) -> Module:
        """Read a file."""
        tree = ast.parse(path.read_bytes(), str(path))
        for node in ast.walk(tree):
            if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
                del node.body[0]
        return cls(name, path, tree)

    @functools.cached_property
    def digest(self) -> str:
        """The digest of its syntax tree, the same in every Python that reads it."""
        total = hashlib.sha256()
        for part in spelled(self.tree):
            total.update(part.encode("utf-8", "surrogatepass") + b"\0")
        return total.hexdigest()

    @functools.cached_property
    def names(self) -> frozenset[str]:
        """The names that its own statements bind."""
        found: set[str] = set()
        for node in self.tree.body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                found |= {(each.asname or each.name).partition(".")[0] for each in node.names}
            elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found.add(node.name)
            else:
                found |= {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
        return frozenset(found)

    @property
    def lazy(self) -> bool:
        """Whether it looks names up when they are used."""
        return "__getattr__" in self.names

    def table(self) -> Iterator[tuple[str, str]]:
        """Pairs of texts from its dictionaries, both ways round: a lazy package has its names and modules there."""
        for node in self.tree.body:
            value = getattr(node, "value", None)
            if not isinstance(value, ast.Dict):
                continue
            for key, held in zip(value.keys, value.values, strict=True):
                for one in texts(key):
                    for other in texts(held):
                        yield one, other
                        yield other, one


def functions_of_subjects(tree: ast.Module) -> dict[str, list[ast.AST]]:
    """The functions that a subject alone is made of, from the table `BUILT_IN` of `subjects.py`; and "" without any."""
    constants: dict[str, str] = {}
    functions: dict[str, ast.AST] = {}
    table = ast.Dict([], [])
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            functions[node.name] = node
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            constants.update(dict.fromkeys([node.targets[0].id], *texts(node.value)[:1]) if texts(node.value) else {})
            if node.targets[0].id == "BUILT_IN" and isinstance(node.value, ast.Dict):
                table = node.value
    found: dict[str, list[ast.AST]] = {"": []}
    for key, value in zip(table.keys, table.values, strict=True):
        name = constants[key.id] if isinstance(key, ast.Name) else texts(key)[0]
        used = {node.id for node in ast.walk(value) if isinstance(node, ast.Name)}
        found[name] = [functions[each] for each in sorted(used & functions.keys())]
    return found


def texts(node: ast.AST | None) -> list[str]:
    """The texts of a literal: itself, or those of a tuple."""
    nodes = node.elts if isinstance(node, (ast.Tuple, ast.List)) else [node]
    return [each.value for each in nodes if isinstance(each, ast.Constant) and isinstance(each.value, str)]


def absolute(node: ast.ImportFrom, module: Module) -> str:
    """The module that a `from` names, with the packages above it."""
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    above = parts[: len(parts) - node.level + (module.path.name == "__init__.py")]
    return ".".join([*above, *([node.module] if node.module else [])])


def walk(root: ast.AST, apart: frozenset[int]) -> Iterator[ast.AST]:
    """The nodes below a root, without some that are looked at elsewhere."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) not in apart:
            yield node
            waiting += ast.iter_child_nodes(node)


def spelled(value: object) -> Iterator[str]:
    """A syntax tree as texts: fields without a value are left out, since each Python adds some of its own."""
    if isinstance(value, ast.AST):
        yield f"({type(value).__name__}"
        for name in sorted(value._fields):
            held = getattr(value, name, None)
            if name not in _IGNORED and held is not None and held != []:
                yield name
                yield from spelled(held)
        yield ")"
    elif isinstance(value, list):
        yield f"[{len(value)}"
        for each in value:
            yield from spelled(each)
    else:
        yield f"{type(value).__name__} {value!r}"
