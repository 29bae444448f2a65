"""Streams of super-packets that are sent as units, and their outcome."""

from __future__ import annotations

from collections import Counter

from overlay.wire import control
from overlay.wire.bulk import AES_256_GCM, CHACHA20_POLY1305

BOTH = [AES_256_GCM, CHACHA20_POLY1305]
RTT = 0.02
# Bytes on the wire: datagrams of these sizes are control messages if a story sends nothing else this small.
HELLO = 32 + len(control.build(control.Hello(tuple(BOTH), 65_555, 255, 1420, is_answer=True)))


class Stream:
    """A TCP stream of super-packets from one node to another."""

    def __init__(self, world, sender, receiver, **how):
        self.world, self.sender, self.receiver, self.how = world, sender, receiver, how
        self.sent, self.number = [], 0

    def go_on(self, seconds, every=0.01, size=20_000):
        """Send a super-packet each *every* seconds; return the segments sent."""
        sent = []
        for _ in range(round(seconds / every)):
            sent += self.sender.send_super(self.receiver, size, sequence=self.number, **self.how)
            self.number += size
            self.world.run(every)
        self.sent += sent
        return sent


def connected(world, a, b):
    """Let both ends say hello and send until units are whole; forget what was sent."""
    for _ in range(5):
        a.send_super(b, 3000)
        world.run(0.5)
        b.send_super(a, 3000)
        world.run(0.5)
    forget(a, b)
    assert a.peer().keypairs.current.bulk.key
    assert b.peer().keypairs.current.bulk.key


def forget(*nodes):
    for node in nodes:
        node.received.clear()
        node.world.network.sent.clear()


def kinds(world, by=None):
    return Counter(kind for _, who, kind, _ in world.network.sent if by in {None, who})


def are_units_in_use(node, number=1):
    """Return whether the next super-packet would go as a unit."""
    keypair = node.peer(number).keypairs.current
    return keypair.bulk.key is not None and keypair.bulk.size.allowed(node.world.clock.now) > 0


def missing(sent, received):
    return Counter(sent) - Counter(received)


def extra(sent, received):
    return Counter(received) - Counter(sent)
