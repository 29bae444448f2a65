import gc
import math
import os
import select
import signal
import socket
import threading
import weakref

import pytest

from overlay.encap.encapsulation import Role
from overlay.forwarding import native
from overlay.forwarding.compiled import HAS_NEWS
from overlay.forwarding.poll import Poll
from overlay.forwarding.underlay.batching import Batching
from overlay.forwarding.underlay.udp_socket import UdpSocket
from overlay.host import clock

IN = select.EPOLLIN


class Twin:
    """A lane of the extension that was told nothing."""

    def __init__(self):
        buffers = bytearray(400_000), bytearray(140_000), bytearray(70_000)
        self.lane = native.core.Lane(*buffers, Batching(), 0)
        self.settled = 0

    def settle(self):
        self.settled += 1
        self.lane.set(-1, -1, 1420, True, False, True, True)


@pytest.fixture(params=["interpreted", "compiled"])
def poll(request):
    made = Poll(clock.now)
    if request.param == "compiled":
        if native.core is None:
            pytest.skip(native.missing)
        made.compile(native.core, Twin(), takes_clear=True)
    yield made
    made.close()


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.fixture
def udp():
    """A socket of the packet path, and a sender."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as raw,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        raw.bind(("127.0.0.1", 0))
        sender.connect(raw.getsockname())
        made = UdpSocket(raw, socket.AF_INET)
        made.descriptor = raw.fileno()
        yield made, sender


def test_what_the_twin_does_not_know_is_ready_for_python(poll, pipe):
    poll.register(pipe[0], IN)
    os.write(pipe[1], b"x")

    assert poll.wait(math.inf, math.inf, once=False) == ([(pipe[0], IN)], -1, 0)


def test_a_wait_ends_when_it_says(poll, pipe):
    poll.register(pipe[0], IN)

    assert poll.wait(clock.now() + 0.01, math.inf, once=False) == ([], -1, 0)
    assert poll.wait(0.0, 0.0, once=True) == ([], -1, 0)


def test_times_are_those_of_the_clock(poll, pipe):
    poll.register(pipe[0], IN)
    poll._clock = lambda: clock.now() + 1000

    assert poll.wait(clock.now() + 1000.01, math.inf, once=False) == ([], -1, 0)


def test_what_is_forgotten_is_not_waited_for(poll, pipe, udp):
    poll.read(udp[0])
    udp[1].send(b"nonsense")
    poll.forget(udp[0].descriptor)

    assert poll.wait(clock.now() + 0.01, math.inf, once=False) == ([], -1, 0)


def test_nothing_is_drained_from_the_moment_on_when_something_is_due(poll, udp):
    poll.read(udp[0])
    udp[1].send(b"nonsense")

    found = poll.wait(math.inf, clock.now(), once=False)

    assert found == ([(udp[0].descriptor, IN)], -1, 0)


def kick_soon():
    """Send a signal to this thread after a moment."""
    kicker = threading.Timer(0.01, signal.pthread_kill, (threading.get_ident(), signal.SIGUSR1))
    kicker.start()
    return kicker


def test_a_signal_is_handled_while_it_waits(poll, pipe):
    poll.register(pipe[0], IN)
    before = signal.signal(signal.SIGUSR1, lambda *_: os.write(pipe[1], b"x"))
    try:
        kicker = kick_soon()
        found = poll.wait(clock.now() + 5, math.inf, once=False)
        kicker.join()
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert found == ([(pipe[0], IN)], -1, 0)


def test_an_exception_of_a_signal_ends_the_wait(poll, pipe):
    def fails(*_):
        raise ZeroDivisionError

    poll.register(pipe[0], IN)
    before = signal.signal(signal.SIGUSR1, fails)
    try:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            kick_soon()  # on a busy machine, the signal may arrive before the wait begins
            poll.wait(clock.now() + 5, math.inf, once=False)
    finally:
        signal.signal(signal.SIGUSR1, before)


# Drained in the twin


@pytest.fixture
def compiled():
    if native.core is None:
        pytest.skip(native.missing)
    made = Poll(clock.now)
    twin = Twin()
    made.compile(native.core, twin, takes_clear=True)
    yield made, twin
    made.close()


def test_nonsense_is_drained_and_told_with_what_comes_next(compiled, udp, pipe):
    poll, twin = compiled
    poll.read(udp[0])
    poll.register(pipe[0], IN)
    for _ in range(5):
        udp[1].send(b"nonsense")
    threading.Timer(0.05, os.write, (pipe[1], b"x")).start()

    ready, drained, result = poll.wait(clock.now() + 5, math.inf, once=False)

    assert (ready, drained) == ([(pipe[0], IN)], -1)
    assert result == HAS_NEWS
    assert twin.lane.take_drops() == [(-1, "unknown_type", 5)]
    assert twin.settled == 1


def test_once_comes_back_although_all_was_drained(compiled, udp):
    poll, twin = compiled
    poll.read(udp[0])
    udp[1].send(b"nonsense")

    ready, drained, _ = poll.wait(math.inf, math.inf, once=True)

    assert (ready, drained) == ([], -1)
    assert twin.lane.take_drops() == [(-1, "unknown_type", 1)]


def test_a_drain_that_is_for_python_comes_first_and_the_rest_is_ready(compiled, udp, pipe):
    poll, twin = compiled
    poll.read(udp[0])
    poll.register(pipe[0], IN)
    udp[1].send(b"\x01\0\0\0" + bytes(144))  # a handshake
    os.write(pipe[1], b"x")

    ready, drained, result = poll.wait(math.inf, math.inf, once=False)

    assert drained == udp[0].descriptor
    assert ready in ([], [(pipe[0], IN)])  # the kernel may report them in any order
    assert result
    assert twin.lane.received()[2] == 148


@pytest.mark.parametrize("role", [Role.HANDSHAKES, Role.SENDS, Role.SENDS_WHOLE])
def test_sockets_of_which_python_takes_little_at_a_time_are_left_to_it(compiled, udp, role):
    poll, _ = compiled
    udp[0].role = role
    poll.read(udp[0])
    udp[1].send(b"nonsense")

    ready, drained, _ = poll.wait(clock.now() + 0.01, math.inf, once=False)

    assert drained == -1
    assert ready == ([(udp[0].descriptor, IN)] if role == Role.HANDSHAKES else [])


def test_more_sockets_than_the_twin_has_places_for_are_python_s(compiled):
    poll, _ = compiled
    opened = []
    try:
        for _ in range(70):
            raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            raw.bind(("127.0.0.1", 0))
            made = UdpSocket(raw, socket.AF_INET)
            made.descriptor = raw.fileno()
            opened.append(made)
            poll.read(made)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"nonsense", opened[-1].raw.getsockname())

        found = poll.wait(math.inf, math.inf, once=False)

        assert found == ([(opened[-1].descriptor, IN)], -1, 0)
    finally:
        for each in opened:
            each.raw.close()


class Watched(UdpSocket):
    """It can lead anywhere, as those of the loop lead to the loop."""


def test_a_poll_that_nobody_needs_goes_with_what_it_drains():
    if native.core is None:
        pytest.skip(native.missing)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as raw:
        made, watched = Poll(clock.now), Watched(raw, socket.AF_INET)
        watched.descriptor = raw.fileno()
        made.compile(native.core, Twin(), takes_clear=True)
        made.read(watched)
        watched.poll = made
        kept = weakref.ref(made)

        del made, watched
        gc.collect()

        assert kept() is None


@pytest.mark.parametrize("arguments", [(), (1,), (1, None), (-1, "lane")])
def test_a_poll_is_made_of_an_epoll_and_a_lane(arguments):
    if native.core is None:
        pytest.skip(native.missing)

    with pytest.raises(TypeError):
        native.core.Poll(*arguments)


def test_a_network_in_memory_which_needs_the_interpreter_is_refused():
    if native.core is None:
        pytest.skip(native.missing)
    made, twin = Poll(clock.now), Twin()
    twin.lane.simulate({})
    made.compile(native.core, twin, takes_clear=True)

    with pytest.raises(RuntimeError, match="in memory"):
        made.wait(0.0, 0.0, once=True)
    made.close()


def test_a_poll_that_was_not_made_is_of_no_use():
    if native.core is None:
        pytest.skip(native.missing)
    unmade = native.core.Poll.__new__(native.core.Poll)

    for call in (
        lambda: unmade.wait(0.0, 0.0, 0.0, False),
        lambda: unmade.watch(1, None),
        lambda: unmade.unwatch(1),
    ):
        with pytest.raises(RuntimeError):
            call()
