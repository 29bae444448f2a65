from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("paris", "paris"),
        ("Zürich 東京 \N{GRINNING FACE}", "Zürich 東京 \N{GRINNING FACE}"),
        ("\x1b[2J\x1b]0;root\x07", r"\x1b[2J\x1b]0;root\x07"),
        ("a\nb\r\tc\0", r"a\nb\r\tc\x00"),
        ("\x9b31m", r"\x9b31m"),  # the C1 form of ESC [
        ("user\u202etxt", r"user\u202etxt"),  # writes from right to left
        ("a\u200bb\u2028c\xa0d", r"a\u200bb\u2028c\xa0d"),
        ("\ud800", r"\ud800"),
        ("", ""),
    ],
)
def test_what_is_not_to_be_seen_becomes_an_escape_sequence(text, shown):
    assert printable(text) == shown


def test_line_feeds_stay_if_asked():
    assert printable("a\n\x1bb\n", keeps_lines=True) == "a\n\\x1bb\n"


@given(st.text())
def test_nothing_but_printable_characters_comes_out(text):
    shown = printable(text)

    assert shown.isprintable()
    shown.encode()


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"])))
def test_printable_text_stays_as_it_is(text):
    assert printable(text) == text
