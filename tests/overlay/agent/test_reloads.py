"""Peers files that change."""

from __future__ import annotations

import logging
import signal
import threading

import pytest
import trio

from overlay.crypto.keys import PrivateKey
from overlay.link.messages import (
    Moved,
    RemovePeer,
    Routes,
    SetEndpoint,
    SetNode,
    SetPeer,
    Sockets,
)
from overlay.reload import RETRY
from overlay.session.outputs import Transmit
from tests.overlay.agent.machine import ELSEWHERE, PARIS, PRIVATE, ROME, ROME_AT, TOKYO, TOKYO_PRIVATE, until
from tests.overlay.test_resolver import Names
from tests.peers.examples import key, peer


async def reload(machine):
    """Have the agent read the peers file, and return when it has taken or refused it as it is now.

    Each second it looks by itself, so there may be another reload before or after.
    """
    agent = machine.agent
    before = agent._reloads.asked
    await machine.send_signal.send(signal.SIGHUP)
    await until(lambda: agent._reloads._begun > before and not agent._reloading.locked())
    await trio.testing.wait_all_tasks_blocked()


def test_reload_tells_the_difference_and_nothing_else(node):
    async def story(machine):
        await machine.greeted()
        before = len(machine.forwarder.commands)

        machine.write(PARIS, TOKYO, peer("oslo", "10.244.7.0/24", endpoint="192.0.2.7"))
        await reload(machine)
        await until(lambda: len(machine.forwarder.commands) >= before + 7)

        kinds = [type(command) for command in machine.forwarder.commands[before:]]
        assert kinds == [SetNode, SetPeer, SetEndpoint, Routes, Routes, RemovePeer, Transmit]

    node(story)


def test_wrong_file_is_refused_and_the_last_good_table_stays(node, caplog):
    async def story(machine):
        await machine.greeted()
        before = len(machine.forwarder.commands)
        machine.store.write("[network]\nprefix = 10\n")

        await reload(machine)

        status = await machine.status()
        assert "memory" in status["reload_error"]
        assert {row["name"] for row in status["peers"]} == {"tokyo", "rome"}
        assert machine.forwarder.told(SetNode, Routes) == [
            command
            for command in machine.forwarder.commands[:before]
            if isinstance(command, SetNode | Routes)
        ]

        machine.write(PARIS, TOKYO, ROME)
        await reload(machine)
        assert (await machine.status())["reload_error"] is None

    node(story)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda machine: machine.write(peer("paris", "10.244.1.0/24", public_key=key("new")), TOKYO),
            "only after a restart",
        ),
        (
            lambda machine: machine.write(PARIS, TOKYO, device="tap"),
            "network.device changed in ",
        ),
        (lambda machine: machine.write(TOKYO), "has this host's public key"),
        (
            lambda machine: machine.write(PARIS, peer("x", "10.244.9.0/24", preshared_key_file="/nowhere/x")),
            "/nowhere/x does not exist",
        ),
        (lambda machine: setattr(machine.host, "refusal", "port 51820 is taken"), "port 51820 is taken"),
    ],
)
def test_change_that_cannot_be_taken_is_refused_with_its_sentence(node, change, sentence):
    async def story(machine):
        await machine.ready()
        change(machine)

        await reload(machine)

        status = await machine.status()
        assert sentence in status["reload_error"]
        assert {row["name"] for row in status["peers"]} == {"tokyo", "rome"}

    node(story)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "note"),
    [
        (
            lambda key: key.write_text(PrivateKey(b"\x77" * 32).to_base64()),
            "takes effect only after a restart",
        ),
        (lambda key: key.unlink(), "does not exist"),
        (lambda key: key.write_text("é"), "characters that are not base64"),
    ],
)
def test_private_key_that_is_another_now_is_noted_and_keeps_nothing_else_from_being_taken(
    node, caplog, spoil, note
):
    async def story(machine):
        await machine.ready()
        spoil(machine.options.key)
        machine.write(PARIS, peer("oslo", "10.244.7.0/24"))

        await reload(machine)
        await reload(machine)

        status = await machine.status()
        assert status["reload_error"] is None
        assert [row["name"] for row in status["peers"]] == ["oslo"]
        assert note in status["notes"][0]
        machine.write_key(PRIVATE)
        await reload(machine)
        assert (await machine.status())["notes"] == ["a note"]

    with caplog.at_level(logging.INFO, "overlay"):
        node(story)
    assert caplog.text.count(note) == 1


def test_refusal_by_the_host_is_tried_again_and_said_once(node, caplog):
    async def story(machine):
        await machine.ready()
        machine.host.refusal = "port 51820 is taken"
        machine.write(PARIS, peer("oslo", "10.244.7.0/24"))
        await reload(machine)
        for _ in range(3):
            await machine.agent._reload(RETRY)
        assert machine.agent._reloads.error == "port 51820 is taken"

        machine.host.refusal = None
        await machine.agent._reload(RETRY)

        assert machine.agent._reloads.error is None
        assert list(machine.agent._engine.roster.by_name) == ["oslo"]

    with caplog.at_level(logging.INFO, "overlay"):
        node(story)
    assert caplog.text.count("reload refused") == 1
    assert "reloaded cause=retry" in caplog.text


def test_reload_that_is_asked_for_during_a_check_of_the_files_is_done_once(node, caplog):
    """It was done twice, or without new look-ups of the endpoints' names."""

    async def story(machine):
        await machine.greeted()
        changed = machine.store.changed

        async def ask():
            await machine.send_signal.send(signal.SIGHUP)
            while not machine.agent._reloads.asked:
                await trio.lowlevel.checkpoint()  # time stands still while a thread works

        def is_changed():
            if changed() and not machine.agent._reloads.asked:
                trio.from_thread.run(ask)
            return changed()

        machine.store.changed = is_changed
        machine.write(PARIS, peer("oslo", "10.244.7.0/24"))
        await trio.sleep(5.0)

    with caplog.at_level(logging.INFO, "overlay"):
        node(story)
    assert [text for text in caplog.messages if "reloaded" in text] == ["reloaded cause=SIGHUP peers=1"]


def test_change_by_wg_does_not_wait_for_a_disk_that_a_check_of_the_files_waits_for(node):
    async def story(machine):
        await machine.greeted()
        changed, in_time = threading.Event(), []

        async def change():
            assert await machine.wg("set=1\nlisten_port=4000\n\n") == ["errno=0\n\n"]
            changed.set()

        def look():
            if not in_time:
                trio.from_thread.run_sync(nursery.start_soon, change)
                in_time.append(changed.wait(20.0))
            return False

        async with trio.open_nursery() as nursery:
            machine.store.changed = look
            await until(lambda: in_time)
        assert in_time == [True]

    node(story)


def test_file_that_changes_is_read_without_a_signal(node):
    async def story(machine):
        await machine.ready()

        machine.write(PARIS, peer("oslo", "10.244.7.0/24"))
        await until(lambda: "oslo" in machine.agent._engine.roster.by_name)

    node(story)


def test_signal_to_reload_during_the_start_is_heeded_after_it(node, caplog):
    async def story(machine):
        await until(lambda: machine.send_signal is not None)
        machine.write(PARIS, peer("oslo", "10.244.7.0/24"))
        await machine.send_signal.send(signal.SIGHUP)
        await until(lambda: machine.forwarders)
        await trio.sleep(0.1)
        machine.forwarder.may_begin.set()
        await until(lambda: "reloaded cause=SIGHUP" in caplog.text)

    with caplog.at_level(logging.INFO, "overlay"):
        node(story, before=lambda machine: setattr(machine, "holds_forwarders", True))
    assert caplog.text.index("ready node=paris") < caplog.text.index("reloaded cause=SIGHUP")


def test_many_reloads_at_once_end_with_the_last_file(node):
    async def story(machine):
        await machine.ready()
        for number in range(10):
            machine.write(PARIS, peer(f"peer{number}", f"10.244.{number + 10}.0/24"))
            await machine.send_signal.send(signal.SIGHUP)
        await until(lambda: list(machine.agent._engine.roster.by_name) == ["peer9"])
        await trio.testing.wait_all_tasks_blocked()

        slow = machine.forwarder.in_force()
        assert slow.named(machine.agent._engine.roster, "paris") == dict(machine.agent._node.table.routes)

    node(story)


def test_old_sockets_are_left_after_the_forwarder_has_the_new_ones(node):
    async def story(machine):
        await machine.ready()
        (old,) = machine.host.underlay
        machine.write(PARIS, TOKYO, ROME, port=4500)

        await reload(machine)

        assert old.is_left
        assert len(machine.forwarder.told(Sockets)) == 2
        assert not machine.host.underlay[0].is_left

    node(story)


def test_peer_of_another_encapsulation_is_where_its_name_was_resolved_to_before_prefixes_lead_to_it(node):
    names = Names()
    names.addresses["tokyo.example.net"] = ["192.0.2.2"]
    by_name = {"endpoint": "tokyo.example.net", "public_key": TOKYO_PRIVATE.public}

    async def story(machine):
        trio.socket.set_custom_hostname_resolver(names)
        await machine.greeted()
        await until(lambda: machine.forwarder.told(SetEndpoint))
        del names.addresses["tokyo.example.net"]
        before = len(machine.forwarder.commands)
        clear = {"encapsulation": "udp", "endpoint": "192.0.2.1"}
        paris = peer("paris", "10.244.1.0/24", public_key=PRIVATE.public, **clear)
        machine.write(paris, peer("tokyo", "10.244.2.0/24", **by_name))

        await reload(machine)

        commands = machine.forwarder.commands[before:]
        told = [each for each in commands if isinstance(each, SetPeer | SetEndpoint | Routes)]
        assert [type(each) for each in told] == [SetPeer, SetEndpoint, Routes]
        assert told[1] == SetEndpoint(2, ("192.0.2.2", 8285), "configuration")

    node(story, peer("tokyo", "10.244.2.0/24", **by_name))


def test_endpoint_that_another_takes_the_place_of_does_not_count_for_the_host(node):
    async def story(machine):
        await machine.ready()
        moved = peer("tokyo", "10.244.2.0/24", public_key=TOKYO_PRIVATE.public, endpoint="192.0.2.9")
        machine.write(PARIS, moved, ROME)

        await reload(machine)

        assert machine.host.adopted[-1][1] == {("tokyo", ("192.0.2.9", 51820)), ("rome", ROME_AT)}

    node(story)


def test_endpoint_that_is_no_longer_configured_leaves_the_peer_where_it_is(node):
    async def story(machine):
        await machine.ready()
        machine.forwarder.say(Moved(1, ELSEWHERE))
        await trio.testing.wait_all_tasks_blocked()
        machine.write(PARIS, peer("tokyo", "10.244.2.0/24", public_key=TOKYO_PRIVATE.public))

        await reload(machine)

        assert machine.agent._engine.roster.by_name["tokyo"].endpoint == ELSEWHERE
        assert SetEndpoint(1, ELSEWHERE, "configuration") not in machine.forwarder.commands

    node(story)
