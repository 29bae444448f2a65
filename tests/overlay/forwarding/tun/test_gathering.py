from __future__ import annotations

import pytest

from overlay.session.constants import REKEY_AFTER_TIME
from tests.both_paths import seal
from tests.network import Flight
from tests.sim import World


@pytest.mark.parametrize("version", [4, 6])
def test_messages_of_one_flow_that_come_in_several_receives_enter_the_tun_in_one_write(version):
    world = World()
    a, b = world.pair()
    a.send(b)
    world.run(1)
    b.tun.writes.clear()
    b.received.clear()
    b.gro_count = 4
    b.core.sender.sockets[0].pace.took(2)

    sent = a.send_super(b, 12 * 1340, 1340, version)
    world.run(1)

    assert (b.received, len(b.tun.writes)) == (sent, 1)


def test_a_receive_of_another_session_does_not_go_on_with_what_is_gathered():
    world = World()
    a, b = world.pair()
    a.send(b)
    world.run(1)
    before = a.peer().keypairs.current
    world.run(REKEY_AFTER_TIME)
    a.send(b)
    world.run(1)
    after = a.peer().keypairs.current
    segments = a.send_super(b, 8 * 1368, 1368)
    a.tun.outgoing.clear()
    b.tun.writes.clear()
    b.received.clear()
    b.gro_count = 4
    b.core.sender.sockets[0].pace.took(2)

    messages = [seal(before, each.ljust(1420, b"\0")) for each in segments[:4]]
    messages += [seal(after, each.ljust(1420, b"\0")) for each in segments[4:]]
    ends = (a.addresses[0], a.port), (b.addresses[0], b.port)
    b.sockets[0].inbox += [Flight(*ends, each) for each in messages]
    b.turn()

    assert before is not after
    assert (b.received, len(b.tun.writes)) == (segments, 2)


def test_as_many_messages_as_one_receive_may_have_are_gathered_and_no_more():
    world = World()
    a, b = world.pair()
    a.send(b)
    world.run(1)
    taken, take = [], b.core.inbound.take
    b.core.inbound.take = lambda received, size, stride: (
        taken.append(size // stride) or take(received, size, stride)
    )
    b.gro_count = 30
    b.core.sender.sockets[0].pace.took(2)
    sent = a.send(b, 200, 100)

    world.run(1)

    assert b.received[-200:] == sent
    assert max(taken) <= 64
