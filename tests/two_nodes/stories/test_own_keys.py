"""A whole node whose private key is replaced while packets flow, and peers that learn of it at their own times."""

import pytest

from overlay.crypto.keys import PrivateKey
from overlay.link import messages as link
from overlay.session.outputs import Completed
from tests.two_nodes.stories.talking import connected, keep_talking

NEW = PrivateKey(bytes(range(32)))


def use_keys(node, *keys):
    """Have *node* answer to *keys*, as its agent does at a reload."""
    for command in node.engine.change_key(*keys):
        node.tell(command)
    node.set_node(public_keys=[key.public for key in keys])


def learn(node, key):
    """Have *node* know its peer by another public key, as at a reload: as another peer."""
    _, psk, keepalive, endpoint, subnets = node.known[1]
    node.known[1] = key.public, psk, keepalive, endpoint, subnets
    node.engine.sessions.remove_peer(1)
    node.engine.sessions.add_peer(1, key.public, psk)
    node.tell(link.RemovePeer(1))
    node._tell_peer(1)
    node.want(1)


def talk(world, a, b):
    """Have both talk for a second; return whether all of it arrived."""
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
    world.run(200)
    assert talk(world, a, b)

    assert a.engine.sessions.status(1).own_key == NEW.public
    assert a.drops["mac1"] == b.drops["mac1"] == 0


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
