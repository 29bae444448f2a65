"""How large files, functions and classes may become; tests/test_imports.py says who may import whom."""

from __future__ import annotations

import ast
import itertools
from functools import cache
from pathlib import Path

import pytest

from tests.test_imports import mirror, modules, statements, without_collector

ROOT = Path(__file__).resolve().parent.parent
FILES = [path for name in ("overlay", "peers") for path in sorted((ROOT / name).rglob("*.py"))]

FILE_LINES, FUNCTION_LINES, PARAMETERS, ATTRIBUTES = 500, 60, 8, 20

# Classes with more attributes, and why
LARGE = {
    "overlay/cli/agents.py PeerAnswer": "a record: what the agent tells `overlay ping` about a peer",
    "overlay/cli/agents.py Status": "a record: what the agent tells `overlay status`",
    "peers/service.py Check": "a record: the keys of a check in peers.toml",
    "peers/service.py Service": "a record: the keys of a service in peers.toml",
}


@cache
def definitions():
    """Return all classes and functions, each with its file and name."""
    return [
        (f"{path.relative_to(ROOT)} {node.name}", node)
        for path in FILES
        for node in statements(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]


@pytest.fixture(scope="module", autouse=True)
def _definitions_are_forgotten():
    """They are most of a million objects: they are excluded from garbage collection, and from other tests."""
    with without_collector():
        yield
    definitions.cache_clear()


def nodes(*kinds):
    return [(name, node) for name, node in definitions() if isinstance(node, kinds)]


def attributes(node):
    """Return what the objects of a class have: ``self.NAME = ...`` in its methods, also in a tuple, ``NAME: ...`` in
    its body.
    """
    found = {
        inner.target.id
        for inner in node.body
        if isinstance(inner, ast.AnnAssign) and "ClassVar" not in ast.unparse(inner.annotation)
    }
    for inner in statements(node):
        match inner:
            case ast.Assign(targets=targets):
                pass
            case ast.AnnAssign(target=target) | ast.AugAssign(target=target) | ast.For(target=target):
                targets = [target]
            case ast.With(items=items) | ast.AsyncWith(items=items):
                targets = [item.optional_vars for item in items if item.optional_vars is not None]
            case _:
                continue
        parts = itertools.chain.from_iterable(map(ast.walk, targets))
        found.update(
            part.attr
            for part in parts
            if isinstance(part, ast.Attribute)
            and isinstance(part.ctx, ast.Store)
            and getattr(part.value, "id", None) == "self"
        )
    return found


def test_files_are_short():
    lines = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in FILES}

    assert [name for name, count in lines.items() if count > FILE_LINES] == []


def test_functions_are_short_and_take_few_arguments():
    large = set()
    for name, node in nodes(ast.FunctionDef, ast.AsyncFunctionDef):
        arguments = node.args
        names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        count = len([each for each in names if each not in {"self", "cls"}])
        if count > PARAMETERS or node.end_lineno - node.lineno + 1 > FUNCTION_LINES:
            large.add(name)

    assert large == set()


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ("def f(self): self.a, (self.b, *self.c) = 1, self.d", "abc"),
        ("a: int; b: ClassVar[int] = 1; c: int = 2", "ac"),
        (
            "async def f(self):\n    self.a: int = 1\n    async with self.b as self.c: self.d[0] = self.e.f = 2",
            "ac",
        ),
        ("def f(self):\n    for self.a in self.b: self.c += 1", "ac"),
    ],
)
def test_attributes_are_counted_however_they_are_assigned(body, names):
    (node,) = ast.parse(f"class C:\n  {body}").body

    assert attributes(node) == set(names)


def test_objects_have_few_attributes():
    large = {name for name, node in nodes(ast.ClassDef) if len(attributes(node)) > ATTRIBUTES}

    assert large == LARGE.keys()


def is_slow(node):
    """Return whether a test, or ``pytestmark``, has the mark."""
    return "mark.slow" in " ".join(map(ast.unparse, getattr(node, "decorator_list", [node])))


@pytest.mark.parametrize("package", ["overlay", "peers"])
def test_first_look_leaves_the_tests_of_no_module_out(package):
    """The mark is for a slow test of a file, not for all tests of a module."""
    without = set()
    for path in filter(Path.exists, map(mirror, modules())):
        text = path.read_text() if path.is_relative_to(ROOT / "tests" / package) else ""
        body = ast.parse(text).body if "mark.slow" in text else []
        tests = [node for node in body if getattr(node, "name", "").lower().startswith("test")]
        marks = [
            node.value
            for node in body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
        ]
        if tests and (all(map(is_slow, tests)) or any(map(is_slow, marks))):
            without.add(str(path.relative_to(ROOT)))

    assert not without
