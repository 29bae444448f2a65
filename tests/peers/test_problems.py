"""All problems of a peers file at once."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.errors import TableError
from peers.peer_section import PEERS
from peers.problems import find_problems
from peers.toml import NETWORK_KEYS, parse
from tests.hypothesis_profiles import examples
from tests.peers.examples import key_text, peer, render, table

PATH = Path("peers.toml")
GOOD = render(table(peer("paris", "10.244.1.0/24"), peer("tokyo", "10.244.2.0/24", endpoint="192.0.2.2")))
HEAD = '[network]\nprefix = "10.244.0.0/16"\n'


def section(name, *lines):
    return "\n".join([f"[peers.{name}]", f'public_key = "{key_text(name)}"', *lines, ""])


def found(text, most=10):
    return [(error.line, error.problem.partition(" ")[0]) for error in find_problems(text, PATH, most)]


def test_a_right_file_has_no_problems():
    assert found(GOOD) == []


def test_every_problem_is_named_with_its_line():
    text = HEAD + "".join(
        (
            section("a", 'subnets = ["10.244.1.1/24", "10.244.2.0/24", "10.244.3.1/24"]', "keepalive = true"),
            section("b", 'subnet = "10.244.2.0/24"', 'address = "10.244.2.0"', 'endpoint = "1.2.3.4.5"'),
            section("c", 'subnets = ["10.244.2.0/24"]'),
            section("d", "preshared_key_file = 7", 'subnets = "10.244.4.0/24"'),
        )
    )

    assert found(text) == [
        (5, "peers.a.subnets[0]"),
        (5, "peers.a.subnets[2]"),
        (6, "peers.a.keepalive"),
        (9, "peers.b.subnet"),
        (10, "peers.b.address"),
        (11, "peers.b.endpoint"),
        (14, "peers.c.subnets[0]"),
        (17, "peers.d.preshared_key_file"),
    ]


def test_problems_of_two_tables_that_contradict_each_other_are_among_them():
    text = HEAD + section("a", 'subnets = "10.244.1.0/24"') + section("b", 'subnets = "10.244.1.0/24"')
    text += section("c", 'subnets = "10.244.1.0/24"') + section("d", 'address = "10.244.1.0"')

    assert found(text) == [(8, "peers.b.subnets[0]"), (11, "peers.c.subnets[0]"), (14, "peers.d.address")]


def test_what_follows_from_another_problem_is_not_told():
    text = HEAD.replace('"10.244.0.0/16"', '"10.244.0.1/16"')
    text += '[peers.a]\npublic_key = "short"\nsubnets = ["10.244.1.1/24"]\n'
    text += section("b", 'encapsulation = "vxlam"', "listen_port = 7", 'subnets = "10.244.2.0/24"')

    assert found(text) == [
        (2, "network.prefix"),
        (4, "peers.a.public_key"),
        (5, "peers.a.subnets[0]"),
        (8, "peers.b.encapsulation"),
    ]


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("", ["network"]),
        ("[network]\nprefix = 10\n", ["peers", "network.prefix"]),
        ("[network", ["this"]),
        (
            "colour = 1\n" + GOOD.replace("keepalive = 0", "keepalive = -1"),
            ["colour", *["peers.x.keepalive"] * 2],
        ),
        (GOOD.replace('device = "tun"', 'device = "tub"'), ["network.device"]),
        ("peers = 7\n" + HEAD, ["peers"]),
        ("network = 7\n" + section("a", "x = 1"), ["network"]),
        (HEAD + "[peers]\na = 7\n" + section("b", 'address = "::"'), ["peers.a", "peers.b.address"]),
        (HEAD + "[peers]\n", ["peers"]),
    ],
)
def test_odd_files_end_the_search(text, problems):
    places = [place for _, place in found(text)]

    assert [re.sub("(paris|tokyo)", "x", place) for place in places] == problems


def test_the_first_that_the_agent_names_is_among_them():
    text = HEAD + section("a", 'subnets = "10.244.1.1/24"') + section("b", "colour = 1")
    with pytest.raises(Exception, match="has host bits") as raised:
        parse(text, PATH)

    assert str(raised.value) in [str(error) for error in find_problems(text, PATH)]


def test_no_more_are_named_than_asked_for():
    text = HEAD + "".join(section(f"n{number}", 'subnets = "x"') for number in range(20))

    assert len(found(text)) == 10
    assert len(found(text, most=3)) == 3


VALUES = st.one_of(
    st.none(),
    st.integers(-1, 70000),
    st.sampled_from(
        ["", "x", "10.244.1.0/24", "10.244.1.1/24", "192.0.2.1", "wireguard", "ipip", "tap", key_text("a")]
    ),
    st.lists(st.sampled_from(["10.244.1.0/24", "10.244.2.0/24", "10.244.2.1/24", "y"]), max_size=4),
)
LINES = st.lists(
    st.tuples(st.sampled_from([*PEERS.names, "colour"]), VALUES), max_size=5, unique_by=lambda line: line[0]
)


@given(
    st.lists(
        st.tuples(st.sampled_from([*NETWORK_KEYS, "colour"]), VALUES),
        max_size=4,
        unique_by=lambda line: line[0],
    ),
    st.lists(LINES, max_size=4),
)
@examples(300)
def test_files_of_any_kind_have_problems_exactly_where_they_are_refused(network, peers):
    def write(lines):
        return "".join(f"{key} = {json.dumps(value)}\n" for key, value in lines if value is not None)

    text = f"[network]\n{write(network)}"
    for number, lines in enumerate(peers):
        text += f"[peers.p{number}]\n{write(lines)}"

    problems = [str(error) for error in find_problems(text, PATH)]

    refused = None
    try:
        parse(text, PATH)
    except TableError as error:
        refused = str(error)
    assert refused in problems if refused else problems == []
    assert len(set(problems)) == len(problems) <= 10
