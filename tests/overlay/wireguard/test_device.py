"""Devices of the library with each other, on a network that a test controls."""

import math
import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.wireguard import Datagram, Device, Lost, Packet, PresharedKey, PrivateKey, Refused, Up

AT = {"a": ("192.0.2.1", 51820), "b": ("192.0.2.2", 51820), "c": ("192.0.2.3", 51820)}
IP = bytes.fromhex("4500001c00000000400166df0a0000010a00000208000000000100ff")
SECRET = PresharedKey(bytes(range(32)))


class World:
    """Devices by name, the clock, and datagrams on their way."""

    def __init__(self, seed=0):
        self.now, self.devices, self.random = 1000.0, {}, random.Random(seed)
        self.packets, self.ups, self.refused, self.lost = [], [], [], []
        self.sent, self.is_cut, self.recorded = 0, False, []
        self.queue = []

    def add(self, name):
        entropy = self.random.randbytes
        device = Device(
            PrivateKey.generate(entropy), entropy=entropy, wall_ns=lambda: int(self.now * 1e9) + 10**18
        )
        self.devices[name] = device
        return device

    def name_of(self, public_key):
        return next(name for name, device in self.devices.items() if device.public_key == public_key)

    def take(self, name, events):
        for event in events:
            match event:
                case Datagram(data, endpoint):
                    self.sent += 1
                    self.recorded.append((name, data, endpoint))
                    if not self.is_cut:
                        self.queue.append((name, data, endpoint))
                case Packet(peer, payload):
                    self.packets.append((name, self.name_of(peer), payload))
                case Up(peer, _):
                    self.ups.append((name, self.name_of(peer)))
                case Refused(_, reason):
                    self.refused.append((name, reason))
                case Lost(peer):
                    self.lost.append((name, self.name_of(peer)))

    def deliver(self):
        while self.queue:
            sender, data, endpoint = self.queue.pop(0)
            for name, at in AT.items():
                if at == endpoint and name in self.devices:
                    self.take(name, self.devices[name].receive(data, AT[sender], self.now))

    def send(self, one, other, payload=IP):
        self.take(one, self.devices[one].send(self.devices[other].public_key, payload, self.now))
        self.deliver()

    def pass_time(self, seconds):
        end = self.now + seconds
        while True:
            due = min(device.next_deadline() for device in self.devices.values())
            if due > end:
                break
            self.now = max(self.now, due)
            for name, device in self.devices.items():
                self.take(name, device.handle_deadline(self.now))
            self.deliver()
        self.now = end


@pytest.fixture
def world():
    return pair()


def pair(seed=0, **fields):
    made = World(seed)
    a, b = made.add("a"), made.add("b")
    a.add_peer(b.public_key, endpoint=AT["b"], **fields)
    b.add_peer(a.public_key, **{key: value for key, value in fields.items() if key != "keepalive"})
    return made


def test_packet_arrives_after_a_handshake_that_it_began(world):
    world.send("a", "b")

    assert world.packets == [("b", "a", IP)]
    assert sorted(world.ups) == [("a", "b"), ("b", "a")]
    assert world.sent == 3


def test_answers_need_no_handshake_and_go_where_the_peer_was_heard(world):
    world.send("a", "b")

    world.send("b", "a", IP)

    assert world.packets[-1] == ("a", "b", IP)
    assert world.sent == 4


def test_initiator_with_nothing_to_send_confirms_by_a_keepalive(world):
    world.take("a", world.devices["a"].connect(world.devices["b"].public_key, world.now))
    world.deliver()

    assert sorted(world.ups) == [("a", "b"), ("b", "a")]
    assert world.packets == []


@pytest.mark.parametrize(
    ("public_key", "keepalive", "problem"),
    [
        (bytes(32), 0, "a public key of zeros"),
        (b"k" * 32, math.nan, "keepalive is nan"),
        (b"k" * 32, -1, "keepalive is -1"),
        (b"k" * 32, math.inf, "keepalive is inf"),
    ],
)
def test_peer_that_nothing_could_be_sent_to_is_refused(world, public_key, keepalive, problem):
    device = world.devices["a"]
    before = device.peers

    with pytest.raises(ValueError, match=problem):
        device.add_peer(public_key, keepalive=keepalive)

    assert device.peers == before


def test_peer_without_an_endpoint_has_to_call_first(world):
    b, a = world.devices["b"], world.devices["a"].public_key

    with pytest.raises(ValueError, match="endpoint of this peer is not known"):
        b.connect(a, world.now)
    world.send("b", "a")
    assert world.sent == 0

    world.send("a", "b")

    assert world.packets == [("b", "a", IP), ("a", "b", IP)]


def test_preshared_keys_that_differ_lead_to_no_session():
    world = World()
    a, b = world.add("a"), world.add("b")
    a.add_peer(b.public_key, endpoint=AT["b"], preshared_key=SECRET)
    b.add_peer(a.public_key)

    world.send("a", "b")

    assert (world.packets, world.refused) == ([], [("a", "response_seal")])


def test_handshakes_that_cross_leave_a_session_both_ways(world):
    a, b = world.devices["a"], world.devices["b"]
    world.send("a", "b")
    world.pass_time(10)
    for name, device, other in (("a", a, b), ("b", b, a)):
        world.take(name, device.connect(other.public_key, world.now))
    world.deliver()

    for _ in range(3):
        world.send("a", "b")
        world.send("b", "a")

    assert len(world.packets) == 7
    assert not world.refused


def test_peer_that_answers_nothing_is_lost_after_90_seconds(world):
    world.is_cut = True
    world.send("a", "b")

    world.pass_time(100)

    assert world.lost == [("a", "b")]
    assert 18 <= world.sent <= 19


def test_session_is_renewed_under_traffic_and_nothing_is_lost(world):
    for _ in range(40):
        world.send("a", "b")
        world.send("b", "a")
        world.pass_time(10)

    assert len(world.packets) == 80
    assert not world.refused
    assert world.ups.count(("a", "b")) == 4  # at 0, 120, 240 and 360 seconds


def test_packets_without_answers_begin_a_handshake_after_15_seconds(world):
    def sizes():
        return [len(data) for name, data, _ in world.recorded if name == "a"]

    world.send("a", "b")
    world.is_cut = True
    world.send("a", "b")

    world.pass_time(14.9)
    assert 148 not in sizes()[1:]
    world.pass_time(0.2)

    assert sizes()[-1] == 148


def test_packet_is_answered_by_a_keepalive_after_10_seconds_of_silence(world):
    world.send("a", "b")

    world.pass_time(9.9)
    assert world.sent == 3
    world.pass_time(0.2)

    assert world.sent == 4
    assert (world.recorded[-1][0], len(world.recorded[-1][1])) == ("b", 32)


def test_persistent_keepalives_go_on():
    world = pair(keepalive=25)
    world.send("a", "b")

    world.pass_time(300)

    keepalives = [sender for sender, data, _ in world.recorded if len(data) == 32]
    assert keepalives.count("a") >= 300 // 25 - 1


def test_keys_are_forgotten_after_three_reject_times(world):
    world.send("a", "b")

    world.pass_time(3 * 180 + 1)

    assert not world.devices["a"].is_up(world.devices["b"].public_key, world.now)
    assert not world.devices["a"]._by_index
    assert not world.devices["b"]._by_index


def test_replayed_and_forged_messages_are_refused_and_change_nothing(world):
    world.send("a", "b")
    messages = [data for name, data, _ in world.recorded if name == "a"]
    elsewhere = ("203.0.113.9", 9)

    refused = [world.devices["b"].receive(data, elsewhere, world.now) for data in messages]
    forged = bytearray(messages[-1])
    forged[-1] ^= 1
    refused.append(world.devices["b"].receive(bytes(forged), elsewhere, world.now))

    assert [each for events in refused for each in events] == [
        Refused(elsewhere, reason) for reason in ("initiation_replayed", "replay", "transport_auth")
    ]
    assert world.devices["b"].endpoint_of(world.devices["a"].public_key) == AT["a"]


def test_peer_is_followed_to_another_address(world):
    world.send("a", "b")
    (packet,) = world.devices["a"].send(world.devices["b"].public_key, IP, world.now)

    world.devices["b"].receive(packet.data, AT["c"], world.now)

    assert world.devices["b"].endpoint_of(world.devices["a"].public_key) == AT["c"]


def test_stranger_is_named_and_answered_once_added(world):
    stranger = world.add("c")
    stranger.add_peer(world.devices["b"].public_key, endpoint=AT["b"])
    (initiation,) = stranger.connect(world.devices["b"].public_key, world.now)
    b = world.devices["b"]

    refused = b.receive(initiation.data, AT["c"], world.now)
    assert refused == [Refused(AT["c"], "initiation_unknown_peer", stranger.public_key)]
    b.add_peer(stranger.public_key)
    world.take("b", b.receive(initiation.data, AT["c"], world.now))
    world.deliver()

    assert ("b", "c") in world.ups


def test_removed_peer_is_a_stranger(world):
    world.send("a", "b")

    world.devices["b"].remove_peer(world.devices["a"].public_key)
    world.send("a", "b")

    assert world.refused == [("b", "unknown_index")]
    assert world.devices["b"].peers == ()
    assert not world.devices["b"]._by_index


@given(st.binary(max_size=200) | st.binary(min_size=144, max_size=144).map(lambda rest: b"\1\0\0\0" + rest))
def test_any_datagram_is_refused_and_raises_nothing(datagram):
    device = pair().devices["b"]

    (event,) = device.receive(datagram, AT["c"], 1000.0)

    assert isinstance(event, Refused)


@given(st.integers(0, 2**32), st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 200)), max_size=12))
def test_every_packet_arrives_once_whatever_the_times(seed, steps):
    world = pair(seed)
    world.send("a", "b")

    for sender, pause in steps:
        world.pass_time(pause)
        world.send(sender, "b" if sender == "a" else "a")

    assert len(world.packets) == len(steps) + 1
    assert not world.lost


def test_staged_packets_are_bounded_and_the_oldest_goes(world):
    world.is_cut = True
    for number in range(130):
        world.send("a", "b", IP[:-1] + bytes([number]))
    world.is_cut = False

    world.pass_time(6)

    assert [payload[-1] for _, _, payload in world.packets] == list(range(2, 130))


def test_device_with_nothing_to_do_has_no_deadline(world):
    assert world.devices["a"].next_deadline() == math.inf


def test_import_loads_neither_loops_nor_numpy_nor_the_agent():
    code = "import sys, overlay.wireguard; print(*sys.modules)"

    loaded = set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    )

    assert not loaded & {
        "trio",
        "asyncio",
        "click",
        "pyroute2",
        "numpy",
        "msgpack",
        "peers",
        "overlay.agent",
        "overlay.host",
    }


def test_secrets_are_in_no_repr(world):
    world.send("a", "b")
    keypair = world.devices["a"]._peers[world.devices["b"].public_key].current

    assert not {"secret", "key="} & set(repr(keypair.keys).split())
    assert repr(world.devices["a"]).startswith("<overlay.wireguard.device.Device")
