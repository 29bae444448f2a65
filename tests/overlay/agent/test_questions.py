"""Questions of the control socket, and pings."""

from __future__ import annotations

import pytest
import trio

from overlay.answers.status import ROWS_AT_ONCE
from overlay.host import clock
from overlay.link.messages import (
    PINGS_WAITING,
    AskCounters,
    Counters,
    PeerCounters,
    PingPeer,
    Ponged,
)
from tests.overlay.agent.machine import ELSEWHERE, PATIENCE, until
from tests.peers.examples import peer

# Questions


def test_status_shows_the_forwarders_counters_by_peer(node):
    async def story(machine):
        await machine.ready()
        machine.counters = [PeerCounters(1, ELSEWHERE, 11, 22, 3, 4, clock.now(), {"replayed": 1})]

        status = await machine.status()

        assert [row["name"] for row in status["peers"]] == ["tokyo", "rome"]
        tokyo, rome = status["peers"]
        assert (tokyo["endpoint"], tokyo["rx_bytes"], tokyo["drops"]) == (
            "203.0.113.9:4500",
            22,
            {"replayed": 1},
        )
        assert (rome["endpoint"], rome["rx_bytes"]) == ("192.0.2.3:51820", None)
        assert status["notes"] == ["a note"]

    node(story)


def test_of_one_peer_no_other_peers_counters_are_asked_for(node):
    async def story(machine):
        await machine.ready()
        machine.counters = [PeerCounters(2, ELSEWHERE, 11, 22, 3, 4, clock.now(), {})]
        before = len(machine.forwarder.told(AskCounters))

        answer = await machine.ask(op="peer", name="rome", is_counted=True)

        assert [each.peers for each in machine.forwarder.told(AskCounters)[before:]] == [[2]]
        assert answer["peer"]["rx_bytes"] == 22

    node(story)


def test_all_who_ask_while_counters_are_told_share_the_next_answer(node):
    async def story(machine):
        await machine.ready()
        machine.forwarder.answers_counters = False
        told = []

        async def ask():
            told.append((await machine.ask(op="status"))["status"]["is_complete"])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await until(lambda: machine.forwarder.told(AskCounters))
            for _ in range(10):
                nursery.start_soon(ask)
            while len(told) < 11:
                await trio.sleep(0.05)  # all have asked what they ask at once
                serial = machine.forwarder.told(AskCounters)[-1].serial
                machine.forwarder.say(Counters(serial, machine.counters, {}, True))

        assert len(machine.forwarder.told(AskCounters)) < 6
        assert told == [True] * 11

    node(story)


def test_history_has_a_row_for_each_peer_from_the_start(node):
    async def story(machine):
        await machine.ready()

        answer = await machine.ask(op="history")

        assert answer["history"]["times_seconds"] == []
        assert [(row["name"], row["is_kept"]) for rows in machine.pieces for row in rows] == [
            ("tokyo", False),
            ("rome", False),
        ]

    node(story)


def test_status_tells_a_few_rows_at_a_time(node):
    async def story(machine):
        await machine.ready()
        machine.counters = [
            PeerCounters(number, None, 0, number, 0, 0, 0.0, {})
            for number in machine.agent._engine.roster.by_number
        ]

        status = await machine.status()

        assert [len(rows) for rows in machine.pieces] == [ROWS_AT_ONCE, ROWS_AT_ONCE, 5]
        assert [row["name"] for row in status["peers"]] == [each.name for each in many]
        assert len({row["rx_bytes"] for row in status["peers"]}) == len(many)

    many = [peer(f"peer{number}", f"10.244.{number + 2}.0/24") for number in range(2 * ROWS_AT_ONCE + 5)]
    node(story, *many)


def test_status_is_answered_at_once_when_the_forwarder_dies_meanwhile(node, monkeypatch):
    monkeypatch.setattr(
        "overlay.supervision.counters.PATIENCE", PATIENCE
    )  # otherwise it would be answered in time, and never immediately

    async def story(machine):
        await machine.ready()
        machine.forwarder.answers_counters = False
        dying = machine.forwarder
        began = trio.current_time()

        async def ask():
            told.append(await machine.status())

        told = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await until(lambda: dying.told(AskCounters))
            dying.die()

        assert trio.current_time() - began < PATIENCE
        (status,) = told
        assert (status["is_complete"], status["drops"]) == (False, None)
        assert {(row["state"], row["rx_bytes"], row["drops"]) for row in status["peers"]} == {
            (None, None, None)
        }
        assert any("did not report its counters" in note for note in status["notes"])

    node(story)


@pytest.mark.parametrize(
    "request_", [{}, {"op": None}, {"op": ["status"]}, {"op": {"a": 1}}, {"op": "nonsense"}, {"op": 1.5}]
)
def test_unknown_question_is_refused(node, request_):
    async def story(machine):
        await machine.ready()

        assert await machine.ask(**request_) == {
            "ok": False,
            "kind": "failed",
            "error": "this agent does not know that request",
        }

    node(story)


@pytest.mark.parametrize("name", [None, 7, [], {}, "nobody", "", "\ud800"])
def test_unknown_peer_gets_the_names_that_there_are(node, name):
    async def story(machine):
        await machine.ready()

        answer = await machine.ask(op="peer", name=name)

        assert answer["kind"] == "unknown_peer"
        assert answer["known"] == ["tokyo", "rome"]

    node(story)


@pytest.mark.parametrize(
    ("name", "words"),
    [("paris", "paris is this node itself"), ("10.244.1.77", "10.244.1.77 is in a subnet of this node")],
)
def test_what_is_at_this_node_is_no_peer_to_ping(node, name, words):
    async def story(machine):
        await machine.ready()

        answer = await machine.ask(op="peer", name=name)

        assert answer["kind"] == "own"
        assert answer["error"].startswith(words)

    node(story)


def test_peer_is_told_with_this_nodes_addresses(node):
    async def story(machine):
        await machine.ready()

        told = (await machine.ask(op="peer", name="rome"))["peer"]

        assert told["addresses"] == ["10.244.3.0"]
        assert told["own_addresses"] == ["10.244.1.0"]

    node(story)


# Pings


async def ping(machine, answers, name="tokyo", timeout=PATIENCE):
    """Request a ping and keep the answer in *answers*."""
    answers.append(await machine.ask(op="ping", name=name, timeout=timeout))


async def told_pings(machine, count):
    await until(lambda: len(machine.forwarder.told(PingPeer)) == count)
    return machine.forwarder.told(PingPeer)


@pytest.mark.parametrize(
    ("seconds", "is_possible"), [(0.25, True), (None, False)], ids=["answered", "not able"]
)
def test_ping_is_answered_with_what_the_forwarder_says(node, seconds, is_possible):
    async def story(machine):
        answers = []
        await machine.ready()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ping, machine, answers)
            (command,) = await told_pings(machine, 1)
            answer = Ponged(command.peer, command.identifier, seconds)
            machine.forwarder.say(answer, answer)  # the second is for nobody

        assert machine.agent._engine.roster.by_number[command.peer].peer.name == "tokyo"
        assert answers == [{"ok": True, "ping": {"is_possible": is_possible, "seconds": seconds}}]

    node(story)


def test_pings_are_told_apart(node):
    async def story(machine):
        one, other = [], []
        await machine.ready()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ping, machine, one)
            await told_pings(machine, 1)
            nursery.start_soon(ping, machine, other, "rome")
            first, second = await told_pings(machine, 2)
            machine.forwarder.say(Ponged(second.peer, second.identifier, 2.0))
            machine.forwarder.say(Ponged(first.peer, first.identifier, 1.0))

        assert (one[0]["ping"]["seconds"], other[0]["ping"]["seconds"]) == (1.0, 2.0)

    node(story)


def test_ping_without_an_answer_is_given_up_and_an_answer_too_late_forgotten(node):
    async def story(machine):
        answers = []
        await machine.ready()

        await ping(machine, answers, timeout=0.01)
        (command,) = machine.forwarder.told(PingPeer)
        machine.forwarder.say(Ponged(command.peer, command.identifier, 9.0))
        await trio.testing.wait_all_tasks_blocked()

        assert answers == [{"ok": True, "ping": {"is_possible": True, "seconds": None}}]
        assert len(machine.supervisor._pings) == 0

    node(story)


@pytest.mark.parametrize("timeout", [None, 0, -1, "1", [], float("nan")])
def test_ping_needs_a_timeout(node, timeout):
    async def story(machine):
        await machine.ready()

        assert (await machine.ask(op="ping", name="tokyo", timeout=timeout))["ok"] is False
        assert machine.forwarder.told(PingPeer) == []

    node(story)


@pytest.mark.parametrize("name", [None, 7, [], "nobody"])
def test_ping_of_nobody_gets_the_names_that_there_are(node, name):
    async def story(machine):
        await machine.ready()

        assert (await machine.ask(op="ping", name=name, timeout=1))["kind"] == "unknown_peer"

    node(story)


def test_pings_under_way_are_bounded(node):
    async def story(machine):
        await machine.ready()
        async with trio.open_nursery() as nursery:
            for count in range(0, PINGS_WAITING, 16):  # as many at once as may wait on the control socket
                for _ in range(16):
                    nursery.start_soon(ping, machine, [])
                commands = await told_pings(machine, count + 16)

            refused = await machine.ask(op="ping", name="tokyo", timeout=1)
            machine.forwarder.say(*[Ponged(each.peer, each.identifier, 1.0) for each in commands])

        assert refused == {
            "ok": False,
            "kind": "busy",
            "error": "256 pings are waiting for an answer: try again later",
        }
        assert len(machine.forwarder.told(PingPeer)) == PINGS_WAITING

    node(story)
