"""TOML's own reader reads what is written."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.importing.toml_text import format_comment, format_table

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    TEXT | st.integers(-(2**63), 2**63 - 1) | st.booleans(),
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def listed(value):
    match value:
        case tuple():
            return [listed(each) for each in value]
        case dict():
            return {key: listed(each) for key, each in value.items()}
        case _:
            return value


@given(st.lists(TEXT, min_size=1, max_size=3), st.dictionaries(TEXT, VALUES, max_size=5))
def test_table_is_read_as_the_values_that_it_was_made_of(header, values):
    read = tomllib.loads(format_table(tuple(header), values.items()))

    for key in header:
        read = read[key]
    assert read == listed(values)


@given(TEXT)
def test_comment_says_nothing_to_a_reader(text):
    assert tomllib.loads(format_comment(text)) == {}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3.0, "3"),
        (2.5, "2.5"),
        (0.1, "0.1"),
        (True, "true"),
        ({}, "{}"),
        ("\ud800", '"\ufffd"'),
        ('a"\\\x7f', '"a\\"\\\\\\u007f"'),
    ],
)
def test_values_are_written_as_people_write_them(value, expected):
    assert format_table(("a",), [("b", value)]) == f"[a]\nb = {expected}\n"


def test_long_arrays_have_an_item_on_each_line():
    items = tuple("x" * 30 for _ in range(4))

    assert format_table(("a",), [("b", items)]).count("\n") == 7
