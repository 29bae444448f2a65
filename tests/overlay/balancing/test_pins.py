"""Flows that the forwarder is to lead, with a forwarder that answers as the test wants."""

from __future__ import annotations

import pytest
import trio

from overlay.balancing import pins
from overlay.balancing.pins import Pins
from overlay.link.service_messages import Pin, Pinned, Unpin

FLOW = 6, bytes([10, 0, 0, 1]), 5000, bytes([203, 0, 113, 80]), 80


class Forwarder:
    def __init__(self, is_done):
        self.told, self._is_done = [], is_done
        self.pins = Pins(self.tell)

    async def tell(self, command):
        self.told.append(command)
        if isinstance(command, Pin) and self._is_done is not None:
            report = Pinned(command.serial, self._is_done)
            assert self.pins.awaits(report)
            assert self.pins.take(report)


def test_flow_is_led_once_the_forwarder_says_so():
    forwarder = Forwarder(True)
    trio.run(forwarder.pins.pin, FLOW, (3, 7))
    assert forwarder.told == [Pin(1, *FLOW, 3, 7)]
    trio.run(forwarder.pins.unpin, FLOW)
    assert forwarder.told[1:] == [Unpin(*FLOW)]


@pytest.mark.parametrize("is_done", [False, None])
def test_forwarder_that_refuses_or_is_silent_is_an_error(is_done, monkeypatch):
    monkeypatch.setattr(pins, "PATIENCE", 0.05)
    forwarder = Forwarder(is_done)
    with pytest.raises(OSError, match="temporarily unavailable"):
        trio.run(forwarder.pins.pin, FLOW, (3, 7))
    assert not forwarder.pins.awaits(Pinned(1, True))
    assert not forwarder.pins.take(Pinned(1, True))


def test_second_answer_is_not_awaited():
    forwarder = Forwarder(True)
    trio.run(forwarder.pins.pin, FLOW, (3, 7))
    assert not forwarder.pins.take(Pinned(1, True))
