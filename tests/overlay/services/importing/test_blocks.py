import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.importing.places import FileLine, UnreadableError
from overlay.services.importing import blocks
from overlay.services.importing.lines import Line
from tests.overlay.services.importing.reading import refusal


def parse(*texts):
    return blocks.parse(Line(FileLine("k.conf", number), text) for number, text in enumerate(texts, 1))


def tree(directives):
    return [(each.words, None if each.block is None else tree(each.block)) for each in directives]


def test_directives_have_their_words_and_blocks():
    found = parse("a b", "{", 'c "d e"', "{", "}", "f", "}", "g")

    assert tree(found) == [(("a", "b"), [(("c", "d e"), []), (("f",), None)]), (("g",), None)]


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        (("{",), "k.conf:1: this { follows no keyword"),
        (("a", "{", "{"), "k.conf:3: this { follows no keyword"),
        (("a", "{", "}", "{"), "k.conf:4: this { follows no keyword"),
        (("a", "}"), "k.conf:2: this } closes nothing"),
        (("a b", "{", "c", "{", "}"), "k.conf:1: the { of a b is never closed"),
        (("a", "{") * 40, "k.conf:34: blocks are nested more than 16 deep"),
    ],
)
def test_braces_that_do_not_pair_are_refused_with_their_line(texts, problem):
    assert str(refusal(UnreadableError, parse, *texts)).startswith(problem)


@given(st.lists(st.sampled_from(["{", "}", "a", '""', "b c"]), max_size=30))
def test_any_lines_are_directives_or_refusal(texts):
    try:
        found = parse(*texts)
    except UnreadableError:
        return

    assert str(tree(found)).count("[") == texts.count("{") + 1
