"""Changes by `wg` apply on top of the peers file, as in a WireGuard device, until the file is newer."""

from __future__ import annotations

import errno
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.crypto.keys import PresharedKey, PrivateKey
from overlay.uapi.amended import NOTHING, Filed
from overlay.uapi.amendments import apply, merge
from overlay.uapi.errors import RefusedError
from overlay.uapi.language import NO_PRESHARED_KEY, AllowedIp, DeviceChange, PeerChange
from peers.errors import KeyProblem
from peers.peer import Endpoint, Network, Peer
from peers.table import Table

OWN = PrivateKey(bytes(31) + b"\x40")
PARIS, TOKYO, OSLO, LIMA, ROME = (bytes([number]) * 32 for number in range(1, 6))
HERE = Endpoint("192.0.2.9", 4789)
PSK = PresharedKey(b"\x07" * 32)


def net(text):
    return IPv4Network(text)


def peer(name, key, *subnets, address=None, **fields):
    addresses = (IPv4Address(address),) if address else (net(subnets[0]).network_address,)
    return Peer(name, key, tuple(map(net, subnets)), addresses, **fields)


def filed(*peers, own=None, preshared=None, **network):
    network.setdefault("prefixes", (net("10.244.0.0/16"),))
    own = own or peer("berlin", OWN.public, "10.244.9.0/24")
    table = Table(Network(**network), {each.name: each for each in (own, *peers)})
    return Filed(table, own, OWN, preshared or {})


def file(**fields):
    return filed(
        peer("paris", PARIS, "10.244.1.0/24", endpoint=Endpoint("paris.example", 51820)),
        peer("tokyo", TOKYO, "10.244.2.0/24", address="10.244.0.2"),
        peer("oslo", OSLO, "10.0.0.0/8"),
        preshared={"tokyo": b"\x05" * 32},
        **fields,
    )


def change(*peers, **fields):
    return DeviceChange(peers=peers, **fields)


def gives(*prefixes):
    return tuple(AllowedIp(net(each)) for each in prefixes)


def after(state, *changes, merged=None):
    """Return what is in force after *changes*."""
    merged = merged or merge(state, NOTHING)
    for each in changes:
        merged = merge(state, apply(state, merged, each))
    return merged


def allowed(merged, public_key):
    name = merged.peers[public_key].name
    return {str(prefix) for prefix, owner in merged.table.routes if owner == name}


# A device, as the protocol's document describes it


class Device:
    """A slow and obvious twin: what WireGuard's devices do with the same changes."""

    def __init__(self, state):
        merged = merge(state, NOTHING)
        self.own = OWN.public
        self.peers = {
            key: {
                "allowed": {prefix for prefix, name in merged.table.routes if name == each.name},
                "endpoint": each.endpoint,
                "keepalive": each.keepalive,
                "psk": merged.preshared_keys.get(each.name),
            }
            for key, each in merged.peers.items()
        }

    def apply(self, change):
        if change.takes_key:
            self.own = change.private_key.public
            self.peers.pop(self.own, None)
        if change.replaces_peers:
            self.peers.clear()
        for each in change.peers:
            if each.public_key == self.own:
                continue
            if each.is_removed:
                self.peers.pop(each.public_key, None)
                continue
            if each.is_update and each.public_key not in self.peers:
                continue
            blank = {"allowed": set(), "endpoint": None, "keepalive": 0, "psk": None}
            peer = self.peers.setdefault(each.public_key, blank)
            if each.endpoint is not None:
                peer["endpoint"] = each.endpoint
            if each.keepalive is not None:
                peer["keepalive"] = each.keepalive
            if each.preshared_key is not None:
                secret = each.preshared_key.secret
                peer["psk"] = secret if any(secret) else None
            if each.replaces_allowed:
                peer["allowed"].clear()
            for ip in each.allowed:
                if ip.is_removed:
                    peer["allowed"].discard(ip.prefix)
                else:
                    for other in self.peers.values():
                        other["allowed"].discard(ip.prefix)
                    peer["allowed"].add(ip.prefix)


peer_keys = st.sampled_from([PARIS, TOKYO, OSLO, LIMA, ROME, OWN.public])
prefixes = st.sampled_from(
    [
        net(each)
        for each in (
            "10.244.1.0/24", "10.244.2.0/24", "10.244.0.2/32", "10.0.0.0/8", "10.244.3.0/24", "0.0.0.0/0", "10.244.3.1/32",
        )
    ]
)  # fmt: skip
changes = st.builds(
    DeviceChange,
    replaces_peers=st.booleans(),
    peers=st.lists(
        st.builds(
            PeerChange,
            peer_keys,
            is_removed=st.sampled_from([False, False, True]),
            is_update=st.booleans(),
            preshared_key=st.sampled_from([None, PSK, NO_PRESHARED_KEY]),
            endpoint=st.sampled_from([None, Endpoint("192.0.2.1", 1), Endpoint("192.0.2.2", 2)]),
            keepalive=st.sampled_from([None, 0, 25]),
            replaces_allowed=st.booleans(),
            allowed=st.lists(st.builds(AllowedIp, prefixes, st.booleans()), max_size=3).map(tuple),
        ),
        max_size=4,
    ).map(tuple),
)


@given(st.lists(changes, max_size=4))
def test_changes_have_the_effect_that_they_have_on_a_device(sequence):
    state = file()
    device, merged = Device(state), merge(state, NOTHING)
    for each in sequence:
        device.apply(each)
        merged = merge(state, apply(state, merged, each))

        assert merged.peers.keys() == device.peers.keys()
        for key, twin in device.peers.items():
            found = merged.peers[key]
            prefixes = {prefix for prefix, name in merged.table.routes if name == found.name}
            assert prefixes == twin["allowed"]
            assert (found.endpoint, found.keepalive) == (twin["endpoint"], twin["keepalive"])
            assert merged.preshared_keys.get(found.name) == twin["psk"]
            assert merged.table.peers[found.name] is found


@given(st.lists(changes, min_size=1, max_size=4))
def test_read_again_the_same_file_changes_nothing(sequence):
    merged = after(file(), *sequence)

    again = merge(file(), merged.amendments)

    assert (again.table.peers, again.preshared_keys) == (merged.table.peers, merged.preshared_keys)


@given(st.lists(changes, min_size=1, max_size=3), st.sampled_from(["paris", "tokyo", "oslo", "lima"]))
def test_peer_that_the_file_changes_is_as_the_file_has_it(sequence, name):
    merged = after(file(), *sequence)
    key = {"paris": PARIS, "tokyo": TOKYO, "oslo": OSLO, "lima": LIMA}[name]
    new = peer(name, key, "10.244.77.0/24", keepalive=7)
    kept = [each for each in file().table.peers.values() if each.name not in {name, "berlin"}]

    again = merge(filed(*kept, new), merged.amendments)

    assert again.table.peers[name] == new
    assert not again.table.peers[name].by_wg


def test_same_values_as_in_the_file_are_no_amendment():
    state = file()
    same = change(
        PeerChange(
            PARIS,
            replaces_allowed=True,
            allowed=gives("10.244.1.0/24"),
            endpoint=Endpoint("paris.example", 51820),
        ),
        PeerChange(
            TOKYO,
            preshared_key=PresharedKey(b"\x05" * 32),
            replaces_allowed=True,
            allowed=gives("10.244.0.2/32", "10.244.2.0/24"),
        ),
        PeerChange(OSLO, replaces_allowed=True, allowed=gives("10.0.0.0/8"), keepalive=0),
        takes_key=True,
        private_key=OWN,
        listen_port=51820,
        fwmark=0,
        replaces_peers=True,
    )

    assert not after(state, same).amendments


def test_peer_that_was_not_touched_is_the_same_object():
    state = file()

    merged = after(state, change(PeerChange(PARIS, keepalive=5)))

    assert merged.table.peers["tokyo"] is state.table.peers["tokyo"]
    assert merged.table.peers["paris"].by_wg


def test_peer_that_is_set_again_as_it_is_stays_the_same_object():
    again = change(PeerChange(LIMA, keepalive=5, allowed=gives("10.9.0.0/16")), replaces_peers=True)
    before = after(file(), again)

    merged = after(file(), again, merged=before)

    assert merged.peers[LIMA] is before.peers[LIMA]


def test_new_peer_has_a_name_from_its_key_that_is_free():
    taken = peer("peer-BAQEBAQE", PARIS, "10.244.1.0/24")

    merged = after(filed(taken), change(PeerChange(LIMA)))

    assert merged.peers[LIMA].name == "peer-BAQEBAQEB"
    assert merged.peers[LIMA].addresses == ()


def test_name_that_the_file_gives_to_another_later_is_left_to_it():
    merged = after(filed(), change(PeerChange(LIMA, keepalive=9)))
    name = merged.peers[LIMA].name

    again = merge(filed(peer(name, PARIS, "10.244.1.0/24")), merged.amendments)

    assert again.table.peers[name].public_key == PARIS
    assert again.peers[LIMA].keepalive == 9


def test_removed_peer_comes_back_when_the_file_changes_it():
    merged = after(file(), change(PeerChange(PARIS, is_removed=True)))
    assert "paris" not in merged.table.peers

    again = merge(filed(peer("paris", PARIS, "10.244.1.0/24", keepalive=1)), merged.amendments)

    assert again.table.peers["paris"].keepalive == 1


def test_prefix_that_the_file_gives_to_another_is_taken_from_the_peer_of_wg():
    merged = after(file(), change(PeerChange(LIMA, allowed=gives("10.244.5.0/24", "10.244.6.0/24"))))
    rome = peer("rome", ROME, "10.244.5.0/24")

    again = merge(filed(*(each for each in file().table.peers.values() if each.name != "berlin"), rome), merged.amendments)  # fmt: skip

    assert allowed(again, LIMA) == {"10.244.6.0/24"}
    assert allowed(again, ROME) == {"10.244.5.0/24"}


def test_address_goes_with_the_prefix_that_is_taken():
    merged = after(file(), change(PeerChange(LIMA, allowed=gives("10.244.0.2/32"))))

    assert merged.peers[TOKYO].addresses == ()
    assert allowed(merged, TOKYO) == {"10.244.2.0/24"}


def test_prefix_of_this_node_is_not_given_away():
    with pytest.raises(RefusedError, match=r"10\.244\.9\.0/24") as caught:
        after(file(), change(PeerChange(LIMA, allowed=gives("10.244.9.0/24"))))

    assert caught.value.number == errno.EINVAL


def test_peer_in_the_clear_is_neither_shown_nor_changed():
    clear = peer("vlan", PARIS, "10.244.1.0/24", encapsulation="vxlan", endpoint=Endpoint("192.0.2.7", 4789))
    state = filed(
        clear, own=peer("berlin", OWN.public, "10.244.9.0/24", encapsulation="vxlan", endpoint=HERE)
    )

    merged = after(state, change(replaces_peers=True))

    assert not merged.peers
    assert merged.table.peers["vlan"] is clear
    for each in (PeerChange(PARIS, keepalive=1), PeerChange(LIMA, allowed=gives("10.244.1.0/24"))):
        with pytest.raises(RefusedError):
            after(state, change(each))


def test_new_peer_beside_others_in_the_clear_speaks_wireguard():
    clear = peer("vlan", PARIS, "10.244.1.0/24", endpoint=Endpoint("192.0.2.7", 4789))
    state = filed(
        clear, own=peer("berlin", OWN.public, "10.244.9.0/24", endpoint=HERE), encapsulation="vxlan"
    )

    merged = after(state, change(PeerChange(LIMA, allowed=gives("10.244.3.0/24"))))

    assert merged.peers.keys() == {LIMA}
    assert merged.peers[LIMA].encapsulation == "wireguard"


def test_new_own_key_that_a_peer_has_removes_the_peer():
    key = PrivateKey(b"\x41" * 32)
    merged = after(file(), change(PeerChange(key.public)), change(takes_key=True, private_key=key))

    assert merged.own.public_key == key.public
    assert key.public not in merged.peers
    assert set(merged.table.peers) == {"berlin", "paris", "tokyo", "oslo"}


def test_without_a_key_peers_wait_and_can_be_changed():
    state = file()
    merged = after(state, change(takes_key=True, private_key=None))
    assert set(merged.table.peers) == {"berlin"}
    assert merged.peers.keys() == {PARIS, TOKYO, OSLO}

    merged = after(state, change(PeerChange(PARIS, keepalive=3)), merged=merged)
    merged = after(state, change(takes_key=True, private_key=OWN), merged=merged)

    assert merged.private_key == OWN
    assert merged.table.peers["paris"].keepalive == 3
    assert set(merged.table.peers) == {"berlin", "paris", "tokyo", "oslo"}


def test_port_and_mark_hold_until_the_file_changes_them():
    merged = after(file(), change(listen_port=4000, fwmark=9))
    assert (merged.table.listen_port(merged.own), merged.table.network.fwmark) == (4000, 9)

    again = merge(file(fwmark=3), merged.amendments)
    assert (again.table.listen_port(again.own), again.table.network.fwmark) == (4000, 3)

    again = merge(file(own=peer("berlin", OWN.public, "10.244.9.0/24", listen_port=5000)), merged.amendments)
    assert again.table.listen_port(again.own) == 5000


def test_any_free_port_that_was_taken_stays():
    state = file()
    merged = after(state, change(listen_port=0), change(listen_port=0))

    assert merged.own.listen_port == 0


def test_what_makes_no_table_is_refused():
    state = filed(peer("paris", PARIS, "10.244.1.0/24"), mtu=1000)

    from ipaddress import IPv6Network

    with pytest.raises(KeyProblem, match="too small for IPv6"):
        after(state, change(PeerChange(PARIS, allowed=(AllowedIp(IPv6Network("fd00::/64")),))))


def test_what_was_changed_is_told_in_a_sentence():
    merged = after(
        file(),
        change(
            PeerChange(PARIS, keepalive=1), PeerChange(TOKYO, is_removed=True), PeerChange(LIMA), fwmark=1
        ),
    )

    assert merged.describe() == (
        "wg changed paris; added peer-BAQEBAQE; removed tokyo; changed the mark: this holds until the peers file "
        "changes it, or the agent ends"
    )
    assert merge(file(), NOTHING).describe() is None


def test_amended_peer_shows_no_secret():
    merged = after(file(), change(PeerChange(PARIS, preshared_key=PresharedKey(b"\x5e" * 32))))

    assert "^^" not in repr(merged)
    assert merged.preshared_keys["paris"] == b"\x5e" * 32


def test_replaced_peer_keeps_its_name():
    merged = after(
        file(),
        change(PeerChange(PARIS, allowed=gives("10.244.1.0/24", "10.244.7.0/24")), replaces_peers=True),
    )

    assert merged.peers[PARIS].name == "paris"
    assert merged.peers[PARIS].addresses == (IPv4Address("10.244.1.0"),)
    assert replace(merged.peers[PARIS], by_wg=False).endpoint is None
