"""An agent whose health is queried over HTTP."""

from __future__ import annotations

import dataclasses
import socket
import stat
import sys

import pytest
import trio
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from overlay import ticks
from overlay.answers import readiness
from overlay.doors import metrics
from overlay.doors.metrics import describe_openness
from peers.listening import parse_place
from tests.overlay.agent.machine import PARIS, TOKYO, until
from tests.ports import free_port


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(ticks, "next_second", lambda: trio.sleep(0.01))
    monkeypatch.setattr(metrics, "RETRY_INTERVAL", 0.05)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "m.sock"


def at(path):
    """Put *path* into the command line."""

    def before(machine):
        machine.options = dataclasses.replace(machine.options, metrics=parse_place(str(path)))

    return before


async def get(path, target, accept="*/*", host="a"):
    """Return the status and the body of one answer."""
    return await talk(await trio.open_unix_socket(str(path)), target, accept, host)


async def talk(stream, target, accept="*/*", host="a"):
    """Return the status and the body of one answer that comes by *stream*."""
    async with stream:
        await stream.send_all(
            f"GET {target} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n".encode()
        )
        with trio.fail_after(60):
            head, _, body = b"".join([chunk async for chunk in stream]).partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


def test_metrics_are_served_in_the_format_that_is_asked_for(node, path):
    async def story(machine):
        await until(path.exists)

        status, plain = await get(path, "/metrics")
        _, openmetrics = await get(path, "/metrics", "application/openmetrics-text; version=1.0.0")

        assert status == 200
        assert "# TYPE overlay_peer_state gauge\n" in plain
        assert "# EOF" in openmetrics
        assert "overlay_peer_state" in {
            each.name for each in text_string_to_metric_families("".join(unchunk(openmetrics)))
        }

    node(story, before=at(path))


def unchunk(text):
    """Yield the pieces of a body that is sent in chunks."""
    while text:
        size, _, text = text.partition("\r\n")
        yield text[: int(size, 16)]
        text = text[int(size, 16) + 2 :]


def test_health_is_told_with_the_reason_why_not(node, path, monkeypatch):
    async def story(machine):
        await machine.ready()
        await until(path.exists)

        assert await get(path, "/healthz") == (200, "ok\n")
        status, why = await get(path, "/readyz")
        assert (status, why) == (
            503,
            "overlay0 is down, or gone: run `ip link set overlay0 up`\n",
        )  # the host of these tests has none
        monkeypatch.setattr(readiness, "PATIENCE", 0.05)
        machine.forwarder.is_hung = True
        while (await get(path, "/healthz"))[0] == 200:
            await trio.sleep(0.05)
        assert await get(path, "/healthz") == (
            503,
            "the forwarder (process 1000) did not answer within 0.05 s; one that hangs is restarted within a minute\n",
        )

    node(story, before=at(path))


def test_node_is_ready_when_its_interface_is_up(node, path, monkeypatch):
    monkeypatch.setattr("tests.overlay.agent.machine.FakeHost.interface", "lo")

    async def story(machine):
        await machine.ready()
        await until(path.exists)

        assert await get(path, "/readyz") == (200, "ok\n")

    node(story, before=at(path))


def test_other_pages_are_not_there(node, path):
    async def story(machine):
        await until(path.exists)

        assert await get(path, "/") == (404, "not found: the paths are /metrics, /healthz and /readyz\n")

    node(story, before=at(path))


def test_web_site_whose_name_leads_to_this_host_reads_nothing(node):
    port = free_port()

    async def ask(target, host):
        return await talk(await trio.open_tcp_stream("127.0.0.1", port), target, host=host)

    async def story(machine):
        await machine.ready()
        with trio.fail_after(60):
            while not await is_answered(port):
                await trio.sleep(0.01)

        for host in (f"localhost:{port}", f"127.0.0.1:{port}", ""):
            assert (await ask("/healthz", host)) == (200, "ok\n")
        for target in ("/metrics", "/healthz", "/readyz"):
            status, why = await ask(target, f"evil.example:{port}")
            assert (status, why.count("\n")) == (421, 1)
            assert "overlay_" not in why

    node(story, before=at(f"127.0.0.1:{port}"))


async def is_answered(port):
    """Return whether *port* accepts connections."""
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return False
    await stream.aclose()
    return True


def test_reload_of_the_peers_file_opens_moves_and_closes_the_door(node, tmp_path):
    first, second = tmp_path / "1.sock", tmp_path / "2.sock"

    async def story(machine):
        await machine.ready()
        for wanted, gone in ((first, second), (second, first)):
            machine.write(PARIS, TOKYO, metrics=parse_place(str(wanted)))
            await machine.send_signal.send(1)
            await until(lambda path=wanted: path.exists())
            await until(lambda path=gone: not path.exists())
            assert (await get(wanted, "/healthz"))[0] == 200
        machine.write(PARIS, TOKYO)
        await machine.send_signal.send(1)
        await until(lambda: not second.exists())

    node(story)


def test_socket_is_for_its_group_and_goes_with_the_agent(node, path):
    async def story(machine):
        await until(path.exists)
        await until(lambda: stat.S_IMODE(path.stat().st_mode) == 0o660)

    node(story, before=at(path))
    assert not path.exists()


def test_address_that_is_taken_is_a_note_until_it_is_free(node, caplog):
    with socket.socket() as taker:
        taker.bind(("127.0.0.1", 0))
        taker.listen()
        port = taker.getsockname()[1]

        async def story(machine):
            await machine.ready()
            said = f"metrics are not served: 127.0.0.1:{port} is taken by another program: "
            await until(lambda: any(each.startswith(said) for each in machine.agent._notes))
            taker.close()
            await until(lambda: not any(each.startswith(said) for each in machine.agent._notes))
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.aclose()

        node(story, before=at(f"127.0.0.1:{port}"))


def test_pages_that_cannot_be_loaded_after_an_upgrade_are_a_note_with_the_remedy(node, path, monkeypatch):
    monkeypatch.delattr("overlay.doors.metrics_pages", raising=False)
    monkeypatch.setitem(sys.modules, "overlay.doors.metrics_pages", None)

    async def story(machine):
        await machine.ready()
        await until(lambda: any(each.startswith("metrics are not served") for each in machine.agent._notes))
        (note,) = [each for each in machine.agent._notes if each.startswith("metrics are not served")]
        assert note.endswith("overlay was upgraded or removed while the agent ran: restart the agent")

    node(story, before=at(path))


def test_without_an_address_nothing_is_served_or_noted(node):
    async def story(machine):
        await machine.ready()
        await trio.sleep(0.05)

        assert not any("metrics" in note for note in machine.agent._notes)

    node(story)


@pytest.mark.parametrize(
    ("text", "is_open"),
    [
        ("127.0.0.1:9586", False),
        ("[::1]:9586", False),
        ("/run/m.sock", False),
        ("10.244.1.1:9586", False),
        ("192.0.2.1:9586", True),
        ("0.0.0.0:9586", True),
        ("[::]:9586", True),
    ],
)
def test_door_that_others_reach_is_noted_unless_they_come_through_the_tunnel(node, text, is_open):
    async def story(machine):
        await machine.ready()
        place = parse_place(text)

        assert (describe_openness(place, machine.agent._running) is not None) is is_open

    node(story)
