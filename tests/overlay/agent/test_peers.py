"""Where peers are, and unencrypted peers."""

from __future__ import annotations

import logging
import os
import time

import pytest
import trio

from overlay.host import clock
from overlay.link.messages import (
    AskCounters,
    Handshake,
    Moved,
    PeerCounters,
    SessionWanted,
    SetEndpoint,
    SetNode,
    SetPeer,
    Sockets,
)
from overlay.provisioning.relocations import REPLAN_PAUSE
from overlay.session.outputs import GiveUp, Transmit
from overlay.session.sessions import Sessions
from tests.overlay.agent.machine import (
    ELSEWHERE,
    FAR_AWAY,
    PARIS,
    PRIVATE,
    ROME,
    TOKYO,
    TOKYO_AT,
    TOKYO_PRIVATE,
    initiation,
    until,
)
from tests.overlay.agent.test_reloads import reload
from tests.overlay.test_resolver import Names
from tests.peers.examples import peer

# Where peers are


def test_handshake_from_a_place_that_matters_to_routes_has_them_computed_anew(node):
    async def story(machine):
        await machine.ready()
        machine.host.affecting.add(ELSEWHERE)

        machine.forwarder.say(initiation(source=ELSEWHERE))
        await until(lambda: len(machine.host.adopted) == 2)

        assert ("tokyo", ELSEWHERE) in machine.host.adopted[-1][1]

    node(story)


def test_peers_that_move_to_places_that_matter_to_routes_have_them_computed_anew_once(node):
    async def story(machine):
        await machine.ready()
        machine.host.affecting |= {ELSEWHERE, FAR_AWAY}

        machine.forwarder.say(Moved(1, ELSEWHERE), Moved(1, ELSEWHERE), Moved(2, FAR_AWAY))
        await until(lambda: len(machine.host.adopted) == 2)
        await trio.sleep(2 * REPLAN_PAUSE)

        assert len(machine.host.adopted) == 2
        assert {("tokyo", ELSEWHERE), ("rome", FAR_AWAY)} <= machine.host.adopted[-1][1]

    node(story)


def test_peer_that_flaps_is_told_in_few_lines_and_noted_and_the_host_is_asked_once_for_each_place(
    node, caplog
):
    async def story(machine):
        await machine.greeted()
        asked = []
        machine.host.is_affected_by = lambda name, endpoint: asked.append(endpoint)
        places = [ELSEWHERE, FAR_AWAY]
        with caplog.at_level(logging.INFO, "overlay"):
            for number in range(800):
                machine.forwarder.say(Moved(1, places[number % 2], 15, places[number % 2 - 1]))
            await until(lambda: not machine.forwarder._reports)
            await trio.testing.wait_all_tasks_blocked()
        status = await machine.status()

        assert caplog.text.count("peer moved peer=tokyo") == 5
        assert asked == places
        (note,) = [note for note in status["notes"] if "see whether two hosts use its key" in note]
        assert "203.0.113.9:4500" in note
        assert "203.0.113.10:4500" in note
        assert status["peers"][0]["notes"] == [note]

    node(story)


def test_peer_given_up_is_called_at_a_new_endpoint_at_once_and_at_each_once(node):
    async def story(machine):
        await machine.greeted()
        agent, remote = machine.agent, machine.agent._engine.roster.by_name["tokyo"]
        remote.is_confirmed = True
        calls = []
        for endpoint in (ELSEWHERE, FAR_AWAY, ELSEWHERE):
            await agent._carry_out(agent._engine._carry_out([GiveUp(1)], clock.now()))
            agent._engine.sessions.start_over()
            before = len(machine.forwarder.told(Transmit))
            await agent._set_endpoint(remote, endpoint, "dns")
            await trio.sleep(0.05)
            calls.append(len(machine.forwarder.told(Transmit)) - before)

        assert calls == [1, 1, 0]

    node(story)


def test_idle_wish_for_a_session_is_passed_on_as_such(node):
    async def story(machine):
        await machine.greeted()
        wishes = []
        machine.agent._engine.sessions.want = lambda peer, now, *, is_idle, is_greeting: (
            wishes.append((peer, is_idle)) or []
        )
        machine.forwarder.say(SessionWanted(1), SessionWanted(1, is_idle=True))
        await until(lambda: len(wishes) == 2)

        assert wishes == [(1, False), (1, True)]

    node(story)


def test_peer_is_asked_about_with_and_without_what_the_forwarder_counted(node):
    async def story(machine):
        await machine.greeted()
        machine.counters = [PeerCounters(1, TOKYO_AT, 7, 8, 1, 1, clock.now() - 2.0, {})]

        counted = (await machine.ask(op="peer", name="10.244.2.9", is_counted=True))["peer"]
        plain = (await machine.ask(op="peer", name="tokyo"))["peer"]

        assert (counted["name"], counted["asked_address"]) == ("tokyo", "10.244.2.9")
        assert counted["last_received"] == pytest.approx(2.0, abs=1.0)
        assert (plain["last_received"], plain["asked_address"]) == (None, None)
        assert (counted["forwarder_note"], plain["forwarder_note"]) == (None, None)

    node(story)


def test_peer_is_told_with_a_note_on_a_forwarder_that_counts_nothing(node):
    async def story(machine):
        await machine.greeted()
        machine.forwarder.answers_counters = False
        dying = machine.forwarder

        async def ask():
            told.append(await machine.ask(op="peer", name="tokyo", is_counted=True))

        told = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await until(lambda: dying.told(AskCounters))
            dying.die()

        assert told[0]["peer"]["forwarder_note"].startswith("the forwarder (process ")

    node(story)


def test_peer_whose_clock_was_set_back_is_counted_noted_and_called(node):
    now_ns = time.time_ns()

    def call(seconds_ago):
        sessions = Sessions(TOKYO_PRIVATE, entropy=os.urandom, wall_ns=lambda: now_ns - seconds_ago * 10**9)
        sessions.add_peer(1, PRIVATE.public)
        (transmit,) = sessions.want(1, clock.now())
        return Handshake(transmit.datagram, TOKYO_AT)

    async def story(machine):
        await machine.greeted()
        machine.agent._engine.sessions.start_over()
        sent = len(machine.forwarder.told(Transmit))
        machine.forwarder.say(call(0), call(26 * 3600))
        await until(lambda: len(machine.forwarder.told(Transmit)) == sent + 2)  # its answer, and our own call

        status = await machine.status()
        assert status["peers"][0]["drops"] == {"initiation_replayed": 1}
        assert status["peers"][0]["clock_behind"] == pytest.approx(26 * 3600, abs=1)
        assert any(note.startswith("the clock of tokyo was set back by 1 d ") for note in status["notes"])

    node(story)


def test_name_that_does_not_resolve_at_the_start_is_used_when_it_does(node):
    names = Names()

    async def story(machine):
        trio.socket.set_custom_hostname_resolver(names)
        await machine.ready()
        assert not machine.forwarder.told(SetEndpoint)
        names.addresses["tokyo.example.net"] = ["192.0.2.2"]

        remote = machine.agent._engine.roster.by_name["tokyo"]
        await until(lambda: remote.resolve_error is not None)
        machine.agent._resolver.resolve_due([remote], clock.now() + 11)
        await until(lambda: machine.forwarder.told(Transmit))

        assert machine.forwarder.told(SetEndpoint) == [SetEndpoint(1, TOKYO_AT, "dns")]

    node(story, peer("tokyo", "10.244.2.0/24", endpoint="tokyo.example.net"))


def test_look_up_that_ends_after_the_peer_was_heard_elsewhere_does_not_move_it(node):
    may_answer, has_answered = trio.Event(), trio.Event()

    class Slow(Names):
        async def getaddrinfo(self, *asked, **how):
            await may_answer.wait()
            has_answered.set()
            return await super().getaddrinfo(*asked, **how)

    names = Slow()
    names.addresses["tokyo.example.net"] = ["192.0.2.2"]

    async def story(machine):
        trio.socket.set_custom_hostname_resolver(names)
        await machine.ready()
        machine.forwarder.say(Moved(1, ELSEWHERE))
        await until(lambda: machine.agent._engine.roster.by_name["tokyo"].endpoint == ELSEWHERE)
        may_answer.set()
        await has_answered.wait()
        await trio.sleep(0.1)

        assert not machine.forwarder.told(SetEndpoint)
        assert machine.agent._engine.roster.by_name["tokyo"].endpoint == ELSEWHERE

    node(story, peer("tokyo", "10.244.2.0/24", endpoint="tokyo.example.net"))


# Unencrypted


def test_a_peer_in_the_clear_is_not_called_and_the_status_says_so(node):
    bare = peer("tokyo", "10.244.2.0/24", endpoint="192.0.2.2:8285", public_key=None, encapsulation="udp")

    async def story(machine):
        await machine.ready()
        machine.forwarder.say(SessionWanted(1))
        status = await machine.status()

        assert machine.forwarder.told(Transmit) == []
        (told,) = machine.forwarder.told(SetPeer)
        assert (told.peer, told.keepalive, told.encapsulation) == (1, 0.0, "udp")
        assert machine.forwarder.told(SetEndpoint)[0].endpoint == ("192.0.2.2", 8285)
        assert status["peers"][0]["state"] == "unencrypted"
        assert status["notes"][-1] == "traffic with tokyo is not encrypted: the encapsulation is udp"

    node(story, bare)


@pytest.mark.slow
def test_sockets_of_an_encapsulation_are_told_when_it_comes_into_use_and_when_it_goes(node):
    bare = peer("rome", "10.244.3.0/24", endpoint="192.0.2.3", public_key=None, encapsulation="udp")

    async def story(machine):
        await machine.greeted()
        for peers in ([PARIS, TOKYO, bare], [PARIS, TOKYO]):
            before = len(machine.host.adopted)
            machine.write(*peers)
            await until(lambda before=before: len(machine.host.adopted) > before)
            await trio.testing.wait_all_tasks_blocked()

        told = [(each.encapsulation, len(each.rows)) for each in machine.forwarder.told(Sockets)]
        assert told == [("wireguard", 1), ("udp", 1), ("udp", 0)]

    node(story, TOKYO)


def test_an_inherited_ttl_is_the_forwarder_s_matter(node):
    async def story(machine):
        await machine.greeted()
        told = []
        for ttl in (None, 0, 9, None):
            machine.write(PARIS, TOKYO, ROME, ttl=ttl)
            await reload(machine)
            told.append(machine.forwarder.told(SetNode)[-1].inherits_ttl)

        assert told == [False, True, False, False]

    node(story)
