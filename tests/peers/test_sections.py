"""A peers file that is read again and again."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.errors import TableError
from peers.sections import TableReader
from peers.toml import parse
from tests.hypothesis_profiles import examples
from tests.peers.examples import key_text

PATH = Path("/etc/overlay/peers.toml")
HEAD = '# the overlay\n[network]\nprefix = "10.244.0.0/16"\n'


def section(name, *lines, subnet=None):
    subnet = f"10.244.{ord(name[-1]) - 96}.0/24" if subnet is None else subnet
    return "\n".join(
        [f"[peers.{name}]", f'public_key = "{key_text(name)}"', f'subnets = ["{subnet}"]', *lines, "", ""]
    )


def outcome(read):
    """Return the result of reading: the table with its routes, or the error."""
    try:
        table = read()
    except TableError as error:
        return str(error), error.line
    return table, list(table.peers), table.routes, dict(table.services)


# Sections as people write them, valid and invalid
SECTIONS = st.sampled_from(
    [
        section("a"),
        section("b"),
        section("c", "keepalive = 25"),
        section("c"),
        section("d", 'endpoint = "192.0.2.4"', "# a comment"),
        section("d", 'endpoint = "192.0.2.4"').replace("\n", "\r\n"),
        section("e", subnet="10.244.1.0/24"),  # that of a
        section("f", 'preshared_key_file = "f.psk"'),
        section("g", "colour = 1"),
        section("h", subnet="10.244.8.1/24"),
        section("i").replace("[peers.i]", '[peers."i.lan"]  # quoted'),
        section("j").replace("[peers.j]", "[ peers . j ]"),
        section("k").replace('"]', '",\n]'),
        section("l", '"""') + section("m", '"""'),
        section("n", 'address = """\n10.244.14.1"""'),
        section("o", "subnets = ["),
        section("p", "[peers.a.more]", "x = 1"),
        section("q", "[network]", "port = 7"),
        "[peers.r]\nsubnets = [\n[network]\n]\n",
        "[peers.s]\nsubnets = [\n  '10.244.19.0/24', # [peers.x]\n]\naddress = '10.244.19.1'\n",
        "[network]\nport = 51821\n",
        "[[peers.t]]\n",
        "[peers]\n",
        "[peers.u]\n[peers.v]\n",
        "peers.w.address = '10.244.22.1'\n",
        "  [peers.x]\n  address = '10.244.23.1'\n",
        '[services.web]\naddress = "192.0.2.1"\nservers = ["a", { peer = "b", port = 80 }]\n',
        '[services.mail]\naddress = "192.0.2.1"\nports = 25\ncheck = "page"\nservers = "c"\n',
        '[services.mail]\naddress = "192.0.2.2"\n[[services.mail.servers]]\npeer = "d"\n',
        '[services.twin]\naddress = "192.0.2.1"\n',
        '[services.web.check]\nkind = "ping"\n',
        '[checks.page] # shared\nkind = "tcp"\n',
        '[checks."page"]\nkind = "tcp"\nport = 7\n',
        '[vrrp.lan]\nrouter = 5\ninterface = "eth0"\n',
        "[services]\n",
        "\ufeff",
        "\n\n",
    ]
)
HEADS = st.sampled_from(
    [
        HEAD,
        HEAD + "port = 4500\n",
        HEAD + 'encapsulation = "udp"\n',
        HEAD.replace("[network]", "[network] # all"),
        "\ufeff" + HEAD,
        "",
        "x = 1\n" + HEAD,
        HEAD.replace("[network]\nprefix", "network.prefix"),
        HEAD.replace("0/16", "1/16"),
    ]
)
FILES = st.builds(lambda head, sections: head + "".join(sections), HEADS, st.lists(SECTIONS, max_size=6))


@given(st.lists(FILES, min_size=1, max_size=6))
@examples(300)
def test_reading_one_text_after_the_other_is_reading_each_from_scratch(texts):
    reader = TableReader(PATH)

    for text in texts:
        assert outcome(lambda text=text: reader.parse(text)) == outcome(lambda text=text: parse(text, PATH))


@given(
    st.lists(
        st.tuples(st.integers(0, 400), st.integers(0, 30), st.text("[]pers.a=\"'#\n 1", max_size=8)),
        max_size=6,
    )
)
@examples(300)
def test_edits_of_any_kind_are_read_as_from_scratch(edits):
    text = HEAD + section("a") + section("b") + section("c", 'endpoint = "192.0.2.3"')
    reader = TableReader(PATH)
    reader.parse(text)

    for at, length, put in edits:
        text = text[:at] + put + text[at + length :]
        assert outcome(lambda text=text: reader.parse(text)) == outcome(lambda text=text: parse(text, PATH))


@pytest.fixture
def parsed(monkeypatch):
    """Return the texts that were parsed."""
    texts = []
    loads = tomllib.loads
    monkeypatch.setattr(tomllib, "loads", lambda text: texts.append(text) or loads(text))
    return texts


def test_only_the_section_that_changed_is_parsed_again(parsed):
    sections = [section(name) for name in "abcdefgh"]
    reader = TableReader(PATH)
    first = reader.parse(HEAD + "".join(sections))
    parsed.clear()
    sections[3] = section("d", "keepalive = 25")

    second = reader.parse(HEAD + "".join(sections))

    assert [text for text in parsed if "peers" in text] == [sections[3]]
    assert second.peers["d"].keepalive == 25
    assert all(second.peers[name] is first.peers[name] for name in "abcefgh")


def test_the_same_text_is_the_same_table(parsed):
    reader = TableReader(PATH)
    first = reader.parse(HEAD + section("a"))
    parsed.clear()

    assert reader.parse(HEAD + section("a")) is first
    assert parsed == []


def test_the_same_wrong_text_is_the_same_error_and_not_read_again(parsed):
    reader = TableReader(PATH)
    text = HEAD + section("a", "colour = 1")
    first = outcome(lambda: reader.parse(text))
    parsed.clear()

    assert outcome(lambda: reader.parse(text)) == first
    assert parsed == []


def test_what_was_known_survives_a_wrong_text(parsed):
    good = HEAD + section("a") + section("b")
    reader = TableReader(PATH)
    reader.parse(good)
    outcome(lambda: reader.parse(good + "["))
    parsed.clear()

    reader.parse(good + section("c"))

    assert len(parsed) == 2  # the network and c


def test_another_network_is_another_meaning_of_every_section():
    text = HEAD + section("a", 'endpoint = "192.0.2.1"')
    reader = TableReader(PATH)
    reader.parse(text)

    table = reader.parse(text.replace('/16"', '/16"\nport = 4500'))

    assert table.peers["a"].endpoint.port == 4500


def test_services_whose_sections_did_not_change_are_not_read_again(parsed):
    sections = [
        section("a"),
        '[services.web]\naddress = "192.0.2.1"\ncheck = "page"\nports = 80\n[services.web.vrrp]\nrouter = 1\n',
        section("b"),
        '[checks.page]\nkind = "tcp"\n',
    ]
    sections[1] = sections[1].replace(
        "[services.web.vrrp]", 'directors = "a"\n[services.web.vrrp]\ninterface = "e"'
    )
    reader = TableReader(PATH)
    first = reader.parse(HEAD + "".join(sections))
    parsed.clear()
    sections[3] = '[checks.page]\nkind = "tcp"\nevery = 9\n'

    second = reader.parse(HEAD + "".join(sections))

    assert [text for text in parsed if "[network]" not in text] == [sections[3]]
    assert first.services["web"].checks[0].every == 6
    assert second.services["web"].checks[0].every == 9
