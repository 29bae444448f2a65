"""The commands to a forwarder, and what follows when it dies, hangs, floods or lies."""

from __future__ import annotations

import logging
import signal
import socket
from types import SimpleNamespace

import pytest
import trio

from overlay.crypto.keys import PrivateKey, encode_key
from overlay.ending import until_stopped
from overlay.errors import HostError
from overlay.host import clock
from overlay.link.messages import (
    OWN,
    Begin,
    Confirmed,
    Counters,
    Handled,
    Handshake,
    Moved,
    PeerCounters,
    Ponged,
    Ready,
    Retired,
    Routes,
    SessionWanted,
    SetEndpoint,
    SetNode,
    SetPeer,
    Silence,
    Sockets,
    Start,
)
from overlay.link.service_messages import SetServers
from overlay.records.journal import LOSSES_BURST
from overlay.services.checking import Result
from overlay.session.outputs import InstallKeypair, Transmit
from overlay.supervision.policing import BURST, BURST_PER_PEER
from overlay.supervision.supervisor import HANG_TIME, LAST_LOOK, PROOF_INTERVAL, START_TIME
from peers.mac import derived_mac
from peers.stores.memory import MemoryStore
from tests.overlay.agent.machine import (
    ELSEWHERE,
    PARIS,
    PATIENCE,
    ROME,
    ROME_AT,
    TOKYO,
    TOKYO_AT,
    initiation,
    until,
)
from tests.overlay.agent.test_reloads import reload
from tests.peers.examples import peer, render, table


def test_forwarder_gets_the_sockets_to_ask_the_kernel_by(node):
    async def story(machine):
        machine.host.paths = [
            SimpleNamespace(family=family, fileno=lambda: 9) for family in (socket.AF_INET, socket.AF_INET6)
        ]
        await machine.ready()

        (told,) = machine.forwarder.told(SetNode)
        assert told.families == [socket.AF_INET, socket.AF_INET6]

    node(story)


def test_forwarder_is_told_when_the_kernel_is_left_to_cut_and_the_mtu_stays(node):
    async def story(machine):
        machine.host.paths = [SimpleNamespace(family=socket.AF_INET, fileno=lambda: 9)]
        machine.host.affecting.add(ELSEWHERE)
        machine.host.too_narrow.add(ELSEWHERE)
        await machine.greeted()

        machine.forwarder.say(Moved(1, ELSEWHERE))
        await until(lambda: len(machine.host.adopted) == 2)
        await trio.testing.wait_all_tasks_blocked()

        assert [told.families for told in machine.forwarder.told(SetNode)] == [[socket.AF_INET], []]

    node(story)


def test_new_forwarder_is_told_everything_before_it_begins_and_who_is_who_before_it_reads_sockets(node):
    async def story(machine):
        await machine.ready()

        commands = machine.forwarder.commands
        begin = commands.index(Begin())
        kinds = [type(command) for command in commands[:begin]]
        assert kinds == [Start, SetNode, SetPeer, SetPeer, Routes, SetEndpoint, SetEndpoint, Sockets]
        assert machine.forwarder.told(SetEndpoint) == [
            SetEndpoint(1, TOKYO_AT, "configuration"),
            SetEndpoint(2, ROME_AT, "configuration"),
        ]
        assert len(machine.forwarder.in_force().in_force) == 4

    node(story)


def test_forwarder_of_a_tap_is_told_so_and_the_own_ethernet_address(node):
    def use_a_tap(machine):
        machine.store = MemoryStore(render(table(PARIS, TOKYO, device="tap")))

    async def story(machine):
        await machine.ready()

        assert [each.is_tap for each in machine.forwarder.told(Start)] == [True]
        assert [each.macs for each in machine.forwarder.told(SetNode)] == [[derived_mac("paris")]]
        assert (await machine.status())["device"] == "tap"

    node(story, before=use_a_tap)


def test_every_peer_that_can_be_reached_is_greeted_at_the_start(node):
    async def story(machine):
        await until(lambda: machine.forwarders and len(machine.forwarder.told(Transmit)) == 2)

        assert [transmit.peer for transmit in machine.forwarder.told(Transmit)] == [1, 2]

    node(story, TOKYO, ROME, peer("silent", "10.244.4.0/24"))


def test_forwarder_that_never_gets_ready_ends_the_start_with_a_sentence(node):
    async def story(machine):
        await trio.sleep(START_TIME + 1)

    with pytest.raises(BaseExceptionGroup) as raised:
        node(
            story,
            before=lambda machine: setattr(machine, "holds_forwarders", True),
        )
    with (
        pytest.raises(HostError, match="the forwarder was not ready and accepted no command for 30 s"),
        until_stopped(),
    ):
        raise raised.value


def test_a_start_may_take_long_as_long_as_the_forwarder_takes_what_it_is_told(node):
    async def story(machine):
        began = trio.current_time()

        while not (machine.forwarders and machine.forwarder.told(Begin)):
            await trio.sleep(1)

        assert trio.current_time() - began > START_TIME

    def slow(machine):
        machine.seconds_per_command = START_TIME * 0.9

    node(story, before=slow)


def test_forwarder_that_dies_while_it_starts_ends_the_start_with_a_sentence(node):
    async def story(machine):
        await until(lambda: machine.forwarders)
        machine.forwarder.die()
        await trio.sleep(PATIENCE)

    with pytest.raises(BaseExceptionGroup) as raised:
        node(story, before=lambda machine: setattr(machine, "holds_forwarders", True))
    with pytest.raises(HostError, match="the forwarder did not start: exit code 0"), until_stopped():
        raise raised.value


def test_forwarder_that_died_has_a_successor_that_is_told_the_same_and_greets_at_once(node):
    async def story(machine):
        await until(lambda: machine.forwarders and len(machine.forwarder.told(Transmit)) == 2)
        first = machine.forwarder

        first.die()
        await until(lambda: machine.forwarder is not first and len(machine.forwarder.told(Transmit)) == 2)

        begin = first.commands.index(Begin())
        assert machine.forwarder.commands[: begin + 1] == first.commands[: begin + 1]

    node(story)


SERVICE = """
[services.web]
address = "203.0.113.80"
ports = [80]
directors = ["paris"]
servers = ["tokyo", "rome"]
check = { kind = "tcp", retries = 0 }
"""


def with_a_service(machine):
    machine.store = MemoryStore(render(table(PARIS, TOKYO, ROME)) + SERVICE)
    machine.seconds_per_command = 0.05


def test_what_comes_about_while_a_forwarder_is_introduced_is_told_after_that(node):
    """If it were sent earlier, a forwarder would refuse it, because it builds on what has not been sent yet."""

    async def story(machine):
        await machine.greeted()
        first, balancing = machine.forwarder, machine.agent._balancing
        watching = balancing.watching
        first.die()
        await until(lambda: machine.forwarder is not first and machine.forwarder.told(Start))
        (probe, *_) = watching.run_now("web", watching.healths["web"].service.servers[0].key, clock.now())
        watching.due(clock.now())
        watching.finish(probe, Result(False, "it is down"), clock.now())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(balancing.look)
            nursery.start_soon(machine.supervisor.tell, SetEndpoint(2, ELSEWHERE, "DNS"))
        await machine.greeted()

        commands = machine.forwarder.commands
        known, changed = machine.forwarder.told(SetServers)
        assert commands.index(known) < commands.index(Begin()) < commands.index(changed)
        assert [row.weight for row in changed.rows] == [0, 1]
        assert machine.forwarder.told(SetEndpoint)[-1] == SetEndpoint(2, ELSEWHERE, "DNS")
        assert [row.peer for row in machine.forwarder.told(Transmit)] == [1, 2]

    node(story, before=with_a_service)


@pytest.mark.slow
@pytest.mark.parametrize("count", range(13))
def test_forwarder_may_die_after_any_command_of_its_introduction(node, count):
    def with_a_quick_service(machine):
        with_a_service(machine)
        machine.seconds_per_command = 0

    async def story(machine):
        await machine.greeted()
        whole = machine.forwarder.commands[: machine.forwarder.commands.index(Begin()) + 1]
        machine.dies_after = count
        machine.forwarder.die()
        await until(lambda: len(machine.forwarders) == 3)
        await machine.greeted()

        assert len(whole) == 13
        assert len(machine.forwarders[1].commands) == count
        assert machine.forwarder.commands[: len(whole)] == whole
        assert [each.peer for each in machine.forwarder.told(Transmit)] == [1, 2]

    node(story, before=with_a_quick_service)


def test_successor_gets_no_socket_that_another_forwarder_had(node, caplog):
    async def story(machine):
        await machine.ready()
        assert machine.host.renewals == 0
        machine.host.refusal = "UDP port 51820 is taken by another program"

        machine.forwarder.die()
        await until(lambda: machine.host.renewals == 2)
        assert len(machine.forwarders) == 1
        machine.host.refusal = None
        await until(lambda: len(machine.forwarders) == 2 and machine.forwarder.told(Begin))

        assert machine.host.renewals == 3

    node(story)
    assert "forwarder not restarted, trying again" in caplog.text
    assert "UDP port 51820 is taken by another program" in caplog.text


FLOODS = {
    "garbage": None,
    "wishes": SessionWanted(1),
    "wishes for nobody": SessionWanted(77),
    "moves": Moved(1, ELSEWHERE),
    "moves of nobody": Moved(77, ELSEWHERE),
    "silence": Silence(1, False),
    "confirmations": Confirmed(1, 5),
    "retirements": Retired(5),
    "answers to no ping": Ponged(OWN, 77, 0.1),
    "counters that nobody asked for": Counters(77, [PeerCounters(1, None, 0, 0, 0, 0, 0.0, {})], {}, True),
    "beginnings": Ready([]),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FLOODS)
def test_forwarder_that_reports_without_end_is_ended_with_one_line_and_has_a_successor(node, caplog, kind):
    async def story(machine):
        await machine.greeted()
        first, most = machine.forwarder, int(BURST + 2 * BURST_PER_PEER)
        with caplog.at_level(logging.INFO, "overlay"):
            first.say(*[FLOODS[kind]] * 2 * most)
            await until(lambda: machine.forwarder is not first and machine.forwarder.told(Begin))

        assert first.is_gone
        assert caplog.text.count("forwarder sends too many reports") == 1
        assert len(caplog.records) < 20
        assert {row["name"] for row in (await machine.status())["peers"]} == {"tokyo", "rome"}

    node(story)


def test_peer_that_a_forwarder_calls_silent_and_heard_in_turn_is_told_in_few_lines(node, caplog):
    async def story(machine):
        await machine.greeted()
        with caplog.at_level(logging.INFO, "overlay"):
            for _ in range(5000):
                machine.forwarder.say(Silence(1, False), Silence(1, True))
            await until(lambda: not machine.forwarder._reports)
            await trio.testing.wait_all_tasks_blocked()

        assert caplog.text.count("peer=tokyo") == LOSSES_BURST

    node(story)


def test_peer_that_has_fallen_silent_has_a_note_with_what_to_look_at_until_it_is_heard(node):
    async def tokyo_is(machine, state):
        while (status := await machine.status())["peers"][0]["state"] != state:
            await trio.sleep(0.01)
        return status

    async def story(machine):
        await machine.greeted()
        machine.forwarder.say(initiation())
        await until(lambda: machine.forwarder.told(InstallKeypair))
        machine.forwarder.say(
            Confirmed(1, machine.forwarder.told(InstallKeypair)[0].local_index), Silence(1, False)
        )

        with trio.fail_after(PATIENCE):
            status = await tokyo_is(machine, "silent")
        (note,) = status["peers"][0]["notes"]
        assert "has not answered for 15 s: see whether its agent runs" in note
        assert note in status["notes"]

        machine.forwarder.say(Silence(1, True))
        with trio.fail_after(PATIENCE):
            status = await tokyo_is(machine, "up")
        assert status["peers"][0]["notes"] == []

    node(story)


def test_peer_that_is_said_to_be_anywhere_costs_the_host_few_questions(node):
    async def story(machine):
        await machine.greeted()
        asked = []
        machine.host.is_affected_by = lambda name, endpoint: asked.append(endpoint)
        for port in range(1, 10_000):
            machine.forwarder.say(Moved(1, ("192.0.2.9", port)))
        await until(lambda: not machine.forwarder._reports)
        await trio.testing.wait_all_tasks_blocked()

        assert len(asked) < 100
        assert (await machine.status())["peers"][0]["endpoint"] == "192.0.2.9:9999"

    node(story)


@pytest.mark.slow
def test_forwarder_that_answers_nothing_any_more_has_a_successor(node, caplog):
    async def story(machine):
        await machine.ready()
        machine.forwarder.is_hung = True

        await trio.sleep(2 * PROOF_INTERVAL + HANG_TIME + LAST_LOOK)

        assert len(machine.forwarders) == 2
        assert machine.forwarder.told(Begin)
        assert "forwarder hung" in caplog.text

    node(story)


@pytest.mark.slow
def test_forwarder_that_answers_now_and_then_is_kept(node):
    async def story(machine):
        await machine.ready()
        for _ in range(4):
            machine.forwarder.is_hung = True
            await trio.sleep(HANG_TIME - 2 * PROOF_INTERVAL)
            machine.forwarder.is_hung = False
            await trio.sleep(2 * PROOF_INTERVAL)

        assert len(machine.forwarders) == 1

    node(story)


@pytest.mark.slow
def test_forwarder_whose_answers_wait_behind_other_reports_is_kept(node):
    async def story(machine):
        await machine.ready()
        machine.forwarder.is_hung = True
        for _ in range(8):
            await trio.sleep(HANG_TIME / 2)
            machine.forwarder.say(SessionWanted(1))

        assert len(machine.forwarders) == 1

    node(story)


def test_successor_is_told_where_a_peer_was_heard_last(node):
    async def story(machine):
        await machine.ready()
        machine.forwarder.say(Moved(1, ELSEWHERE))
        await trio.testing.wait_all_tasks_blocked()
        first = machine.forwarder

        first.die()
        await until(lambda: machine.forwarder is not first and machine.forwarder.told(Begin))

        assert SetEndpoint(1, ELSEWHERE, "configuration") in machine.forwarder.commands

    node(story)


def test_forwarder_that_cannot_be_started_again_is_tried_again(node, caplog):
    async def story(machine):
        await machine.ready()
        machine.start_refusals = 2

        machine.forwarder.die()
        await until(lambda: len(machine.forwarders) == 2 and machine.forwarder.told(Begin))

        assert (await machine.status())["forwarder_pid"] == machine.forwarder.pid

    with caplog.at_level(logging.INFO, "overlay"):
        node(story)
    assert caplog.text.count("forwarder not restarted, trying again") == 2


def test_successor_of_another_release_is_refused_with_the_remedy_in_log_and_status(node, caplog):
    async def story(machine):
        await machine.ready()
        machine.is_upgraded = True

        machine.forwarder.die()
        await until(lambda: "restart the agent" in caplog.text)
        status = await machine.status()
        assert status["notes"][0] == "no forwarder is running, so no packets pass: restart the agent"
        machine.is_upgraded = False
        await until(lambda: len(machine.forwarders) >= 3 and machine.forwarder.told(Begin))
        await trio.testing.wait_all_tasks_blocked()
        assert not [note for note in (await machine.status())["notes"] if "no forwarder is running" in note]

    node(story)
    assert "forwarder not restarted, trying again in 0.2 s: restart the agent" in caplog.text


def test_successor_that_dies_while_it_starts_has_one_too(node):
    async def story(machine):
        await machine.ready()
        machine.holds_forwarders = True

        machine.forwarder.die()
        await until(lambda: len(machine.forwarders) == 2)
        machine.holds_forwarders = False
        machine.forwarder.die()
        await until(lambda: len(machine.forwarders) == 3 and machine.forwarder.told(Begin))

    node(story)


def test_table_that_changes_while_a_forwarder_starts_anew_is_in_force_afterwards(node):
    async def story(machine):
        await machine.ready()
        machine.holds_forwarders = True
        machine.forwarder.die()
        await until(lambda: len(machine.forwarders) == 2)
        machine.write(PARIS, TOKYO, peer("oslo", "10.244.7.0/24"))
        await machine.send_signal.send(signal.SIGHUP)
        await trio.sleep(0.1)
        assert "rome" in (await machine.ask(op="peer", name="nobody"))["known"]

        machine.forwarder.may_begin.set()
        await until(lambda: "oslo" in machine.agent._engine.roster.by_name)
        await trio.testing.wait_all_tasks_blocked()

        slow = machine.forwarder.in_force()
        assert slow.named(machine.agent._engine.roster, "paris") == dict(machine.agent._node.table.routes)

    node(story)


@pytest.mark.slow
def test_table_that_changes_while_there_is_no_forwarder_is_what_the_next_is_told(node):
    async def story(machine):
        await machine.ready()
        machine.start_refusals = 3
        machine.forwarder.die()
        machine.write(PARIS, peer("oslo", "10.244.7.0/24"))
        await machine.send_signal.send(signal.SIGHUP)
        await until(lambda: "oslo" in machine.agent._engine.roster.by_name)
        await until(lambda: len(machine.forwarders) == 2 and machine.forwarder.told(Begin))

        slow = machine.forwarder.in_force()
        assert slow.named(machine.agent._engine.roster, "paris") == dict(machine.agent._node.table.routes)

    node(story)


def test_garbage_on_the_link_is_counted(node):
    async def story(machine):
        await machine.ready()
        machine.forwarder.say(None, None, SessionWanted(1), None)

        assert (await machine.status())["drops"] == {"link": 3, "tun": 1}

    node(story)


@pytest.mark.parametrize(
    "report",
    [
        SessionWanted(77),
        SessionWanted(0),
        Confirmed(77, 5),
        Confirmed(1, 5),
        Retired(5),
        Moved(77, ELSEWHERE),
        Counters(77, [], {}, True),
        Handshake(bytes(148), ELSEWHERE),
        Handshake(b"\x01" + bytes(147), ELSEWHERE),
        Handshake(b"\x02" + bytes(91), ELSEWHERE),
        Handshake(b"\x03" + bytes(63), ELSEWHERE),
        Handshake(b"\xff" * 148, ELSEWHERE),
    ],
    ids=repr,
)
def test_report_that_makes_no_sense_disturbs_nothing(node, report):
    async def story(machine):
        await machine.ready()
        machine.forwarder.say(report)

        assert {row["name"] for row in (await machine.status())["peers"]} == {"tokyo", "rome"}

    node(story)


def test_refused_handshakes_are_counted_by_reason_and_acknowledged(node):
    async def story(machine):
        await machine.ready()
        stranger = initiation(PrivateKey(b"\x55" * 32))
        machine.forwarder.say(stranger, Handshake(b"\x01" + bytes(147), ELSEWHERE))
        await trio.testing.wait_all_tasks_blocked()

        drops = (await machine.status())["drops"]
        assert drops["initiation_unknown_peer"] == 1
        assert sum(drops.values()) == 3  # and one of the tun
        assert machine.forwarder.told(Handled) == [Handled(2)]

    node(story)


def test_caller_with_a_key_that_no_peer_has_is_shown_with_it_until_it_is_a_peer(node, caplog):
    stranger = PrivateKey(b"\x55" * 32)
    shown = encode_key(stranger.public)

    async def story(machine):
        await machine.ready()
        machine.forwarder.say(*(initiation(stranger, ROME_AT) for _ in range(3)))
        await trio.testing.wait_all_tasks_blocked()

        (row,) = (await machine.status())["strangers"]
        assert (row["public_key"], row["calls"], row["peer"]) == (shown, 3, "rome")
        assert row["endpoint"] == "192.0.2.3:51820"

        machine.write(PARIS, TOKYO, peer("rome", "10.244.3.0/24", public_key=stranger.public))
        await reload(machine)
        assert (await machine.status())["strangers"] == []

    with caplog.at_level(logging.DEBUG, "overlay"):
        node(story)
    assert f"reason=initiation_unknown_peer source=192.0.2.3:51820 public_key={shown}" in caplog.text


def test_call_of_a_peer_is_answered_with_the_keypair_first(node):
    async def story(machine):
        await machine.greeted()
        before = len(machine.forwarder.commands)

        machine.forwarder.say(initiation())
        await until(lambda: machine.forwarder.told(InstallKeypair))
        await trio.testing.wait_all_tasks_blocked()

        kinds = [type(command) for command in machine.forwarder.commands[before:]]
        assert kinds == [InstallKeypair, Transmit, Handled]

    node(story)
