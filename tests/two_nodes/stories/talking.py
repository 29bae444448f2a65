"""Sessions that exist before a story begins, and traffic during it."""

from __future__ import annotations

RTT = 0.02


def connected(world, a, b):
    """Let *a* and *b* shake hands and use the session both ways; discard the packets."""
    a.send(b)
    world.run(1)
    b.send(a)
    world.run(1)
    assert len(a.received) == len(b.received) == 1
    a.received.clear()
    b.received.clear()


def keep_talking(world, a, b, seconds, step=1.0):
    """Send one packet each way every *step* seconds; return what each must have received."""
    to_a, to_b = [], []
    for _ in range(int(seconds / step)):
        to_b += a.send(b)
        to_a += b.send(a)
        world.run(step)
    return to_a, to_b


def keypair_age(world, node, number=1):
    return world.clock.now - node.peer(number).keypairs.current.created
