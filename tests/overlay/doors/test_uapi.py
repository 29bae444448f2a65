"""An agent as `wg` sees it: what it shows, what it accepts, and that no client delays another."""

from __future__ import annotations

import logging
import os
import stat

import pytest
import trio

from overlay.crypto.keys import PrivateKey
from overlay.doors import uapi
from overlay.host.sockets import uapi_socket
from overlay.link.messages import PeerCounters, SetEndpoint, SetIdentity, SetPeer
from peers.peer import format_public_key
from tests.overlay.agent.conftest import node
from tests.overlay.agent.machine import (
    ELSEWHERE,
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

__all__ = ["node"]

LIMA = PrivateKey(bytes(range(9, 41)))
OK = "errno=0\n\n"


def counted(number, **fields):
    values = {"endpoint": TOKYO_AT, "tx_bytes": 148, "rx_bytes": 92, "tx_packets": 1, "rx_packets": 1}
    return PeerCounters(number, **{**values, "last_received": 0.0, "drops": {}, **fields})


def shown(text):
    """Return the lines of the device, and those of each peer by its public key."""
    device, *peers = text.removesuffix(OK).split("public_key=")
    return device.splitlines(), {bytes.fromhex(each[:64]): each.splitlines()[1:] for each in peers}


def test_device_and_its_peers_are_shown_as_they_are(node):
    async def story(machine):
        await machine.greeted()
        machine.counters = [counted(1)]

        (text,) = await machine.wg("get=1\n\n")

        device, peers = shown(text)
        assert device == [f"private_key={PRIVATE.to_hex()}", "listen_port=51820"]
        assert peers.keys() == {TOKYO.public_key, ROME.public_key}
        assert peers[TOKYO.public_key] == [
            f"preshared_key={'00' * 32}",
            "protocol_version=1",
            "endpoint=192.0.2.2:51820",
            "last_handshake_time_sec=0",
            "last_handshake_time_nsec=0",
            "tx_bytes=148",
            "rx_bytes=92",
            "persistent_keepalive_interval=0",
            "allowed_ip=10.244.2.0/24",
        ]

    node(story)


def test_set_takes_effect_as_a_new_file_would(node):
    async def story(machine):
        await machine.greeted()

        (answer,) = await machine.wg(
            f"set=1\npublic_key={LIMA.public.hex()}\nendpoint=192.0.2.9:4000\nallowed_ip=10.9.0.0/16\n"
            "persistent_keepalive_interval=25\n\n"
        )

        assert answer == OK
        remote = next(
            each
            for each in machine.agent._engine.roster.by_number.values()
            if each.peer.public_key == LIMA.public
        )
        assert machine.forwarder.told(SetPeer)[-1].keepalive == 25.0
        assert remote.endpoint == ("192.0.2.9", 4000)
        assert machine.host.adopted[-1][0].table.routes[-1][1] == remote.peer.name

    node(story)


def test_refused_set_changes_nothing(node, caplog):
    async def story(machine):
        await machine.greeted()
        before, (was,) = len(machine.forwarder.commands), await machine.wg("get=1\n\n")

        answers = await machine.wg(
            f"set=1\nlisten_port=4000\npublic_key={LIMA.public.hex()}\nallowed_ip=10.9.0.0/16\n"
            f"public_key={TOKYO.public_key.hex()}\nremove=true\npublic_key=5ec7e7\n\n",
            f"set=1\npublic_key={LIMA.public.hex()}\nallowed_ip=10.244.1.0/24\n\n",
            "get=1\n\n",
        )

        assert answers == ["errno=-22\n\n", "errno=-22\n\n", was]
        assert len([each for each in machine.forwarder.commands[before:] if isinstance(each, SetPeer)]) == 0
        assert "5ec7e7" not in caplog.text
        assert "10.244.1.0/24" in caplog.text

    node(story)


def test_what_the_host_refuses_is_told_by_its_errno(node):
    async def story(machine):
        await machine.greeted()
        machine.host.refusal = "UDP port 53 is taken"

        assert await machine.wg("set=1\nlisten_port=53\n\n") == ["errno=-5\n\n"]
        machine.host.refusal = None

        assert machine.agent._node.table.listen_port(machine.agent._node.own) == 51820

    node(story)


def test_change_holds_over_a_reload_until_the_file_changes_that_peer(node):
    async def story(machine):
        await machine.greeted()
        set_both = "".join(
            f"public_key={each.hex()}\npersistent_keepalive_interval=9\n"
            for each in (TOKYO.public_key, ROME.public_key)
        )
        assert await machine.wg(f"set=1\n{set_both}\n") == [OK]

        machine.write(PARIS, TOKYO.__class__(**{**_fields(TOKYO), "keepalive": 3}), ROME)
        await reload(machine)

        rows = {row["name"]: row for row in (await machine.status())["peers"]}
        assert (rows["tokyo"]["keepalive"], rows["tokyo"]["changed_by_wg"]) == (3, False)
        assert (rows["rome"]["keepalive"], rows["rome"]["changed_by_wg"]) == (9, True)
        notes = (await machine.status())["notes"]
        assert any(note.startswith("wg changed rome: this holds until the peers file") for note in notes)

    node(story)


def _fields(peer):
    return {name: getattr(peer, name) for name in ("name", "public_key", "subnets", "addresses", "endpoint")}


def test_broken_file_keeps_wg_from_nothing(node):
    async def story(machine):
        await machine.greeted()
        machine.store.write("[network]\nprefix = 10\n")
        await reload(machine)

        assert await machine.wg(f"set=1\npublic_key={ROME.public_key.hex()}\nremove=true\n\n") == [OK]

        status = await machine.status()
        assert "memory" in status["reload_error"]
        assert [row["name"] for row in status["peers"]] == ["tokyo"]

    node(story)


def test_same_endpoint_again_calls_a_peer_back_that_has_moved(node):
    async def story(machine):
        await machine.greeted()
        machine.forwarder.say(initiation(source=ELSEWHERE))
        tokyo = machine.agent._engine.roster.by_name["tokyo"]
        await until(lambda: tokyo.endpoint == ELSEWHERE)

        assert await machine.wg(
            f"set=1\npublic_key={TOKYO.public_key.hex()}\nendpoint=192.0.2.2:51820\n\n"
        ) == [OK]

        assert machine.forwarder.told(SetEndpoint)[-1] == SetEndpoint(1, TOKYO_AT, "configuration")

    node(story)


def test_another_private_key_voids_all_sessions(node):
    async def story(machine):
        await machine.greeted()

        assert await machine.wg(f"set=1\nprivate_key={LIMA.to_hex()}\n\n") == [OK]

        assert machine.forwarder.told(SetIdentity) == [SetIdentity(LIMA.public)]
        assert machine.agent._engine.sessions.private_key == LIMA
        assert machine.agent._node.own.public_key == LIMA.public
        (text,) = await machine.wg("get=1\n\n")
        assert shown(text)[0][0] == f"private_key={LIMA.to_hex()}"
        machine.write(PARIS, TOKYO)
        await reload(machine)
        assert machine.agent._reloads.error is None
        assert machine.agent._engine.sessions.private_key == LIMA

    node(story)


def test_key_of_a_peer_as_ones_own_removes_the_peer(node):
    async def story(machine):
        await machine.greeted()

        answers = await machine.wg(
            f"set=1\nprivate_key={TOKYO_PRIVATE.to_hex()}\n\n",
            f"set=1\npublic_key={TOKYO_PRIVATE.public.hex()}\n\n",
            "get=1\n\n",
        )

        assert answers[:2] == [OK, OK]
        assert shown(answers[2])[1].keys() == {ROME.public_key}

    node(story)


def test_without_a_private_key_peers_wait(node):
    async def story(machine):
        await machine.greeted()

        answers = await machine.wg(
            f"set=1\nprivate_key={'00' * 32}\n\n",
            "get=1\n\n",
            f"set=1\nprivate_key={PRIVATE.to_hex()}\n\n",
        )

        device, peers = shown(answers[1])
        assert device == ["listen_port=51820"]
        assert peers.keys() == {TOKYO.public_key, ROME.public_key}
        assert machine.agent._engine.roster.by_name.keys() == {"tokyo", "rome"}
        assert not machine.agent._node.merged.amendments

    node(story)


@pytest.mark.slow
def test_removed_private_key_is_told_wherever_somebody_looks(node, caplog):
    async def story(machine):
        await machine.greeted()

        assert await machine.wg(f"set=1\nprivate_key={'00' * 32}\n\n") == [OK]
        status = await machine.status()
        findings = (await machine.ask(op="doctor"))["doctor"]["findings"]
        assert await machine.wg(f"set=1\nprivate_key={PRIVATE.to_hex()}\n\n") == [OK]
        after = await machine.status()

        assert "so its 2 tunnels are down: restore it with `wg set " in status["key_error"]
        assert status["key_error"] in status["notes"]
        assert status["public_key"] is None
        assert "key_removed" in [each["name"] for each in findings]
        assert status["key_error"] in [
            each.getMessage() for each in caplog.records if each.levelno == logging.WARNING
        ]
        assert (after["key_error"], after["public_key"]) == (None, format_public_key(PRIVATE.public))
        assert status["key_error"] not in after["notes"]

    node(story)


@pytest.mark.parametrize(
    ("request_text", "answer"),
    [
        ("get=2\n\n", "errno=-71\n\n"),
        ("\n\n", "errno=-71\n\n"),
        ("get=1\nlisten_port=1\n\n", "errno=-71\n\n"),
        (b"\xff\x00\n\n", "errno=-71\n\n"),
        ("set=1\nfoo\n\n", "errno=-71\n\n"),
        ("set=1\nfoo=1\n\n", "errno=-22\n\n"),
        ("set=1\n\n", OK),
        ("set=1\nreplace_peers=true\n\n", OK),
    ],
)
def test_request_that_means_nothing_is_answered_with_an_errno(node, request_text, answer):
    async def story(machine):
        await machine.ready()

        assert await machine.wg(request_text) == [answer]

    node(story)


def test_socket_is_roots_alone(node):
    async def story(machine):
        await machine.ready()

        assert stat.S_IMODE(os.stat(machine.wg_directory / "overlay0.sock").st_mode) == 0o600

    node(story)


def test_clients_that_stall_hold_up_nobody_and_are_left(node, monkeypatch):
    monkeypatch.setattr(uapi, "CONNECTIONS", 8)

    async def story(machine):
        await machine.ready()
        path = str(machine.wg_directory / "overlay0.sock")
        stalling = [await trio.open_unix_socket(path) for _ in range(12)]
        for each in stalling[:4]:
            await each.send_all(b"set=1\nlisten_port=")
        for each in stalling[4:8]:
            await each.send_all(b"get=1\n\n" * 1000)  # and reads nothing

        asked_at = trio.current_time()

        (text,) = await machine.wg("get=1\n\n")

        assert text.endswith(OK)
        assert trio.current_time() - asked_at < 1
        for each in stalling:
            await each.aclose()

    node(story)


@pytest.mark.slow
def test_a_change_that_is_made_gives_way_to_nobody(node, monkeypatch):
    monkeypatch.setattr(uapi, "CONNECTIONS", 2)

    async def story(machine):
        await machine.ready()
        answers = []

        async def change():
            answers.extend(await machine.wg("set=1\nlisten_port=4000\n\n"))

        async with trio.open_nursery() as nursery, machine.agent._reloading:
            for pause in (2, 2, 5):  # the third gets its turn when the others have been answered
                nursery.start_soon(change)
                await trio.sleep(pause)
            assert answers == []

        assert answers == [OK] * 3

    node(story)


def test_half_a_request_changes_nothing(node):
    async def story(machine):
        await machine.ready()
        path = str(machine.wg_directory / "overlay0.sock")
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(f"set=1\npublic_key={ROME.public_key.hex()}\nremove=true\n".encode())

        (text,) = await machine.wg("get=1\n\n")

        assert ROME.public_key in shown(text)[1]

    node(story)


def test_request_that_is_too_long_is_refused(node, monkeypatch):
    monkeypatch.setattr(uapi, "REQUEST_SIZE", 1000)

    async def story(machine):
        await machine.ready()

        (answer,) = await machine.wg(b"set=1\n" + b"listen_port=1\n" * 1000)

        assert answer == "errno=-7\n\n"

    node(story)


@pytest.mark.slow
def test_silent_forwarder_is_an_error_and_no_row_of_zeros(node):
    async def story(machine):
        await machine.ready()
        machine.forwarder.answers_counters = False

        assert await machine.wg("get=1\n\n") == ["errno=-5\n\n"]

    node(story)


def test_socket_that_somebody_removes_comes_back(node):
    async def story(machine):
        await machine.ready()
        (machine.wg_directory / "overlay0.sock").unlink()

        await until((machine.wg_directory / "overlay0.sock").exists)

        assert (await machine.wg("get=1\n\n"))[0].endswith(OK)

    node(story)


def test_agent_whose_name_another_has_runs_and_takes_over(node, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(uapi, "RETRY_INTERVAL", 0.01)
    others = []

    async def story(machine):
        await machine.ready()
        assert "wg does not reach this node" in caplog.text
        assert f"({os.getpid()})" in caplog.text
        assert not any(note.startswith("wg") for note in (await machine.status())["notes"])
        others[0].close()

        await until((machine.wg_directory / "overlay0.sock").exists)

        assert (await machine.wg("get=1\n\n"))[0].endswith(OK)

    node(
        story,
        before=lambda machine: others.append(uapi_socket.listen("overlay0", machine.wg_directory)),
    )
