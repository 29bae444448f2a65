from __future__ import annotations

import errno
import math
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.encap import ENCAPSULATIONS
from overlay.encap.encapsulation import Role
from overlay.forwarding.peer import LivePeer
from overlay.forwarding.underlay.held import HELD_BYTES
from overlay.forwarding.underlay.outer_header import IPV6, WHOLE
from overlay.forwarding.underlay.sender import Sender
from overlay.forwarding.underlay.shares import SEND_COST
from overlay.forwarding.underlay.udp_socket import UdpSocket
from overlay.wire.bulk import TYPE_FRAGMENT
from overlay.wire.messages import TYPE_TRANSPORT
from tests.hypothesis_profiles import examples
from tests.overlay.forwarding.underlay.sending import SOURCE, TOS_2, V4, V6, FakeRaw, made, peer_at, train
from tests.overlay.forwarding.underlay.test_sender_ways import Ways


def test_datagrams_of_one_size_leave_in_one_call():
    sender, raw, peer = made()

    sender.send(peer, train(last=40), 100, 0)

    assert raw.calls == [(340, 100, [], V4)]
    assert raw.datagrams == train(last=40)
    assert peer.traffic.tx_bytes == 340


def test_one_datagram_is_not_cut():
    sender, raw, peer = made()

    sender.send(peer, train(1), 100, 0)

    assert raw.calls == [(100, None, [], V4)]


def test_a_kernel_that_does_not_cut_gets_them_one_by_one():
    sender, raw, peer = made(segments=False)

    sender.send(peer, [memoryview(b"".join(train(last=40)))], 100, 0)

    assert [call[:2] for call in raw.calls] == [(100, None)] * 3 + [(40, None)]
    assert raw.datagrams == train(last=40)
    assert peer.traffic.tx_bytes == 340


@pytest.mark.parametrize(
    ("endpoint", "family", "expected"),
    [
        (V4, socket.AF_INET, (socket.IPPROTO_IP, socket.IP_TOS, struct.pack("=i", 2))),
        (V6, socket.AF_INET6, (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, struct.pack("=i", 2))),
    ],
)
def test_the_ecn_field_goes_beside_the_datagram(endpoint, family, expected):
    raw, sender, peer = FakeRaw(), Sender(segments=True), peer_at(endpoint)
    sender.sockets.append(UdpSocket(raw, family))

    sender.send(peer, train(1), 100, 2)
    sender.send(peer, train(1), 100, 0)

    assert [call[2] for call in raw.calls] == [[expected], []]


# The kernel is full


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ENOBUFS])
def test_what_the_kernel_cannot_take_waits_with_all_that_comes_after_for_that_peer(code):
    sender, raw, peer = made(code)
    sender.send(peer, train(mark=b"a"), 100, 0)
    sender.send(peer, train(mark=b"b"), 100, 0)
    assert sender.is_holding
    assert raw.datagrams == []
    assert peer.traffic.tx_bytes == 0

    sender.resume()

    assert not sender.is_holding
    assert raw.datagrams == train(mark=b"a") + train(mark=b"b")
    assert peer.traffic.tx_bytes == 800
    assert peer.drops == {}


def test_one_by_one_the_rest_waits_in_its_place():
    sender, raw, peer = made(None, None, errno.EAGAIN, errno.EAGAIN, None, errno.EAGAIN, segments=False)
    sender.send(peer, train(mark=b"a"), 100, 0)
    sender.send(peer, train(mark=b"b"), 100, 0)
    while sender.is_holding:
        sender.resume()

    assert raw.datagrams == train(mark=b"a") + train(mark=b"b")
    assert peer.traffic.tx_bytes == 800


@examples(300)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 100)), min_size=1, max_size=8),
    st.lists(
        st.sampled_from([None, None, errno.EAGAIN, errno.ENOBUFS, errno.EIO, errno.EMSGSIZE]), max_size=40
    ),
    st.booleans(),
)
def test_whatever_fails_order_is_kept_and_what_is_lost_is_counted(trains, errors, segments):
    sender, raw, peer = made(*errors, segments=segments)
    sent = []
    for number, (count, last) in enumerate(trains):
        made_now = train(count, 100, last, mark=bytes([number]))
        sent += made_now
        sender.send(peer, made_now, 100, 0)
        if number % 3 == 2:
            sender.resume()
    for _ in range(len(errors) + 1):
        sender.resume()

    assert not sender.is_holding
    positions = [sent.index(datagram) for datagram in raw.datagrams]
    assert positions == sorted(positions)
    assert len(raw.datagrams) + sum(peer.drops.values()) == len(sent)
    assert peer.traffic.tx_bytes == sum(map(len, raw.datagrams))


def test_a_removed_peer_s_datagrams_wait_no_more():
    sender, raw, peer = made(errno.EAGAIN)
    other = peer_at()
    sender.send(peer, train(mark=b"a"), 100, 0)
    sender.send(other, train(mark=b"b"), 100, 0)

    sender.forget(peer)
    sender.resume()

    assert raw.datagrams == train(mark=b"b")


# This path does not fragment


def test_segments_over_the_path_s_mtu_go_one_by_one_this_time():
    sender, raw, peer = made(errno.EMSGSIZE)

    sender.send(peer, train(), 100, 0)
    sender.send(peer, train(), 100, 0)

    assert [call[1] for call in raw.calls] == [100, None, None, None, None, 100]
    assert sender.segments


def test_a_device_that_computes_no_checksums_is_not_asked_again():
    sender, raw, peer = made(errno.EIO)

    sender.send(peer, train(), 100, 0)
    sender.send(peer, train(), 100, 0)

    assert [call[1] for call in raw.calls] == [100] + [None] * 8
    assert raw.datagrams == train() + train()
    assert not sender.segments


def test_a_datagram_that_is_too_big_even_alone_is_counted():
    sender, raw, peer = made()
    raw.always = errno.EMSGSIZE

    for _ in range(2):
        sender.send(peer, train(), 100, 0)

    assert peer.drops == {"too_big": 8}
    assert not sender.is_holding
    assert peer.traffic.tx_bytes == 0


@pytest.mark.parametrize("code", [errno.EPERM, errno.ECONNREFUSED, errno.ENETUNREACH, errno.EINVAL])
def test_any_other_refusal_is_counted(code):
    sender, raw, peer = made()
    raw.always = code

    for _ in range(2):
        sender.send(peer, train(1), 100, 0)

    assert peer.drops == {"send_refused": 2}
    assert not sender.is_holding


def test_a_train_that_is_refused_counts_each_datagram():
    sender, raw, peer = made()
    raw.always = errno.EPERM

    sender.send(peer, train(), 100, 0)

    assert peer.drops == {"send_refused": 4}


# A stale source


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EHOSTUNREACH])
def test_a_local_address_that_is_gone_is_forgotten_and_the_send_repeated(code):
    sender, raw, peer = made(lambda size, others: code if others else None)
    peer.local.answer_from(SOURCE, (4, b"\xc0\0\2\7"))

    sender.send(peer, train(), 100, 0)

    assert [call[2] for call in raw.calls] == [SOURCE, []]
    assert raw.datagrams == train()
    assert peer.local.source == []
    assert peer.drops == {}


def test_a_stale_source_and_a_path_that_does_not_cut_are_told_apart():
    sender, raw, peer = made()
    raw.always = lambda size, others: errno.EINVAL if size or others else None
    peer.local.answer_from(SOURCE, (4, b"\xc0\0\2\7"))

    sender.send(peer, train(), 100, 0)

    assert raw.datagrams == train()
    assert sender.segments


# Which socket


def test_the_first_socket_of_the_endpoint_s_family_is_used():
    sender, raw, _ = made()
    six = UdpSocket(FakeRaw(), socket.AF_INET6)
    sender.sockets.append(six)

    assert sender.socket_for(peer_at(V4)).raw is raw
    assert sender.socket_for(peer_at(V6)) is six


def test_a_socket_that_is_about_to_close_is_not_sent_from():
    sender, raw, peer = made()
    old = sender.sockets[0]
    peer.local.socket = old
    old.closes_at = 10.0
    new = UdpSocket(FakeRaw(), socket.AF_INET)
    sender.sockets.append(new)

    sender.send(peer, train(), 100, 0)

    assert (raw.calls, len(new.raw.calls)) == ([], 1)
    assert new.closes_at == math.inf


def test_a_peer_without_endpoint_or_socket_gets_nothing():
    sender, raw, _ = made()
    nowhere, far = LivePeer(1), peer_at(V6)

    for _ in range(2):
        sender.send(nowhere, train(), 100, 0)
        sender.send_message(far, b"message")
        sender.send_probe(nowhere, b"probe")

    assert raw.calls == []
    assert nowhere.drops == {"no_endpoint": 10}
    assert far.drops == {"no_endpoint": 2}


# Messages of this node


def test_a_message_the_kernel_cannot_take_leaves_later_and_in_its_order():
    sender, raw, peer = made(errno.EAGAIN)

    sender.send_message(peer, b"first")
    sender.send_message(peer, b"second")
    assert sender.is_holding
    assert raw.datagrams == []
    sender.resume()

    assert raw.datagrams == [b"first", b"second"]
    assert not sender.is_holding
    assert peer.traffic.tx_bytes == 11


def test_messages_that_are_held_are_bounded():
    sender, raw, peer = made(errno.EAGAIN)

    for _ in range(1000):
        sender.send_message(peer, b"message")
    sender.resume()

    assert len(raw.datagrams) == 256
    assert peer.drops == {"send_full": 744}


def test_a_message_waits_behind_however_many_packets():
    sender, raw, peer = made()
    raw.always = errno.EAGAIN
    for _ in range(2000):
        sender.send(peer, train(1), 100, 0)
    sender.send_message(peer, b"message")
    raw.always = None

    sender.resume()

    assert raw.datagrams[-1] == b"message"
    assert peer.drops == {"send_full": 2000 - (len(raw.datagrams) - 1)}


@pytest.mark.parametrize(
    ("kind", "expected"), [(TYPE_FRAGMENT, 9 * 40), (TYPE_TRANSPORT, HELD_BYTES // 1400)]
)
def test_of_a_unit_no_part_is_held(kind, expected):
    sender, raw, peer = made()
    raw.always = errno.EAGAIN
    for _ in range(10):
        sender.send(peer, train(40, 1400, mark=bytes([kind])), 1400, 0)
    raw.always = None

    sender.resume()

    assert len(raw.datagrams) == expected


def test_a_peer_whose_datagrams_wait_holds_up_no_other():
    sender, raw, peer = made(errno.EAGAIN)
    other = peer_at(("192.0.2.2", 51820))
    sender.send(peer, train(mark=b"a"), 100, 0)

    sender.send(other, train(mark=b"b"), 100, 0)

    assert raw.datagrams == train(mark=b"b")


def test_what_is_more_than_may_be_held_is_counted():
    sender, raw, peer = made()
    raw.always = errno.EAGAIN
    for number in range(20):
        sender.send(peer, train(40, 1400, mark=bytes([number])), 1400, 0)
    raw.always = None

    sender.resume()

    assert peer.drops == {"send_full": 20 * 40 - len(raw.datagrams)}
    assert len(raw.datagrams) == HELD_BYTES // 1400


def test_what_is_held_is_not_what_the_buffer_has_later():
    sender, raw, peer = made(errno.EAGAIN)
    arena = bytearray(b"x" * 100)
    sender.send(peer, [memoryview(arena)], 100, 0)
    arena[:] = b"y" * 100

    sender.resume()

    assert raw.datagrams == [b"x" * 100]


# Which socket


VXLAN, IPIP, GRE = (ENCAPSULATIONS[name] for name in ("vxlan", "ipip", "gre"))
INET, INET6 = socket.AF_INET, socket.AF_INET6


def sender_over(*sockets):
    """Return a sender that uses *sockets*, given what distinguishes each from a WireGuard socket over IPv4."""
    sender = Sender(segments=True)
    made = []
    for how in sockets:
        options = {"family": INET, **how}
        closes_at = options.pop("closes_at", math.inf)
        udp = UdpSocket(raw := FakeRaw(), options.pop("family"), carrier=raw, **options)
        udp.closes_at = closes_at
        made.append(udp)
    sender.use(made)
    return sender


def peer_of(encapsulation, endpoint=V4):
    peer = LivePeer(1, encapsulation)
    peer.move(endpoint)
    return peer


@pytest.mark.parametrize(
    "other",
    [
        {"family": INET6},
        {"encapsulation": VXLAN},
        {"role": Role.HANDSHAKES},
        {"role": Role.RECEIVES},
        {"closes_at": 100.0},
    ],
)
def test_a_socket_that_does_not_fit_is_passed_over(other):
    sender, peer = sender_over(other, {}, {}), peer_at()

    assert sender.socket_for(peer) is sender.sockets[1] is peer.local.socket

    alone, peer = sender_over(other), peer_at()
    alone.send(peer, train(3), 100, 0)
    assert alone.sockets[0].raw.calls == []
    assert peer.drops == {"no_endpoint": 3}


def test_a_peer_is_sent_to_from_where_it_was_heard_until_that_socket_is_to_be_closed():
    sender, peer = sender_over({}, {}), peer_at()
    peer.local.socket = sender.sockets[1]
    assert sender.socket_for(peer) is sender.sockets[1]

    sender.sockets[1].closes_at = 100.0
    assert sender.socket_for(peer) is sender.sockets[0]


@pytest.mark.parametrize(
    ("endpoint", "marks", "expected"),
    [
        (V4, 0, 0),
        (V4, WHOLE, 1),
        (V4, IPV6, 2),
        (V4, IPV6 | WHOLE, 3),
        (V6, 0, 4),
        (V6, WHOLE | 2, 5),
        (V6, IPV6 | 1, 6),
        (V6, IPV6 | WHOLE, 7),
    ],
)
def test_raw_packets_leave_from_the_socket_of_their_protocol_and_whether_they_may_be_cut(
    endpoint, marks, expected
):
    kinds = [
        {"family": family, "protocol": protocol, "role": role, "encapsulation": IPIP}
        for family in (INET, INET6)
        for protocol in (IPIP.protocols[4], IPIP.protocols[6])
        for role in (Role.SENDS, Role.SENDS_WHOLE)
    ]
    others = [
        {**kinds[expected], **change}
        for change in ({"encapsulation": GRE}, {"role": Role.RECEIVES}, {"closes_at": 100.0})
    ]
    sender, peer = sender_over(*others, *kinds), peer_of(IPIP, endpoint)
    chosen = sender.sockets[len(others) + expected]
    sent = []
    chosen.carrier.send = lambda buffers, size, marks, address, **_: (
        sent.append((size, marks, address)) or len(buffers)
    )

    for _ in range(2):
        sender.send(peer, train(3), 100, marks)

    assert sent == [(100, marks, endpoint)] * 2
    assert peer.traffic.tx_bytes == 600
    assert not peer.drops


def test_raw_packets_leave_from_another_socket_once_theirs_is_to_be_closed():
    kind = {"protocol": IPIP.protocols[4], "role": Role.SENDS, "encapsulation": IPIP}
    sender, peer = sender_over(kind, kind), peer_of(IPIP)
    sent = []
    for number, udp in enumerate(sender.sockets):
        udp.carrier.send = lambda buffers, *_, number=number, **__: sent.append(number) or len(buffers)

    sender.send(peer, train(1), 100, 0)
    sender.sockets[0].closes_at = 100.0
    sender.send(peer, train(1), 100, 0)

    assert sent == [0, 1]


@pytest.mark.parametrize("packed", [False, True])
def test_raw_packets_without_a_socket_or_an_endpoint_are_each_counted(packed):
    sender = sender_over({"protocol": 4, "role": Role.RECEIVES, "encapsulation": IPIP})
    buffers = [memoryview(b"".join(train(4, 100, 40)))] if packed else train(4, 100, 40)
    for peer in (peer_of(IPIP), LivePeer(1, IPIP)):
        sender.send(peer, buffers, 100, 0)

        assert peer.drops == {"no_endpoint": 4}


FLOWS = {"encapsulation": VXLAN, "role": Role.SENDS}


def test_flows_are_spread_over_the_sockets_that_send_alike():
    others, whole = (
        [{**FLOWS, "family": INET6}, {**FLOWS, "closes_at": 100.0}, {}],
        {**FLOWS, "role": Role.SENDS_WHOLE},
    )
    sender, peer = sender_over(*others, FLOWS, FLOWS, FLOWS, whole), peer_of(VXLAN)

    for flow in range(6):
        sender.send(peer, train(1), 100, 0, flow)

    assert [len(udp.raw.calls) for udp in sender.sockets] == [0, 0, 0, 2, 2, 2, 0]


def test_sockets_that_flows_are_spread_over_send_for_themselves():
    """Before, on the compiled path, the pool took the place of the socket used for sending."""
    sender, peer = sender_over(FLOWS, FLOWS), peer_of(VXLAN)

    sender.send(peer, train(1), 100, 0, 1)

    assert [udp.sends_by for udp in sender.sockets] == sender.sockets


def test_flows_leave_from_other_sockets_once_theirs_are_replaced():
    sender, peer = sender_over(FLOWS, FLOWS), peer_of(VXLAN)
    sender.send(peer, train(1), 100, 0, 1)
    old = sender.sockets
    for udp in old:
        udp.closes_at = 100.0

    sender.use([*old, *sender_over(FLOWS, FLOWS).sockets])
    for flow in (1, 2):
        sender.send(peer, train(1), 100, 0, flow)

    assert sender.closes_at == 100.0
    assert [len(udp.raw.calls) for udp in sender.sockets] == [0, 1, 1, 1]


def test_the_next_socket_to_close_is_known_while_there_are_any():
    sender = sender_over({}, {"closes_at": 30.0}, {"closes_at": 20.0})
    assert sender.closes_at == 20.0

    sender.leave(sender.sockets[2])
    assert sender.closes_at == 30.0
    sender.leave(sender.sockets[1])
    assert sender.closes_at == math.inf
    sender.use([])
    assert sender.closes_at == math.inf


def test_a_message_goes_with_its_marks_whenever_it_goes():
    sender, raw, peer = made(errno.EAGAIN)

    sender.send_message(peer, b"first", 2)
    sender.resume()
    sender.send_message(peer, b"second", 2)

    assert [call[2] for call in raw.calls] == [[TOS_2]] * 3
    assert raw.datagrams == [b"first", b"second"]


def test_what_is_sent_under_an_option_is_counted():
    sender, raw, peer = made()
    raw.setsockopt = lambda *_: None

    assert sender.send_probe(peer, b"probe")
    sender.send_cuttable(peer, b"cuttable", 2)

    assert raw.datagrams == [b"probe", b"cuttable"]
    assert [call[2] for call in raw.calls] == [[], [TOS_2]]
    assert peer.traffic.tx_bytes == 13


def test_each_flow_has_the_shares_of_the_socket_that_it_leaves_from():
    """As many sockets send to the peer as there are flows; the buffer of one is crowded,
    those of the others are not.
    """
    sender, peer = Sender(segments=True), peer_of(VXLAN)
    raws = [Ways(V4), Ways(), Ways()]
    sender.use([UdpSocket(raw, INET, queue=raw, **FLOWS) for raw in raws])

    for number in range(3000):
        sender.send(peer, train(40, 1400), 1400, 0, 3 + number % 3)

    each = 1000 * 40 * 1400
    assert [raw.taken[V4] for raw in raws[1:]] == [each, each]
    assert raws[0].taken[V4] + peer.drops["send_full"] * 1400 == each
    assert raws[0].taken[V4] < 2.5 * 2**20
    assert [udp.shares is not None for udp in sender.sockets] == [True, False, False]


def test_what_waits_is_looked_at_where_the_peer_is_sent_to():
    """Even before the first send has chosen a socket, and once that is to be closed."""
    raws = [Ways(V4), Ways(V4)]
    for raw in raws:
        raw.hold(V4, raw.size // 2)
    sender, peer = Sender(segments=True), peer_at()
    sender.use([UdpSocket(raw, INET, queue=raw) for raw in raws])

    sender.look(peer)
    assert [udp.shares is not None for udp in sender.sockets] == [True, False]

    sender.sockets[0].closes_at = 100.0
    sender.look(peer)
    assert [udp.shares is not None for udp in sender.sockets] == [True, True]


def test_a_send_to_nowhere_looks_at_nothing():
    sender = Sender(segments=True)
    sender.use([UdpSocket(raw := Ways(V4), INET, queue=raw)])
    raw.hold(V4, raw.size // 2)

    sender.look(LivePeer(1))

    assert sender.sockets[0].shares is None


# Sends of the compiled twin that failed


@pytest.mark.parametrize("source", [[], SOURCE])
@pytest.mark.parametrize(
    "code",
    [0, *(getattr(errno, name) for name in ("EAGAIN", "ENOBUFS", "EMSGSIZE", "EINVAL", "EIO", "EPERM"))],
)
@pytest.mark.parametrize("how", [{"count": 1}, {}, {"last": 40}])
def test_a_send_that_failed_elsewhere_goes_on_as_if_it_had_failed_here(how, code, source):
    """The first call fails, here or there, and everything that follows is the same."""
    results = []
    for is_elsewhere in (False, True):
        sender, raw, peer = made(*([] if is_elsewhere or not code else [code]))
        raw.setsockopt = lambda *_: None
        if source:
            peer.local.answer_from(source, (4, b"\xc0\0\2\7"))
        peer.path.due = math.inf
        if is_elsewhere:
            sender.refused(peer, train(**how), 100, 2, 0, code)
        else:
            sender.send(peer, train(**how), 100, 2)
            del raw.calls[: code != 0]
        is_holding = sender.is_holding
        sender.send(peer, train(mark=b"b"), 100, 2)
        sender.resume()
        results.append(
            (
                is_holding,
                raw.datagrams,
                raw.calls,
                peer.drops,
                peer.traffic.tx_bytes,
                peer.path.due,
                sender.segments,
            )
        )

    assert results[0] == results[1]


def test_a_send_that_failed_elsewhere_waits_behind_what_is_held():
    sender, raw, peer = made(errno.EAGAIN)
    sender.send(peer, train(mark=b"a"), 100, 0)

    sender.refused(peer, train(mark=b"b"), 100, 0, 0, errno.EPERM)
    sender.refused(peer, train(mark=b"c"), 100, 0, 0, 0)
    sender.resume()

    assert raw.datagrams == [*train(mark=b"a"), *train(mark=b"b"), *train(mark=b"c")]
    assert peer.drops == {}


def test_a_send_that_failed_elsewhere_to_nowhere_is_counted():
    sender = Sender(segments=True)
    peer = peer_at()

    sender.refused(peer, train(), 100, 0, 0, errno.EPERM)

    assert peer.drops == {"no_endpoint": 4}


@pytest.mark.parametrize("code", [0, errno.EAGAIN, errno.EMSGSIZE])
def test_a_send_of_a_flow_that_failed_elsewhere_goes_on_from_the_socket_of_that_flow(code):
    sender, peer = sender_over(FLOWS, FLOWS, FLOWS), peer_of(VXLAN)

    sender.refused(peer, train(), 100, 0, 4, code)
    sender.resume()

    assert [len(udp.raw.datagrams) for udp in sender.sockets] == [0, 4, 0]


class Noted:
    """Shares that record what they are told."""

    is_over = False

    def __init__(self, *, asks):
        self._asks, self.told = asks, []

    def asks(self, _):
        return self._asks

    def admits(self, _):
        return True

    def sent(self, _, size, is_told):
        self.told.append((size, is_told))

    def failed(self):
        self.told.append("failed")


@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize("code", [errno.EAGAIN, errno.EPERM])
def test_shares_of_a_raw_socket_begin_anew_after_a_send_that_was_to_be_told_and_failed(asks, code):
    sender, peer = sender_over({"protocol": 4, "role": Role.SENDS, "encapsulation": IPIP}), peer_of(IPIP)
    (udp,) = sender.sockets
    udp.shares = Noted(asks=asks)
    errors = [code]

    def send(buffers, *_, **__):
        if errors:
            raise OSError(errors.pop(), "")
        return len(buffers)

    udp.carrier.send = send
    sender.send(peer, train(3), 100, 0)

    assert ("failed" in udp.shares.told) is asks


def test_shares_of_a_raw_socket_are_told_what_a_call_has_sent_with_what_each_packet_costs():
    sender, peer = sender_over({"protocol": 4, "role": Role.SENDS, "encapsulation": IPIP}), peer_of(IPIP)
    (udp,) = sender.sockets
    udp.shares = Noted(asks=False)
    udp.carrier.send = lambda buffers, *_, **__: len(buffers)

    sender.send(peer, train(4, last=40), 100, 0)

    assert udp.shares.told == [(340 + 3 * SEND_COST, False)]


def test_a_raw_send_that_failed_elsewhere_is_held_as_far_as_there_is_room():
    sender, peer = sender_over({"protocol": 4, "role": Role.SENDS, "encapsulation": IPIP}), peer_of(IPIP)
    much = [memoryview(bytes(1000)) for _ in range(HELD_BYTES // 1000 + 1)]
    sender.sockets[0].carrier.send = lambda buffers, *_, **__: len(buffers)
    sender.send(peer, train(1), 100, 0)  # the socket is known

    sender.refused(peer, much, 1000, 0, 0, errno.EAGAIN)

    assert sender.is_holding
    assert peer.drops == {"send_full": 1}
