"""The classes of one source file, as Python would build them, read without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ClassRead:
    """A class with what it inherits from classes of the same file.

    Attributes:
        attributes: names that a new instance has, beside those of every object: methods, properties, class variables,
            what the constructor always assigns to `self`. What comes later, with the first tensors, is not among them.
        parameters: of each method that this class itself defines and that takes no `**kwargs`, the names.
    """

    attributes: frozenset[str]
    parameters: dict[str, frozenset[str]]


@dataclass
class _Own:
    """What stands in one class statement; `chains`: its constructor, if any, calls that of its base."""

    bases: list[str]
    attributes: set[str] = field(default_factory=set)
    constructed: set[str] = field(default_factory=set)
    chains: bool = True
    parameters: dict[str, frozenset[str]] = field(default_factory=dict)


def classes(source: str) -> dict[str, ClassRead]:
    """The public classes of a module.

    A base from another module adds nothing: what `torch.nn.Module` or `dict` have is not told.

    Args:
        source: the text of the module.

    Raises:
        SyntaxError: it is no Python.
    """
    own = {node.name: _own(node) for node in _definitions(ast.parse(source).body)}
    found = {}
    for name, one in own.items():
        if not name.startswith("_"):
            attributes = frozenset().union(*(own[each].attributes for each in _line(name, own)))
            attributes |= frozenset().union(*(own[each].constructed for each in _line(name, own, constructing=True)))
            found[name] = ClassRead(attributes.difference(dir(object)), one.parameters)
    return found


def _definitions(body: list[ast.stmt]) -> Iterator[ast.ClassDef]:
    """Classes of the module, also those behind an `if` or a `try`."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield node
        elif isinstance(node, (ast.If, ast.Try)):
            yield from _definitions([*node.body, *node.orelse])


def _line(name: str, own: dict[str, _Own], *, constructing: bool = False) -> list[str]:
    """The class and all its bases in the file, or those whose constructors run; only names are told, so no order."""
    line, waiting = [], [name]
    while waiting:
        one = waiting.pop()
        if one in own and one not in line:
            line.append(one)
            waiting += own[one].bases if own[one].chains or not constructing else []
    return line


def _own(node: ast.ClassDef) -> _Own:
    # `UserDict[str, int]` and `Generic[T]` are what stands before the bracket.
    bases = [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]
    own = _Own([base.id for base in bases if isinstance(base, ast.Name)])
    for statement in node.body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            own.attributes.add(statement.name)
            if statement.name == "__init__":
                own.constructed, own.chains = _assigned(statement.body) or set(), _calls_base(statement)
            if statement.args.kwarg is None:
                every = [*statement.args.posonlyargs, *statement.args.args, *statement.args.kwonlyargs]
                own.parameters[statement.name] = frozenset(each.arg for each in every) - {"self", "cls"}
        elif isinstance(statement, ast.Assign):
            own.attributes |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            own.attributes |= _annotated(statement.target.id, statement, node)
    return own


def _annotated(name: str, statement: ast.AnnAssign, node: ast.ClassDef) -> set[str]:
    """A bare annotation makes no attribute, but for a dataclass, whose fields are annotations."""
    return {name} if statement.value is not None or _is_dataclass(node) else set()


def _is_dataclass(node: ast.ClassDef) -> bool:
    names = [each.func if isinstance(each, ast.Call) else each for each in node.decorator_list]
    return any(isinstance(each, ast.Name) and each.id == "dataclass" for each in names)


def _assigned(body: list[ast.stmt]) -> set[str] | None:
    """Attributes of `self` that a constructor assigns on every way through it; None where each way ends in an error."""
    found: set[str] = set()
    for statement in body:
        if isinstance(statement, ast.Raise):
            return None
        if isinstance(statement, ast.If):
            ways = [way for way in (_assigned(statement.body), _assigned(statement.orelse)) if way is not None]
            if not ways:
                return None
            found |= set.intersection(*ways)
        elif isinstance(statement, (ast.With, ast.Try)):
            found |= _assigned(statement.body) or set()
        elif not isinstance(statement, (ast.For, ast.While, ast.FunctionDef, ast.ClassDef)):
            nodes = (node for node in ast.walk(statement) if isinstance(node, ast.Attribute))
            found |= {node.attr for node in nodes if _is_of_self(node)}
    return found


def _is_of_self(node: ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name) and node.value.id == "self"


def _calls_base(constructor: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it calls `super().__init__` or `Base.__init__`."""
    calls = (node.func for node in ast.walk(constructor) if isinstance(node, ast.Call))
    return any(isinstance(called, ast.Attribute) and called.attr == "__init__" for called in calls)
