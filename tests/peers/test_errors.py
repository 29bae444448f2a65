from pathlib import Path

import pytest

from peers.errors import KeyProblem, TableError, format_keys


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ((), ""),
        (("peers", "paris", "subnets", 1), "peers.paris.subnets[1]"),
        (("peers", "tokyo.lan", "endpoint"), 'peers."tokyo.lan".endpoint'),
        (("peers", 'a"\n'), 'peers."a\\"\\n"'),
    ],
)
def test_keys_are_written_as_in_the_file(keys, text):
    assert format_keys(keys) == text


def test_a_table_error_begins_with_its_place():
    assert str(TableError(Path("peers.toml"), 12, "x is wrong")) == "peers.toml, line 12: x is wrong"
    assert str(TableError(Path("peers.toml"), None, "x is wrong")) == "peers.toml: x is wrong"


def test_a_key_problem_begins_with_its_key():
    assert str(KeyProblem(("network", "mtu"), "is 'big'; write bytes")) == "network.mtu is 'big'; write bytes"
