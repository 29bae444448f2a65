"""A node that `wg` changes, and a peers file that is read again."""

from __future__ import annotations

import errno

import pytest

from overlay.amending import amend, carry_over, merged_of
from overlay.config import Node
from overlay.uapi.errors import RefusedError
from overlay.uapi.language import DeviceChange, PeerChange
from tests.overlay.uapi.test_amendments import LIMA, OWN, PARIS, TOKYO, change, file, filed, peer


def node_of(state):
    return Node(state.private_key, state.table, state.own, dict(state.preshared_keys))


def test_node_knows_what_it_was_without_wg():
    node = node_of(file())

    changed = amend(amend(node, change(PeerChange(LIMA))), change(PeerChange(PARIS, keepalive=1)))

    assert changed.filed is node
    assert [each.name for each in changed.others] == ["paris", "tokyo", "oslo", "peer-BAQEBAQE"]
    assert changed.preshared_keys == {"tokyo": b"\x05" * 32}


def test_node_that_is_told_the_same_as_the_file_is_as_filed():
    node = node_of(file())

    changed = amend(
        amend(node, change(PeerChange(PARIS, keepalive=1))), change(PeerChange(PARIS, keepalive=0))
    )

    assert changed.table is node.table
    assert changed.merged.describe() is None


def test_what_makes_no_table_is_refused_with_its_reason():
    with pytest.raises(RefusedError, match=r"peers table: network\.mtu 1000 is too small") as caught:
        amend(node_of(filed(mtu=1000)), change(PeerChange(LIMA, allowed=gives6("fd00::/64"))))

    assert caught.value.number == errno.EINVAL


def gives6(prefix):
    from ipaddress import IPv6Network

    from overlay.uapi.language import AllowedIp

    return (AllowedIp(IPv6Network(prefix)),)


def test_new_file_is_taken_with_what_wg_changed():
    node = amend(node_of(file()), change(PeerChange(PARIS, keepalive=1), PeerChange(LIMA)))
    taken = node_of(filed(*(each for each in file().table.peers.values() if each.name in {"paris", "tokyo"})))

    again, dropped = carry_over(node, taken)

    assert dropped is None
    assert [each.name for each in again.others] == ["paris", "tokyo", "peer-BAQEBAQE"]
    assert again.filed is taken


def test_file_that_does_not_go_with_what_wg_changed_is_taken_alone():
    node = amend(node_of(file()), change(PeerChange(LIMA, allowed=gives6("fd00::/64"))))
    taken = node_of(filed(peer("paris", PARIS, "10.244.1.0/24"), mtu=1000))

    again, dropped = carry_over(node, taken)

    assert again is taken
    assert dropped == (
        "the changes made by wg were dropped, because they do not fit the peers file: network.mtu 1000 is too small "
        "for IPv6, and "
        "peers.peer-BAQEBAQE has fd00::/64; write at least 1280 or remove it"
    )


def test_what_wg_never_changed_is_shown_too():
    assert merged_of(node_of(file())).peers.keys() >= {PARIS, TOKYO}


def test_cleared_key_leaves_nobody_to_talk_to():
    changed = amend(node_of(file()), DeviceChange(takes_key=True))

    assert changed.others == []
    assert [each.name for each in changed.encapsulations] == ["wireguard"]
    assert changed.private_key == OWN
    assert merged_of(changed).private_key is None
    assert merged_of(changed).describe() == (
        "wg removed the private key: this holds until the peers file changes it, or the agent ends"
    )
