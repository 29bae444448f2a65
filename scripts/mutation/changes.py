"""The small changes that mutmut makes to a module, and how one of them is applied in this process."""

from __future__ import annotations

import difflib
import importlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, cast

import libcst as cst
import libcst.matchers as m
from mutmut.mutation.file_mutation import Mutation, create_mutations, deep_replace

if TYPE_CHECKING:
    import ast
    from collections.abc import Iterable

ROOT = Path(__file__).absolute().parents[2]  # of the project from which it is run
EQUIVALENT = "tests/equivalent.toml"

_CAST = m.Call(func=m.Name("cast"), args=[m.Arg(), m.Arg()])
_CONSTANTS = (bool, int, float, str, bytes, type(None))


@dataclass(frozen=True)
class Change:
    """A change in readable form: the module, the lines that it removes and the lines that it adds."""

    module: str
    before: str
    after: str

    def __str__(self) -> str:
        """Return the change as a difference."""
        lines = [self.module, *(f"  - {line}" for line in self.before.splitlines())]
        return "\n".join([*lines, *(f"  + {line}" for line in self.after.splitlines())])


@dataclass(frozen=True, eq=False)
class Mutant:
    """A change of one function or method that can be applied."""

    module: str  # its path below the root
    function: str  # its qualified name
    _tree: cst.Module
    _mutation: Mutation

    @property
    def mirror(self) -> Path:
        """The file of tests that mirrors the module, which need not exist."""
        return mirror(self.module)

    def source(self) -> str:
        """Return the text of the module with the change."""
        changed = deep_replace(self._tree, self._mutation.original_node, self._mutation.mutated_node)
        assert isinstance(changed, cst.Module)
        return changed.code

    def change(self) -> Change:
        """Return the lines that the change removes and adds."""
        before, after = list[str](), list[str]()
        for line in difflib.unified_diff(self._tree.code.splitlines(), self.source().splitlines(), n=0):
            if line.startswith("-") and not line.startswith("--- "):
                before.append(line[1:].strip())
            elif line.startswith("+") and not line.startswith("+++ "):
                after.append(line[1:].strip())
        return Change(self.module, "\n".join(before), "\n".join(after))

    def target(self) -> FunctionType | None:
        """Return the function to change; None if another one has its name, such as one from a library."""
        return function(importlib.import_module(name(self.module)), self.function)

    def apply(self) -> None:
        """Apply the change in this process, wherever the function is referred to."""
        target = self.target()
        changed = function(executed(self.module, self.source()), self.function)
        assert target is not None
        assert changed is not None
        target.__code__ = changed.__code__
        # Only constants among the defaults are ever changed; other values stay those of the module in use.
        if target.__defaults__ and changed.__defaults__:
            target.__defaults__ = tuple(map(_default, target.__defaults__, changed.__defaults__))
        if target.__kwdefaults__ and changed.__kwdefaults__:
            for parameter, value in changed.__kwdefaults__.items():
                target.__kwdefaults__[parameter] = _default(target.__kwdefaults__.get(parameter), value)


def mirror(module: str) -> Path:
    """Return the file of tests that mirrors *module*, both as paths below the root."""
    path = Path(module)
    return Path("tests") / path.parent / f"test_{path.name}"


def name(module: str) -> str:
    """Return the name by which the module at a path is imported."""
    return module.removesuffix(".py").replace("/", ".")


def function(module: ModuleType, qualified: str) -> FunctionType | None:
    """Return the function with a qualified name; None if something else has that name, such as one from a library."""
    found: object = module
    for part in qualified.split("."):
        found = vars(found)[part]
    found = getattr(found, "__func__", found)
    return found if isinstance(found, FunctionType) else None


def executed(module: str, source: str | ast.Module, **names: object) -> ModuleType:
    """Return another module made from *source*, as if it were the one at a path; it has *names* from the beginning."""
    made = ModuleType(name(module))
    made.__file__ = str(ROOT / module)
    vars(made).update(names)
    exec(compile(source, made.__file__, "exec"), vars(made))
    return made


def mutants(modules: Iterable[str]) -> list[Mutant]:
    """Return every change of *modules*, in the order of the code.

    Constants of a module are not changed, nor the types in cast(), which ignores them.
    """
    made = []
    for module in modules:
        tree, mutations, *_ = create_mutations(module, (ROOT / module).read_text())
        names, types = _methods(tree), _types(tree)
        made += [
            Mutant(module, names[mutation.contained_by_top_level_function], tree, mutation)
            for mutation in mutations
            if mutation.contained_by_top_level_function in names
            and mutation.original_node not in types
            and not _is_of_type(mutation)
        ]
    return made


class Explained:
    """The changes without a visible effect: each of them, or all of a kind, has its reason in a file."""

    def __init__(self) -> None:
        rows = tomllib.loads((ROOT / EQUIVALENT).read_text())
        self._changes = {
            Change(row["module"], row["before"], row["after"]) for row in rows["change"] if row["why"]
        }
        self._kinds = [(row["before"], row["after"]) for row in rows.get("everywhere", []) if row["why"]]

    def __contains__(self, change: Change) -> bool:
        """Return whether *change* is one of them."""
        return change in self._changes or any(
            change.before[:at] + after + change.before[at + len(before) :] == change.after
            for before, after in self._kinds
            for at in range(len(change.before))
            if change.before.startswith(before, at)
        )


def _methods(tree: cst.Module) -> dict[cst.CSTNode | None, str]:
    """Return the qualified names of the functions and methods in *tree*, except those of a Protocol."""
    names = dict[cst.CSTNode | None, str]()
    for node in tree.body:
        if isinstance(node, cst.FunctionDef):
            names[node] = node.name.value
        elif isinstance(node, cst.ClassDef) and not any(map(_is_protocol, node.bases)):
            inside = (child for child in node.body.body if isinstance(child, cst.FunctionDef))
            names |= {child: f"{node.name.value}.{child.name.value}" for child in inside}
    return names


def _types(tree: cst.Module) -> set[cst.CSTNode]:
    """Return all nodes of the types in calls of cast() in *tree*."""
    types = set[cst.CSTNode]()
    found: list[cst.CSTNode] = [cast("cst.Call", call).args[0] for call in m.findall(tree, _CAST)]
    while found:
        types.add(found[-1])
        found += found.pop().children
    return types


def _is_of_type(mutation: Mutation) -> bool:
    """Return whether a change only replaces the type in a cast()."""
    before, after = mutation.original_node, mutation.mutated_node
    if not isinstance(before, cst.Call) or not isinstance(after, cst.Call):
        return False
    is_cast = m.matches(before, _CAST) and m.matches(after, _CAST)
    return is_cast and before.args[1].deep_equals(after.args[1])


def _is_protocol(base: cst.Arg) -> bool:
    name = base.value.value if isinstance(base.value, cst.Subscript) else base.value
    return isinstance(name, cst.Name) and name.value == "Protocol"


def _default(used: object, changed: object) -> object:
    return changed if isinstance(changed, _CONSTANTS) else used
