from __future__ import annotations

from types import SimpleNamespace

from overlay.forwarding.callers import CALLERS, Caller, Callers

FIRST, SECOND = ("192.0.2.1", 1), ("192.0.2.2", 2)
ARRIVAL = SimpleNamespace(source=[(0, 8, b"here")], pktinfo=(4, b"here"))


def test_caller_is_found_by_its_address_with_the_way_it_came():
    callers = Callers()
    callers.remember(FIRST, "socket", ARRIVAL)

    assert callers.find(FIRST, ["socket"]) == Caller("socket", ARRIVAL.source, ARRIVAL.pktinfo)
    assert callers.find(SECOND, ["socket"]) is None


def test_caller_whose_socket_is_closed_is_not_found():
    callers = Callers()
    callers.remember(FIRST, "socket", ARRIVAL)

    assert callers.find(FIRST, ["another"]) is None


def test_the_oldest_caller_is_forgotten_for_the_newest():
    callers = Callers()
    callers.remember(FIRST, "socket", ARRIVAL)
    callers.remember(SECOND, "socket", ARRIVAL)
    callers.remember(FIRST, "socket", ARRIVAL)  # again: it is newer than the second now

    for number in range(CALLERS - 1):
        callers.remember(("198.51.100.1", number), "socket", ARRIVAL)

    assert callers.find(FIRST, ["socket"]) is not None
    assert callers.find(SECOND, ["socket"]) is None
