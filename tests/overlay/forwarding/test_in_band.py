from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from overlay.errors import PacketError
from overlay.forwarding.in_band import MESSAGES_AT_ONCE, MESSAGES_PER_SECOND, InBand
from overlay.forwarding.peer import LivePeer
from overlay.link.messages import CONTROL_AT_ONCE, ControlReceived
from overlay.wire import control
from overlay.wire.bulk import AES_256_GCM
from overlay.wire.service_control import (
    FlowsTold,
    SettingRow,
    SettingsHeard,
    SettingsTold,
    StandingRow,
    StandingsTold,
)
from tests.sim import World

SOURCE = "192.0.2.1", 51820
NOW = 10.0


class Parts:
    """InBand among parts that record what they are asked, and answer."""

    def __init__(self):
        self.noted = []
        self.peer = LivePeer(1)
        self.keypair = SimpleNamespace(
            bulk=SimpleNamespace(
                take_hello=self.noting("take_hello", b"our hello"),
                size=SimpleNamespace(reported=self.noting("reported")),
            ),
            lane=0,
        )
        pings = SimpleNamespace(pong=self.noting("pong", b"a pong"), take=self.noting("take", "ponged"))
        probes = SimpleNamespace(
            due=self.noting("due", 11.0),
            answer=self.noting("answer", b"probed"),
            take=self.noting("taken", 12.0),
        )
        lanes = SimpleNamespace(heard=self.noting("heard"), probed=self.noting("probed"))
        timers = SimpleNamespace(arm=self.noting("arm"), rearm=self.noting("rearm"))
        self.in_band = InBand(
            pings, probes, timers, self.noting("report"), self.noting("send"), self.noting("flows"), lanes
        )

    def noting(self, name, answer=None):
        return lambda *given: (self.noted.append((name, *given)), answer)[1]

    def take(self, message):
        payload = message if isinstance(message, bytes) else control.build(message)
        self.in_band.take(self.peer, self.keypair, memoryview(payload), NOW, SOURCE)
        return self.noted


@pytest.fixture
def parts():
    return Parts()


def hello(*, answers_probes):
    return control.Hello(
        (1,), 9000, 64, 1420, is_answer=False, answers_pings=True, answers_probes=answers_probes
    )


def test_what_is_for_the_agent_is_passed_on_without_its_padding(parts):
    presence = control.Presence(7, True, (1,))
    padded = control.build(presence) + bytes(8000)

    assert parts.take(padded) == [("report", ControlReceived(1, control.build(presence)))]


@pytest.mark.parametrize(
    "message",
    [
        SettingsTold(7, 1, (SettingRow(1, 2, 3, True, False),)),
        SettingsHeard(7, 1),
        StandingsTold(7, 1, (StandingRow(1, 0, 3, 4),)),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_directors_say_of_settings_and_servers_is_for_the_agent(parts, message):
    assert parts.take(message) == [("report", ControlReceived(1, control.build(message)))]


def test_what_directors_say_of_flows_stays_in_the_forwarder(parts):
    told = FlowsTold(7, wants_all=True)

    assert parts.take(told) == [("flows", parts.peer, told, NOW)]


def test_the_agent_is_told_no_more_than_it_allows_a_forwarder(parts):
    for _ in range(int(CONTROL_AT_ONCE) + 5):
        parts.in_band.take(
            parts.peer, parts.keypair, memoryview(control.build(control.Presence(7, True))), NOW, SOURCE
        )
        parts.peer.contact.messages = None  # the limit for all messages is another one

    assert len(parts.noted) == CONTROL_AT_ONCE
    assert parts.peer.drops == {"control_rate": 5}


def test_a_hello_is_answered_and_a_peer_that_answers_probes_is_probed(parts):
    said = hello(answers_probes=True)

    assert parts.take(said) == [
        ("take_hello", said, NOW),
        ("heard", parts.keypair, 1, NOW),
        ("due", parts.peer, NOW),
        ("arm", 11.0, parts.peer, "path"),
        ("send", parts.peer, parts.keypair, b"our hello"),
    ]


def test_a_peer_that_answers_no_probes_is_not_probed(parts):
    said = hello(answers_probes=False)

    assert parts.take(said) == [
        ("take_hello", said, NOW),
        ("heard", parts.keypair, 1, NOW),
        ("send", parts.peer, parts.keypair, b"our hello"),
    ]


def test_a_report_is_taken_and_not_answered(parts):
    report = control.Report(5, 4, 40, 1)

    assert parts.take(report) == [("reported", report, NOW)]


def test_a_ping_and_a_probe_are_answered_under_the_keypair_they_came_by(parts):
    ping, probe = control.Ping(7), control.Probe(8)
    parts.take(ping)
    parts.take(probe)

    assert parts.noted == [
        ("pong", ping, parts.keypair, NOW),
        ("send", parts.peer, parts.keypair, b"a pong"),
        ("answer", probe, parts.keypair, NOW),
        ("send", parts.peer, parts.keypair, b"probed"),
    ]


def test_a_pong_is_reported(parts):
    pong = control.Pong(7)

    assert parts.take(pong) == [("take", pong, parts.keypair, NOW), ("report", "ponged")]


def test_the_answer_to_a_probe_sets_the_search_its_time(parts):
    probed = control.Probed(8)

    assert parts.take(probed) == [("taken", probed, parts.peer, NOW), ("rearm", 12.0, parts.peer, "path")]


def test_what_is_refused_is_counted_each_time_and_not_answered(parts):
    def refuse(*_):
        raise PacketError("ping_rate")

    parts.in_band.pings.pong = refuse
    for _ in range(2):
        parts.take(control.Ping(7))
        parts.take(b"\x92\x92")

    assert parts.noted == []
    assert parts.peer.drops["ping_rate"] == 2
    assert parts.peer.drops.total() == 4


def test_messages_that_come_one_by_one_beyond_the_rate_are_counted_and_not_read(parts):
    for number in range(MESSAGES_AT_ONCE + 3):
        parts.take(control.Pong(number))

    assert len(parts.noted) == 2 * MESSAGES_AT_ONCE
    assert parts.peer.drops == {"control_rate": 3}
    assert InBand.spare(parts.peer, np.array([0x92] * 5, np.uint8), list(range(5)), NOW) == []
    assert parts.peer.drops == {"control_rate": 8}


@pytest.fixture
def pair():
    """Nodes with a session that have exchanged hellos."""
    world = World(ciphers=[AES_256_GCM])
    a, b = world.pair()
    a.send(b)
    world.run(1)
    a.send_super(b, 20_000)
    world.run(1)
    return a, b


def flood(a, count, payload=None):
    keypair = a.peer().keypairs.current
    for number in range(count):
        a.core.outbound.send_payload(a.peer(), keypair, payload or control.build(control.Pong(number)))


@pytest.fixture
def parsed(monkeypatch):
    """The messages that were read."""
    read, parse = [], control.parse

    def noted(payload):
        read.append(bytes(payload))
        return parse(payload)

    monkeypatch.setattr(control, "parse", noted)
    return read


@pytest.mark.parametrize("has_gro", [True, False])
@pytest.mark.parametrize(
    "payload",
    [
        None,
        b"\x92" + bytes(47),
        b"\x80" + bytes(63),
        control.build(control.Report(0, 0, 0, 0)).ljust(1000, b"\0"),
    ],
)
def test_messages_beyond_the_rate_are_counted_before_they_are_read(pair, parsed, has_gro, payload):
    a, b = pair
    a.world.has_gro = b.has_gro = has_gro

    flood(a, 1000, payload)
    a.world.run(0.1)

    assert b.drops["control_rate"] == 1000 - len(parsed)
    assert MESSAGES_AT_ONCE <= len(parsed) <= MESSAGES_AT_ONCE + 1


def test_permits_come_back(pair, parsed):
    a, b = pair
    flood(a, 1000)
    a.world.run(0.1)
    a.world.run(1)
    parsed.clear()
    b.peer().drops.clear()

    flood(a, 200)
    a.world.run(0.1)

    assert len(parsed) == 200
    assert b.drops["control_rate"] == 0


def test_the_flood_of_one_peer_costs_another_nothing(pair, parsed):
    a, b = pair
    c = a.world.node("c")
    b.know(c)
    c.know(b)
    c.send(b)
    a.world.run(1)
    c.send_super(b, 20_000)
    a.world.run(1)
    flood(a, 1000)
    a.world.run(0.02)
    parsed.clear()

    flood(c, 10)
    a.world.run(0.1)

    assert len(parsed) == 10


def test_packets_between_messages_of_a_flood_arrive(pair):
    a, b = pair
    b.received.clear()
    flood(a, 1000)
    sent = a.send(b, 20)
    flood(a, 1000)
    sent += a.send(b, 20)

    a.world.run(0.1)

    assert b.received == sent


@pytest.mark.parametrize(
    ("firsts", "kept"),
    [([0x92] * 300, MESSAGES_AT_ONCE), ([0x80] * 300, MESSAGES_AT_ONCE), ([0x92] * 299 + [0x45], 300)]
    + [([first] + [0x92] * 299, 300) for first in (0x7F, 0xA0, 0x00, 0x60)],
)
def test_only_a_batch_of_nothing_but_messages_is_shortened(firsts, kept):
    peer = LivePeer(1)

    rows = InBand.spare(peer, np.array(firsts, np.uint8), list(range(300)), 10.0)

    assert rows == list(range(kept))
    assert peer.drops["control_rate"] == 300 - kept


def test_the_rate_is_above_all_that_is_honest():
    assert MESSAGES_PER_SECOND >= 1000 + 100 + 25 + 1  # pings, probes, reports and hellos


def test_a_hello_by_a_lane_is_not_heeded(parts):
    parts.keypair.lane = 2

    assert parts.take(hello(answers_probes=True)) == []


def test_an_answer_to_a_probe_by_a_lane_is_for_that_lane(parts):
    parts.keypair.lane = 2

    assert parts.take(control.Probed(7)) == [("probed", parts.keypair, 7, NOW)]


def test_a_probe_by_a_lane_is_answered_if_it_comes_from_where_the_session_is(parts):
    parts.keypair.lane, parts.keypair.peer, parts.keypair.was_beside = 2, parts.peer, False
    parts.peer.endpoint = "198.51.100.1", 51820

    assert parts.take(control.Probe(7)) == []

    parts.peer.endpoint = SOURCE[0], 4000
    assert [name for name, *_ in parts.take(control.Probe(7))] == ["answer", "send"]
    assert parts.keypair.was_beside
