from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.syntax import describe

PEER = '[network]\nprefix = "10.244.0.0/16"\n\n[peers.paris]\n'


def described(text):
    with pytest.raises(tomllib.TOMLDecodeError) as caught:
        tomllib.loads(text)
    return describe(text, str(caught.value))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "endpoint = 192.0.2.10",
            (
                "this is not TOML: expected newline or end of document after a statement; write one key on each line, "
                "and "
                'text in double quotes, as in endpoint = "192.0.2.10"'
            ),
        ),
        (
            "endpoint = paris.example.net",
            (
                'this is not TOML: invalid value; write text in double quotes, as in endpoint = "192.0.2.10", '
                "numbers without "
                "quotes"
            ),
        ),
        (
            'endpoint: "192.0.2.10"',
            (
                "this is not TOML: expected '=' after a key in a key/value pair; write key = value, as in endpoint = "
                '"192.0.2.10"'
            ),
        ),
        (
            'subnets = ["10.244.1.0/24"\nkeepalive = 25',
            (
                "this is not TOML: unclosed array; close the list with a bracket, as in "
                'subnets = ["10.244.1.0/24"]'
            ),
        ),
        ('preshared_key_file = "a\\d"', None),
    ],
)
def test_a_mistake_is_named_with_its_remedy(line, sentence):
    _, told = described(PEER + line + "\n")

    assert told.startswith("this is not TOML: ")
    assert "; " in told
    if sentence is not None:
        assert told == sentence


def test_the_line_is_that_of_the_mistake():
    assert described(PEER + "endpoint = 192.0.2.10\n")[0] == 5
    assert described(PEER + "listen = [\n\n")[0] == 5


def test_a_message_without_a_place_has_no_line():
    assert describe("", "Something new") == (
        None,
        (
            "this is not TOML: something new; write [TABLE] lines, key = value lines such as "
            'endpoint = "192.0.2.10", and comments behind #'
        ),
    )


@given(st.text())
def test_every_text_that_is_not_toml_gets_a_remedy(text):
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        _, told = describe(text, str(error))
        assert "; " in told
    except (ValueError, RecursionError):
        pass
