from __future__ import annotations

import dataclasses
import gc
import logging
import os
import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay import config
from overlay.config import (
    Node,
    Options,
    plan_room,
    settle,
)
from overlay.crypto.keys import PresharedKey, PrivateKey, decode_key, encode_key
from overlay.errors import ConfigError
from overlay.keys.files import load_private_key
from overlay.link.codec import DESCRIPTORS
from peers.mac import derived_mac
from peers.peer import format_public_key
from peers.stores import Location
from peers.stores.memory import MemoryStore
from tests.peers.examples import PREFIXES, peer, render, table

PRIVATE = PrivateKey(bytes(range(32)))
OTHER = PrivateKey(bytes(range(1, 33)))
OPTIONS = Options(Location.parse("/etc/overlay/peers.toml"), Path("/etc/overlay/private.key"), "overlay0")


def plan_host(node, mtu, endpoints):
    return config.plan_host(node, mtu, endpoints, "overlay0")


def paris(*subnets, **fields):
    """Return this node: the peer whose private key is PRIVATE."""
    return peer("paris", *subnets or ("10.244.1.0/24",), public_key=PRIVATE.public, **fields)


def tokyo(*subnets, **fields):
    return peer("tokyo", *subnets or ("10.244.2.0/24",), **fields)


def store(*peers, **fields):
    return MemoryStore(render(table(*peers, **fields)))


def node(*peers, **fields):
    """Return the node that is the first of *peers*."""
    return Node(PRIVATE, table(*peers, **fields), peers[0], {})


def key_file(path, text, mode=0o600):
    path.touch(mode=0o600)
    path.write_text(text)
    path.chmod(mode)
    return path


def sentence(call, *arguments):
    """Return the text of the ConfigError that *call* raises, which is one sentence."""
    with pytest.raises(ConfigError) as raised:
        call(*arguments)
    text = str(raised.value)
    assert "\n" not in text
    assert not text.endswith(".")
    return text


# Who this node is


def test_node_knows_itself_by_its_private_key():
    settled = settle(store(tokyo(), paris()), PRIVATE, OPTIONS)

    assert settled.own.name == "paris"
    assert [other.name for other in settled.others] == ["tokyo"]
    assert settled.location == OPTIONS.peers


def test_a_public_key_in_the_place_of_the_private_one_is_said_and_neither_is_quoted():
    """The same is found where a private key was written into the peers file: both have the same bytes."""
    swapped = PrivateKey(OTHER.public)
    peers = store(peer("paris", "10.244.1.0/24", public_key=OTHER.public), tokyo())

    for options in (OPTIONS, dataclasses.replace(OPTIONS, node="paris")):
        refusal = sentence(settle, peers, swapped, options)
        assert refusal.startswith(
            "/etc/overlay/private.key contains the key that /etc/overlay/peers.toml has as the public_key of peers.paris, "
            "so either a "
        )
        assert_hidden_text(encode_key(OTHER.public), refusal)


def test_table_without_this_nodes_key_shows_the_key_to_add():
    assert sentence(settle, store(tokyo()), PRIVATE, OPTIONS) == (
        f"no peer in /etc/overlay/peers.toml has this host's public key {format_public_key(PRIVATE.public)}: "
        "add it, or use a private key other than /etc/overlay/private.key with --key"
    )


def test_node_option_must_agree_with_the_key():
    options = Options(OPTIONS.peers, OPTIONS.key, "overlay0", node="tokyo")

    assert sentence(settle, store(paris(), tokyo()), PRIVATE, options) == (
        "--node tokyo: its public_key in /etc/overlay/peers.toml is not that of /etc/overlay/private.key, "
        f"which is {format_public_key(PRIVATE.public)}; correct one of them"
    )


def test_unknown_node_option_gets_the_names_that_there_are():
    options = Options(OPTIONS.peers, OPTIONS.key, "overlay0", node="rome")

    assert sentence(settle, store(tokyo(), paris()), PRIVATE, options) == (
        "--node rome: /etc/overlay/peers.toml has no such peer; it has paris, tokyo"
    )


def test_wrong_table_is_refused_with_its_own_sentence():
    assert sentence(settle, MemoryStore("[network]\nprefix = 1\n"), PRIVATE, OPTIONS).startswith("memory")


def test_another_public_key_for_the_running_node_needs_a_restart():
    running = paris()
    changed = store(peer("paris", "10.244.1.0/24", public_key=OTHER.public), tokyo())

    assert sentence(settle, changed, PRIVATE, OPTIONS, running) == (
        "the public_key of peers.paris, which is this node, changed in /etc/overlay/peers.toml: "
        "a new key takes effect only after a restart, or by `overlay rotate-key`"
    )


def test_running_node_may_get_another_name():
    renamed = store(peer("lutetia", "10.244.1.0/24", public_key=PRIVATE.public), tokyo())

    assert settle(renamed, PRIVATE, OPTIONS, paris()).own.name == "lutetia"


def test_running_node_that_left_the_table_is_refused_as_an_unknown_one():
    assert "no peer in" in sentence(settle, store(tokyo()), PRIVATE, OPTIONS, paris())


def test_listen_addresses_that_do_not_fit_beside_one_message_are_refused():
    listen = tuple(ip_address(f"192.0.2.{last}") for last in range(1, 18))

    assert 2 * config.LISTEN_ADDRESSES <= DESCRIPTORS
    assert settle(store(paris(listen=listen[:16])), PRIVATE, OPTIONS).own.listen == listen[:16]
    assert sentence(settle, store(paris(listen=listen)), PRIVATE, OPTIONS) == (
        "listen of peers.paris in /etc/overlay/peers.toml has 17 addresses: write at most 16, "
        "or none to listen on every address of this host"
    )


# Preshared keys


@pytest.fixture
def psk(tmp_path):
    """Return a maker of preshared key files: the key's bytes and the file."""

    def make(name):
        key = PresharedKey.generate(os.urandom)
        return key.secret, key_file(tmp_path / f"{name}.psk", key.to_base64() + "\n")

    return make


@given(
    names=st.permutations(["alpha", "beta", "gamma"]),
    has_file=st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_both_ends_of_a_tunnel_take_the_same_preshared_key(tmp_path_factory, names, has_file):
    directory = tmp_path_factory.mktemp("keys")
    private = {name: PrivateKey(bytes([number]) * 32) for number, name in enumerate(names, 1)}
    files = {}
    for name, has in zip(names, has_file, strict=True):
        if has:
            files[name] = key_file(directory / name, encode_key(name.encode().ljust(32)))
    peers = [
        peer(
            name,
            f"10.244.{number}.0/24",
            public_key=private[name].public,
            preshared_key_file=files.get(name),
        )
        for number, name in enumerate(names)
    ]

    settled = {name: settle(store(*peers), private[name], OPTIONS) for name in names}

    for one in names:
        for other in names:
            if one != other:
                key = settled[one].preshared_keys.get(other)
                assert key == settled[other].preshared_keys.get(one)
                assert (key is not None) == (one in files or other in files)


def test_key_of_the_name_that_sorts_first_is_used_where_both_ends_name_one(psk):
    first, first_path = psk("paris")
    _, second_path = psk("tokyo")
    peers = store(paris(preshared_key_file=first_path), tokyo(preshared_key_file=second_path))

    assert settle(peers, PRIVATE, OPTIONS).preshared_keys == {"tokyo": first}


def test_peers_without_key_files_have_no_preshared_key():
    settled = settle(store(paris(), tokyo()), PRIVATE, OPTIONS)

    assert settled.preshared_keys == {}


def test_missing_preshared_key_names_the_command_that_makes_one(tmp_path):
    peers = store(paris(), tokyo(preshared_key_file=tmp_path / "tokyo.psk"))

    assert sentence(settle, peers, PRIVATE, OPTIONS) == (
        f"{tmp_path}/tokyo.psk does not exist: make one with `overlay genpsk --out {tmp_path}/tokyo.psk`, "
        "or copy it from another host"
    )


def test_file_without_a_preshared_key_is_refused_and_not_quoted(tmp_path):
    path = key_file(tmp_path / "tokyo.psk", "almost a secret")

    refusal = sentence(settle, store(paris(), tokyo(preshared_key_file=path)), PRIVATE, OPTIONS)

    assert refusal.startswith(f"{path} is not a preshared key: ")
    assert "almost a secret" not in refusal


# Secrets


def test_no_secret_shows_in_what_is_printed_of_a_node(psk, tmp_path, caplog):
    secret, path = psk("tokyo")
    own, warnings = load_private_key(key_file(tmp_path / "key", PRIVATE.to_base64(), 0o644))
    with caplog.at_level(logging.DEBUG):
        settled = settle(store(paris(), tokyo(preshared_key_file=path)), own, OPTIONS)

    shown = f"{settled!r} {settled} {own!r} {warnings} {caplog.text}"

    assert_hidden(secret, shown)
    assert_hidden(decode_key(own.to_base64()), shown)


@pytest.mark.parametrize("damage", [lambda text: text[:-2], lambda text: text + "=", lambda text: "é" + text])
def test_no_secret_shows_in_the_refusal_of_a_damaged_key(tmp_path, damage):
    path = key_file(tmp_path / "key", damage(PRIVATE.to_base64()))

    for call in (
        lambda: load_private_key(path),
        lambda: settle(store(paris(), tokyo(preshared_key_file=path)), PRIVATE, OPTIONS),
    ):
        with pytest.raises(ConfigError) as raised:
            call()
        error = raised.value
        assert error.__cause__ is None
        assert error.__suppress_context__
        assert_hidden_text(PRIVATE.to_base64(), f"{error} {error!r}")


def assert_hidden(secret, text):
    assert repr(secret)[2:-1] not in text
    assert secret.hex() not in text
    assert_hidden_text(encode_key(secret), text)


def assert_hidden_text(encoded, text):
    assert not any(encoded[at : at + 12] in text for at in range(len(encoded) - 12))


# What the host needs


def routes(plan):
    return [str(prefix) for prefix in plan.routes]


def policy_routes(plan):
    return [str(prefix) for prefix in plan.policy_routes]


def test_plan_has_the_network_and_not_what_lies_inside_it():
    plan = plan_host(node(paris(), tokyo()), 1420, [])

    assert routes(plan) == ["10.244.0.0/16", "fd00:244::/32"]
    assert (policy_routes(plan), plan.fwmark, plan.mtu) == ([], None, 1420)


def test_plan_has_each_subnet_of_others_outside_the_network():
    plan = plan_host(
        node(paris("10.244.1.0/24", "172.16.1.0/24"), tokyo("10.244.2.0/24", "192.168.77.0/24")), 1420, []
    )

    assert routes(plan) == ["10.244.0.0/16", "fd00:244::/32", "192.168.77.0/24"]


def test_plan_has_a_host_route_for_an_address_outside_the_network():
    plan = plan_host(node(paris(), tokyo("192.168.77.0/24", address=("172.31.0.9",))), 1420, [])

    assert routes(plan)[2:] == ["192.168.77.0/24", "172.31.0.9/32"]


def test_a_tap_has_the_network_on_its_link_and_nothing_else():
    plan = plan_host(node(paris(), tokyo("10.244.2.0/24", "192.168.77.0/24"), device="tap"), 1404, [])

    assert routes(plan) == ["10.244.0.0/16", "fd00:244::/32"]
    assert [str(each) for each in plan.addresses] == ["10.244.1.0/32"]
    assert plan.mac == derived_mac("paris")


def test_a_tap_without_an_address_leads_nowhere():
    bare = peer("paris", public_key=PRIVATE.public)

    plan = plan_host(node(bare, tokyo(), device="tap"), 1404, [])

    assert (routes(plan), plan.addresses) == ([], ())


def test_an_endpoint_inside_the_network_of_a_tap_is_reached_past_it():
    plan = plan_host(node(paris(), tokyo(), device="tap"), 1404, [("tokyo", ("10.244.77.7", 51820))])

    assert policy_routes(plan) == ["10.244.0.0/16"]


def test_ethernet_addresses_are_those_of_the_peers_file_or_made_of_the_name():
    listed = tokyo(macs=(b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"))
    tap, tun = node(paris(), listed, peer("rome"), device="tap"), node(paris(), listed)

    assert tap.macs == (derived_mac("paris"),)
    assert [tunnel.macs for tunnel in tap.tunnels.values()] == [listed.macs, (derived_mac("rome"),)]
    assert (tun.macs, tun.tunnels["tokyo"].macs) == ((), ())


@pytest.mark.parametrize(
    ("subnets", "is_link", "far_ends"),
    [
        (("10.244.2.0/24", "fd00:244:2::/64"), True, ["10.244.2.0", "fd00:244:2::"]),
        (("10.244.2.0/24",), True, ["10.244.2.0"]),
        (("10.244.2.0/24",), False, []),
    ],
)
def test_plan_of_a_point_to_point_link_has_the_other_peers_addresses(subnets, is_link, far_ends):
    plan = plan_host(node(paris(), tokyo(*subnets), point_to_point=is_link), 1420, [])

    assert [str(address) for address in plan.far_ends] == far_ends


def test_own_addresses_are_given_to_the_interface_alone():
    plan = plan_host(node(paris("10.244.1.0/24", "fd00:244:1::/64"), tokyo()), 1420, [])

    assert [str(address) for address in plan.addresses] == ["10.244.1.0/32", "fd00:244:1::/128"]


@pytest.mark.parametrize(
    "everything", [("0.0.0.0/0",), ("0.0.0.0/1", "128.0.0.0/1"), ("::/0",), ("::/1", "8000::/1")]
)
def test_default_route_goes_by_policy_whatever_endpoints_are_known(everything):
    plan = plan_host(node(paris(), tokyo("10.244.2.0/24", *everything)), 1420, [])

    assert policy_routes(plan) == list(everything)
    assert plan.fwmark == config.DEFAULT_FWMARK


@pytest.mark.parametrize(
    ("bits", "value"),
    [(0xFFFFFFFF, 51820), (0x4000, 0x4000), (0x8000, 0x8000), (0x1, 0x1)]
    + [(mask, None) for mask in (0x0F00, 0x3F00, 0xFF0000, 0xFFFF0000)],
)
def test_default_mark_is_nobody_elses(bits, value):
    found = config.DEFAULT_FWMARK & bits

    assert found == 0 if value is None else found != value


def test_own_default_route_is_not_taken_into_the_tunnel():
    plan = plan_host(node(paris("10.244.1.0/24", "0.0.0.0/0"), tokyo()), 1420, [])

    assert (routes(plan), policy_routes(plan)) == (["10.244.0.0/16", "fd00:244::/32"], [])


def test_subnet_that_holds_its_own_peers_endpoint_goes_by_policy():
    outside = tokyo("10.244.2.0/24", "198.51.100.0/24", endpoint="198.51.100.7")

    plan = plan_host(node(paris(), outside), 1420, [("tokyo", ("198.51.100.7", 51820))])

    assert (routes(plan)[2:], policy_routes(plan)) == ([], ["198.51.100.0/24"])


def test_wider_subnet_over_a_policy_route_goes_by_policy_too():
    # Otherwise our own datagrams, which skip the narrow route, would follow the wide one into the tun.
    table_of_three = node(
        paris(),
        tokyo("10.244.2.0/24", "198.51.100.0/24"),
        peer("berlin", "10.244.3.0/24", "198.51.0.0/16"),
    )

    plan = plan_host(table_of_three, 1420, [("tokyo", ("198.51.100.7", 51820))])

    assert policy_routes(plan) == ["198.51.100.0/24", "198.51.0.0/16"]


def test_endpoint_in_the_subnet_of_another_peer_is_a_tunnel_in_a_tunnel():
    table_of_three = node(paris(), tokyo("10.244.2.0/24", "198.51.100.0/24"), peer("berlin", "10.244.3.0/24"))

    plan = plan_host(table_of_three, 1420, [("berlin", ("198.51.100.7", 51820))])

    assert (routes(plan)[2:], policy_routes(plan), plan.fwmark) == (["198.51.100.0/24"], [], None)


def test_endpoint_in_the_network_that_is_nobodys_makes_the_network_go_by_policy():
    plan = plan_host(node(paris(), tokyo()), 1420, [("tokyo", ("10.244.77.7", 51820))])

    assert policy_routes(plan) == ["10.244.0.0/16"]


def test_endpoint_that_is_nowhere_routed_changes_nothing():
    without = plan_host(node(paris(), tokyo()), 1420, [])

    assert plan_host(node(paris(), tokyo()), 1420, [("tokyo", ("203.0.113.7", 51820))]) == without


def test_scope_of_an_endpoint_does_not_matter_to_routes():
    outside = tokyo("10.244.2.0/24", "fe80::/10")

    plan = plan_host(node(paris(), outside), 1420, [("tokyo", ("fe80::1%eth0", 51820, 0, 2))])

    assert policy_routes(plan) == ["fe80::/10"]


def test_configured_mark_is_used_with_and_without_policy_routes():
    by_policy = node(paris(), tokyo("0.0.0.0/0", address=("10.244.2.1",)), fwmark=7)

    assert plan_host(by_policy, 1420, []).fwmark == 7
    assert plan_host(node(paris(), tokyo(), fwmark=7), 1420, []).fwmark == 7


SUBNETS = st.builds(
    lambda number, length: ip_network((number >> (32 - length) << (32 - length), length)),
    st.integers(0, 2**32 - 1),
    st.integers(2, 32),
)


@given(
    mine=st.lists(SUBNETS, max_size=3),
    theirs=st.lists(st.lists(SUBNETS, max_size=4), min_size=1, max_size=3),
    places=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 7)), max_size=4),
)
def test_datagram_to_an_endpoint_meets_the_tun_only_inside_the_tunnel_of_another_peer(mine, theirs, places):
    """A slow model: what main contains after the policy tables are skipped, looked up prefix by prefix."""
    taken, peers = set(), []
    for number, subnets in enumerate([mine, *theirs]):
        own = [subnet for subnet in dict.fromkeys(subnets) if subnet not in taken]
        taken.update(own)
        peers.append(
            peer(
                f"peer{number}",
                *map(str, own),
                address=(f"10.244.{number}.1",),
                **({"public_key": PRIVATE.public} if number == 0 else {}),
            )
        )
    every = [subnet for each in peers for subnet in each.subnets] + [PREFIXES[0]]
    endpoints = [
        (peers[1 + who % (len(peers) - 1)].name, (str(every[where % len(every)].network_address), 51820))
        for who, where in places
    ]
    this = node(*peers)

    plan = plan_host(this, 1420, endpoints)

    assert set(plan.routes).isdisjoint(plan.policy_routes)
    assert bool(plan.policy_routes) <= (plan.fwmark is not None)
    for name, (host, _) in endpoints:
        address = ip_address(host)
        holding = [(prefix.prefixlen, owner) for prefix, owner in this.table.routes if address in prefix]
        owner = max(holding)[1] if holding else None
        if owner in {None, name}:
            assert not any(address in prefix for prefix in plan.routes)
    routed = {*plan.routes, *plan.policy_routes}
    for prefix, owner in this.table.routes:
        is_carried = any(prefix.version == wide.version and prefix.subnet_of(wide) for wide in PREFIXES)
        assert (prefix in routed) == (owner != "peer0" and not is_carried)


# The MTU


@pytest.mark.parametrize(
    ("underlay", "size"),
    [
        ([], 1420),
        ([None, None], 1420),
        ([1500], 1420),
        ([None, 1500, 9000], 1420),
        ([9000], 8920),
        ([1300], 1220),
        ([65536], 65455),
        ([100_000], 65455),
    ],
)
def test_room_is_what_fits_through_the_narrowest_underlay(underlay, size):
    hosts = {f"192.0.2.{number}": mtu for number, mtu in enumerate(underlay, 1)}
    endpoints = [("tokyo", (host, 51820)) for host in hosts]

    assert plan_room(node(paris(), tokyo()), endpoints, hosts).size == size


def test_settling_a_configuration_loads_no_library_for_the_kernel():
    """`overlay check` answers in a tenth of a second because of this."""
    code = "import sys, overlay.config; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    ).stdout.split()

    assert not {"pyroute2", "trio", "numpy", "msgpack"} & set(loaded)


# Unencrypted


def clear(name, number, **fields):
    """Return a peer without a key, at 192.0.2.*number* unless told otherwise."""
    fields = {"endpoint": f"192.0.2.{number}", "public_key": None} | fields
    return peer(name, f"10.244.{number}.0/24", **fields)


def clear_node(*others, encapsulation="udp"):
    return node(clear("rome", 9), *others, encapsulation=encapsulation)


def own_name(options, *peers, key=None, own=(), **fields):
    here = {ip_address(address) for address in own}
    return settle(store(*peers, **fields), key, options, is_own=here.__contains__).own.name


def test_a_node_without_a_key_is_the_peer_whose_endpoint_is_an_address_of_the_host():
    peers = [clear("ann", 1), clear("bob", 2), clear("cyd", 3, endpoint="cyd.example.net")]

    assert own_name(OPTIONS, *peers, own=["192.0.2.2"], encapsulation="udp") == "bob"


def test_a_node_without_a_key_is_who_it_is_told_to_be():
    options = dataclasses.replace(OPTIONS, node="ann")

    assert (
        own_name(options, clear("ann", 1), clear("bob", 2), own=["192.0.2.2"], encapsulation="udp") == "ann"
    )


@pytest.mark.parametrize(
    ("own", "problem"),
    [
        (["192.0.2.1", "192.0.2.2"], "several endpoints in .* belong to this host, .* name it with --node"),
        ([], "none of the endpoints in .* belong.* to this host, .* name it with --node"),
    ],
)
def test_a_node_that_cannot_be_told_is_asked_for_its_name(own, problem):
    with pytest.raises(ConfigError, match=problem):
        own_name(OPTIONS, clear("ann", 1), clear("bob", 2), own=own, encapsulation="udp")


def test_a_key_in_the_table_comes_before_an_endpoint():
    peers = [paris(endpoint="192.0.2.1"), clear("bob", 2, encapsulation="udp")]

    assert own_name(OPTIONS, *peers, key=PRIVATE, own=["192.0.2.2"]) == "paris"


@pytest.mark.parametrize("here", ["192.0.2.1", "192.0.2.2", "192.0.2.3"])
def test_a_running_node_without_a_key_stays_who_it_is_whatever_endpoints_change(here):
    peers = store(clear("ann", 1), clear("bob", 2), encapsulation="udp")

    settled = settle(peers, None, OPTIONS, clear("ann", 9), is_own=ip_address(here).__eq__)

    assert settled.own.name == "ann"


def test_a_running_node_without_a_key_that_got_another_name_is_known_by_its_endpoint():
    peers = store(clear("cyd", 1), clear("bob", 2), encapsulation="udp")

    settled = settle(peers, None, OPTIONS, clear("ann", 1), is_own=ip_address("192.0.2.1").__eq__)

    assert settled.own.name == "cyd"


def test_a_running_node_without_a_key_does_not_become_the_peer_of_a_key():
    peers = store(paris(endpoint="192.0.2.1"), clear("bob", 2, encapsulation="udp"))

    with pytest.raises(ConfigError, match=r"the key of peers\.paris in .* runs as bob: restart the agent"):
        settle(peers, PRIVATE, OPTIONS, clear("bob", 2), is_own=ip_address("192.0.2.2").__eq__)


def test_a_host_whose_peer_needs_a_key_is_told_to_make_one(tmp_path):
    options = dataclasses.replace(OPTIONS, key=tmp_path / "key")

    with pytest.raises(ConfigError, match="does not exist: make one with"):
        own_name(options, paris(), clear("bob", 3, encapsulation="udp"))


def test_a_node_without_a_key_has_one_that_nobody_knows():
    keys = {
        settle(store(clear("ann", 1), encapsulation="udp"), None, OPTIONS, is_own=bool).private_key.public
        for _ in range(2)
    }

    assert len(keys) == 2


def test_a_preshared_key_is_not_read_for_a_tunnel_in_the_clear():
    peers = [paris(preshared_key_file=Path("/nowhere/psk")), clear("bob", 2, encapsulation="udp")]

    assert settle(store(*peers), PRIVATE, OPTIONS).preshared_keys == {}


def test_encapsulations_in_use_are_those_of_the_tunnels():
    mixed = node(paris(), tokyo(), clear("bob", 3, encapsulation="udp"))

    assert [each.name for each in mixed.encapsulations] == ["wireguard", "udp"]
    assert [each.encapsulation.name for each in mixed.tunnels.values()] == ["wireguard", "udp"]
    assert [each.name for each in clear_node(clear("bob", 2)).encapsulations] == ["udp"]
    assert [each.name for each in clear_node().encapsulations] == ["udp"]
    assert [each.name for each in node(paris()).encapsulations] == ["wireguard"]


def test_a_note_names_whom_traffic_is_not_encrypted_with():
    many = [clear(f"p{number}", number) for number in range(1, 9)]

    assert node(paris(), tokyo()).clear_note is None
    assert node(paris(), tokyo(), clear("bob", 3, encapsulation="udp")).clear_note == (
        "traffic with bob is not encrypted: the encapsulation is udp"
    )
    both = clear_node(clear("ann", 2, encapsulation="ipip"), clear("bob", 3))
    assert both.clear_note == "traffic with ann (ipip), bob (udp) is not encrypted"
    assert clear_node(*many).clear_note == (
        "traffic with p1, p2, p3, p4, p5 and 3 more is not encrypted: the encapsulation is udp"
    )


@pytest.mark.parametrize(
    ("node", "endpoints", "overhead"),
    [
        (node(paris(), tokyo()), [("tokyo", ("192.0.2.2", 51820))], 80),
        (node(paris()), [], 80),
        (clear_node(), [], 48),
        (clear_node(clear("bob", 2)), [("bob", ("192.0.2.2", 8285))], 28),
        (clear_node(clear("bob", 2)), [("bob", ("2001:db8::2", 8285, 0, 0))], 48),
        (clear_node(clear("bob", 2)), [], 48),
        (node(paris(), tokyo(), clear("bob", 3, encapsulation="udp")), [("bob", ("192.0.2.3", 8285))], 80),
        (node(paris(), tokyo(), device="tap"), [("tokyo", ("192.0.2.2", 51820))], 80 + 2 + 14),
        (node(paris(), device="tap"), [], 80 + 2 + 14),
    ],
)
def test_overhead_is_the_largest_in_use_as_far_as_the_families_are_known(node, endpoints, overhead):
    assert plan_room(node, endpoints, {}).size == 1500 - overhead


BOB_AT, CYD_AT = ("192.0.2.2", 8285), ("192.0.2.3", 51820)


@pytest.mark.parametrize(
    ("endpoints", "underlay", "size", "reason"),
    [
        (
            [("bob", BOB_AT), ("tokyo", CYD_AT)],
            {"192.0.2.2": 1400, "192.0.2.3": 1500},
            1372,
            "1400 on the way to bob at 192.0.2.2, less 28 for the tunnel",
        ),
        (
            [("bob", BOB_AT), ("tokyo", CYD_AT)],
            {"192.0.2.2": 1460, "192.0.2.3": 1500},
            1420,
            "1500 on the way to tokyo at 192.0.2.3, less 80 for the tunnel",
        ),
        (
            [("bob", BOB_AT), ("bob", ("2001:db8::2", 8285, 0, 0)), ("tokyo", CYD_AT)],
            {"192.0.2.2": 1400, "2001:db8::2": 1400, "192.0.2.3": 1500},
            1352,
            "1400 on the way to bob at 2001:db8::2, less 48 for the tunnel",
        ),
        (
            [("bob", BOB_AT)],
            {"192.0.2.2": 1400},
            1320,
            "1400 on the way to bob at 192.0.2.2, less 80 for the tunnel with tokyo",
        ),
        ([("bob", BOB_AT)], {"192.0.2.2": None}, 1420, "no route to an endpoint is known"),
        ([], {}, 1420, "1500 assumed on the way to peers, less 80 for the tunnel"),
    ],
)
def test_room_is_that_of_the_tunnel_that_takes_least_and_names_it(endpoints, underlay, size, reason):
    mixed = node(paris(), tokyo(), clear("bob", 4, encapsulation="udp"))

    room = plan_room(mixed, endpoints, underlay)

    assert (room.size, room.reason) == (size, reason)


@pytest.mark.parametrize(
    ("mtus", "way"),
    [((1500, 1500), "every peer"), ((1500, 9000), "bob at 192.0.2.2"), ((1500, None), "bob at 192.0.2.2")],
)
def test_room_that_all_peers_have_names_none_of_them(mtus, way):
    both = node(paris(), tokyo(), clear("bob", 4, encapsulation="wireguard", public_key=bytes([9]) * 32))

    room = plan_room(
        both, [("bob", BOB_AT), ("tokyo", CYD_AT)], dict(zip((BOB_AT[0], CYD_AT[0]), mtus, strict=True))
    )

    assert (room.size, room.reason) == (1420, f"1500 on the way to {way}, less 80 for the tunnel")


def test_no_garbage_is_collected_while_the_table_is_read():
    """With 100,000 peers, each full collection stops agent and questions for 0.2 s."""
    seen = []

    class Watched(MemoryStore):
        def load(self):
            seen.append(gc.isenabled())
            return super().load()

    settle(Watched(render(table(tokyo(), paris()))), PRIVATE, OPTIONS)

    assert seen == [False]
    assert gc.isenabled()
