"""Packets to and from virtual addresses."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from overlay.explaining.explanation import Path
from tests.overlay.explaining.bench import PEERS, ROUTES, Bench, out, refused, texts
from tests.overlay.explaining.test_leaving import end

VIP = "203.0.113.80"
WEB = """
[services.web]
address = "203.0.113.80"
ports = [80]
directors = ["paris"]
scheduler = "sh"
servers = ["tokyo", "rome"]
"""


def made(text=WEB, own="paris"):
    bench = Bench(PEERS + text, own, ROUTES | {f"{VIP}/32": out("overlay0", f"{VIP}/32", "10.244.0.1")})
    bench.active = "paris"
    return bench


def test_a_director_explains_which_server_a_client_gets():
    bench = made()
    choice = bench.choose("web", VIP, "10.244.1.5")

    found = bench.explain(VIP, "10.244.1.5")

    assert end(found) == (Path.TUNNEL, True, None, None)
    assert found.service["server"] == choice.server.name == found.peer
    assert "it is the only" not in texts(found)
    assert "accepts the source 10.244.1.5: this node is a director of web" in texts(found)


def test_a_choice_that_is_made_later_has_its_candidates():
    bench = made(WEB.replace('"sh"', '"wlc"'))
    bench.choose("web", VIP, "10.244.1.5")

    found = bench.explain(VIP, "10.244.1.5")

    assert end(found) == (Path.TUNNEL, True, None, None)
    assert (found.peer, found.service["server"], found.service["servers"]) == (None, None, ["tokyo", "rome"])
    assert "one of tokyo at tokyo, rome at rome: wlc chooses with the next flow" in texts(found)


def test_a_service_without_servers_is_empty():
    bench = made(WEB.replace('["tokyo", "rome"]', "[]"))
    bench.choose("web", VIP, "10.244.1.5")

    assert end(bench.explain(VIP, "10.244.1.5")) == (Path.NOWHERE, False, "node", "service_empty")


def test_a_port_of_no_service_is_refused():
    bench = made()

    assert end(bench.explain(VIP, protocol="tcp", port=81)) == (Path.NOWHERE, False, "node", "service_port")
    assert end(bench.explain(VIP, protocol="udp")) == (Path.NOWHERE, False, "node", "service_port")


def test_another_node_sends_it_to_the_director():
    bench = made(own="tokyo")
    bench.routes[ip_network("10.244.0.2/32")] = bench.routes.pop(ip_network("10.244.0.1/32"))
    bench.routes[ip_network(f"{VIP}/32")] = out("overlay0", f"{VIP}/32", "10.244.0.2")

    found = bench.explain(VIP)

    assert (found.peer, found.service["director"], found.goes) == ("paris", "paris", True)
    assert "web, which paris balances" in texts(found)


def test_an_answer_of_a_server_has_the_service_as_its_source():
    bench = made(own="tokyo")
    bench.routes[ip_network(f"{VIP}/32")] = out("lo", f"{VIP}/32")

    found = bench.explain("10.244.3.3", VIP)

    assert found.goes
    assert "as an answer of the service web" in texts(found)


def test_a_server_takes_what_a_director_sends_for_clients():
    bench = made(own="tokyo")

    found = bench.explain(VIP, "198.51.100.7")

    assert "outside" not in texts(found)
    assert found.sender is None


@pytest.mark.parametrize("source", ["198.51.100.7"])
def test_a_server_takes_nothing_else_from_nobody(source):
    bench = made(own="tokyo")

    assert refused(bench.explain("10.244.2.9", source)) == ("node", "source")
