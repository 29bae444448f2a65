"""Requested flows, with a forwarder that has a list of them."""

from __future__ import annotations

from ipaddress import ip_address
from types import SimpleNamespace

import pytest
import trio

from overlay.answers import flows
from overlay.balancing import flow_pages
from overlay.link.service_messages import AskFlows, FlowFilter, FlowRow, Flows
from tests.overlay.balancing.test_balancing import WEB, Bench

ELSEWHERE = """
[services.far]
address = "203.0.113.81"
ports = [80]
directors = ["client"]
servers = ["web1"]
"""
DNS = """
[services.dns]
address = "203.0.113.82"
ports = [53]
protocol = "udp"
directors = ["lb"]
servers = ["web2"]
"""
CLIENT, VIP = ip_address("192.0.2.7"), ip_address("203.0.113.80")


def row(port=40000, server=0, state=2, protocol=6):
    return FlowRow(protocol, CLIENT.packed, port, VIP.packed, 80, state, server, 1.0, 899.0)


class Site:
    """A director whose forwarder has *table* for each service, by its number, and reports *page* of them at a time."""

    def __init__(self, table, page=100, text=WEB + ELSEWHERE + DNS):
        self.asked, self.told = [], []
        self.table, self.page = table, page
        self.bench = Bench(text)
        self.balancing = self.bench.balancing
        self.balancing.flow_pages = flow_pages.FlowPages(self.tell)

    async def tell(self, command):
        assert isinstance(command, AskFlows)
        self.asked.append(command)
        rows = self.table.get(command.service, [])
        most = min(command.most, self.page)
        page = rows[command.at : command.at + most]
        rest = command.at + most if command.at + most < len(rows) else None
        assert self.balancing.awaits(Flows(command.serial, page, True, rest))
        assert await self.balancing.take(Flows(command.serial, page, True, rest))

    def ask(self, **request):
        running = SimpleNamespace(balancing=self.balancing, services=self.balancing.node.table.services)

        async def tell_rows(rows):
            self.told.append(rows)

        return trio.run(flows.answer, running, {"op": "flows"} | request, tell_rows)

    @property
    def rows(self):
        return [row for rows in self.told for row in rows]


def test_flows_are_told_by_the_names_of_their_servers():
    site = Site({0: [row(), row(server=None), row(server=99, state=77, protocol=4)]})

    assert site.ask(name="web") == {"ok": True, "is_complete": True, "has_more": False}
    first, gone, odd = site.rows
    assert first == {
        "service": "web",
        "protocol": "tcp",
        "client": "192.0.2.7",
        "client_port": 40000,
        "address": "203.0.113.80",
        "port": 80,
        "state": "ESTABLISHED",
        "server": "web1",
        "idle_s": 1.0,
        "left_s": 899.0,
    }
    assert gone["server"] is None
    assert (odd["server"], odd["state"], odd["protocol"]) == (None, "77", "4")


def test_pages_follow_each_other_until_the_limit_and_no_further():
    site = Site({0: [row(port) for port in range(1, 301)]}, page=40)

    assert site.ask(name="web", limit=100)["has_more"]
    assert [each["client_port"] for each in site.rows] == list(range(1, 101))
    assert [each.at for each in site.asked] == [0, 40, 80]


@pytest.mark.parametrize("count", [99, 100])
def test_a_limit_that_is_just_enough_leaves_nothing_out(count):
    site = Site({0: [row(port) for port in range(1, count + 1)]}, page=50)

    assert not site.ask(limit=100)["has_more"]
    assert len(site.rows) == count


def test_the_limit_is_for_all_services_together():
    site = Site({0: [row(port) for port in range(1, 61)], 1: [row(port) for port in range(1, 61)]})

    assert site.ask(limit=100)["has_more"]
    assert len(site.rows) == 100
    assert {each["service"] for each in site.rows} == {"web", "dns"}
    assert not site.ask(limit=120)["has_more"]


def test_filters_are_for_the_forwarder():
    site = Site({})

    site.ask(
        name="web",
        client="192.0.2.77/24",
        server="web2",
        states=["SYN_RECV"],
        protocol="tcp",
        port=80,
        limit=7,
    )

    (asked,) = site.asked
    number = site.balancing.numbers.server("web", "web2:0")
    assert asked.wanted == FlowFilter(ip_address("192.0.2.0").packed, 24, number, 6, 80, [1])
    assert (asked.at, asked.most) == (0, 8)


def test_a_server_is_sought_in_the_services_that_have_it():
    site = Site({})

    site.ask(server="web1")

    assert [each.service for each in site.asked] == [site.balancing.numbers.service("web")]


@pytest.mark.parametrize(
    ("request_", "kind", "said"),
    [
        ({"name": "wep"}, "unknown_service", "there is no service 'wep'"),
        ({"name": ["web"]}, "unknown_service", "there is no service"),
        ({"name": "far"}, "failed", "this node is not a director of far: ask one of its directors"),
        ({"server": "web9"}, "unknown_service", "there is no server 'web9'"),
        ({"name": "dns", "server": "web1"}, "unknown_service", "there is no server of dns 'web1'"),
        ({"server": {}}, "unknown_service", "there is no server {}"),
        ({"client": "192.0.2.0/33"}, "failed", "'192.0.2.0/33' is not an IP address or prefix"),
        ({"client": ["x"]}, "failed", "['x'] is not an IP address or prefix"),
        ({"client": 7}, "failed", "7 is not an IP address or prefix"),
        ({"client": True}, "failed", "True is not an IP address or prefix"),
        ({"states": ["OPEN"]}, "failed", "the states of flows are SYN_RECV"),
        ({"states": [["UDP"]]}, "failed", "the states of flows are SYN_RECV"),
        ({"states": "UDP"}, "failed", "the states of flows are SYN_RECV"),
        ({"protocol": "icmp"}, "failed", "the protocols of services are tcp, udp, sctp"),
        ({"protocol": []}, "failed", "the protocols of services are tcp, udp, sctp"),
        ({"port": 65536}, "failed", "port must be a number from 0 to 65535"),
        ({"port": "80"}, "failed", "port must be a number from 0 to 65535"),
        ({"limit": 0}, "failed", "limit must be a number from 1 to 1000000"),
        ({"limit": True}, "failed", "limit must be a number from 1 to 1000000"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_sentence(request_, kind, said):
    site = Site({})

    reply = site.ask(**request_)

    assert (reply["ok"], reply["kind"]) == (False, kind)
    assert said in reply["error"]
    assert site.asked == []


def test_a_forwarder_that_does_not_tell_leaves_the_answer_incomplete(monkeypatch):
    monkeypatch.setattr(flow_pages, "PATIENCE", 0.05)
    site = Site({})

    async def hang(_):
        await trio.sleep_forever()

    site.balancing.flow_pages = flow_pages.FlowPages(hang)

    assert site.ask() == {"ok": True, "is_complete": False, "has_more": False}


def test_a_forwarder_that_never_ends_is_not_heeded(monkeypatch):
    monkeypatch.setattr(flows, "PAGES", 20)
    site = Site({})

    async def go_on(command):
        await site.balancing.take(Flows(command.serial, [], True, command.at + 1))

    site.balancing.flow_pages = flow_pages.FlowPages(go_on)

    assert not site.ask()["is_complete"]


def test_a_node_without_services_of_its_own_has_no_flows():
    site = Site({}, text=ELSEWHERE)

    assert site.ask() == {"ok": True, "is_complete": True, "has_more": False}
    assert site.asked == []
