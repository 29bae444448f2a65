"""What is recorded about refused handshakes."""

from __future__ import annotations

import logging

import pytest

from overlay.amending import amend
from overlay.config import Node
from overlay.crypto.keys import PrivateKey
from overlay.errors import PacketError, ReplayedInitiationError, UnknownInitiatorError
from overlay.link.messages import Handshake
from overlay.records.journal import Journal
from overlay.roster import Roster
from overlay.session.sessions import Sessions
from overlay.troubles.misdirected import WORTH_TELLING
from overlay.troubles.refusals import LINES, LINES_TIME, Refusals
from overlay.uapi.language import DeviceChange
from tests.overlay.session.pair import seeded
from tests.peers.examples import peer, table

NOW = 1000.0
PRIVATE = PrivateKey(bytes(range(32)))
PARIS = peer("paris", "10.244.1.0/24", public_key=PRIVATE.public)
TOKYO = peer("tokyo", "10.244.2.0/24", endpoint="192.0.2.2")
NODE = Node(PRIVATE, table(PARIS, TOKYO), PARIS, {})
AT = ("192.0.2.2", 51820)


@pytest.fixture
def refusals(caplog):
    caplog.set_level(logging.DEBUG, "overlay")
    roster, sessions = Roster(), Sessions(PRIVATE, entropy=seeded("x"), wall_ns=lambda: 0)
    (remote,) = roster.change_to(NODE).added
    remote.heard_at = AT
    sessions.add_peer(remote.number, TOKYO.public_key)
    return Refusals(roster, sessions, Journal())


def take(refusals, error, source=AT, now=NOW):
    return refusals.take(error, Handshake(b"\x01" + bytes(147), source), NODE, now)


def warnings(caplog):
    return [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]


def test_refusals_are_counted_by_reason_but_replays_at_their_peer(refusals):
    take(refusals, PacketError("response_index"))
    take(refusals, PacketError("response_index"))
    take(refusals, ReplayedInitiationError(1, 0.0))
    take(refusals, ReplayedInitiationError(7, 0.0))  # removed in the meantime

    assert refusals.counts == {"response_index": 2, "initiation_replayed": 1}
    assert refusals._roster.by_number[1].replays == 1


def test_stranger_is_remembered_with_the_peer_at_its_address(refusals, caplog):
    take(refusals, UnknownInitiatorError(b"\x01" * 32))

    (row,) = refusals.describe_strangers(NOW)
    assert (row["peer"], row["endpoint"]) == ("tokyo", "192.0.2.2:51820")
    assert "public_key=AQEB" in caplog.text


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            AT,
            "arrive from 192.0.2.2:51820, the address of tokyo: see whether `overlay pubkey` prints that key at tokyo",
        ),
        (
            ("198.51.100.1", 9),
            (
                "arrive from 198.51.100.1:9, which is not the address of a known peer: see whether a public_key in the "
                "peers file is wrong"
            ),
        ),
    ],
)
def test_stranger_that_keeps_calling_is_one_warning(refusals, caplog, source, words):
    for _ in range(3 * WORTH_TELLING):
        take(refusals, UnknownInitiatorError(b"\x01" * 32), source)

    (line,) = warnings(caplog)
    assert line.startswith("handshakes with the public key AQEB")
    assert words in line


def test_handshakes_for_another_key_are_one_warning_that_names_the_peer(refusals, caplog):
    for _ in range(3 * WORTH_TELLING):
        take(refusals, PacketError("mac1"))

    (line,) = warnings(caplog)
    assert "arrive from 192.0.2.2:51820, the address of tokyo: compare the public_key of paris" in line
    assert refusals.counts == {"mac1": 3 * WORTH_TELLING}
    assert refusals.describe_misdirected(NODE, NOW)["192.0.2.2"].peer == "tokyo"


def test_warnings_are_bounded_whoever_sends_what(refusals, caplog):
    for number in range(1000):
        for _ in range(WORTH_TELLING):
            take(
                refusals,
                PacketError("mac1"),
                (f"203.0.{number // 250}.{number % 250}", 1),
                NOW + number / 100,
            )
    assert len(warnings(caplog)) == LINES

    for _ in range(WORTH_TELLING):
        take(refusals, PacketError("mac1"), ("198.51.100.1", 1), NOW + 10 + LINES_TIME)
    assert len(warnings(caplog)) == LINES + 1


def test_of_nobody_nothing_is_told(refusals):
    assert refusals.describe_strangers(NOW) == []
    assert refusals.describe_misdirected(NODE, NOW) == {}


def test_handshakes_that_this_node_sends_to_itself_are_nobody_else_s(refusals, caplog):
    (transmit,) = refusals._sessions.want(1, NOW)
    for _ in range(WORTH_TELLING):
        refusals.take(PacketError("mac1"), Handshake(transmit.datagram, AT), NODE, NOW)

    assert warnings(caplog) == []
    assert refusals.describe_misdirected(NODE, NOW) == {}
    assert refusals.counts == {"mac1": WORTH_TELLING}


@pytest.mark.parametrize("error", [UnknownInitiatorError(TOKYO.public_key), PacketError("mac1")])
def test_nobody_is_a_stranger_to_a_node_without_a_key(refusals, error):
    keyless = amend(NODE, DeviceChange(takes_key=True))

    for _ in range(WORTH_TELLING):
        refusals.take(error, Handshake(b"\x01" + bytes(147), AT), keyless, NOW)

    assert refusals.counts == {error.reason: WORTH_TELLING}
    assert not refusals.describe_strangers(NOW)
    assert not refusals.describe_misdirected(keyless, NOW)
