"""A node that is only configured with `wg`."""

from __future__ import annotations

from pathlib import Path

import pytest

from overlay import config
from overlay.amending import amend, carry_over, merged_of
from overlay.crypto.keys import PrivateKey
from overlay.doors.uapi import what_to_show
from overlay.reload import Reloads
from overlay.starting.bare import BareStore, bare_options
from overlay.uapi.language import AllowedIp, DeviceChange, PeerChange, parse_set
from peers.addresses import parse_prefix

KEY, PEER = PrivateKey(bytes(range(32))), bytes(range(1, 33))


def test_it_begins_without_key_port_and_peers():
    node = BareStore("wg0").first_node()

    assert merged_of(node).private_key is None
    assert node.table.listen_port(node.own) == 0
    assert (node.others, node.own.addresses) == ([], ())


def test_peers_are_there_once_there_is_a_key():
    node = BareStore("wg0").first_node()
    everything = (AllowedIp(parse_prefix("0.0.0.0/0")), AllowedIp(parse_prefix("::/0")))

    node = amend(node, DeviceChange(peers=(PeerChange(PEER, allowed=everything),)))
    assert node.others == []

    node = amend(node, DeviceChange(takes_key=True, private_key=KEY))
    assert [each.public_key for each in node.others] == [PEER]
    assert node.own.public_key == KEY.public


def test_reload_changes_nothing():
    store, options = BareStore("wg0"), bare_options("wg0", Path("/nowhere"))
    node = amend(store.first_node(), DeviceChange(takes_key=True, private_key=KEY, peers=(PeerChange(PEER),)))

    taken = Reloads(store, options).read(node)

    assert taken.table.peers == node.table.peers
    assert (taken.private_key, taken.is_bare) == (KEY, True)
    assert carry_over(node, node.as_filed)[1] is None
    assert not Reloads(store, options).notes


def test_it_has_no_files():
    options = bare_options("wg0", Path("/nowhere"))

    assert config.describe_files(options, BareStore("wg0").first_node()) == []
    assert str(options.peers) == "wg:wg0"


@pytest.mark.slow
def test_65280_prefixes_of_each_family_on_one_peer_are_all_there():
    prefixes = [f"10.{each >> 8}.{each & 255}.0/24" for each in range(65280)]
    prefixes += [f"fd00:{each:x}::/32" for each in range(1, 65281)]
    change = parse_set([f"public_key={PEER.hex()}", *(f"allowed_ip={each}" for each in prefixes)])

    node = amend(amend(BareStore("wg0").first_node(), DeviceChange(takes_key=True, private_key=KEY)), change)

    _, allowed = what_to_show(node)
    assert sorted(map(str, allowed[node.others[0].name])) == sorted(prefixes)


def test_keepalives_wait_until_the_interface_is_up():
    node = amend(BareStore("wg0").first_node(), DeviceChange(takes_key=True, private_key=KEY))
    node = amend(node, DeviceChange(peers=(PeerChange(PEER, keepalive=25),)))
    assert [each.keepalive for each in node.others] == [0]
    assert merged_of(node).peers[PEER].keepalive == 25  # as `wg` shows it

    node = amend(node, DeviceChange(is_up=True))
    assert [each.keepalive for each in node.others] == [25]

    node = amend(node, DeviceChange(peers=(PeerChange(PEER, keepalive=7),)))
    assert [each.keepalive for each in node.others] == [7]
