"""Reports of dropped packets from a forwarder, which may be under an attacker's control."""

from __future__ import annotations

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.capturing.entry import CapturePoint
from overlay.cli.capture.dropped import DropNames, DroppedPackets
from overlay.cli.capture.ending import Ending
from overlay.cli.capture.opening import checked_reason
from overlay.cli.capture.outputs import LinesOutput
from overlay.cli.exits import Failure, Misuse
from overlay.errors import HostError
from overlay.host.sockets.drop_socket import DropSocket
from overlay.host.sockets.pcap_filter import LINK_RAW, compile_expression
from overlay.linux import RETURN
from overlay.reasons import REASONS
from overlay.wire.dropped import Dropped, DroppedKind
from tests.overlay.capturing.datagrams import udp

NAMES = list(REASONS)
PACKET = udp("10.0.0.1", "10.0.0.2", 5, 53, b"abcd")


class Heard:
    """The reports of a forwarder, and what a capture makes of them."""

    def __init__(self, *, peer=None, reason=""):
        self.hearing, self.tells = DropSocket.pair()
        named = DropNames("overlay0", peer, NAMES, {1: "tokyo", 2: "\x1b[2Jlima"}, 51820)
        self.source = DroppedPackets(self.hearing, named, reason)

    def tell(self, **values):
        told = {
            "kind": DroppedKind.PACKET,
            "reason": NAMES.index("source"),
            "peer": 1,
            "length": len(PACKET),
            "count": 1,
        }
        self.tells.send(Dropped(**told | {"missed": 0, "data": PACKET} | values).build())

    def entries(self):
        return list(self.source.read())

    def close(self):
        self.hearing.close()
        self.tells.close()


@pytest.fixture
def heard():
    made = []

    def make(**how):
        made.append(Heard(**how))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_packet_has_its_reason_its_peer_and_the_time_of_the_kernel(heard):
    capture = heard()
    capture.tell(count=3)

    (entry,) = capture.entries()

    assert entry.place is CapturePoint.DROPPED
    assert entry.comment.startswith(
        "peer=tokyo drop=source count=3 (the packet came from the peer, but its source"
    )
    assert bytes(entry.data) == PACKET
    assert entry.wall_ns > 1_600_000_000 * 10**9


def test_packet_is_shown_without_the_padding_of_its_tunnel(heard):
    capture = heard()
    capture.tell(data=PACKET + bytes(12), length=len(PACKET) + 12)
    capture.tell(data=PACKET[:20], length=len(PACKET) + 12)

    whole, cut = capture.entries()

    assert (bytes(whole.data), whole.length) == (PACKET, len(PACKET))
    assert (bytes(cut.data), cut.length) == (PACKET[:20], len(PACKET) + 12)


def test_datagram_gets_headers_that_say_where_it_came_from(heard):
    capture = heard()
    capture.tell(
        kind=DroppedKind.DATAGRAM, peer=0, data=b"\4abc", length=4, source=(bytes([192, 0, 2, 9]), 7)
    )

    (entry,) = capture.entries()

    assert entry.place is CapturePoint.REFUSED
    assert bytes(entry.data[12:16]) == bytes([192, 0, 2, 9])
    assert entry.data[-4:] == b"\4abc"


def test_one_peer_and_one_reason_can_be_chosen(heard):
    capture = heard(peer="tokyo", reason="source")
    capture.tell()
    capture.tell(peer=2)
    capture.tell(reason=NAMES.index("replay"))

    assert [entry.peer for entry in capture.entries()] == ["tokyo"]


def test_filter_is_run_by_the_kernel_for_packets_and_hides_the_rest(heard):
    capture = heard()
    capture.tell(kind=DroppedKind.DATAGRAM)  # before the filter: its compilation takes a while
    try:
        capture.hearing.let_through(compile_expression("udp port 53 and len == 32", LINK_RAW, 20))
    except HostError as error:
        pytest.skip(str(error))
    capture.tell()
    capture.tell(data=udp("10.0.0.1", "10.0.0.2", 5, 54, b"abcd"))
    capture.tell(kind=DroppedKind.DATAGRAM)
    capture.tell(length=40)

    (entry,) = capture.entries()

    assert bytes(entry.data) == PACKET[:20]
    assert entry.length == 32


def test_end_of_the_agent_ends_the_capture(heard):
    capture = heard()
    capture.tells.close()

    with pytest.raises(Failure, match="the agent of overlay0 has stopped"):
        capture.entries()


def test_missed_packets_are_reported(heard):
    capture = heard()
    capture.tell(missed=3)
    capture.tell(missed=5)
    capture.entries()

    assert (capture.source.received, capture.source.missed) == (2, 5)


def test_what_was_missed_under_a_forwarder_that_has_died_is_not_forgotten(heard):
    capture = heard()
    for missed in (3, 5, 0, 2, 2, 1):
        capture.tell(missed=missed)
    capture.entries()

    assert capture.source.missed == 5 + 2 + 1


@pytest.mark.parametrize("has_filter", [False, True])
def test_packets_missed_last_are_reported_at_the_end(heard, has_filter):
    capture = heard()
    if has_filter:
        capture.hearing.let_through([(RETURN, 0, 0, 20)])
    capture.tell()
    capture.source.stop()
    assert len(capture.entries()) == 1
    assert not capture.source.is_drained
    assert capture.tells.recv(1) == b""  # which is how the agent learns of it

    capture.tell(kind=DroppedKind.NOTHING, reason=0, peer=0, length=0, count=0, missed=7, data=b"")
    capture.tells.close()

    assert capture.entries() == []
    assert capture.source.is_drained
    assert (capture.source.received, capture.source.missed) == (1, 7)


@given(
    st.lists(
        st.binary(max_size=300) | st.binary(max_size=300).map(lambda tail: b"\1\4\0\1" + tail), max_size=20
    )
)
def test_whatever_a_forwarder_says_is_printable_or_nothing(messages):
    capture = Heard()
    for each in messages:
        capture.tells.send(each or b"x")
    for entry in capture.entries():
        assert entry.comment.isprintable()
        assert entry.comment.isascii()
    capture.close()


def test_name_of_a_peer_cannot_write_to_the_terminal(heard, capsys):
    capture = heard()
    capture.tell(peer=2, data=b"\x45\x1b[2J" + bytes(30), length=35)
    LinesOutput(Ending(), heard().source.places, is_tap=False).take(*capture.entries())

    assert capsys.readouterr().out.rstrip("\n").isprintable()


def test_reason_that_is_not_known_is_refused_with_the_nearest():
    assert checked_reason("", NAMES) == ""
    assert checked_reason("replay", NAMES) == "replay"
    with pytest.raises(
        Misuse, match=r"--dropped: no packet is dropped for the reason replya: did you mean replay\?"
    ):
        checked_reason("replya", NAMES)
    with pytest.raises(Misuse, match=r"docs/drops\.md"):
        checked_reason("\x1b", NAMES)


def test_length_that_no_packet_has_is_passed_over(heard):
    telling = heard()
    telling.tell(kind=DroppedKind.DATAGRAM, length=2**32 - 1)
    telling.tell(length=2**32 - 1)
    telling.tell()

    (entry,) = telling.entries()
    assert entry.length == len(PACKET)


def test_descriptors_that_a_forwarder_sends_are_not_kept(heard):
    telling = heard()
    before = set(os.listdir("/proc/self/fd"))
    dropped = Dropped(DroppedKind.PACKET, NAMES.index("source"), 1, len(PACKET), 1, 0, PACKET)
    for _ in range(3):
        socket.send_fds(telling.tells, [dropped.build()], [0] * 10)

    assert len(telling.entries()) == 3
    assert set(os.listdir("/proc/self/fd")) == before
