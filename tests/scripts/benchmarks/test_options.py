from argparse import ArgumentTypeError

import pytest

from scripts.benchmarks.options import Parser, between, several, some_of


@pytest.mark.parametrize("text", ["0", "11", "x", "", "1.5", "nan"])
def test_a_number_out_of_its_range_is_refused(text):
    with pytest.raises(ArgumentTypeError):
        between(1, 10)(text)


@pytest.mark.parametrize("text", ["-0.1", "50.1", "nan", "inf"])
def test_a_fraction_out_of_its_range_is_refused(text):
    with pytest.raises(ArgumentTypeError):
        between(0.0, 50.0)(text)


def test_a_list_of_numbers_is_read_in_order_and_without_repetition():
    assert several(between(0, 1000))("10,1,1000,1") == [10, 1, 1000]


def test_a_list_of_words_may_have_spaces_around_them():
    assert some_of(["ours", "no tunnel"])("no tunnel, ours") == ["no tunnel", "ours"]


def test_an_unknown_word_is_refused_with_those_that_are_known():
    with pytest.raises(ArgumentTypeError, match=r"'mars'.*ours, vxlan"):
        some_of(["ours", "vxlan"])("ours,mars")


def test_wrong_use_gives_one_sentence_and_exit_2(capsys):
    parser = Parser()
    parser.add_argument("--rounds", type=between(1, 10))

    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--rounds", "99"])

    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
