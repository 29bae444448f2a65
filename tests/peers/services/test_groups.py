"""Groups of VRRP that contradict each other or the services that name them."""

from __future__ import annotations

import pytest

from peers.errors import TableError
from peers.service import Vrrp
from peers.services.groups import place_of
from tests.peers.services.files import FIRST_LINE, read, web

DIRECTORS = 'directors = ["lb1", "lb2"]'
LAN = '[vrrp.lan]\nrouter = 51\ninterface = "eth0"\n'
ANOTHER = '[services.another]\naddress = "192.0.2.101"\n'
GROUP = 'vrrp = { router = 51, interface = "eth0" }'

REFUSED = [
    (web(GROUP), 3, "services.web.vrrp is for directors on a LAN, and every node is one; name them"),
    (
        web(DIRECTORS, 'vrrp = "lan"') + ANOTHER + 'directors = "lb1"\nvrrp = "lan"\n' + LAN,
        8,
        "services.another.vrrp lan is also that of services.web, which has other directors",
    ),
    (
        web(DIRECTORS, 'vrrp = { router = 51, interface = { lb1 = "eth0" } }'),
        4,
        "services.web.vrrp.interface has none for lb2; write the one that it has on the LAN",
    ),
    (
        web(DIRECTORS, 'vrrp = { router = 51, interface = "eth0", priority = { web1 = 9 } }'),
        4,
        "services.web.vrrp.priority.web1 is for a director, and web1 is not one of services.web; remove it",
    ),
    (
        web(DIRECTORS, GROUP) + ANOTHER + f"{DIRECTORS}\n{GROUP}",
        8,
        "services.another.vrrp.router 51 is also that of services.web.vrrp on eth0 of peers.lb1; write another, or share",
    ),
    (
        web(DIRECTORS, 'vrrp = { router = 51, interface = { lb1 = "a", lb2 = "b" } }')
        + ANOTHER
        + f'{DIRECTORS}\nvrrp = {{ router = 51, interface = {{ lb1 = "c", lb2 = "b" }} }}',
        8,
        "services.another.vrrp.router 51 is also that of services.web.vrrp on b of peers.lb2",
    ),
    (
        web(DIRECTORS, 'vrrp = { router = 51, interface = { lb1 = "a", lb2 = "b", web1 = "c" } }'),
        4,
        "services.web.vrrp.interface.web1 is for a director, and web1 is not one of services.web",
    ),
    (
        web(DIRECTORS, 'address = "2001:db8::1"', 'vrrp = { router = 51, interface = "eth0", version = 2 }'),
        4,
        "services.web.vrrp.version 2 has no IPv6, and services.web has it; write version = 3",
    ),
    (
        web(DIRECTORS, 'vrrp = "lan"') + LAN + 'track_services = "mail"',
        8,
        "vrrp.lan.track_services has mail, which is not a service",
    ),
    (web(DIRECTORS, 'vrrp = "lan"') + LAN + "track_weight = 9", 8, "vrrp.lan.track_weight has no effect"),
    (
        web(DIRECTORS, 'vrrp = "lan"') + LAN + "preempt = false\npreempt_delay = 9",
        9,
        "vrrp.lan.preempt_delay has no effect with preempt = false",
    ),
]


@pytest.mark.parametrize(("text", "line", "sentence"), REFUSED)
def test_what_contradicts_itself_is_refused_with_its_line(text, line, sentence):
    with pytest.raises(TableError) as caught:
        read(text)

    assert sentence in str(caught.value)
    assert caught.value.line == line + FIRST_LINE - 1


@pytest.mark.parametrize(
    "text",
    [
        web(DIRECTORS, 'vrrp = "lan"') + ANOTHER + DIRECTORS + '\nvrrp = "lan"\n' + LAN,
        web(DIRECTORS, GROUP) + ANOTHER + f"{DIRECTORS}\n{GROUP.replace('eth0', 'eth1')}",
        web(DIRECTORS, GROUP) + ANOTHER.replace("192.0.2.101", "2001:db8::1") + f"{DIRECTORS}\n{GROUP}",
        web('directors = "lb1"', GROUP) + ANOTHER + f'directors = "lb2"\n{GROUP}',
    ],
)
def test_what_only_looks_like_a_contradiction_is_accepted(text):
    assert read(text).services["web"].vrrp is not None


def test_a_group_is_found_where_it_is_written():
    assert place_of(Vrrp("lan", 1)) == ("vrrp", "lan")
    assert place_of(Vrrp("services/web", 1)) == ("services", "web", "vrrp")
