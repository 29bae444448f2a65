"""Services in a peers file."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from peers.errors import TableError
from peers.service import Check, Server, Service, Vrrp
from peers.services.sections import CHECKS, SERVICES, VRRPS
from peers.toml import parse
from tests.peers.services.files import FIRST_LINE, HEAD, PATH, read
from tests.peers.services.files import web as section

EXAMPLE = """
[services.web]
address = "192.0.2.100"
ports = [80, 443]
protocol = "tcp"
directors = ["lb1", "lb2"]
scheduler = "wlc"
persistence = 300
servers = ["web1", { peer = "web2", weight = 3 }, { peer = "web3", port = 8080 }, { peer = "web3", address = "10.244.5.7" }]
check = { kind = "http", path = "/health", status = "200-299", every = 6, timeout = 5, retries = 1 }
sorry = "static"
quorum = 2
"""


def web(*lines):
    """Return the service that *lines* define, which may omit the address."""
    return read(section(*lines)).services["web"]


def test_the_example_of_a_service_gives_its_value():
    assert read(EXAMPLE).services == {
        "web": Service(
            "web",
            (ip_address("192.0.2.100"),),
            ((80, 80), (443, 443)),
            ("tcp",),
            ("lb1", "lb2"),
            "wlc",
            persistence=300,
            servers=(
                Server("web1", "web1"),
                Server("web2", "web2", weight=3),
                Server("web3:8080", "web3", port=8080),
                Server("web3@10.244.5.7", "web3", ip_address("10.244.5.7")),
            ),
            checks=(Check("http", path="/health", every=6, timeout=5, retries=1),),
            sorry=Server("static", "static"),
            quorum=2,
        )
    }


def test_what_is_left_out_has_its_default():
    assert web() == Service("web", (ip_address("192.0.2.100"),))


def test_a_file_without_services_has_none():
    table = parse(HEAD, PATH)

    assert not table.services
    assert not any(kind.of(table.sections) for kind in (SERVICES, CHECKS, VRRPS))


def test_every_node_may_be_a_director():
    assert web('directors = "all"').directors is None
    assert web('directors = "lb1"').directors == ("lb1",)


def test_the_kernels_name_of_maglev_is_maglev():
    assert web('scheduler = "mh"').scheduler == "maglev"


def test_ports_are_sorted_ranges():
    assert web('ports = [443, "8000-8099", 80]').ports == ((80, 80), (443, 443), (8000, 8099))
    assert web("ports = 53").ports == ((53, 53),)


def test_persistence_prefixes_are_by_version():
    service = web(
        'address = ["192.0.2.1", "2001:db8::1"]',
        "persistence = 60",
        "persistence_prefix = 24",
        "persistence_prefix_v6 = 56",
    )

    assert service.persistence_prefix == {4: 24, 6: 56}


def test_a_check_is_shared_by_its_name():
    table = read(
        "[checks.page]",
        'kind = "http"',
        "port = 80",
        "[services.web]",
        'address = "192.0.2.1"',
        'check = "page"',
        "[services.more]",
        'address = "192.0.2.2"',
        'servers = [{ peer = "web1", check = ["page", { kind = "ping" }] }]',
    )

    page = CHECKS.of(table.sections)["page"]
    assert page == Check("http", "page", 80)
    assert table.services["web"].checks == (page,)
    assert table.services["more"].servers[0].checks == (page, Check("ping"))


def test_vrrp_is_shared_by_its_name_or_written_at_the_service():
    table = read(
        "[vrrp.lan]",
        "router = 51",
        'interface = "eth0"',
        "[services.web]",
        'address = "192.0.2.1"',
        'directors = ["lb1", "lb2"]',
        'vrrp = "lan"',
        "[services.more]",
        'address = "192.0.2.2"',
        'directors = ["lb1", "lb2"]',
        "[services.more.vrrp]",
        "router = 52",
        'interface = { lb1 = "eth1", lb2 = "ens3" }',
        "priority = { lb2 = 200 }",
    )

    assert VRRPS.of(table.sections) == {"lan": Vrrp("lan", 51, "eth0")}
    assert table.services["web"].vrrp is VRRPS.of(table.sections)["lan"]
    more = table.services["more"].vrrp
    assert more == Vrrp(
        "services/more", 52, interfaces={"lb1": "eth1", "lb2": "ens3"}, priorities={"lb2": 200}
    )


def test_version_2_has_longer_intervals_and_a_password():
    group = 'vrrp = { router = 5, interface = "eth0", version = 2, interval = 255, password = "secret" }'

    vrrp = web('directors = "lb1"', group).vrrp

    assert (vrrp.interval, vrrp.password) == (255, "secret")


def test_routers_may_be_called_by_their_addresses():
    group = 'vrrp = { router = 5, interface = "eth0", unicast = ["192.0.2.2", "fe80::2"], track_interfaces = "eth1" }'

    vrrp = web('directors = "lb1"', group).vrrp

    assert vrrp.unicast == (ip_address("192.0.2.2"), ip_address("fe80::2"))
    assert vrrp.track_interfaces == ("eth1",)


def test_failures_in_a_row_are_one_more_than_retries():
    for keys in ("fall = 3", "retries = 2", "fall = 3, retries = 2"):
        (check,) = web("ports = 80", f'check = {{ kind = "tcp", {keys} }}').checks

        assert (check.retries, check.fall) == (2, 3)

    (once,) = web("ports = 80", 'check = { kind = "tcp", fall = 1 }').checks
    assert once.retries == 0


def test_files_of_checks_are_relative_to_the_peers_file():
    (check,) = web("ports = 443", 'check = { kind = "https", ca_file = "ca.pem" }').checks

    assert check.ca_file == Path("/etc/overlay/ca.pem")
    assert check.verify


def test_bytes_of_udp_checks_are_text_or_hexadecimal():
    (one,) = web(
        "ports = 7", 'protocol = "udp"', 'check = { kind = "udp", send = "hello", expect = "" }'
    ).checks
    (other,) = web("ports = 7", 'protocol = "udp"', 'check = { kind = "udp", send_hex = "00 ff" }').checks

    assert (one.send, one.expect) == (b"hello", b"")
    assert (other.send, other.expect) == (b"\x00\xff", None)


SENTENCES = [
    ("[services]\nweb = 1", 2, "services.web is 1; write a [services.web] table"),
    ("services = 1", 1, "services is 1; write a [services.NAME] table for each"),
    ('[services."a/b"]', 1, 'services."a/b" is not the name of a service'),
    ("[services.web]\nports = 80", 1, "services.web.address is missing; write a virtual address"),
    ("[services.web]\naddres = 1", 2, "services.web.addres is not known; did you mean address?"),
]
WEB_SENTENCES = [
    ('address = "192.0.2.0/24"', "services.web.address '192.0.2.0/24' has a length"),
    ('address = ["192.0.2.1", "192.0.2.1"]', "services.web.address[1] 192.0.2.1 is here twice"),
    ('address = "127.0.0.1"', "services.web.address '127.0.0.1' is not an address that a host can have"),
    ('address = "fe80::1"', "services.web.address 'fe80::1' is link-local"),
    ('address = "::ffff:192.0.2.1"', "is an IPv4 address in IPv6 form; write 192.0.2.1"),
    ("ports = 0", "services.web.ports is 0; write numbers from 1 to 65535"),
    ("ports = true", "services.web.ports is true; write a port such as 80"),
    ("ports = []", "services.web.ports is empty; write a port such as 80"),
    (
        'ports = "90-80"',
        "services.web.ports is '90-80'; write numbers from 1 to 65535, the smaller one first",
    ),
    ('ports = [80, "70-90"]', "services.web.ports[0] 80 shares a port with 70-90; write each port once"),
    ('protocol = "icmp"', "services.web.protocol 'icmp' is not one; write tcp, udp or sctp"),
    ('scheduler = "wlcc"', "services.web.scheduler is 'wlcc'; write maglev, rr, wrr"),
    ("directors = []", 'services.web.directors is empty; write the names of peers, or "all"'),
    ("persistence = -1", "services.web.persistence is -1; write seconds from 0 to 2678400"),
    ("persistence_prefix = 24", "services.web.persistence_prefix has no effect without persistence"),
    ("persistence = 1\npersistence_prefix = 33", "is 33; write bits of an IPv4 address from 1 to 32"),
    ("persistence = 1\npersistence_prefix_v6 = 64", "has no IPv6 address; write persistence_prefix"),
    ("quorum = 0", "services.web.quorum is 0; write a sum of weights from 1"),
    ("slow_start = '60'", "services.web.slow_start is '60'; write seconds from 0 to 86400, without quotes"),
    ("servers = 1", "services.web.servers is 1; write the name of a peer, or a table"),
    ('servers = [["web1"]]', "services.web.servers[0] is an array; write the name of a peer, or a table"),
    ('servers = ["web1:80"]', "services.web.servers[0] is 'web1:80', which no peer is called"),
    ("servers = [{ weight = 1 }]", "services.web.servers[0] names no peer"),
    (
        'servers = [{ peer = "web1", weight = 65536 }]',
        "services.web.servers[0].weight is 65536; write a weight from 0 to 65535",
    ),
    ('servers = ["web1", "web1"]', "services.web.servers[1] is also the server web1"),
    (
        'servers = ["web1", { peer = "web2", name = "web1" }]',
        "services.web.servers[1] has the name of another server, web1",
    ),
    ('servers = [{ peer = "web1", lower_threshold = 5 }]', "lower_threshold is above upper_threshold"),
    (
        'check = "page"',
        "services.web.check is 'page', which is not in [checks]; write a [checks.page] table",
    ),
    ("check = { }", "services.web.check has no kind; write kind = "),
    ('check = { kind = "htp" }', "services.web.check.kind is 'htp'; write tcp, http, https"),
    (
        'check = { kind = "tcp", path = "/" }',
        'services.web.check.path is for kind = "http" or "https", and this is tcp; remove it',
    ),
    ('check = { kind = "tcp", evry = 1 }', "services.web.check.evry is not known; did you mean every?"),
    ('check = { kind = "http", regex = "(" }', "services.web.check.regex is not a regular expression"),
    (
        'check = { kind = "http", status = 99 }',
        "services.web.check.status is 99; write numbers from 100 to 599",
    ),
    (
        'check = { kind = "http", path = "health" }',
        "services.web.check.path is 'health'; write a path such as",
    ),
    ('check = { kind = "http", digest = "12" }', "services.web.check.digest is '12'; write the body's MD5"),
    ('check = { kind = "udp", send = "a", send_hex = "61" }', "send_hex is the same as send in other digits"),
    ('check = { kind = "script" }', "services.web.check.command is missing; write the full path"),
    ('check = { kind = "script", command = "true" }', "command is 'true'; write the full path of a program"),
    ('check = { kind = "tcp", retries = 1, fall = 3 }', "services.web.check.fall is retries + 1"),
    ('check = { kind = "https", key_file = "k" }', "has one of certificate_file and key_file; write both"),
    (
        'up_command = "/bin/echo \\"a"',
        "services.web.up_command is '/bin/echo \"a', where a quote is not closed",
    ),
    ("ports = 80.5", "services.web.ports is 80.5; write a port such as 80, or a range"),
    ("ports = [80, '80-']", "services.web.ports[1] is '80-'; write a port such as 80, or a range"),
    ("protocol = []", "services.web.protocol is empty; write tcp, udp or sctp"),
    ("protocol = ['tcp', 'tcp']", "services.web.protocol[1] tcp is here twice; write it once"),
    (
        'check = { kind = "http", status = [] }',
        'services.web.check.status is empty; write a status such as 204, or a range such as "200-299"',
    ),
    ('check = { kind = "http", path = "/a b" }', "with %20 for a blank"),
    ('check = { kind = "http", host = "a b" }', "services.web.check.host is 'a b'; write the name of a host"),
    ('check = { kind = "udp", send_hex = "0" }', "services.web.check.send_hex is '0'; write 1 to 1400 bytes"),
    (
        'check = { kind = "script", command = ["/bin/x", 1] }',
        "services.web.check.command[1] is 1; write words in quotes",
    ),
    ("up_command = []", "services.web.up_command is an array; write the full path of a program"),
    ('check = [{ kind = "tcp" }, 1]', "services.web.check[1] is 1; write a name from [checks], or a table"),
    ('check = ["a", "a"]', "services.web.check[1] a is here twice; write it once"),
    ('check = { kind = "https", ca_file = "c", verify = false }', "ca_file is of no use with verify = false"),
    (
        'check = { kind = "https", ca_file = "" }',
        "services.web.check.ca_file is ''; write the path of a file",
    ),
    (
        "servers = [{ peer = 'web1', name = 'a/b' }]",
        "services.web.servers[0].name is 'a/b'; write 1 to 63 letters",
    ),
    (
        "servers = [{ peer = 'web1', address = '10.0.0.0/8' }]",
        "address '10.0.0.0/8' has a length; write 10.0.0.0",
    ),
    ("directors = [1]", "services.web.directors[0] is 1; write names of peers"),
    ("directors = ['lb1', 'lb1']", "services.web.directors[1] lb1 is here twice"),
    (
        f"address = [{', '.join(repr(f'192.0.2.{n}') for n in range(256))}, '192.0.3.1']",
        "has 257 items; write at most 256",
    ),
    (
        f"servers = [{', '.join(f'{{ peer = {chr(39)}web1{chr(39)}, port = {n} }}' for n in range(1, 1002))}]",
        "has 1001 entries",
    ),
    (
        'vrrp = { router = 5, interface = "a/b" }',
        "services.web.vrrp.interface 'a/b' is not the name of an interface",
    ),
    (
        'vrrp = { router = 5, interface = "e", interval = 41 }',
        "interval is 41; version 3 has up to 40.95 seconds",
    ),
    (
        'vrrp = { router = 5, interface = { "a b" = "e" } }',
        'interface."a b" is not the name of a peer; write that of a director',
    ),
    (
        'vrrp = { router = 5, interface = "e", unicast = "fe80::1%e" }',
        "'fe80::1%e' has a scope; write fe80::1",
    ),
    (
        'vrrp = { router = 5, interface = "e", unicast = "0.0.0.0" }',
        "'0.0.0.0' is not an address that a host can have",
    ),
    (
        'vrrp = { router = 5, interface = "e", track_interfaces = "" }',
        "track_interfaces '' is not the name of an interface",
    ),
    ('vrrp = { router = 5, interface = "e", track_services = "a/b" }', "'a/b' is not the name of a service"),
    ('vrrp = "lan"', "services.web.vrrp is 'lan', which is not in [vrrp]; write a [vrrp.lan] table"),
    ('vrrp = { interface = "eth0" }', "services.web.vrrp.router is missing"),
    (
        'vrrp = { router = 256, interface = "eth0" }',
        "router is 256; write a virtual router identifier from 1",
    ),
    ("vrrp = { router = 5 }", "services.web.vrrp.interface is missing; write the one on the LAN"),
    (
        'vrrp = { router = 5, interface = "eth0", version = 2, interval = 0.5 }',
        "services.web.vrrp.interval is 0.5; version 2 has whole seconds",
    ),
    (
        'vrrp = { router = 5, interface = "eth0", password = "x" }',
        "services.web.vrrp.password is for version 2, and version 3 has none; remove it",
    ),
]


@pytest.mark.parametrize(("text", "line", "sentence"), SENTENCES)
def test_what_is_not_accepted_is_one_sentence_with_its_line(text, line, sentence):
    text = f"{text}\n{HEAD}" if text.startswith("services") else f"{HEAD}{text}"
    line = line if text.startswith("services") else line + FIRST_LINE - 1

    with pytest.raises(TableError) as caught:
        parse(text, PATH)

    assert caught.value.line == line
    assert sentence in str(caught.value)


@pytest.mark.parametrize(("lines", "sentence"), WEB_SENTENCES)
def test_what_a_service_cannot_have_is_one_sentence_with_its_line(lines, sentence):
    with pytest.raises(TableError) as caught:
        web(lines)

    assert sentence in str(caught.value)
    assert caught.value.line is not None
    assert caught.value.line >= FIRST_LINE
