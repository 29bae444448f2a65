"""Which functions are called, in this process or in one that it forks: each function records that itself."""

from __future__ import annotations

import ast
import importlib
import mmap
from typing import TYPE_CHECKING

from scripts.mutation.changes import ROOT, executed, function, name

if TYPE_CHECKING:
    from collections.abc import Sequence

_MARKS = "__reach__"  # in the modules: a byte for each function that is watched


class Calls:
    """The calls of *functions*, each a module's path and a qualified name, from now on and for good.

    A tracer of the interpreter would be called for every call of anything, and take several times as long.
    """

    def __init__(self, functions: Sequence[tuple[str, str]]) -> None:
        self._marks = mmap.mmap(-1, max(1, len(functions)))  # shared with forks
        self._none = bytes(len(self._marks))
        by_module = dict[str, dict[str, int]]()
        for number, (module, qualified) in enumerate(functions):
            by_module.setdefault(module, {})[qualified] = number
        for module, numbers in by_module.items():
            self._watch(module, numbers)

    def take(self) -> list[int]:
        """Return the numbers of the functions that were called since, and forget them."""
        called = [number for number, is_called in enumerate(self._marks[:]) if is_called]
        self._marks[:] = self._none
        return called

    def _watch(self, module: str, numbers: dict[str, int]) -> None:
        tree = ast.parse((ROOT / module).read_text())
        for node in tree.body:
            prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
            for each in node.body if isinstance(node, ast.ClassDef) else [node]:
                if isinstance(each, ast.FunctionDef) and prefix + each.name in numbers:
                    mark = ast.parse(f"{_MARKS}[{numbers[prefix + each.name]}] = 1").body[0]
                    each.body.insert(0, ast.copy_location(mark, each.body[0]))
        made = executed(module, ast.fix_missing_locations(tree), **{_MARKS: self._marks})
        used = importlib.import_module(name(module))
        vars(used)[_MARKS] = self._marks
        for qualified in numbers:
            target, watched = function(used, qualified), function(made, qualified)
            assert target is not None
            assert watched is not None
            target.__code__ = watched.__code__
