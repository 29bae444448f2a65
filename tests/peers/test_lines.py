import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.lines import find_line

TEXT = '''\
# a comment with [brackets] and key = "value"
top = 1                       # line 2
[network]
prefix = [
  "10.244.0.0/16",            # line 5, "not, this"

  "fd00::/16", 'a]b',         # line 7
]
port = 51_820
a."b.c".d = 1979-05-27 07:32:00.5

["peers" . 'tokyo.lan']       # line 12
note = """
[peers.paris]
subnets = 1 \\""" ""\\\\"""""
inline = { x = [1, [2, 3.5]], y . z = {}, "\\u0061b" = """
""", last = true }            # line 17
empty = []
after = { a = [ {}, { b = 1 } ] }
[[jobs]]
x = 1
[peers]
rome.public_key = 'x\\'       # line 23
rome.subnets = [[], [
   5,
]]
'''


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (("top",), 2),
        (("network",), 3),
        (("network", "prefix"), 4),
        (("network", "prefix", 0), 5),
        (("network", "prefix", 1), 7),
        (("network", "prefix", 2), 7),
        (("network", "port"), 9),
        (("network", "a", "b.c", "d"), 10),
        (("peers", "tokyo.lan"), 12),
        (("peers", "tokyo.lan", "note"), 13),
        (("peers", "tokyo.lan", "inline"), 16),
        (("peers", "tokyo.lan", "inline", "x", 1, 1), 16),
        (("peers", "tokyo.lan", "inline", "y", "z"), 16),
        (("peers", "tokyo.lan", "inline", "ab"), 16),
        (("peers", "tokyo.lan", "inline", "last"), 17),
        (("peers", "tokyo.lan", "empty"), 18),
        (("peers", "tokyo.lan", "after", "a", 1, "b"), 19),
        (("jobs",), 20),
        (("peers", "rome", "public_key"), 23),
        (("peers", "rome", "subnets", 0), 24),
        (("peers", "rome", "subnets", 1), 24),
        (("peers", "rome", "subnets", 1, 0), 25),
    ],
)
def test_a_key_is_found_at_its_line(keys, line):
    assert tomllib.loads(TEXT)
    assert find_line(TEXT, keys) == line


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (("network", "mtu"), 3),
        (("network", "prefix", 9), 4),
        (("peers", "tokyo.lan", "subnets", 3), 12),
        (("peers", "paris"), 12),
        (("absent",), None),
        ((), None),
    ],
)
def test_a_key_that_is_not_there_is_placed_at_what_is_around_it(keys, line):
    assert find_line(TEXT, keys) == line


def test_carriage_returns_do_not_move_lines():
    assert find_line(TEXT.replace("\n", "\r\n"), ("peers", "rome", "subnets", 1, 0)) == 25


KEYS = st.lists(st.text(max_size=3) | st.integers(0, 3), max_size=4).map(tuple)
FRAGMENTS = ["[", "]", "{", "}", "=", ",", ".", '"', '"""', "'", "'''", "\\", "\n", "#", " ", "a", "b", "1"]


@given(st.text() | st.lists(st.sampled_from(FRAGMENTS)).map("".join), KEYS)
def test_any_text_gives_a_line_of_it_or_none(text, keys):
    line = find_line(text, keys)

    assert line is None or 1 <= line <= text.count("\n") + 1


# TOML documents of nested arrays and inline tables, broken over lines; each @ becomes a distinct number.
NAMES = st.sampled_from(["a", "b", '"c.d"', "'e f'", '"\\t"'])
BREAKS = st.sampled_from(["", "\n", " # ]\n", "\n\n"])
SCALARS = st.sampled_from(["@", "@", "-2.5e3", "true", '"x]"', "'y}'", '"""z\n"""', "'''\n'''", "1979-05-27"])
VALUES = st.recursive(
    SCALARS,
    lambda values: (
        st.lists(st.tuples(BREAKS, values, BREAKS), max_size=3).map(
            lambda items: "[" + ",".join("".join(item) for item in items) + "\n]"
        )
        | st.lists(st.tuples(NAMES, values), max_size=3, unique_by=lambda item: item[0]).map(
            lambda items: "{" + ", ".join(f"{name} = {value}" for name, value in items) + "}"
        )
    ),
    max_leaves=8,
)


@given(st.lists(st.tuples(NAMES, VALUES), unique_by=lambda item: item[0]))
def test_every_number_of_a_document_is_found_at_its_line(items):
    parts = ("[table]\n" + "".join(f"{name} = {value}\n" for name, value in items)).split("@")
    text = parts[0] + "".join(f"{number}{part}" for number, part in enumerate(parts[1:], 90000))

    for keys, number in numbers(tomllib.loads(text)):
        assert find_line(text, keys) == text[: text.index(str(number))].count("\n") + 1


def numbers(value, keys=()):
    """Yield each integer of a document with its keys."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from numbers(inner, (*keys, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from numbers(inner, (*keys, index))
    elif type(value) is int:
        yield keys, value


ARRAYS = """\
[[a]]
x = 1
[[a.b]]
y = 1
[a.b.c]
z = 1
[[a]]         # line 7
[[a.b]]
y = 2
[[a.b]]
y = 3
z = [1, { w = 2 }]
"""


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (("a",), 1),
        (("a", 0), 1),
        (("a", 0, "x"), 2),
        (("a", 0, "b", 0, "y"), 4),
        (("a", 0, "b", 0, "c", "z"), 6),
        (("a", 1), 7),
        (("a", 1, "b", 0, "y"), 9),
        (("a", 1, "b", 1, "y"), 11),
        (("a", 1, "b", 1, "z", 1, "w"), 12),
        (("a", 1, "x"), 7),
        (("a", 2), 1),
    ],
)
def test_items_of_arrays_of_tables_are_told_apart(keys, line):
    assert find_line(ARRAYS, keys) == line
