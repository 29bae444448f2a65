"""Two nodes whose path has a smaller MTU than the tun: the search for it, and the consequences."""

from __future__ import annotations

import struct

import pytest

from overlay.encap.encapsulation import Role
from overlay.link import messages as link
from overlay.link.messages import AskCounters
from overlay.wire.fragments import may_be_cut
from tests import packets
from tests.overlay.wire.test_fragments import reassemble
from tests.overlay.wire.test_mss import extended, mss_of, plain, syn
from tests.sim import World

CIPHERS = [2, 1]
OUTER = 20 + 8 + 32  # IPv4, UDP, transport message


@pytest.fixture
def world():
    world = World(ciphers=CIPHERS)
    yield world
    print(world.trace)  # noqa: T201  pytest shows it for a test that failed


def narrow(world, mtu, **how):
    """Return two nodes that have exchanged packets, then let the path have an MTU of *mtu* bytes, and continue."""
    a, b = world.pair(**how)
    talk(world, a, b, 5)
    world.network.mtu = mtu + OUTER
    talk(world, a, b, 10)
    forget(a, b)
    return a, b


def talk(world, a, b, seconds, segment=1360):
    for _ in range(int(seconds * 2)):
        a.send_super(b, 3000, segment)
        b.send_super(a, 3000, segment)
        world.run(0.5)


def forget(*nodes):
    for node in nodes:
        node.received.clear()
        node.world.network.sent.clear()


def df(packet):
    return packets.with_ip_checksum(packet[:6] + b"\x40\0" + packet[8:])


def free(packet):
    return packets.with_ip_checksum(packet[:6] + b"\0\0" + packet[8:])


def put(node, *whole):
    node.tun.outgoing += [packets.PLAIN + packet for packet in whole]


def icmp_mtus(node, version=4):
    """Return what the errors say that were written into the tun of *node*."""
    told = []
    for packet in node.received:
        if version == 4 and packet[0] >> 4 == 4 and packet[9] == 1 and packet[20:22] == b"\3\4":
            told.append(struct.unpack("!H", packet[26:28])[0])
        elif version == 6 and packet[0] >> 4 == 6 and packet[6] == 58 and packet[40] == 2:
            told.append(struct.unpack("!I", packet[44:48])[0])
    return told


def udp(a, b, size, version=4):
    return packets.udp(
        bytes(n % 251 for n in range(size - (28 if version == 4 else 48))),
        version=version,
        source=a.inner(version),
        destination=b.inner(version),
    )


# The search


def test_both_ends_find_the_mtu_of_a_path_that_became_narrower(world):
    a, b = narrow(world, 1350)

    assert a.peer().path.mtu == b.peer().path.mtu == 1344


def test_it_is_found_by_a_session_that_begins_on_a_narrow_path(world):
    a, b = world.pair()
    world.network.mtu = 1350 + OUTER

    talk(world, a, b, 10)

    assert a.peer().path.mtu == b.peer().path.mtu == 1344


def test_it_is_found_although_a_new_session_began_and_tcp_is_down_to_single_segments(world):
    """Before, the peer was called again because nothing was heard of it, and no super-packet came to
    trigger a hello.
    """
    a, b = world.pair()
    talk(world, a, b, 10)
    world.network.mtu = 1350 + OUTER
    a.want(1)
    world.run(1)

    for _ in range(10):
        put(a, df(udp(a, b, 1400)))
        world.run(1)

    assert a.peer().path.mtu == 1344


def forge(world, a, b, mtu=600):
    """Let the kernel of *a* believe a stranger's ICMP error about the path to *b*."""
    world.network.tells = True
    a.known_mtus[b.addresses[0]] = mtu


def test_where_handshakes_come_by_a_socket_of_their_own_packets_go_by_the_other_from_the_first_on(world):
    """Before, one that only receives was never switched: what routers said about a path did not count, or counted for
    all.
    """
    a, b = world.pair()
    for node in (a, b):
        node.open_sockets((Role.ALL, Role.HANDSHAKES))
    world.run(60)
    world.network.lose = lambda flight: flight.kind not in {"initiation", "response"}

    a.send(b)
    world.run(5)

    assert a.peer().keypairs.current is not None
    assert a.peer().local.socket.role == b.peer().local.socket.role == Role.ALL


@pytest.mark.parametrize("size", [100, 1300], ids=["what fits anyway", "what would not fit"])
def test_of_an_agent_that_had_no_super_packet_yet_a_forged_error_is_found_out(world, size):
    """Before, until the first super-packet the kernel's value counted, for anybody who sent one such error in ten
    minutes.
    """
    a, b = world.pair()
    a.send(b)
    world.run(1)
    forge(world, a, b)

    for _ in range(20):
        a.send(b, size=size)
        world.run(0.5)
    forget(a, b)
    sent = a.send(b, 3, size=1300)
    world.run(1)

    assert b.received == sent
    assert a.peer().path.search.is_confirmed


@pytest.mark.parametrize("at_once", [1, 12], ids=["singly", "alike"])
def test_large_packets_that_are_no_super_packets_have_the_path_searched_too(world, at_once):
    """Pings, DNS and calls: if ICMP is filtered, nothing else reveals that the path does not carry them."""
    a, b = world.pair()
    world.network.mtu = 1300 + OUTER
    for _ in range(20):
        put(a, *[df(udp(a, b, 1390)) for _ in range(at_once)])
        world.run(0.5)
    assert a.peer().path.search.is_confirmed
    forget(a, b)

    put(a, df(udp(a, b, 1390)))
    world.run(1)
    (error,) = a.received
    assert int.from_bytes(error[26:28], "big") == a.peer().path.mtu <= 1300
    sent = df(udp(a, b, a.peer().path.mtu))
    put(a, sent)
    world.run(1)

    assert b.received == [sent]


def test_packets_that_every_path_takes_have_nobody_asked(world):
    a, b = world.node("a"), world.node("b")
    b.ciphers = []
    b.restart_forwarder()
    a.know(b)
    b.know(a)
    for _ in range(30):
        put(a, udp(a, b, 1280))
        world.run(1)
    assert not b.drops

    for _ in range(100):
        put(a, udp(a, b, 1281))
        world.run(1)

    assert b.drops == {"inner_version": 3}  # and then less and less often


def test_a_peer_that_may_be_no_agent_of_ours_is_asked_three_times_whether_a_path_is_so_narrow(world):
    a, b = world.node("a"), world.node("b")
    b.ciphers = []
    b.restart_forwarder()
    a.know(b)
    b.know(a)
    a.send(b)
    world.run(1)
    forge(world, a, b)

    for _ in range(100):
        a.send(b)
        world.run(1)

    assert b.drops["inner_version"] == 3


def test_it_rises_again(world):
    a, b = narrow(world, 1350)
    world.network.mtu = 1500

    talk(world, a, b, world.timing.path_raise_time + 5)

    assert min(a.peer().path.mtu, b.peer().path.mtu) > a.mtu


@pytest.mark.slow
def test_what_fits_arrives_on_a_narrow_path_whole_and_as_units(world):
    a, b = narrow(world, 1350)
    talk(world, a, b, 70, segment=1200)  # units are tried again after a pause
    forget(a, b)

    sent = a.send_super(b, 50_000, segment=1200)
    world.run(1)

    assert b.received == sent
    fragments = [size for _, who, kind, size in world.network.sent if (who, kind) == ("a", "fragment")]
    assert fragments
    assert max(fragments) == 1344 + 32


def test_nothing_is_probed_while_nothing_is_sent(world):
    a, b = world.pair()
    talk(world, a, b, 5)
    world.run(5)
    forget(a, b)

    world.run(60)

    assert all(size < 500 for *_, size in world.network.sent)


def test_no_probe_goes_to_a_peer_that_has_not_said_that_it_answers():
    world = World()
    a, b = world.pair()

    talk(world, a, b, 5)

    assert a.peer().path.search is None


def test_where_this_host_s_device_is_narrower_the_kernel_goes_on_to_cut(world):
    a, b = world.pair()
    a.device_mtu = 1280

    talk(world, a, b, 10)

    assert a.peer().path.mtu > a.mtu


def test_a_peer_at_another_endpoint_is_searched_for_anew(world):
    a, b = narrow(world, 1350)
    world.network.mtu = 1500
    a.tell(link.SetEndpoint(1, (b.addresses[1], b.port, 0, 0), "configuration"))

    talk(world, a, b, 3)

    assert a.peer().path.mtu > a.mtu


def test_the_path_s_mtu_is_told_with_the_counters(world):
    a, _ = narrow(world, 1350)

    a.tell(AskCounters(1))
    world.run(0.1)

    (told,) = [report for report in a.reported if isinstance(report, link.Counters)]
    assert told.peers[0].path_mtu == 1344


# What does not fit


@pytest.mark.parametrize("version", [4, 6])
def test_the_sender_of_a_packet_that_must_not_be_cut_is_told(world, version):
    a, b = narrow(world, 1350)
    packet = udp(a, b, 1345, version)

    put(a, df(packet) if version == 4 else packet)
    world.run(1)

    assert icmp_mtus(a, version) == [1344]
    assert a.peer().drops["path_mtu"]
    assert not [each for each in b.received if len(each) > 1300]


@pytest.mark.parametrize("version", [4, 6])
def test_the_sender_of_a_super_packet_whose_segments_do_not_fit_is_told(world, version):
    a, b = narrow(world, 1350)

    a.send_super(b, 20_000, segment=1344 - (40 if version == 4 else 60) + 1, version=version)
    world.run(1)

    assert len(icmp_mtus(a, version)) == 1
    assert b.received == []


@pytest.mark.parametrize("version", [4, 6])
def test_a_super_packet_whose_segments_just_fit_passes(world, version):
    a, b = narrow(world, 1350)

    sent = a.send_super(b, 20_000, segment=1344 - (40 if version == 4 else 60), version=version)
    world.run(1)

    assert b.received == sent


def test_a_packet_as_large_as_the_path_takes_passes(world):
    a, b = narrow(world, 1350)
    sent = df(udp(a, b, 1344))

    put(a, sent)
    world.run(1)

    assert b.received == [sent]


def test_ipv4_without_df_is_cut_in_fragments(world):
    a, b = narrow(world, 1350)
    sent = free(udp(a, b, 1400))

    put(a, sent)
    world.run(1)

    assert len(b.received) == 2
    assert all(may_be_cut(piece) for piece in b.received)
    assert reassemble(b.received) == sent[20:]


def test_ipv6_up_to_1280_passes_a_path_that_takes_less(world):
    a, b = narrow(world, 1200)
    assert a.peer().path.mtu == 1200
    sent = udp(a, b, 1280, version=6)

    put(a, sent, udp(a, b, 1281, version=6))
    world.run(1)

    assert b.received == [sent]
    assert icmp_mtus(a, version=6) == [1280]


# TCP


@pytest.mark.parametrize("version", [4, 6])
def test_syns_both_ways_announce_no_more_than_fits(world, version):
    a, b = narrow(world, 1350)
    ends = {"source": a.inner(version), "destination": b.inner(version)}

    put(a, syn(1460, version, **ends))
    world.run(1)

    (there,) = b.received
    assert mss_of(there) == 1344 - (40 if version == 4 else 60)
    assert packets.is_l4_checksum_right(there)


def test_a_syn_from_a_peer_that_clamps_nothing_is_clamped_here(world):
    a, b = narrow(world, 1350)
    a.peer().path.mtu = 1 << 17
    a.core.outbound.splitter.mtu = 9000

    put(
        a,
        *[
            syn(1460, ports=(4000 + number, 80), source=a.inner(), destination=b.inner())
            for number in range(9)
        ],
    )
    world.run(1)

    assert [mss_of(packet) for packet in b.received] == [1304] * 9


def test_a_syn_is_clamped_to_the_tun_s_mtu_where_the_path_takes_it_all(world):
    a, b = world.pair()

    put(a, syn(8960, source=a.inner(), destination=b.inner()))
    world.run(1)

    assert mss_of(b.received[0]) == 1380


@pytest.mark.parametrize("version", [4, 6])
def test_syns_that_come_many_at_once_are_clamped_one_by_one(world, version):
    a, b = narrow(world, 1350)
    ends = {"source": a.inner(version), "destination": b.inner(version)}

    put(a, *[syn(1460, version, ports=(4000 + number, 80), **ends) for number in range(20)])
    world.run(1)

    assert [mss_of(packet) for packet in b.received] == [1344 - (40 if version == 4 else 60)] * 20


def test_syns_with_options_that_come_many_at_once_are_clamped_one_by_one(world):
    a, b = narrow(world, 1350)
    ends = {"source": a.inner(), "destination": b.inner(), "options": bytes([1]) * 8}

    put(a, *[syn(1460, ports=(4000 + number, 80), **ends) for number in range(20)])
    world.run(1)

    assert [mss_of(packet) for packet in b.received] == [1304] * 20


def test_syns_behind_extension_headers_that_come_many_at_once_are_clamped_one_by_one(world):
    a, b = narrow(world, 1350)
    ends = {"source": a.inner(6), "destination": b.inner(6)}

    put(a, *[extended(syn(1460, 6, ports=(4000 + number, 80), **ends), 60) for number in range(20)])
    world.run(1)

    assert [mss_of(plain(packet, 8)) for packet in b.received] == [1284] * 20


def test_packets_of_one_size_that_come_many_at_once_do_not_pass_unseen(world):
    a, b = narrow(world, 1350)

    put(a, *[df(udp(a, b, 1400))] * 20)
    world.run(1)

    assert b.received == []
    assert a.peer().drops["path_mtu"] >= 20
