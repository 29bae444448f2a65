"""Packets when a forwarder is killed: at any moment, again while the next one starts, and again."""

from __future__ import annotations

import math
import random

import pytest

from overlay.wire.bulk import AES_256_GCM
from tests.sim import World

PAUSE = 0.4  # seconds until another forwarder has started
BEAT = 0.05  # seconds between two packets of each node
AT_ONCE = 2.5 * BEAT  # a handshake, and the packet that triggered it
NEVER = math.inf
# Where the network loses messages: a handshake is tried again after 5 s and some jitter, and a node that hears nothing
# under the keys that it uses begins another after 15 s and some jitter.
IN_THE_END = 20.0


class Mortal:
    """The forwarder of a node, which dies after a number of turns or commands; what is in the link is then lost."""

    def __init__(self, node, world):
        self.node, self.world = node, world
        self.turns_left = self.commands_left = NEVER
        self.back_at, self.plans = None, []
        self._turn, self._tell, self._next = node.turn, node.tell, node.next_deadline
        node.turn, node.tell, node.next_deadline = self.turn, self.tell, self.next_deadline

    def plan(self, *lives):
        """Let it die at the end of each of *lives*: after a number of turns, or of commands."""
        self.plans = list(lives)
        self._begin()

    @property
    def is_over(self):
        """Whether it has died as often as it should, and another has started."""
        return self.back_at is None and self.turns_left == self.commands_left == NEVER

    def _begin(self):
        self.turns_left, self.commands_left = self.plans.pop(0) if self.plans else (math.inf, NEVER)

    def die(self):
        self.turns_left = self.commands_left = NEVER
        self.back_at = self.world.clock.now + PAUSE
        self.node.reports.clear()

    def turn(self):
        if self.back_at is None:
            is_active = self._turn()
            self.turns_left -= is_active
            if self.turns_left <= 0:
                self.die()
            return is_active
        if self.world.clock.now < self.back_at:
            return self.node._agent_turn(self.world.clock.now)
        self.back_at = None
        self._begin()
        self.node.engine.start_over()
        self.node.restart_forwarder()
        return True

    def tell(self, command, sockets=()):
        if self.back_at is not None:
            return
        if self.commands_left <= 0:
            self.die()
            return
        self.commands_left -= 1
        self._tell(command, sockets)

    def next_deadline(self):
        if self.back_at is None:
            return self._next()
        return min(self.back_at, self.node.engine.next_deadline())


def after(turns=NEVER, commands=NEVER):
    return turns, commands


def mortal_pair(world):
    """Return two nodes that have a session, and the forwarder of each."""
    a, b = world.pair()
    mortals = Mortal(a, world), Mortal(b, world)
    a.send(b)
    world.run(1)
    return a, b, mortals


def recovery(lives, other_lives=()):
    """Return the time from the last death of a forwarder until packets pass both ways."""
    world = World(ciphers=[AES_256_GCM])
    a, b, (one, other) = mortal_pair(world)
    one.plan(*lives)
    other.plan(*other_lives)
    over_at, ends = None, world.clock.now + 30
    while world.clock.now < ends:
        to_b, to_a = a.send(b), b.send(a)
        world.run(BEAT)
        if over_at is None and one.is_over and other.is_over:
            over_at = world.clock.now
        if over_at is not None and to_b[0] in b.received and to_a[0] in a.received:
            return world.clock.now - over_at
    return NEVER


@pytest.mark.slow
def test_packets_pass_again_at_once_whenever_a_forwarder_dies():
    assert {turns: took for turns in range(1, 21) if (took := recovery([after(turns)])) > AT_ONCE} == {}


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, 2])
def test_packets_pass_again_at_once_though_the_next_forwarder_dies_while_it_begins_or_shakes_hands(first):
    lives = [after(turns=turns) for turns in range(1, 8)] + [after(commands=count) for count in range(8)]
    assert {life: took for life in lives if (took := recovery([after(first), life])) > AT_ONCE} == {}


@pytest.mark.slow
def test_packets_pass_again_at_once_though_forwarders_die_at_both_ends():
    lives = [(one, other) for one in range(1, 16, 2) for other in range(1, 16, 3)]
    late = {ends for ends in lives if recovery([after(ends[0])], [after(ends[1])]) > AT_ONCE}
    assert late == set()


@pytest.mark.parametrize("seed", range(20))
def test_packets_pass_in_the_end_whatever_the_network_loses_while_forwarders_die(seed):
    chance = random.Random(seed)
    world = World(seed, ciphers=[AES_256_GCM])
    a, b, mortals = mortal_pair(world)
    network = world.network
    network.delay, network.loss, network.reorder = chance.choice([0.01, 0.1, 0.6]), 0.3, 0.3
    for mortal in mortals:
        mortal.plan(
            *(
                after(turns=chance.randint(1, 60))
                if chance.random() < 0.5
                else after(commands=chance.randint(0, 14))
                for _ in range(3)
            )
        )
    for _ in range(150):
        a.send(b)
        b.send(a)
        world.run(2 * BEAT)
    for mortal in mortals:
        mortal.plan()
    network.loss = network.reorder = 0.0
    ends, passed = world.clock.now + PAUSE + IN_THE_END, False
    while world.clock.now < ends and not passed:
        to_b, to_a = a.send(b), b.send(a)
        world.run(2 * network.delay + BEAT)
        passed = to_b[0] in b.received and to_a[0] in a.received

    assert passed
