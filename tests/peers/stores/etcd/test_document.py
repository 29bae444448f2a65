"""The document of a network: [leases], and what follows from it without the nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from peers.addresses import parse_prefix
from peers.errors import TableError
from peers.prefixes import PrefixMap
from peers.stores.etcd.document import (
    check_document,
    decode_document,
    free_address,
    read_document,
    split_leases,
)
from tests.peers.examples import key_text

PATH = Path("/overlay/office/config")
NETWORK = '[network]\nprefix = ["10.244.0.0/16", "fd00:244::/48"]\n'
SERVICE = '[services.web]\naddress = "10.244.0.80"\nports = 80\nservers = ["web1"]\ndirectors = "all"\n'


def problems(text):
    return [str(each) for each in check_document(text, PATH, 10)]


def test_subnets_are_cut_of_the_networks_prefixes():
    leases = read_document(NETWORK, PATH).leases

    assert leases.seconds == 60
    assert leases.count == 256
    assert leases.numbers() == range(1, 256)
    assert leases.subnets(7) == (parse_prefix("10.244.7.0/24"), parse_prefix("fd00:244:0:7::/64"))
    assert leases.number_of(parse_prefix("10.244.7.0/24")) == 7
    assert leases.number_of(parse_prefix("10.245.7.0/24")) is None
    assert leases.number_of(parse_prefix("10.244.7.0/25")) is None


def test_leases_say_what_subnets_are_cut_of():
    text = (
        NETWORK + '\n[leases]  # mine\nprefix = "10.244.128.0/17"\nlength = 26\nseconds = 120\n\n' + SERVICE
    )
    leases = read_document(text, PATH).leases

    assert leases.seconds == 120
    assert leases.count == 512
    assert leases.subnets(1) == (parse_prefix("10.244.128.64/26"),)


def test_lines_stay_where_they_are_without_the_leases():
    text = NETWORK + "[leases]\nseconds = 120\n[peers.x]\n"
    rest, piece, first = split_leases(text)

    assert rest.splitlines()[-1] == "[peers.x]"
    assert rest.count("\n") == text.count("\n")
    assert (piece, first) == ("[leases]\nseconds = 120\n", 3)


@pytest.mark.parametrize(
    ("leases", "said"),
    [
        ("seconds = 1", "config, line 4: leases.seconds is 1; write seconds from 10 to 604800"),
        ("length = 16", "leases.length is 16; write a prefix length from 17 to 30"),
        ("colour = 1", "leases.colour is not known"),
        ('prefix = "10.0.0.0/8"', "10.0.0.0/8 is not in the network's prefix; write a part of 10.244.0.0/16"),
        ('prefix = ["10.244.0.0/17", "10.244.128.0/17"]', "is a second one of its family"),
        ("prefix = []", "is empty; write a prefix of the network"),
        ('prefix = "10.244.0.0/30"', "too small|prefix length"),
        ("seconds =", r"line 3: \[leases\] is not TOML"),
    ],
)
def test_wrong_leases_are_refused_by_their_line(leases, said):
    with pytest.raises(TableError, match=said):
        read_document(f"{NETWORK}[leases]\n{leases}\n", PATH)


def test_peer_that_is_the_way_out_takes_no_subnet_of_the_network():
    """Before, no host could join if a peer of the document had 0.0.0.0/0."""
    text = (
        NETWORK
        + f'[peers.exit]\npublic_key = "{key_text("exit")}"\nsubnets = ["0.0.0.0/0"]\naddress = "10.244.9.1"\n'
    )
    taken = read_document(text, PATH).taken

    assert len(taken) == 1
    assert list(taken.covering(parse_prefix("10.244.9.1/32"))) == [
        (parse_prefix("10.244.9.1/32"), "peers.exit")
    ]


def test_first_free_address_is_found_behind_whatever_is_taken():
    network = read_document('[network]\nprefix = "10.0.0.0/8"\n', PATH).network
    subnets = [parse_prefix(f"10.{number}.0.0/16") for number in range(256)]
    hosts = [parse_prefix(f"10.200.0.{number}/32") for number in range(256)]
    taken, used = PrefixMap((each, "a") for each in subnets[:200]), PrefixMap((each, "b") for each in hosts)

    assert free_address(network) == parse_prefix("10.0.0.1/32")
    assert free_address(network, taken) == parse_prefix("10.200.0.0/32")
    assert free_address(network, taken, used) == parse_prefix("10.200.1.0/32")
    assert free_address(network, PrefixMap((each, "a") for each in subnets)) is None


def test_document_without_peers_is_right():
    assert problems(NETWORK) == []
    assert problems(NETWORK + SERVICE) == []
    assert problems('[network]\nprefix = "10.244.0.0/16"\nencapsulation = "udp"\n') == []


def test_everything_wrong_is_told():
    found = problems(NETWORK + "colour = 1\n[peers.a]\ntaste = 2\n" + "[services.web]\nports = 70000\n")

    assert any("network.colour is not known" in each for each in found)
    assert any("peers.a.taste is not known" in each for each in found)


def test_peer_without_key_file_from_the_root_is_refused():
    found = problems(
        NETWORK
        + f'[peers.a]\npublic_key = "{"B" * 42}A="\naddress = "10.244.0.9"\npreshared_key_file = "x"\n'
    )

    assert any("write the path from the root" in each for each in found)


def test_what_is_no_text_is_refused():
    with pytest.raises(TableError, match="it is not UTF-8"):
        decode_document(b"\xff", PATH)
