"""Services that contradict each other, the peers or themselves."""

from __future__ import annotations

import pytest

from peers.errors import TableError
from peers.toml import parse
from tests.peers.examples import key_text
from tests.peers.services.files import FIRST_LINE, HEAD, PATH, PLAIN, read, web

OTHER = '[services.other]\naddress = "192.0.2.100"\n'
BOTH = 'address = ["192.0.2.100", "2001:db8::100"]'

PHONE = f'[peers.phone]\npublic_key = "{key_text("phone")}"\nsubnets = ["10.244.77.0/24"]\nagent = false\n'

REFUSED = [
    # Peers
    (web('directors = "lb3"'), 3, "services.web.directors lb3 is not a peer; did you mean lb"),
    (
        web('directors = ["lb1",', '"xyz"]'),
        4,
        "services.web.directors[1] xyz is not a peer; write a [peers.xyz]",
    ),
    (web('servers = ["web1", "wbe2"]'), 3, "services.web.servers[1] wbe2 is not a peer; did you mean web2?"),
    (web('sorry = "stati"'), 3, "services.web.sorry stati is not a peer; did you mean static?"),
    (web("directors = 'plain'") + PLAIN + "agent = false\n", 3, "plain runs no agent (agent = false)"),
    # Hosts without an agent
    (
        web("ports = 80", "servers = [{ peer = 'plain', port = 8080 }]") + PLAIN,
        4,
        "services.web.servers.port is another than that of the service, and peers.plain runs no agent that could map it",
    ),
    (
        web("servers = [{ peer = 'plain', address = '10.9.9.9' }]") + PLAIN,
        3,
        "is behind a host that has to pass it on, and peers.plain runs no agent; make 10.9.9.9 a peer of its own",
    ),
    (
        web("reply = 'director'", "servers = 'plain'") + PLAIN,
        3,
        'services.web.reply is "director", and peers.plain runs no agent that could send answers there',
    ),
    (
        web("servers = [" + "".join(f"{{ peer = 'web1', port = {n} }}," for n in range(1, 65)) + "]"),
        3,
        "services.web.servers[63] is one of more than 63 servers at one peer",
    ),
    (
        web("directors = ['lb1', 'lb2']", "servers = 'phone'") + PHONE,
        4,
        (
            "services.web.servers peers.phone has WireGuard and no agent, which takes what clients send from one "
            "director alone, and services.web has 2 for it"
        ),
    ),
    (
        web("servers = 'phone'") + PHONE,
        3,
        "services.web has every node for it; write one director, or agent = true",
    ),
    # By itself
    (
        web("one_packet = true"),
        3,
        "services.web.one_packet is for UDP, where each datagram stands alone, and the protocol is tcp",
    ),
    (web("ports = 53", 'protocol = ["udp", "tcp"]', "one_packet = true"), 5, "the protocol is udp and tcp"),
    (web("quorum = 2", "hysteresis = 2"), 4, "services.web.hysteresis is 2 and the quorum 2"),
    (
        web("sorry = { peer = 'static', weight = 0 }"),
        3,
        "services.web.sorry.weight is 0, which takes nothing",
    ),
    (
        web("servers = [{ peer = 'web1', address = 'fd00::7' }]"),
        3,
        "services.web.servers.address fd00::7 is of IPv6, and the service has no address of that family",
    ),
    (
        web("address = ['203.0.113.80', 'fd00::80']", "servers = [{ peer = 'web1', address = '10.9.0.7' }]"),
        3,
        (
            "services.web.servers.address 10.9.0.7 cannot take what comes to the service's IPv6 address; write a "
            "service for each family"
        ),
    ),
    # Checks
    (
        web("ports = 53", 'protocol = "udp"', 'check = { kind = "http" }'),
        5,
        "services.web.check does not fit: kind http speaks tcp and the service udp; write a kind that does",
    ),
    (
        web("ports = 53", 'check = "echo"') + '[checks.echo]\nkind = "udp"\n',
        4,
        "services.web.check does not fit: checks.echo speaks udp and the service tcp",
    ),
    (web('check = { kind = "tcp" }'), 3, "services.web.check has no port, and neither has the service"),
    (
        web("ports = 80", "servers = ['web1', { peer = 'web2', check = { kind = 'udp' } }]"),
        4,
        "services.web.servers[1].check does not fit: kind udp speaks udp",
    ),
    (
        web("ports = 80", "servers = []", 'check = { kind = "udp" }'),
        5,
        "services.web.check does not fit: kind udp",
    ),
    (
        web("servers = [{ peer = 'web1', check = { kind = 'ping' } }]", 'check = { kind = "tcp" }'),
        4,
        "services.web.check has no port, and neither has the service",
    ),
    # Two services
    (
        web() + OTHER,
        4,
        "services.other.address takes every port of 192.0.2.100 by tcp, which services.web takes too",
    ),
    (
        web("ports = 80") + OTHER + "ports = [443, 80]",
        6,
        "services.other.ports takes port 80 of 192.0.2.100 by tcp",
    ),
    (
        web("ports = '80-89'") + OTHER + "ports = '85-94'",
        6,
        "services.other.ports takes port 85 of 192.0.2.100",
    ),
    (
        web("ports = 80", BOTH) + '[services.six]\naddress = "2001:db8::100"\nports = 80',
        6,
        "port 80 of 2001:db8::100",
    ),
    # Addresses of hosts
    (web('address = "10.244.0.3"'), 2, "services.web.address 10.244.0.3 is also the address of peers.web1"),
    (
        web('address = "198.51.100.4"'),
        2,
        "services.web.address 198.51.100.4 is also the endpoint of peers.web2",
    ),
    (
        web('address = "203.0.113.7"') + PLAIN + 'listen = "203.0.113.7"',
        2,
        "an address that peers.plain listens on",
    ),
    (
        web('address = "203.0.113.7"') + PLAIN + 'subnets = "203.0.113.7/32"',
        2,
        "is also a subnet of peers.plain",
    ),
    (
        web(
            'address = ["192.0.2.100", "192.0.2.101"]',
            "servers = [{ peer = 'web1', address = '192.0.2.101' }]",
        ),
        2,
        "services.web.address[1] 192.0.2.101 is also the address of a server, services.web.servers",
    ),
    (
        web("servers = [{ peer = 'web1', address = '10.244.4.9' }]"),
        3,
        "services.web.servers.address 10.244.4.9 is behind peers.web2 and not behind web1",
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
        web("ports = 80") + OTHER + "ports = '1-1024'",
        web("ports = 80") + OTHER,
        web("ports = '1-65535'") + OTHER,
        web("ports = 53") + OTHER + 'ports = 53\nprotocol = "udp"',
        web("ports = 80", "servers = [{ peer = 'plain', port = 80 }]") + PLAIN,
        web("ports = 80", "servers = [{ peer = 'plain', port = 8080 }]") + PLAIN + "agent = true",
        web("directors = 'plain'") + PLAIN,
        web("ports = 53", 'protocol = "udp"', 'check = { kind = "http", port = 8080 }'),
        web("ports = 53", 'protocol = "udp"', 'check = [{ kind = "dns" }, { kind = "ping" }]'),
        web("protocol = 'sctp'", "check = { kind = 'ping' }"),
        web("ports = 53", 'protocol = "udp"', "one_packet = true"),
        web(
            "servers = [{ peer = 'web1', address = '10.244.3.9' }, { peer = 'web1', address = '172.17.0.2' }]"
        ),
        web('address = "10.244.1.200"'),
        web("servers = 'web1'", "sorry = 'web1'"),
    ],
)
def test_what_only_looks_like_a_contradiction_is_accepted(text):
    assert "web" in read(text).services


def test_services_are_not_for_frames():
    tap = HEAD.replace("[network]", '[network]\ndevice = "tap"')

    with pytest.raises(TableError, match=r'services.web is for a tun, and network.device is "tap"'):
        parse(tap + web(), PATH)


def test_a_virtual_address_of_ipv6_needs_its_mtu():
    narrow = HEAD.replace("[network]", "[network]\nmtu = 1000")

    with pytest.raises(
        TableError, match=r"line 2: network.mtu 1000 is too small for IPv6, and services.web has 2001"
    ):
        parse(narrow + web(BOTH), PATH)


def test_an_mtu_for_ipv4_is_asked_of_every_service():
    narrow = HEAD.replace("[network]", "[network]\nmtu = 1000")
    second = '[services.second]\naddress = "2001:db8::200"\n'

    with pytest.raises(TableError, match=r"services\.second has 2001:db8::200"):
        parse(narrow + web() + second, PATH)
