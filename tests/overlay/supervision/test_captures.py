"""Running captures: the forwarder is told about each and its end, and its successor about those that run."""

from __future__ import annotations

import socket

import trio

from overlay.link.messages import BeginCapture, EndCapture
from overlay.supervision.captures import MOST_CAPTURES, Captures, is_fit


def pair(kind=socket.SOCK_SEQPACKET):
    return socket.socketpair(socket.AF_UNIX, kind)


def told_in(scenario):
    """Return what the forwarder was told in *scenario*, which gets the captures and hears when more is told."""
    told = []

    async def run():
        heard = trio.Event()

        async def tell(command, descriptors):
            told.append((command, len(descriptors)))
            if isinstance(command, EndCapture):
                heard.set()

        captures = Captures(tell)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(captures.keep)
                await scenario(captures, heard)
                nursery.cancel_scope.cancel()

    trio.run(run)
    return told


def test_forwarder_is_told_of_a_capture_with_its_socket_and_of_its_end():
    async def scenario(captures, heard):
        hears, tells = pair()
        assert await captures.begin(tells, 96)
        assert len(captures) == 1
        hears.close()
        await heard.wait()
        assert len(captures) == 0
        assert tells.fileno() == -1

    assert told_in(scenario) == [(BeginCapture(1, 96), 1), (EndCapture(1), 0)]


def test_another_forwarder_is_told_of_those_that_run():
    async def scenario(captures, _):
        ends = [pair(), pair()]
        for _, tells in ends:
            await captures.begin(tells, 96)
        assert [(command, len(fds)) for command, fds in captures.everything()] == [
            (BeginCapture(1, 96), 1),
            (BeginCapture(2, 96), 1),
        ]
        for hears, _ in ends:
            hears.close()

    told_in(scenario)


def test_no_more_run_than_may():
    async def scenario(captures, _):
        ends = [pair() for _ in range(MOST_CAPTURES + 1)]
        assert [await captures.begin(tells, 96) for _, tells in ends] == [*[True] * MOST_CAPTURES, False]
        assert ends[-1][1].fileno() == -1
        for hears, _ in ends:
            hears.close()

    told_in(scenario)


def test_who_writes_where_nothing_is_to_be_said_ends_its_capture():
    async def scenario(captures, heard):
        hears, tells = pair()
        await captures.begin(tells, 96)
        hears.send(b"x")
        await heard.wait()
        hears.close()

    assert told_in(scenario)[-1] == (EndCapture(1), 0)


def test_other_sockets_are_not_fit():
    for kind, fits in (
        (socket.SOCK_SEQPACKET, True),
        (socket.SOCK_STREAM, False),
        (socket.SOCK_DGRAM, False),
    ):
        one, other = pair(kind)
        with one, other:
            assert is_fit(one) == fits
