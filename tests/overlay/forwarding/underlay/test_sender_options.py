"""Single sends with an option of the socket changed."""

from __future__ import annotations

import errno
import socket

import pytest

from overlay.encap.encapsulation import Role
from overlay.forwarding.peer import LivePeer
from overlay.forwarding.underlay.sender import Sender
from overlay.forwarding.underlay.udp_socket import UdpSocket
from tests.overlay.forwarding.underlay.sending import TOS_2, V4, V6, FakeRaw, peer_at, train
from tests.overlay.forwarding.underlay.test_sender import FLOWS, INET, VXLAN, peer_of


class SwitchedRaw(FakeRaw):
    """A socket that records its options, and those in force at each send."""

    def __init__(self, *errors):
        super().__init__(*errors)
        self.options, self.under = {}, []

    def setsockopt(self, level, option, value):
        self.options[level, option] = value

    def sendmsg(self, buffers, control, flags, address):
        self.under.append(dict(self.options))
        return super().sendmsg(buffers, control, flags, address)


@pytest.mark.parametrize(
    ("family", "endpoint", "option"), [(socket.AF_INET, V4, (0, 10)), (socket.AF_INET6, V6, (41, 23))]
)
@pytest.mark.parametrize("error", [None, errno.EAGAIN, errno.EMSGSIZE])
def test_a_probe_alone_is_sent_uncut(family, endpoint, option, error):
    raw, sender, peer = SwitchedRaw(error), Sender(segments=True), peer_at(endpoint)
    sender.sockets.append(UdpSocket(raw, family))

    assert sender.send_probe(peer, b"probe") == (error != errno.EMSGSIZE)

    assert raw.under == [{option: 3}]  # IP_PMTUDISC_PROBE
    assert raw.options == {option: 1}  # IP_PMTUDISC_WANT
    assert peer.traffic.tx_bytes == (0 if error else 5)


@pytest.mark.parametrize(
    ("family", "endpoint", "option", "value", "otherwise"),
    [(socket.AF_INET, V4, (0, 10), 0, 1), (socket.AF_INET6, V6, (41, 24), 1280, 0)],
)
def test_a_datagram_that_may_be_cut_is_sent_so(family, endpoint, option, value, otherwise):
    raw, sender, peer = SwitchedRaw(), Sender(segments=True), peer_at(endpoint)
    sender.sockets.append(UdpSocket(raw, family))

    sender.send_cuttable(peer, b"whole")

    assert raw.under == [{option: value}]
    assert raw.options == {option: otherwise}


def test_nothing_is_probed_at_no_endpoint():
    sender, raw = Sender(segments=True), SwitchedRaw()
    sender.sockets.append(UdpSocket(raw, socket.AF_INET))
    peer = LivePeer(1)

    assert sender.send_probe(peer, b"probe")

    assert raw.calls == []
    assert peer.drops["no_endpoint"] == 1


def learning(*errors, endpoint=V4, family=socket.AF_INET, **how):
    """Return a sender over one socket that makes routers report what is too large, the socket, and a peer."""
    raw, sender = SwitchedRaw(*errors), Sender(segments=True)
    udp = UdpSocket(raw, family, **how)
    udp.discovery.learn(True)
    sender.sockets.append(udp)
    return sender, raw, peer_at(endpoint)


def test_routers_are_not_to_cut_trains_so_that_the_kernel_learns_from_them():
    sender, raw, peer = learning()

    sender.send(peer, train(), 100, 0)

    assert raw.under == [{(0, 10): 2}]  # IP_PMTUDISC_DO
    sender.sockets[0].discovery.learn(False)
    assert raw.options == {(0, 10): 1}


@pytest.mark.parametrize(
    "how",
    [
        {"family": socket.AF_INET6},
        {"role": Role.SENDS_WHOLE},
        {"role": Role.RECEIVES},
        {"protocol": 4},
        {"protocol": 4, "role": Role.SENDS},
    ],
)
def test_other_sockets_stay_as_the_agent_made_them(how):
    _, raw, _ = learning(**how)

    assert raw.options == {}


def test_what_the_kernel_would_not_send_whole_it_cuts_that_once():
    sender, raw, peer = learning(errno.EMSGSIZE)
    peer.path.due = 7.0

    sender.send(peer, [memoryview(b"x" * 1400)], 1400, 2)

    assert raw.under == [{(0, 10): 2}, {(0, 10): 0}]
    assert [control for _, _, control, _ in raw.calls] == [[TOS_2], [TOS_2]]
    assert raw.options == {(0, 10): 2}
    assert raw.datagrams == [b"x" * 1400]
    assert (peer.traffic.tx_bytes, peer.drops, peer.path.due) == (1400, {}, 0.0)


def test_what_of_a_flow_the_kernel_cuts_leaves_from_the_socket_of_that_flow():
    sender, peer = Sender(segments=True), peer_of(VXLAN)
    raws = [SwitchedRaw(), SwitchedRaw(errno.EMSGSIZE), SwitchedRaw()]
    sender.use([UdpSocket(raw, INET, **FLOWS) for raw in raws])
    for udp in sender.sockets:
        udp.discovery.learn(True)

    sender.send(peer, [memoryview(b"x" * 1400)], 1400, 0, 1)

    assert [len(raw.calls) for raw in raws] == [0, 2, 0]
    assert raws[1].datagrams == [b"x" * 1400]
    assert peer.drops == {}


def test_a_train_whose_segments_are_too_large_goes_one_by_one_and_cut():
    sender, raw, peer = learning(errno.EMSGSIZE, *[errno.EMSGSIZE, None] * 4)

    sender.send(peer, train(), 100, 0)

    assert raw.datagrams == train()
    assert (peer.traffic.tx_bytes, peer.path.due) == (400, 0.0)


def test_what_is_too_large_for_any_datagram_is_dropped_and_counted():
    sender, raw, peer = learning(errno.EMSGSIZE, errno.EMSGSIZE)

    sender.send(peer, [memoryview(bytes(65520))], 65520, 0)

    assert raw.datagrams == []
    assert peer.drops == {"too_big": 1}


@pytest.mark.parametrize("fails", [(), (errno.EAGAIN,), (errno.EHOSTUNREACH,)])
@pytest.mark.parametrize("rests", [False, True])
@pytest.mark.parametrize("omits", [False, True])
def test_each_send_is_under_the_mode_of_its_peer_and_the_socket_rests_in_its_own(rests, omits, fails):
    sender, raw, peer = learning(*fails)
    if rests:
        sender.sockets[0].discovery.omit(peer, 1.0)
    before = dict(raw.options)
    peer.path.omits = omits

    sender.send(peer, train(), 100, 0)

    assert raw.under == [{(0, 10): 5 if omits else 2}]  # IP_PMTUDISC_OMIT, IP_PMTUDISC_DO
    assert raw.options == before == {(0, 10): 5 if rests else 2}


@pytest.mark.parametrize(
    ("family", "left", "options"),
    [
        (socket.AF_INET, {(0, 10): 2}, {(0, 10): 1}),  # IP_PMTUDISC_DO, IP_PMTUDISC_WANT
        (socket.AF_INET6, {(41, 23): 3, (41, 24): 1280}, {(41, 23): 1, (41, 24): 0}),
    ],
)
def test_a_socket_that_is_come_back_to_has_the_options_with_which_the_agent_opened_it(family, left, options):
    raw = SwitchedRaw()
    raw.options |= left
    udp = UdpSocket(raw, family)

    udp.discovery.undo()
    udp.discovery.learn(False)

    assert raw.options == options


@pytest.mark.parametrize("how", [{"role": Role.RECEIVES}, {"protocol": 4, "role": Role.SENDS}])
def test_what_the_agent_set_on_other_sockets_is_not_undone(how):
    raw = SwitchedRaw()
    raw.options[0, 10] = 0

    UdpSocket(raw, socket.AF_INET, **how).discovery.undo()

    assert raw.options == {(0, 10): 0}
