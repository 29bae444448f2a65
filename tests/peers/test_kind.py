"""A further kind of section: once it is in the registry, everything that reads files knows it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from peers.errors import KeyProblem, TableError
from peers.hints import warnings
from peers.key import Key, each, integer, read_keys
from peers.kind import Kind
from peers.kinds import KINDS
from peers.peer_section import PEERS
from peers.problems import find_problems
from peers.sections import TableReader
from peers.toml import read_document
from peers.toml_section import Section
from tests.peers.examples import PREFIXES, peer, render, table

PATH = Path("peers.toml")
HOSTS = render(table(peer("paris", "10.244.1.0/24"), peer("tokyo", "10.244.2.0/24")))
GATE = '[gates.front]\nwidth = 3\nkeepers = ["paris", "tokyo"]\n'


def read_gate(gates, name, _network, _directory):
    section = gates.section(name, "write a table")
    section.refuse_unknown(GATES.names)
    return read_keys(section, GATES.keys)


def check_gates(network, peers, sections):
    assert network.prefixes == PREFIXES
    for name, gate in GATES.of(sections).items():
        for index, keeper in enumerate(gate.get("keepers", ())):
            if keeper not in peers:
                raise KeyProblem(("gates", name, "keepers", index), f"{keeper} is not a peer; write another")


def warn_of_gates(_network, _peers, sections):
    return [
        f"gates.{name} has no keeper" for name, gate in GATES.of(sections).items() if "keepers" not in gate
    ]


GATES = Kind(
    "gates",
    (Key("width", integer(1, 9, "metres")), Key("keepers", each(str, "the name of a peer"))),
    read_gate,
    check_gates,
    warn_of_gates,
)


def read(text, kinds=(*KINDS, GATES)):
    return read_document(Section((), tomllib.loads(text)), None, kinds)


def problems(text):
    return [error.problem for error in find_problems(text, PATH, kinds=(*KINDS, GATES))]


def test_sections_of_another_kind_are_in_the_table():
    found = read(HOSTS + GATE)

    assert list(found.peers) == ["paris", "tokyo"]
    assert GATES.of(found.sections) == {"front": {"width": 3, "keepers": ("paris", "tokyo")}}


def test_a_file_may_have_none_of_another_kind():
    assert GATES.of(read(HOSTS).sections) == {}


def test_a_file_without_any_peer_is_refused():
    with pytest.raises(KeyProblem, match=r"^peers is missing; write a"):
        read(HOSTS[: HOSTS.index("[peers")])


def test_sections_of_a_kind_that_is_not_in_the_registry_are_not_known():
    with pytest.raises(KeyProblem, match=r"^gates is not known; accepted are network, peers, services"):
        read(HOSTS + GATE, KINDS)


def test_keys_of_a_section_are_those_of_its_rows():
    assert PEERS.names[0] == "public_key"
    with pytest.raises(KeyProblem, match=r"gates\.front\.widht is not known; did you mean width\?"):
        read(HOSTS + GATE.replace("width", "widht"))


def test_a_kind_refuses_what_does_not_fit_the_peers():
    with pytest.raises(KeyProblem, match=r"gates\.front\.keepers\[1\] rome is not a peer"):
        read(HOSTS + GATE.replace("tokyo", "rome"))


def test_what_a_kind_warns_of_is_among_the_warnings():
    found = read(HOSTS + "[gates.front]\nwidth = 3\n")

    assert warnings(found)[-1] == "gates.front has no keeper"


def test_problems_of_all_sections_are_found_at_once():
    text = HOSTS.replace('address = "10.244.1.0"', 'colour = "red"') + GATE.replace("3", "30")

    assert problems(text) == [
        *(problems(text.replace("30", "3"))),
        "gates.front.width is 30; write metres from 1 to 9",
    ]


def test_a_peer_that_is_wrong_altogether_is_not_missed_by_others():
    text = HOSTS + '[peers."a b"]\n' + GATE.replace("tokyo", "a b")

    assert len(problems(text)) == 1


def test_a_problem_in_a_section_leaves_a_peer_of_the_same_name_be():
    text = HOSTS + GATE.replace("front", "paris").replace("3", "30") + "[gates.other]\nwidth = 20\n"

    assert len(problems(text)) == 2


def test_sections_whose_text_is_as_it_was_are_not_read_again():
    reader = TableReader(PATH, kinds=(*KINDS, GATES))
    before = reader.parse(HOSTS + GATE)

    after = reader.parse(HOSTS.replace("10.244.2.0/24", "10.244.3.0/24") + GATE)

    assert GATES.of(after.sections)["front"] is GATES.of(before.sections)["front"]
    assert after.peers["paris"] is before.peers["paris"]
    assert after.peers["tokyo"] is not before.peers["tokyo"]


def test_a_section_that_is_there_twice_is_refused_with_its_line():
    with pytest.raises(TableError, match=r"line \d+: this table is here twice"):
        TableReader(PATH, kinds=(*KINDS, GATES)).parse(HOSTS + GATE + GATE)


def test_tables_in_a_section_are_read_with_it():
    reader = TableReader(
        PATH, kinds=(*KINDS, Kind("gates", (), lambda gates, name, *_: dict(gates.values[name])))
    )

    found = reader.parse(HOSTS + "[gates.front]\nwidth = 3\n[gates.front.lock]\nkeys = 2\n")

    ((_, gates),) = found.sections.items()
    assert gates == {"front": {"width": 3, "lock": {"keys": 2}}}
