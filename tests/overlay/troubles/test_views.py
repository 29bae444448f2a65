"""Two agents compare what their peers files say of them."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from overlay.config import Node
from overlay.crypto.keys import PrivateKey
from overlay.link.messages import ControlReceived
from overlay.roster import Roster
from overlay.troubles.views import Views, compare, tell_view
from overlay.wire import control
from overlay.wire.control import Presence
from overlay.wire.views import PREFIXES
from tests.peers.examples import peer, table

PRIVATE = PrivateKey(bytes(range(32)))


def node(name, paris=("10.244.1.0/24",), tokyo=("10.244.2.0/24",), **fields):
    peers = peer("paris", *paris, public_key=PRIVATE.public, **fields), peer("tokyo", *tokyo)
    made = table(*peers)
    return Node(PRIVATE, made, made.peers[name], {})


def differences(here, there):
    """Return what is found at paris, which is *here*, of tokyo, which is *there*."""
    told = tell_view(there, there.table.peers["paris"], 7)
    found = list(compare(here, here.table.peers["tokyo"], told))
    assert all((each.name, each.peer) == ("files_differ", "tokyo") for each in found)
    return [each.problem for each in found]


def test_files_that_are_alike_do_not_differ():
    assert differences(node("paris"), node("tokyo")) == []


def test_what_the_peer_has_and_is_not_given_here_is_told():
    (problem,) = differences(node("paris"), node("tokyo", tokyo=("10.244.2.0/24", "10.244.9.0/24")))

    assert problem == (
        "tokyo says that it has 10.244.9.0/24, which the peers file here does not give it, so packets from there are "
        "dropped here"
    )


def test_what_this_node_has_and_is_not_given_there_is_told():
    (problem,) = differences(node("paris", paris=("10.244.1.0/24", "10.244.8.0/24")), node("tokyo"))

    assert problem == (
        "the peers file of tokyo does not give this node 10.244.8.0/24, so packets from there are dropped by tokyo"
    )


def test_an_address_counts_as_a_subnet_does():
    (problem,) = differences(node("paris", address=("10.244.0.7",)), node("tokyo", address=("10.244.0.8",)))

    assert "does not give this node 10.244.0.7/32, so" in problem


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ({"tokyo": ("10.244.0.0/16",)}, {}),  # the other end may be given more
        ({}, {"paris": ("10.244.0.0/16",)}),
        (
            {"paris": ("10.245.0.0/23",)},
            {"paris": ("10.245.0.0/24", "10.245.1.0/24")},
        ),  # the same, in two halves
        ({"tokyo": ("10.245.0.0/24", "10.245.1.0/24")}, {"tokyo": ("10.245.0.0/23",)}),
    ],
)
def test_a_larger_prefix_at_the_end_that_receives_drops_nothing(here, there):
    assert differences(node("paris", **here), node("tokyo", **there)) == []


def test_a_view_that_does_not_tell_all_is_not_taken_for_less():
    many = tuple(f"10.244.{number}.0/24" for number in range(100, 101 + PREFIXES))

    assert differences(node("paris", paris=many), node("tokyo", paris=many)) == []


class Pair:
    """Views of paris and tokyo that hear each other, unless *is_deaf*."""

    def __init__(self, is_deaf=False):
        self.sent, self.is_deaf = [], is_deaf
        self.nodes = {"paris": node("paris"), "tokyo": node("tokyo")}
        self.rosters, self.views = {}, {}
        for name, other in (("paris", "tokyo"), ("tokyo", "paris")):
            self.rosters[name] = Roster()
            self.rosters[name].change_to(self.nodes[name])
            self.views[name] = Views(
                self.rosters[name],
                lambda name=name: self.nodes[name],
                lambda command, to=other: self.carry(command, to),
            )

    async def carry(self, command, to):
        self.sent.append(command)
        if not self.is_deaf:
            (number,) = self.rosters[to].by_number
            assert await self.views[to].take(ControlReceived(number, command.payload))


def test_a_peer_that_is_asked_tells_its_view():
    pair = Pair()
    (tokyo,) = pair.rosters["paris"].by_number.values()

    told = trio.run(pair.views["paris"].ask, tokyo, 1.0)

    assert told.mine == pair.nodes["tokyo"].own.subnets
    assert [each.is_for_agents for each in pair.sent] == [True, True]


def test_a_peer_that_does_not_answer_is_asked_again_and_has_no_view():
    pair = Pair(is_deaf=True)
    (tokyo,) = pair.rosters["paris"].by_number.values()

    told = trio.run(pair.views["paris"].ask, tokyo, 1.0, clock=MockClock(autojump_threshold=0))

    assert told is None
    assert len(pair.sent) > 1


def test_other_messages_are_for_others():
    pair = Pair()
    message = ControlReceived(1, control.build(Presence(1, is_active=True)))

    assert not trio.run(pair.views["paris"].take, message)
