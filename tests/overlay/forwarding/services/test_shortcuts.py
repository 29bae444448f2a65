"""The compiled twin forgets what it remembers of services before Python would decide otherwise."""

from __future__ import annotations

import pytest

from overlay.forwarding.peer import LivePeer
from overlay.forwarding.services import permits as permits_of
from overlay.forwarding.services.flows import ROWS, FlowTable
from overlay.forwarding.services.permits import Permits
from overlay.forwarding.services.server import ServerSettings, Takes
from overlay.forwarding.services.service import Service
from overlay.forwarding.services.settings import ServiceSettings
from overlay.forwarding.services.shortcuts import Shortcuts
from overlay.services.states import State, timeouts
from tests.overlay.forwarding.services.test_permits import Permit, question, vip


class Lane:
    """A twin that records what it should forget."""

    def __init__(self):
        self.forgotten, self.known = [], {}

    def remember_flow(self, key, seen, states, row, server):
        assert (len(seen), states[row]) == (1, State.UDP)
        self.known[key] = server

    def admit(self, peer, key):
        self.known[key] = peer

    def forget_flow(self, key):
        self.forgotten.append(key)

    def forget_flows(self):
        self.forgotten.append("flows")

    def forget_admitted(self):
        self.forgotten.append("admitted")

    def took(self):
        taken, self.forgotten = self.forgotten, []
        return taken


@pytest.fixture
def shortcuts():
    made = Shortcuts()
    made.lane = Lane()
    return made


@pytest.fixture
def flows(shortcuts):
    made = FlowTable(1000, timeouts(), shortcuts=shortcuts)
    made.make_room(2)
    made.add(b"one", State.ESTABLISHED, 0, 0.0)
    shortcuts.lane.took()
    return made


def test_without_a_twin_nothing_is_done():
    shortcuts = Shortcuts()

    shortcuts.forget_flow(b"one")
    shortcuts.forget_flows()
    shortcuts.forget_admitted()


def test_a_flow_that_is_removed_or_moved_is_forgotten(flows, shortcuts):
    shard, row = flows.find(b"one")

    flows.move(shard, row, 1)
    flows.remove(shard, b"one")

    assert shortcuts.lane.took() == [b"one", b"one"]


def test_a_new_flow_forgets_no_other(flows, shortcuts):
    flows.add(b"two", State.ESTABLISHED, 0, 0.0)

    assert shortcuts.lane.took() == []


def test_flows_whose_rows_move_are_forgotten(flows, shortcuts):
    for number in range(1, ROWS):
        flows.add(number.to_bytes(12, "big"), State.ESTABLISHED, 0, 0.0)
    assert shortcuts.lane.took() == []

    flows.add(b"the first that has no room", State.ESTABLISHED, 0, 0.0)

    assert shortcuts.lane.took() == ["flows"]


def test_a_table_that_is_cleared_is_forgotten(flows, shortcuts):
    assert all(each is None for each in flows.clear())

    assert "flows" in shortcuts.lane.took()


def test_flows_are_forgotten_when_servers_change(shortcuts):
    service = Service("web", ServiceSettings(), shortcuts)
    service.set_servers([ServerSettings(0, "b:0", LivePeer(1))])
    shortcuts.lane.took()

    service.set_servers([ServerSettings(0, "b:0", LivePeer(1), takes=Takes.NOTHING)])

    assert shortcuts.lane.took() == ["flows"]


def test_what_is_admitted_is_forgotten_when_permits_change(shortcuts):
    permits = Permits(shortcuts)

    permits.set([(vip(4), False, Permit(None, frozenset({17}), ()))])

    assert shortcuts.lane.took() == ["admitted"]


def test_what_is_admitted_is_forgotten_when_answers_go_back_through_another(shortcuts, monkeypatch):
    monkeypatch.setattr(permits_of, "RETURNS", 2)
    permits = Permits(shortcuts)
    permits.set([(vip(4), False, Permit(None, frozenset({17}), (), returns=True))])
    one, other = LivePeer(1), LivePeer(2)
    shortcuts.lane.took()

    told = []
    for peer, client in ((one, 1), (one, 1), (one, 2), (other, 1), (other, 1), (one, 3)):
        assert permits.admits(peer, question(4, client=client))
        told.append(bool(shortcuts.lane.took()))

    assert told == [False, False, False, True, False, True]
