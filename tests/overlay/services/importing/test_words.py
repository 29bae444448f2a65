"""Words, as keepalived 2.2.7 splits them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.services.importing import words
from tests.overlay.services.importing.reading import refusal


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a  b\tc", ("a", "b", "c")),
        ('path "/a b"x', ("path", "/a b", "x")),
        ('a"b c"', ("a", "b c")),
        ("it's 'one two'", ("it's", "'one", "two'")),
        ('""', ("",)),
        (r"a\ b", ("a\\", "b")),
        ("", ()),
    ],
)
def test_most_lines_are_split_at_blanks_and_double_quotes(text, expected):
    assert words.split(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a  b\tc", ("a", "b", "c")),
        ("""regex "it's" 'say "x"'""", ("regex", "it's", 'say "x"')),
        (r'one\ word "a\"b" \x41\102\cA\n', ("one word", 'a"b', "AB\x01\n")),
        ('a"b c"d', ("ab cd",)),
        ('"" x', ("", "x")),
        ("", ()),
    ],
)
def test_commands_are_split_with_both_quotes_and_escapes(text, expected):
    assert words.split_escaped(text) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('a "b', 'has a " that is not closed'),
        ("a 'b", "has a ' that is not closed"),
        ("a\\", "ends with a backslash"),
    ],
)
def test_what_is_not_closed_is_refusal(text, problem):
    assert str(refusal(ValueError, words.split_escaped, text)) == problem


@given(
    st.lists(
        st.text(st.characters(exclude_characters='"\\', exclude_categories=["Cs"]), min_size=1), max_size=4
    )
)
def test_words_in_double_quotes_are_what_was_written(written):
    text = " ".join(f'"{word}"' for word in written)

    assert words.split(text) == words.split_escaped(text) == tuple(written)
