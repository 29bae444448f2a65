"""A whole node whose private key is replaced while packets flow, and peers that learn of it at different times."""

import itertools
import random

import pytest

from overlay.crypto.keys import PrivateKey
from overlay.link import messages as link
from overlay.session.outputs import Completed
from tests.two_nodes.stories.talking import connected, keep_talking

NEW = PrivateKey(bytes(range(32)))


def use_keys(node, *keys):
    """Make *node* answer to *keys*, as its agent does at a reload."""
    for command in node.engine.change_key(*keys):
        node.tell(command)
    node.set_node(public_keys=[key.public for key in keys])


def learn(node, key):
    """Make *node* know its peer by another public key, as at a reload."""
    node.learn(1, key.public)


def talk(world, a, b):
    """Let both exchange packets for a second; return whether all of them arrived."""
    to_a, to_b = keep_talking(world, a, b, 1, 0.05)
    return (a.received[-len(to_a) :], b.received[-len(to_b) :]) == (to_a, to_b)


def test_key_is_replaced_from_begin_to_finish_and_nothing_is_lost(world, pair):
    a, b = pair
    old = a.key
    connected(world, a, b)

    use_keys(a, old, NEW)
    assert talk(world, a, b)
    learn(b, NEW)
    world.run(0.2)
    assert talk(world, a, b)
    use_keys(a, NEW, old)
    assert talk(world, a, b)
    use_keys(a, NEW)
    assert talk(world, a, b)
    world.run(20)
    assert len(b.core.by_index) == 1  # what was made with the old key is gone
    assert talk(world, a, b)
    world.run(200)
    assert talk(world, a, b)

    assert a.engine.sessions.status(1).own_key == NEW.public
    assert a.drops["mac1"] == b.drops["mac1"] == 0


def test_not_a_packet_waits_or_is_lost_while_the_new_handshake_takes_its_time(world, pair):
    """Before, the session was gone at once, and with it what was in flight."""
    a, b = pair
    connected(world, a, b)
    use_keys(a, a.key, NEW)
    lost = []
    world.network.lose = lambda flight: flight.kind != "data" and len(lost) < 2 and not lost.append(flight)

    learn(b, NEW)
    for _ in range(12):
        assert talk(world, a, b)

    assert len(lost) == 2
    assert a.engine.sessions.status(1).own_key == NEW.public


def test_peer_that_has_another_key_and_does_not_answer_by_it_is_cut_off_in_15_s(world, pair):
    """Whoever has the old key, which may have been stolen."""
    a, b = pair
    connected(world, a, b)

    learn(b, NEW)
    assert talk(world, a, b)
    world.run(15)
    sent = a.send(b)
    world.run(1)

    assert not set(sent) & set(b.received)
    assert b.core.by_index == {}


@pytest.mark.parametrize("seed", range(3))
def test_forwarder_that_lies_while_two_keys_are_in_use_makes_no_peer_count_as_one_that_has_the_new_key(
    world, pair, seed
):
    a, b = pair
    connected(world, a, b)
    use_keys(a, a.key, NEW)
    learn(b, NEW)  # in its handover, with keypairs initiated by both
    chance = random.Random(seed)
    indices = [*a.core.by_index, *b.core.by_index, 0, 2**32 - 1]
    for node, _ in itertools.product((a, b), range(100)):
        number, endpoint = chance.choice([1, 2, 0]), ("192.0.2.66", chance.randrange(1, 65536))
        index = chance.choice([*indices, chance.randrange(2**32)])
        datagram = (
            bytes([chance.choice([1, 2, 3, 4])]) + bytes(3) + chance.randbytes(chance.choice([60, 88, 144]))
        )
        lie = chance.choice(
            [
                link.Confirmed(number, index),
                link.Retired(index),
                link.SessionWanted(number, False),
                link.Silence(number, chance.random() < 0.5),
                link.Handshake(datagram, endpoint),
            ]
        )
        node._carry_out(node.engine.take(lie, world.clock.now))

    assert a.engine.sessions.status(1).own_key == a.key.public
    world.run(30)
    assert a.engine.sessions.status(1).own_key == NEW.public
    assert talk(world, a, b)
    assert len(a.engine.sessions._indices) <= 3
    assert len(b.engine.sessions._indices) <= 3


def test_packets_for_a_peer_that_knows_the_new_key_wait_for_one_retry_at_most(world, pair):
    a, b = pair
    use_keys(a, a.key, NEW)
    b.known[1] = NEW.public, *b.known[1][1:]
    b.engine.sessions.remove_peer(1)
    b.engine.sessions.add_peer(1, NEW.public)

    sent = a.send(b, 3)
    world.run(6)

    assert b.received == sent
    assert a.logged(Completed)[-1].took < 6


@pytest.mark.parametrize("knows_new", [False, True])
def test_restart_in_the_middle_leaves_the_peer_reachable_by_what_it_knows(world, pair, knows_new):
    a, b = pair
    old = a.key
    connected(world, a, b)
    use_keys(a, old, NEW)
    if knows_new:
        learn(b, NEW)
        world.run(1)

    a.restart()
    use_keys(a, old, NEW)
    a.want(1)
    world.run(8)

    assert talk(world, a, b)
    assert a.engine.sessions.status(1).own_key == (NEW if knows_new else old).public


def test_aborted_key_leaves_a_session_that_is_renewed_by_the_old_one(world, pair):
    a, b = pair
    old = a.key
    connected(world, a, b)
    use_keys(a, old, NEW)

    use_keys(a, old)
    world.run(130)

    assert talk(world, a, b)
    assert a.engine.sessions.status(1).own_key == old.public
