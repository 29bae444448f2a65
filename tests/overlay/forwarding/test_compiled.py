"""The compiled twin does what the Python path does, whatever happens."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import gc
import weakref
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.encap import ENCAPSULATIONS
from overlay.encap.gre import ROUNDS
from overlay.forwarding import native
from overlay.forwarding.bulk.reassembly import UNITS_TOTAL
from overlay.forwarding.peer import LivePeer
from overlay.link.messages import OWN, SetPeer
from overlay.link.service_messages import PermitRow, SetPermits
from overlay.wire.bulk import AES_256_GCM, TYPE_FRAGMENT
from tests import packets
from tests.both_paths import (
    CLEAR_KINDS,
    KINDS,
    LANE_KINDS,
    SERVICE_KINDS,
    TAP_CLEAR_KINDS,
    TAP_KINDS,
    TAPS_IN_THE_CLEAR,
    far_end_of,
    noted_by_python,
    tell,
)
from tests.fuzz.both import Tale, Trains
from tests.fuzz.target import CORPUS
from tests.hypothesis_profiles import examples
from tests.network import Flight
from tests.sim import CLEAR_PORT, World

pytestmark = pytest.mark.skipif(native.core is None, reason=f"no compiled packet path: {native.missing}")


def steps_of(kinds):
    """Return a strategy for what happens in a story."""
    step = st.tuples(st.sampled_from(kinds), st.integers(0, 1), st.integers(0, 70_000), st.integers(0, 2**16))
    return st.lists(step, min_size=1, max_size=40)


@examples(200)
@given(
    steps=steps_of(KINDS),
    seed=st.integers(0, 2**32),
    has_gro=st.booleans(),
    is_bulk=st.booleans(),
    is_used=st.booleans(),
)
def test_any_story_ends_the_same_by_either_path(steps, seed, has_gro, is_bulk, is_used):
    with python_aes(is_used):
        assert_equal(*tell(steps, seed, has_gro=has_gro, is_bulk=is_bulk))


@contextlib.contextmanager
def python_aes(is_used):
    """Let cryptography's OpenSSL seal units, or libcrypto."""
    native.core.use_python_aes(is_used)
    try:
        yield
    finally:
        native.core.use_python_aes(False)


@examples(150)
@given(steps=steps_of(TAP_KINDS), seed=st.integers(0, 2**32), has_gro=st.booleans(), is_bulk=st.booleans())
def test_any_story_of_taps_ends_the_same_by_either_path(steps, seed, has_gro, is_bulk):
    assert_equal(*tell(steps, seed, has_gro=has_gro, is_bulk=is_bulk, by="tap"))


@examples(150)
@given(
    steps=steps_of(TAP_CLEAR_KINDS),
    seed=st.integers(0, 2**32),
    has_gro=st.booleans(),
    by=st.sampled_from(TAPS_IN_THE_CLEAR),
)
def test_any_story_of_taps_in_the_clear_ends_the_same_by_either_path(steps, seed, has_gro, by):
    assert_equal(*tell(steps, seed, has_gro=has_gro, by=by))


@pytest.mark.slow
@examples(100)
@given(
    steps=steps_of(LANE_KINDS),
    seed=st.integers(0, 2**32),
    has_gro=st.booleans(),
    lanes=st.sampled_from([2, 4]),
)
def test_any_story_of_lanes_ends_the_same_by_either_path(steps, seed, has_gro, lanes):
    meet = [
        ("spread", 0, 0, 2),
        ("run", 0, 0, 3),
        ("spread", 1, 0, 2),
        ("run", 0, 0, 3),
    ]  # lanes are open by then
    assert_equal(*tell([*meet, *steps], seed, has_gro=has_gro, lanes=lanes))


@examples(200)
@given(
    steps=steps_of(CLEAR_KINDS),
    seed=st.integers(0, 2**32),
    has_gro=st.booleans(),
    by=st.sampled_from(["udp", "vxlan", "geneve", "ipip", "gre", "gre with a key", "gre with all"]),
)
def test_any_story_in_the_clear_ends_the_same_by_either_path(steps, seed, has_gro, by):
    assert_equal(*tell(steps, seed, has_gro=has_gro, by=by))


@pytest.mark.slow
@examples(100)
@given(steps=steps_of(SERVICE_KINDS), seed=st.integers(0, 2**32), is_bulk=st.booleans())
def test_any_story_of_a_virtual_service_ends_the_same_by_either_path(steps, seed, is_bulk):
    assert_equal(*tell(steps, seed, is_bulk=is_bulk, by="services"))


def assert_equal(python, compiled):
    """Fail unless the two outcomes of a story are the same."""
    for name in ("a", "b"):
        for key, value in python[name].items():
            assert compiled[name][key] == value, f"{key} of {name}"
    for key in ("datagrams", "flows"):
        assert compiled[key] == python[key]


@pytest.mark.parametrize("path", sorted((CORPUS / "both").iterdir()), ids=lambda path: path.name)
def test_a_story_that_the_fuzzer_saw_end_otherwise_ends_the_same(path):
    python, compiled = Tale.parse(path.read_bytes()).tell()

    assert compiled == python


def test_a_tale_is_read_as_it_was_written():
    tale = Tale(True, False, 2**32 - 1, tuple((kind, 1, 70_000, 2**16 - 1) for kind in KINDS))

    assert Tale.parse(tale.build()) == tale


@pytest.mark.parametrize("is_compiled", [False, True], ids=["python", "compiled"])
def test_packets_that_were_sealed_stay_behind_those_that_the_kernel_had_no_room_for(is_compiled):
    world = World(is_compiled=is_compiled)
    a, b, c = (world.node(name) for name in "abc")
    for other in (b, c):
        a.know(other)
        other.know(a)
        a.send(other)
    world.run(1)
    a.send(c, 2)  # its peer is known
    world.run(60)  # no timer is armed
    a.send(b, 80)  # packets come in batches
    world.run(1)
    b.received.clear()
    a.sockets[0].errors.append(errno.EAGAIN)

    sent = a.send(b, 3, size=100) + a.send(b, 1, size=600)  # these leave separately
    a.send(c)  # a timer must be armed: the compiled path returns in the middle
    world.run(1)

    assert b.received == sent


@pytest.mark.parametrize("make", ["pair", "clear_pair"])
@pytest.mark.parametrize("version", [4, 6])
def test_the_twin_is_told_once_whose_a_source_is(make, version):
    world = World(is_compiled=True)
    a, b = getattr(world, make)()
    for _ in range(3):
        a.send(b, version=version)
        world.run(1)
    told = []
    for name in ("_remember_source", "_remember_sender"):
        setattr(b.core.inbound.compiled, name, lambda *_: told.append(1))

    sent = a.send(b, 3, version=version)
    world.run(1)

    assert b.received[-3:] == sent
    assert told == []


@pytest.mark.slow
def test_no_memory_is_kept_for_packets():
    world = World(is_compiled=True, network=Trains, ciphers=[AES_256_GCM])
    a, b = world.pair()
    for node in (a, b):
        node.tun.packets_of = lambda data, header: ()
    resident = []

    for _ in range(120):
        for _ in range(8):
            a.send_super(b, 60_000)
        a.send(b, 20)
        world.run(0.002)
        a.log.clear()
        b.log.clear()
        b.tun.writes.clear()
        world.network.sent.clear()
        resident.append(int(Path("/proc/self/statm").read_text().split()[1]))

    assert b.peer().traffic.rx_packets > 30_000
    assert resident[-1] - resident[40] < 256  # pages: 1 MiB for 28,000 packets


def test_a_lane_that_nobody_needs_goes_with_all_that_it_was_told_of():
    """Before, it referred to the sockets of its world and these back to it, and each test of whole nodes kept 30 MB."""
    world = World(is_compiled=True)
    a, b = world.pair()
    a.send(b)
    world.run(1)
    assert a.core.inbound.compiled is not None
    cores = [weakref.ref(node.core) for node in (a, b)]

    del world, a, b
    gc.collect()

    assert [core() for core in cores] == [None, None]


def counted(is_compiled):
    """Return the drops of a node for many peers in one drain, in which the units of all of them are also given up."""
    world = World(is_compiled=is_compiled, ciphers=[AES_256_GCM])
    hub = world.node("hub")
    spokes = [world.node(f"spoke {number}") for number in range(UNITS_TOTAL)]
    for spoke in spokes:
        spoke.know(hub)
        hub.know(spoke, endpoint=None)
    for _ in range(3):  # the first super-packet is sent with a hello
        for spoke in spokes:
            spoke.send_super(hub, 5000)
        world.run(0.1)
    send, caught = world.network.send, []

    def lose_all_but_the_first(flight, sender="?"):
        caught.append(flight)
        if flight.datagram[:2] in {b"\4\0", bytes([TYPE_FRAGMENT, 0])}:
            send(flight, sender)

    world.network.send = lose_all_but_the_first
    for spoke in spokes:
        spoke.send(hub)
        spoke.send_super(hub, 10_000)
    world.run(0.1)
    messages = [flight for flight in caught if flight.datagram[0] == 4]
    fragments = [flight for flight in caught if flight.datagram[:2] == bytes([TYPE_FRAGMENT, 1])]
    assert len(messages) == len(fragments) == len(spokes)
    assert len(hub.core.inbound.units.reassembly) == UNITS_TOTAL
    before = hub.drops
    world.run(1.2)

    forged = [
        dataclasses.replace(flight, datagram=flight.datagram[:-1] + bytes([flight.datagram[-1] ^ 1]))
        for flight in messages
    ]
    contradicted = [
        dataclasses.replace(
            fragments[-1],
            datagram=bytes([*fragments[-1].datagram[:at], byte, *fragments[-1].datagram[at + 1 :]]),
        )
        for at, byte in ((1, 250), (3, 9))
    ]
    udp = hub.sockets[0]
    udp.inbox += [*messages[:32], *forged[:31], *contradicted, *fragments[-1:]]
    world.run(0)
    return hub.drops - before, [hub.peer(number).drops for number in range(1, UNITS_TOTAL + 1)]


@pytest.mark.slow
def test_drops_of_many_peers_in_one_drain_are_all_counted():
    """Before, the twin had room for 128 counts of a peer and a reason, and lost those behind them."""
    dropped, by_peer = counted(is_compiled=False)

    assert dropped["replay"] == 32
    assert dropped["transport_auth"] == 31
    assert (dropped, by_peer) == counted(is_compiled=True)


RAW = ["gre", "ipip"]


def pair_of(world, kind):
    return (
        world.pair()
        if kind == "wireguard"
        else world.raw_pair(kind)
        if kind in RAW
        else world.clear_pair(encapsulation=kind)
    )


@pytest.mark.parametrize("kind", ["wireguard", "udp", "vxlan", "geneve", *RAW])
def test_what_comes_goes_by_the_twin_whatever_it_comes_in(kind):
    world = World(is_compiled=True)
    a, b = pair_of(world, kind)
    taken, twin = [], b.core.inbound.compiled
    drain = twin.drain

    def noted(*more):
        has_more = drain(*more)
        taken.append(has_more is not None)
        return has_more

    twin.drain = noted

    sent = a.send(b, 3)
    world.run(1)

    assert b.received == sent
    assert set(taken) == {True}


@pytest.mark.parametrize("is_compiled", [False, True], ids=["python", "compiled"])
def test_what_the_kernel_had_no_room_for_leaves_later_from_the_port_of_its_flow(is_compiled):
    world = World(is_compiled=is_compiled)
    a, b = world.clear_pair(encapsulation="vxlan")
    for number in range(20):
        a.send(b, 2, ports=(3000 + number, 80))
    world.run(0.01)
    ports = {}
    send = world.network.send

    def note(flight, sender="?"):
        inner = 8 + 14 + 20  # of vxlan, Ethernet and IP
        ports.setdefault(flight.datagram[inner : inner + 4], set()).add(flight.source[1])
        send(flight, sender)

    world.network.send = note
    for is_full in (False, True):
        for each in a.sockets:
            each.is_full = is_full
        for number in range(20):
            a.send(b, 2, ports=(3000 + number, 80))
        world.run(0.01)
    for each in a.sockets:
        each.is_full = False
    world.run(1)

    assert len(b.received) == 2 * 20 * 3
    assert {len(each) for each in ports.values()} == {1}


@pytest.mark.parametrize("size", [400, 0], ids=["joined", "single"])
@pytest.mark.parametrize("kind", ["udp", "vxlan", "geneve", *RAW])
def test_packets_of_several_peers_at_one_address_go_by_the_twin(kind, size):
    world = World(is_compiled=True)
    a, b = pair_of(world, kind)
    subnets, identifier = ["10.244.101.0/24"], 8 if kind in {"vxlan", "geneve", "gre"} else None
    if kind in RAW:
        b.know_raw(a, kind, identifier=identifier, subnets=subnets)
    else:
        b.know_in_the_clear(a, encapsulation=kind, identifier=identifier, subnets=subnets)
    peer, port = b.core.peers[2], 0 if kind in RAW else CLEAR_PORT
    far, ends = far_end_of(peer), {"source": "10.244.101.9", "destination": b.inner()}
    for turn in range(3):
        if turn == 2:
            left = noted_by_python(b)
            b.received.clear()
        sent = [packets.tcp(bytes(size), sequence=1 + n * size, identifier=n, **ends) for n in range(3)]
        for packet in sent:
            places = (a.addresses[0], port), (b.addresses[0], port)
            protocol = peer.encapsulation.protocols[4]
            world.network.send(Flight(*places, far.payload(packet), protocol=protocol))
        sent += a.send(b, 2)
        world.run(1)

    assert sorted(b.received) == sorted(sent)
    assert peer.traffic.rx_packets == 9
    assert left == []


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("size", [400, 0], ids=["joined", "single"])
@pytest.mark.parametrize("kind", ["udp", "vxlan", "geneve", *RAW])
def test_packets_of_a_director_s_clients_go_by_the_twin_whoever_they_are(kind, size, version):
    world = World(is_compiled=True)
    director, server = world.node("director"), world.node("server")
    how, sources = {"name" if kind in RAW else "encapsulation": kind}, ["0.0.0.0/0", "::/0"]
    number = (server.know_raw if kind in RAW else server.know_in_the_clear)(director, sources=sources, **how)
    peer, port = server.core.peers[number], 0 if kind in RAW else CLEAR_PORT
    far, protocol = far_end_of(peer), peer.encapsulation.protocols[version]
    sent, left = [], []
    for client in range(1, 40):
        if client == 3:  # what may arrive is known by then
            left = noted_by_python(server)
        ends = {
            "version": version,
            "source": f"198.51.{client}.7" if version == 4 else f"2001:db8:{client}::7",
            "destination": server.inner(version),
        }
        for n in range(3):
            more = {"identifier": n} if version == 4 else {}
            sent.append(packets.tcp(bytes(size), sequence=1 + n * size, ports=(4000, 80), **ends, **more))
            places = (director.addresses[0], port), (server.addresses[0], port)
            world.network.send(Flight(*places, far.payload(sent[-1]), protocol=protocol))
        world.run(0.1)

    assert server.received == sent
    assert left == []


@pytest.mark.parametrize("change", ["route", "sources", "permits"])
def test_what_a_client_may_send_is_asked_anew_when_the_answer_changes(change):
    world = World(is_compiled=True)
    a, b = world.node("a"), world.node("b")
    number = b.know_in_the_clear(a, sources=["0.0.0.0/0"])
    packet = packets.tcp(source="198.51.100.7", destination="203.0.113.80", ports=(4000, 80))
    flight = Flight((a.addresses[0], CLEAR_PORT), (b.addresses[0], CLEAR_PORT), packet)
    for _ in range(3):
        world.network.send(flight)
        world.run(0.1)
    left = noted_by_python(b)
    world.network.send(flight)
    world.run(0.1)
    assert (len(b.received), left) == (4, [])

    if change == "route":
        b.route([("198.51.100.0/24", OWN)])
    elif change == "sources":
        b.tell(SetPeer(number, 0.0, "udp", [], b.core.peers[number].tunnel.ends))
    else:
        b.tell(
            SetPermits([PermitRow(ip_address("203.0.113.80").packed, False, [number], [6], [(80, 80)], True)])
        )
    world.network.send(flight)
    world.run(0.1)

    assert left != []
    assert len(b.received) == 4 + (change == "permits")
    assert len(b.core.services.permits._returns) == (change == "permits")


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("name", ["ipip", "gre"])
def test_packets_that_a_kernel_has_merged_over_raw_sockets_are_not_left_to_python(name, version):
    world = World(is_compiled=True)
    a, b = world.raw_pair(name)
    tunnel, protocol = far_end_of(b.peer()), b.peer().encapsulation.protocols[version]
    ends = {"version": version, "source": a.inner(version), "destination": b.inner(version)}

    def arrive(*sizes):
        made = [packets.tcp(bytes(range(250)) * (size // 250), **ends) for size in sizes]
        sent = [packets.as_super_packet(each, 1)[0] for each in made]
        for each in sent:
            flight = Flight((a.addresses[0], 0), (b.addresses[0], 0), tunnel.payload(each), protocol=protocol)
            world.network.send(flight)
        world.run(0.01)
        return sent

    arrive(40)  # its peer can be determined from then on
    left = noted_by_python(b)
    b.tun.writes.clear()

    sent = arrive(2000) + arrive(60_000, 20_000, 65_000, 500, 30_000)

    assert left == []
    assert [write[10:] for write in b.tun.writes] == sent


@pytest.mark.parametrize("name", ["wireguard", "udp", "ipip", "gre"])
def test_what_goes_to_the_address_of_a_peer_is_left_to_python_only_if_it_may_be_of_a_tunnel(name):
    world = World(is_compiled=True)
    if name == "wireguard":
        a, b = world.pair()
    else:
        a, b = world.raw_pair(name) if name in {"ipip", "gre"} else world.clear_pair()
    a.send(b)
    world.run(1)
    a.route([(b.addresses[0], 1)])
    ends = {"source": a.inner(), "destination": b.addresses[0]}

    def send(protocol):
        b.received.clear()
        a.tun.outgoing.append(packets.PLAIN + packets.ipv4(bytes(40), protocol=protocol, **ends))
        world.run(0.01)
        return len(b.received)

    for _ in range(2):
        send(packets.TCP)
    left = noted_by_python(a)
    found = {}
    for protocol in (packets.TCP, packets.UDP, 1, 4, 47):
        left.clear()
        found[protocol] = send(protocol), left != []

    of_tunnel = set(ENCAPSULATIONS[name].protocols.values())
    assert {protocol for protocol, (_, is_left) in found.items() if is_left} == {4, 17, 47} & of_tunnel
    assert [came for came, _ in found.values()] == [int(each not in of_tunnel - {17}) for each in found]


@pytest.mark.parametrize("is_remembered", [False, True])
def test_a_peer_that_goes_takes_what_is_remembered_along_where_that_leads_to_it(is_remembered):
    world = World(is_compiled=True)
    a, b = world.clear_pair()
    a.send(b)
    world.run(0.01)
    lane, gone = a.core.outbound.compiled.lane, LivePeer(9)
    lane.remember(bytes([192, 0, 2, 99]), gone.state)
    if not is_remembered:
        lane.forget()  # as for a table that it is not in any more
    a.send(b)
    world.run(0.01)
    left = noted_by_python(a)
    a.send(b)
    world.run(0.01)
    assert left == []

    del gone
    gc.collect()
    a.send(b)
    world.run(0.01)

    assert (left != []) == is_remembered
    assert len(b.received) == 4


def test_gre_with_a_key_a_checksum_and_numbers_goes_by_the_twin_both_ways():
    world = World(is_compiled=True)
    a, b = world.raw_pair("gre", identifier=7, has_checksum=True, has_sequence=True)
    for _ in range(2):
        warm = a.send(b, 9) + a.send_super(b, 5000)
        b.send(a, 9)
        world.run(0.01)
    left = noted_by_python(a), noted_by_python(b)
    b.received.clear()

    sent = a.send(b, 3)
    sent += a.send_super(b, 5000)
    world.run(1)

    assert b.received == sent
    assert left == ([], [])
    assert a.peer().tunnel.sent == 2 * len(warm) + len(sent)
    assert b.peer().unsealed.sequence == a.peer().tunnel.sent - 1 - ROUNDS


@pytest.mark.parametrize("is_compiled", [False, True], ids=["python", "compiled"])
@pytest.mark.parametrize("key", [0, 1, 2**32 - 1])
def test_packets_with_a_key_are_of_no_tunnel_without_one(is_compiled, key):
    world = World(is_compiled=is_compiled)
    a, b = world.raw_pair("gre")
    sent = b.send(a)
    world.run(1)
    packet = packets.udp(b"x", source=b.inner(), destination=a.inner())

    for payload in (b"\x20\0\x08\0" + key.to_bytes(4, "big") + packet, b"\0\0\x08\0" + packet):
        world.network.send(Flight((b.addresses[0], 0), (a.addresses[0], 0), payload, protocol=47))
    world.run(1)

    assert a.received == [*sent, packet]
    assert a.drops.total() == 1


@pytest.mark.parametrize(("is_at_endpoint", "kept"), [(True, 5), (False, 2)])
def test_units_from_elsewhere_are_few_though_their_fragments_come_by_python(is_at_endpoint, kept):
    world = World(is_compiled=True, ciphers=[AES_256_GCM])
    a, b = world.pair()
    for _ in range(3):
        a.send_super(b, 5000)
        world.run(0.1)
    keypair, together = b.peer().keypairs.current, b.core.inbound.units.reassembly

    for number in range(5):
        place = keypair.local_index, 1000 + number
        together.place(keypair, place, 4, AES_256_GCM, world.clock.now, is_at_endpoint=is_at_endpoint)

    assert len(together) == kept


def test_flows_leave_from_sockets_of_their_own_though_they_come_singly():
    world = World()
    a, b = world.clear_pair(encapsulation="vxlan")
    a.send(b)
    world.run(1)
    lanes, ports = a.peer().lanes, []
    send = world.network.send
    world.network.send = lambda flight, sender="?": ports.append(flight.source[1]) or send(flight, sender)

    for lane in lanes:
        a.core.outbound.queue(lane, memoryview(bytes(100)), 100, 0)
        a.core.outbound.flush_peer(lane)

    assert len(set(ports)) == len(lanes) > 1
