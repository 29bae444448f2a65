"""How large files, functions and classes may become; tests/test_imports.py says who may import whom."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.test_imports import mirror, modules, statements, without_collector

ROOT = Path(__file__).resolve().parent.parent
FILES = [path for name in ("overlay", "peers") for path in sorted((ROOT / name).rglob("*.py"))]

FILE_LINES, FUNCTION_LINES, PARAMETERS, ATTRIBUTES = 500, 60, 8, 20


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
    """Return the names that the methods of a class assign to by themselves, as ``self.NAME = ...``."""
    found = set()
    for inner in statements(node):
        match inner:
            case ast.Assign(targets=targets):
                pass
            case ast.AnnAssign(target=target):
                targets = [target]
            case _:
                continue
        for target in targets:
            if isinstance(target, ast.Attribute) and getattr(target.value, "id", None) == "self":
                found.add(target.attr)
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


def test_objects_have_few_attributes():
    assert [name for name, node in nodes(ast.ClassDef) if len(attributes(node)) > ATTRIBUTES] == []


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
