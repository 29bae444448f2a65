"""The twin handles flows of services, whatever their server, as Python would."""

from __future__ import annotations

import errno

import pytest

from overlay.forwarding import native
from overlay.link.messages import OWN
from overlay.link.service_messages import PermitRow, ServerRow, SetPermits, SetServers
from tests import packets
from tests.both_paths import VIPS, Story, noted_by_python

pytestmark = pytest.mark.skipif(native.core is None, reason=f"no compiled packet path: {native.missing}")


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("peer", "dscp"), [(1, 0), (1, 10), (OWN, 0), (OWN, 12)])
def test_established_flows_of_a_service_go_by_the_twin_whatever_server_has_them(peer, dscp, version):
    story = Story(True, 1, by="services")
    director, server = story.nodes
    director.tell(SetServers(0, [ServerRow(0, "b:0", peer, 1, 0, dscp)], []))
    story.world.run(1)
    ends = {"source": director.inner(version), "destination": str(VIPS[version == 6]), "ports": (40000, 80)}
    taking = server if peer == 1 else director

    def visit(flags, count=1):
        packet = packets.tcp(bytes(9), version=version, flags=flags, **ends)
        director.tun.outgoing += [packets.PLAIN + packet] * count
        story.world.run(1)

    for flags in (2, 16, 16):  # SYN, ACK
        visit(flags)
    left = noted_by_python(director)
    before = len(taking.tun.writes)
    visit(16, 5)

    assert left == []
    assert len(taking.tun.writes) == before + 5
    packet = taking.tun.writes[-1][len(packets.PLAIN) :]
    assert (packet[1] >> 2 if version == 4 else (packet[0] & 15) << 2 | packet[1] >> 6) == dscp
    (chosen,) = director.core.services._balancer.service(0).servers
    assert chosen.packets == 8


@pytest.mark.parametrize("error", [errno.EAGAIN, errno.EIO])
@pytest.mark.parametrize("is_compiled", [False, True], ids=["python", "compiled"])
def test_what_the_tun_does_not_take_of_a_flow_to_this_node_is_this_node_s_drop(is_compiled, error):
    story = Story(is_compiled, 1, by="services")
    director, _ = story.nodes
    director.tell(SetServers(0, [ServerRow(0, "own:0", OWN, 1, 0)], []))
    story.world.run(1)
    ends = {"source": director.inner(), "destination": str(VIPS[0]), "ports": (40000, 80)}
    for number, flags in enumerate((2, 16, 16, 16)):
        if number == 3:
            director.tun.error = OSError(error, "down")
            before = director.drops
        director.tun.outgoing.append(packets.PLAIN + packets.tcp(flags=flags, **ends))
        story.world.run(1)

    assert director.drops - before == {"tun_full" if error == errno.EAGAIN else "tun_refused": 1}


@pytest.mark.parametrize("is_compiled", [False, True], ids=["python", "compiled"])
def test_clients_of_this_node_are_noted_once_answers_go_back_through_directors(is_compiled):
    story = Story(is_compiled, 1, by="services")
    director, _ = story.nodes
    director.tell(SetServers(0, [ServerRow(0, "own:0", OWN, 1, 0)], []))
    story.world.run(1)
    ends = {"source": director.inner(), "destination": str(VIPS[0]), "ports": (40000, 80)}

    def visit(flags):
        director.tun.outgoing.append(packets.PLAIN + packets.tcp(flags=flags, **ends))
        story.world.run(1)

    for flags in (2, 16, 16):  # SYN, ACK
        visit(flags)
    director.tell(SetPermits([PermitRow(VIPS[0].packed, False, [1], [6], [(80, 80)], True)]))
    visit(16)

    (noted,) = director.core.services.permits._returns.values()
    assert noted.number == OWN


def test_packets_behind_one_to_this_node_make_no_table_on_either_path():
    """Before, the twin delivered the first without a place of its own, so Python made a table of those behind it, and
    said hello behind all of them; without the twin it did so behind the first of them.
    """
    outcomes = []
    for is_compiled in (False, True):
        story = Story(is_compiled, 1, by="services")
        director, server = story.nodes
        director.tell(SetServers(0, [ServerRow(0, "own:0", OWN, 1, 0)], []))
        story.world.run(1)
        ends = {"source": director.inner(), "destination": str(VIPS[0]), "ports": (40000, 80)}
        own = packets.PLAIN + packets.tcp(bytes(50), **ends)
        director.send(server, 1, 20)
        story.world.run(3)
        for flags in (2, 16, 16):  # SYN, ACK
            director.tun.outgoing.append(packets.PLAIN + packets.tcp(flags=flags, **ends))
            story.world.run(1)
        director.send(server, 1, 20)  # then the path is not looked at for a while
        story.world.run(0.01)
        sent = len(story.seen)
        large = packets.tcp(bytes(1340), source=director.inner(), destination=server.inner())
        director.core.outbound.pace.took(2)
        director.tun.outgoing += [own, *[packets.PLAIN + large] * 5]
        director.turn()
        outcomes.append([len(flight.datagram) for flight in story.seen[sent:]])
        assert len(director.tun.writes) == 4

    assert outcomes[0][0] > outcomes[0][1], "a hello behind the first"
    assert outcomes[0] == outcomes[1]
