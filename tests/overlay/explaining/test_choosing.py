"""Which server a flow gets: as the forwarder chooses."""

from __future__ import annotations

from ipaddress import ip_address
from types import SimpleNamespace

import pytest

from overlay.explaining.choosing import choose
from overlay.explaining.flow import Flow
from overlay.forwarding.services.server import ServerSettings
from overlay.forwarding.services.service import Service
from overlay.forwarding.services.settings import ServiceSettings
from overlay.services.health import ByHand
from tests.overlay.explaining.test_services import VIP, WEB, made

CLIENTS = [f"198.51.100.{number}" for number in range(1, 60)]


def forwarder(health, persistence=0, prefix=32):
    """Return a service as the forwarder has it, with the servers of *health*."""
    made = Service("web", ServiceSettings(health.service.scheduler, persistence, prefix))
    rows = [
        ServerSettings(number, each.key, SimpleNamespace(state=None), health.standings[each.key].effective)
        for number, each in enumerate(health.service.servers)
    ]
    made.set_servers(rows)
    for _ in made.prepare():
        pass
    return made


@pytest.mark.parametrize(
    ("scheduler", "more"),
    [
        ("sh", ""),
        ("dh", ""),
        ("maglev", ""),
        ("maglev", "persistence = 300\n"),
        ("sh", "persistence = 300\n"),
    ],
)
def test_it_is_the_server_that_the_forwarder_would_choose(scheduler, more):
    bench = made(WEB.replace('"sh"', f'"{scheduler}"') + more)
    health = bench.health("web")
    twin = forwarder(health, 300 if more else 0)
    for number, client in enumerate(CLIENTS):
        port = 40_000 + number
        expected = twin.choose(
            ip_address(client).packed, port.to_bytes(2, "big"), ip_address(VIP).packed, 0.0
        )

        choice = bench.choose("web", VIP, client, source_port=port)

        assert choice.server is not None
        assert choice.server.key == expected.key


def test_without_the_port_of_the_client_a_hash_of_flows_is_not_known():
    choice = made(WEB.replace('"sh"', '"maglev"')).choose("web", VIP, CLIENTS[0])

    assert choice.server is None
    assert choice.why == "maglev chooses by the client's address and port: add --source-port to see which"


def test_a_client_that_has_a_server_keeps_it():
    bench = made(WEB.replace('"sh"', '"rr"'))

    assert bench.choose("web", VIP, CLIENTS[0], known="rome").server.name == "rome"
    assert bench.choose("web", VIP, CLIENTS[0], known="gone").server is None


def test_a_single_server_needs_no_choice():
    bench = made(WEB.replace('"sh"', '"rr"').replace('["tokyo", "rome"]', '["rome"]'))

    assert bench.choose("web", VIP, CLIENTS[0]).why == "it is the only one that takes new flows"


def test_a_drained_server_is_not_chosen():
    bench = made()
    health = bench.health("web")
    health.set_by_hand(health.service.servers[0].key, ByHand(is_drained=True), 0.0)
    flow = Flow(ip_address(VIP))

    chosen = {choose(health, flow, ip_address(client)).server.name for client in CLIENTS}

    assert chosen == {health.service.servers[1].name}
