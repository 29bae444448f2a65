"""Valid settings of services that are probably mistakes."""

from __future__ import annotations

import pytest

from peers.hints import warnings
from peers.toml import parse
from tests.peers.services.files import HEAD, PATH, PLAIN, read, web
from tests.peers.services.test_clients import WIREGUARD

DIRECTORS = 'directors = ["lb1", "lb2"]'
SERVERS = "servers = ['web1', 'web2']"


def hints(*texts):
    """Return the warnings, without those about the peers alone."""
    usual = set(warnings(read(PLAIN))) | set(warnings(read(PLAIN, WIREGUARD)))
    return [each for each in warnings(read(*texts)) if each not in usual]


@pytest.mark.parametrize(
    "text",
    [
        web(DIRECTORS, SERVERS),
        web(DIRECTORS, SERVERS, "quorum = 2", "ports = 80", 'check = { kind = "tcp" }', 'sorry = "static"'),
        web(
            DIRECTORS,
            "servers = [{ peer = 'web1', weight = 2 }, 'web2']",
            'scheduler = "wrr"',
            "slow_start = 9",
        ),
        web(SERVERS),
        web('address = "2001:db8::100"', "servers = [{ peer = 'web1', address = '2001:db8:1::1' }]"),
        web(DIRECTORS, SERVERS)
        + '[peers.roaming]\npublic_key = "EY1X6q7LmSThjaSdMPmTs7LTkI971d+0dxdtL8ZfTH4="\n'
        + 'address = "10.244.0.99"\n[services.more]\naddress = "8.8.4.4"\nservers = "roaming"\n',
        web('address = "10.244.1.9"', DIRECTORS, SERVERS),
    ],
)
def test_a_service_that_is_right_has_no_hints(text):
    assert hints(text) == []


HINTS = [
    (web(), "services.web has no servers: clients are refused"),
    (
        web("sorry = 'static'"),
        "services.web has no servers: all connections go to the sorry server static",
    ),
    (web("servers = { peer = 'web1', weight = 0 }"), "has servers of weight 0 alone, which take nothing new"),
    (
        web(SERVERS, "quorum = 2", "hysteresis = 1"),
        "services.web needs a sum of weights of 3 for its quorum, and that of all its servers is 2",
    ),
    (
        web("servers = [{ peer = 'web1', weight = 2 }, 'web2']", 'scheduler = "rr"'),
        "services.web has servers of different weights, and rr does not look at them",
    ),
    (
        web(SERVERS, 'scheduler = "lc"', "slow_start = 60"),
        "services.web has a slow start, which works by weights, and lc ignores those",
    ),
    (web(SERVERS, 'sorry = "static"'), "services.web has a sorry server and no check"),
    (
        web('address = "2001:db8::100"', "directors = 'web1'", SERVERS),
        "peers.web1 balances services.web and is one of its servers, but has no IPv6 address on the overlay",
    ),
    (
        web('address = "10.244.6.9"', DIRECTORS, SERVERS),
        "10.244.6.9 of services.web lies inside 10.244.6.0/24 of peers.static",
    ),
    (
        web(SERVERS) + '[checks.page]\nkind = "ping"\n',
        "checks.page has no effect, because no service names it",
    ),
    (web(SERVERS) + '[vrrp.lan]\nrouter = 1\ninterface = "eth0"\n', "vrrp.lan has no effect"),
    (web(SERVERS) + WIREGUARD, "clients at peers.phone cannot use services.web: WireGuard there accepts"),
    (
        web('address = "10.244.1.9"', DIRECTORS, SERVERS)
        + f'[services.more]\naddress = "10.244.6.9"\n{DIRECTORS}\n{SERVERS}\n',
        "10.244.6.9 of services.more lies inside 10.244.6.0/24 of peers.static",
    ),
    (
        web("directors = 'lb1'", "servers = 'phone'") + WIREGUARD,
        (
            "peers.phone is a server of services.web by WireGuard without an agent: it needs AllowedIPs = 0.0.0.0/0 "
            "for lb1, with Table = off, and 192.0.2.100 on its interface"
        ),
    ),
    (
        web("ports = 80", DIRECTORS, "servers = 'web1'")
        + f'[services.mail]\naddress = "192.0.2.100"\nports = 25\n{DIRECTORS}\nservers = "web2"\n',
        "clients at peers.web2 cannot use services.web: its host has 192.0.2.100 itself, as a server of services.mail",
    ),
]


@pytest.mark.parametrize(("text", "sentence"), HINTS)
def test_what_may_be_a_mistake_is_one_sentence(text, sentence):
    found = hints(text)

    assert [each for each in found if sentence in each], found


@pytest.mark.parametrize(
    ("address", "reply", "is_hinted"),
    [("8.8.4.4", "direct", True), ("8.8.4.4", "director", False), ("9.9.9.9", "direct", False)],
)
def test_answers_from_an_address_of_another_site_may_be_filtered(address, reply, is_hinted):
    text = HEAD.replace("198.51.100.3", "9.9.9.1") + web(
        f'address = "{address}"', "servers = 'web1'", f'reply = "{reply}"'
    )

    found = [each for each in warnings(parse(text, PATH)) if "BCP 38" in each]

    assert bool(found) == is_hinted


def test_many_of_a_kind_are_one_sentence():
    text = "".join(f'[services.s{n}]\naddress = "192.0.2.{n}"\n' for n in range(1, 5))

    (found,) = hints(text)

    assert found.startswith("4 services have no server that takes anything")


def test_a_server_by_wireguard_is_not_among_the_clients():
    found = hints(web("directors = 'lb1'", "servers = 'phone'"), WIREGUARD)

    assert not [each for each in found if each.startswith("clients at peers.phone")]


@pytest.mark.parametrize(
    "lines",
    [
        ("quorum = 9", SERVERS),
        ("servers = [{ peer = 'web1', weight = 2 }, 'web2']", 'scheduler = "rr"'),
        (SERVERS, 'scheduler = "lc"', "slow_start = 60"),
        (SERVERS, 'sorry = "static"'),
        ("servers = 'phone'", "directors = 'lb1'"),
    ],
)
def test_many_services_with_one_mistake_are_one_sentence_of_the_kind(lines):
    text = "".join(
        web(f'address = "192.0.2.{n}"', *lines, *([] if "directors" in lines[-1] else [DIRECTORS])).replace(
            "web]", f"s{n}]"
        )
        for n in range(4)
    )

    found = [each for each in hints(text, WIREGUARD) if "cannot use" not in each]

    assert len(found) == 1
    assert found[0].startswith("4 s")
