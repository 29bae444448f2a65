import base64
from ipaddress import ip_network
from pathlib import Path

import pytest

import peers.hints
import peers.toml
from scripts.benchmarks.contenders.wireguard import MORE_PEERS_LIMIT, ONE_MORE_PEER, PEERS_TOML, more_peers


@pytest.mark.slow
def test_as_many_more_peers_as_are_allowed_make_a_peers_file():
    a, b = (base64.b64encode(bytes([9, number, *bytes(30)])).decode() for number in (1, 2))
    text = PEERS_TOML.format(a=a, b=b, bulk="true")
    text += "".join(ONE_MORE_PEER.format(**peer) for peer in more_peers(MORE_PEERS_LIMIT))

    table = peers.toml.parse(text, Path("peers.toml"))

    assert len(table.peers) == MORE_PEERS_LIMIT + 2
    (sentence,) = peers.hints.warnings(table)
    assert "have an endpoint with another port" in sentence


def test_more_peers_are_out_of_the_way_of_the_hosts():
    hosts = [ip_network("10.244.1.0/24"), ip_network("10.244.2.0/24")]

    assert not any(
        ip_network(peer["subnet"]).overlaps(host) for peer in more_peers(MORE_PEERS_LIMIT) for host in hosts
    )
