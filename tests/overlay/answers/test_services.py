"""Answers about services, and about invalid names."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import trio

from overlay.answers import services
from overlay.balancing import counting
from tests.overlay.balancing.test_balancing import WEB, Bench


@pytest.fixture
def ask(monkeypatch):
    monkeypatch.setattr(counting, "PATIENCE", 0.05)
    balancing = Bench(WEB).balancing
    running = SimpleNamespace(balancing=balancing, services=balancing.node.table.services)
    return lambda **request: trio.run(services.answer, running, {"op": "services"} | request, None)


def test_counters_that_the_forwarder_does_not_tell_are_null(ask):
    told = ask()

    (web,) = told["services"]
    assert not told["is_complete"]
    assert {
        web[key] for key in ("packets", "bytes", "connections", "active_flows", "packets_per_s", "drops")
    } == {None}
    assert [server["bytes_per_s"] for server in web["servers"]] == [None, None]
    assert told["rates_over_s"] is None


@pytest.mark.parametrize("name", ["wep", ["web"], {"web": 1}, 7, "web\n"])
def test_a_name_that_no_service_has_is_refused(ask, name):
    told = ask(name=name)

    assert (told["ok"], told["kind"], told["known"]) == (False, "unknown_service", ["web"])
