"""The C of the packet path computes with pointers in slice.h, whose functions ask for the bound, and nowhere else."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

cindex = pytest.importorskip("clang.cindex", reason="libclang is not installed")
if shutil.which("gcc") is None or not Path(sysconfig.get_path("include"), "Python.h").is_file():
    pytest.skip("the headers of gcc and Python are not installed", allow_module_level=True)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clang.cindex import Cursor, Type

NATIVE = Path(__file__).parents[4] / "overlay/forwarding/native"
HELPERS = {"slice.h"}
Kind, TypeKind = cindex.CursorKind, cindex.TypeKind
BINARY, ASSIGNMENT = Kind.BINARY_OPERATOR, Kind.COMPOUND_ASSIGNMENT_OPERATOR
INTEGERS = range(TypeKind.BOOL.value, TypeKind.INT128.value + 1)


def is_pointer(of: Type) -> bool:
    return of.get_canonical().kind in (TypeKind.POINTER, TypeKind.INCOMPLETEARRAY)


def is_integer(of: Type) -> bool:
    kind = of.get_canonical().kind
    return kind.value in INTEGERS or kind == TypeKind.ENUM


def behind_conversions(cursor: Cursor) -> Cursor:
    """Return the operand of implicit conversions and parentheses: an array that decays is an array."""
    while (
        cursor.kind in (Kind.UNEXPOSED_EXPR, Kind.PAREN_EXPR)
        and len(inside := list(cursor.get_children())) == 1
    ):
        cursor = inside[0]
    return cursor


def computes(cursor: Cursor) -> str | None:
    """Return how an expression computes with a pointer: + and - of one and a number, also as += or ++, a
    difference of two, an index into what is no array of a known size, a cast from or to a number.
    """
    kind = cursor.kind
    if kind not in (
        BINARY,
        ASSIGNMENT,
        Kind.UNARY_OPERATOR,
        Kind.ARRAY_SUBSCRIPT_EXPR,
        Kind.CSTYLE_CAST_EXPR,
    ):
        return None
    operands = list(cursor.get_children())
    types = [operand.type for operand in operands]
    pointers = [is_pointer(each) for each in types]
    if (
        kind == BINARY
        and is_pointer(cursor.type)
        and sorted(pointers) == [False, True]
        and is_integer(types[pointers[0]])
    ):
        return "sum"
    if kind == BINARY and all(pointers) and cursor.type.get_canonical().kind == TypeKind.LONG:
        return "difference"
    if kind == ASSIGNMENT and pointers[0]:
        return "step"
    if (
        kind == Kind.UNARY_OPERATOR
        and pointers[0]
        and types[0].get_canonical() == cursor.type.get_canonical()
    ):
        return "step"
    if kind == Kind.ARRAY_SUBSCRIPT_EXPR:
        array = behind_conversions(operands[0]).type.get_canonical()
        return None if array.kind == TypeKind.CONSTANTARRAY else "index"
    if kind == Kind.CSTYLE_CAST_EXPR:
        value = behind_conversions(operands[-1])
        is_null = value.kind == Kind.INTEGER_LITERAL
        if is_pointer(cursor.type) and is_integer(value.type) and not is_null:
            return "cast"
        if is_pointer(value.type) and is_integer(cursor.type):
            return "cast"
    return None


def found_in(cursor: Cursor) -> Iterator[tuple[str, int, str]]:
    """Yield (file, line, how) of each expression below *cursor* that computes with a pointer."""
    how = computes(cursor)
    if how is not None:
        yield Path(cursor.location.file.name).name, cursor.location.line, how
    for each in cursor.get_children():
        yield from found_in(each)


def pointer_arithmetic(paths: list[Path], text: str | None = None) -> set[tuple[str, int, str]]:
    """Return (file, line, how) of what these files and our headers have; *text* is what the files are, if not what they
    hold.
    """
    builtin = subprocess.run(
        ["gcc", "-print-file-name=include"], text=True, capture_output=True, check=True
    ).stdout
    flags = ["-std=gnu11", f"-I{NATIVE}", f"-I{sysconfig.get_path('include')}", "-isystem", builtin.strip()]
    index, seen, found = cindex.Index.create(), set(), set()
    for path in paths:
        unit = index.parse(path, flags, None if text is None else [(str(path), text)])
        assert not [each.spelling for each in unit.diagnostics if each.severity >= cindex.Diagnostic.Error]
        for cursor in unit.cursor.get_children():
            location = cursor.location
            name = location.file.name if location.file else ""
            if name.startswith(str(NATIVE)) and (name, location.offset) not in seen:
                seen.add((name, location.offset))
                found.update(found_in(cursor))
    return found


@pytest.mark.slow
def test_pointers_are_computed_in_the_helpers_of_slices_alone():
    found = pointer_arithmetic(sorted(NATIVE.glob("*.c")))

    assert {name for name, _, _ in found} == HELPERS, sorted(each for each in found if each[0] not in HELPERS)


def test_what_the_kernel_tells_beside_a_packet_is_read_by_one_function_that_knows_its_size():
    """Before, raw sockets read the first byte of a traffic class, which is a number in the order of the machine."""
    readers = {path.name for path in NATIVE.glob("*.c") if "CMSG_DATA" in path.read_text()}

    assert readers == {"tun_inbound.c", "simulated.c"}


@pytest.mark.parametrize(
    ("expression", "how"),
    [
        ("*(at + i)", "sum"),
        ("*(i + at)", "sum"),
        ("*(at - 1)", "sum"),
        ("(int)(at - other)", "difference"),
        ("*(at += i)", "step"),
        ("*at++", "step"),
        ("*--at", "step"),
        ("at[i]", "index"),
        ("inside->bytes[i]", None),
        ("(*many)[i]", None),
        ("*inside->bytes", None),
        ("*(inside->bytes + i)", "sum"),
        ("(int)(unsigned long)at", "cast"),
        ("*(int *)(unsigned long)i", "cast"),
        ("at == NULL ? i++ : at != other", None),
    ],
)
def test_a_computation_with_a_pointer_is_found(expression, how):
    text = f"""
    #define NULL ((void *)0)
    struct inside {{ int bytes[4]; }};
    int f(int *at, int *other, struct inside *inside, int (*many)[4], int i) {{ return ({expression}) + (other != at); }}
    """

    found = pointer_arithmetic([NATIVE / "made_up.c"], text)

    assert {each[2] for each in found} == ({how} if how else set())
