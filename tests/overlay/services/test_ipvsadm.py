"""Listings of ipvsadm.

``vectors/ipvsadm/seen.txt`` was printed on a host with ip_vs (Linux 6.1).  The others are what ipvsadm 1.31 of Debian
prints of the services below: its getsockopt() and /proc/net/ip_vs_conn were answered by a preloaded library.  Types of
tunnels do not pass that way; in ``save.txt`` they are written as the host with ip_vs had them.
"""

from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.importing.places import Remarks
from overlay.services import ipvsadm
from overlay.services.importing.lines import File
from overlay.services.importing.rules import read_rules
from overlay.services.ipvsadm import (
    COLUMNS,
    LOCAL,
    TUNNEL,
    Connection,
    Counts,
    Destination,
    VirtualService,
    format_connections,
    format_services,
)
from peers.addresses import is_host_address

VECTORS = Path(__file__).parents[2] / "vectors/ipvsadm"
TCP, UDP, SCTP = 6, 17, 132
SERVICE_OPTIONS = {TCP: "-t", UDP: "-u", SCTP: "--sctp-service"}
FORWARDING = {TUNNEL: "-i", "Route": "-g", "Masq": "-m", LOCAL: "-g"}


def ip(text):
    return ip_address(text)


def expected(name):
    return (VECTORS / f"{name}.txt").read_text()


WEB = VirtualService(
    ip("10.98.9.9"),
    80,
    TCP,
    "wlc",
    (Destination(ip("10.98.0.11"), 80, weight=4, active=245),),
    total=Counts(7, 12, 0, 480),
    rate=Counts(1, 2, 0, 80),
)
SERVICES = [
    VirtualService(
        ip("10.98.9.9"),
        443,
        TCP,
        "wrr",
        (
            Destination(
                ip("10.98.0.13"),
                8443,
                "Masq",
                active=1,
                persistent=2,
                total=Counts(99_999_999, 100_000_000, 999_999_999, 10**9, 99_999_999_999),
                rate=Counts(99_999_999, 100_000_000, 4_000_000_000, 999_999_999, 10**9),
            ),
            Destination(
                ip("10.98.0.11"), 443, "Route", upper=100, lower=50, total=Counts(0, 0, 0, 10**11, 10**14)
            ),
        ),
        persistence=360,
        total=Counts(1, 2, 3, 4, 5),
        rate=Counts(6, 7, 8, 9, 10),
    ),
    WEB,
    VirtualService(ip("10.98.9.9"), 53, UDP, "rr", one_packet=True),
    VirtualService(
        ip("0.0.0.0"),
        0,
        0,
        "mh",
        (Destination(ip("10.98.0.12"), 0, weight=3),),
        mark=7,
        flags=("mh-fallback", "mh-port"),
        persistence=300,
        prefix=24,
    ),
    VirtualService(
        ip("192.168.100.100"),
        65535,
        TCP,
        "sh",
        (
            Destination(ip("192.168.100.101"), 65535, LOCAL, weight=0),
            Destination(ip("9.98.0.11"), 65535, weight=100_000, active=4_294_967_295, inactive=1_234_567_890),
        ),
        flags=("sh-fallback", "sh-port"),
    ),
    VirtualService(ip("10.98.9.10"), 0, TCP, "rr", flags=("flag-1",), persistence=90061, prefix=16),
    VirtualService(ip("10.98.9.11"), 9, SCTP, "lc"),
    VirtualService(ip("10.98.9.11"), 9, UDP, "lc", persistence=300, one_packet=True),
]
SEEN = [
    VirtualService(ip("fd00::9"), 80, TCP, "sh", flags=("sh-fallback", "sh-port")),
    SERVICES[3],
    SERVICES[2],
    WEB,
    SERVICES[0],
]


def test_table_is_that_which_was_seen():
    assert format_services(SEEN) == expected("seen")


def test_table_is_listed():
    assert format_services(SERVICES) == expected("list")
    assert format_services(SERVICES, is_sorted=False) == expected("nosort")


@pytest.mark.parametrize("option", COLUMNS)
def test_table_is_listed_with_other_columns(option):
    assert format_services(SERVICES, COLUMNS[option]) == expected(option.removeprefix("--"))


@pytest.mark.parametrize("option", ["--stats", "--rate"])
def test_numbers_may_be_exact(option):
    found = format_services(SERVICES, COLUMNS[option], is_exact=True)

    assert found == expected(f"{option.removeprefix('--')}-exact")


def test_one_service_has_no_line_on_the_version():
    assert format_services([WEB], is_whole=False) == expected("one")


def test_empty_table_has_three_lines():
    assert format_services([]) == "".join(expected("list").splitlines(keepends=True)[:3])


def format_rules(services):
    """Return what ``ipvsadm -Sn`` prints, which ``ipvsadm -R`` reads."""
    lines = []
    for service in ipvsadm._ordered(services):
        name = _option(service)
        options = [f"-A {name} -s {service.scheduler}"]
        if service.persistence:
            options.append(f"-p {service.persistence}")
            options += [f"-M {service.mask}"] if service.mask else []
        options += ["-o"] if service.one_packet else []
        options += [f"-b {','.join(service.flags)}"] if service.flags else []
        lines.append(" ".join(options))
        for each in ipvsadm._destinations(service):
            tunnel = f" --tun-type {each.tunnel}" if each.forwarding == TUNNEL else ""
            lines.append(
                f"-a {name} -r {ipvsadm._at(each.address, each.port)} {FORWARDING[each.forwarding]} -w "
                f"{each.weight}{tunnel}"
            )
    return "".join(f"{line}\n" for line in lines)


def _option(service):
    if service.mark:
        return f"-f {service.mark}{' -6' if service.address.version == 6 else ''}"
    return f"{SERVICE_OPTIONS[service.protocol]} {ipvsadm._at(service.address, service.port)}"


def test_rules_are_those_that_ipvsadm_saves():
    assert format_rules(SERVICES) == expected("save")


def test_mark_for_ipv6_is_distinguished():
    service = VirtualService(ip("::"), 0, 0, "rr", mark=3, persistence=60, prefix=64)

    assert format_services([service]).splitlines()[-1] == "FWM  3 IPv6 rr persistent 60 mask 64"


def test_connections_are_listed():
    client, server = ip("10.98.1.2"), ip("10.98.0.13")
    connections = [
        Connection("TCP", 860.9, "ESTABLISHED", (client, 20036), (WEB.address, 80), (server, 80)),
        Connection("TCP", 357, "ASSURED", (client, 0), (WEB.address, 443), (server, 8443)),
        Connection("UDP", 59, "UDP", (client, 20037), (WEB.address, 53), (server, 53)),
        Connection("IP", 360_000, "NONE", (client, 0), (ip("0.0.0.7"), 0), (ip("10.98.0.12"), 0)),
        Connection(
            "TCP", 59, "SYN_RECV", (ip("fd00::102"), 20036), (ip("fd00::9"), 80), (ip("fd00::12"), 80)
        ),
    ]

    assert format_connections(connections) == expected("connections")


ADDRESSES = st.ip_addresses().filter(lambda each: each.is_global and is_host_address(each))
PORTS = st.integers(1, 65535)
DESTINATIONS = st.builds(Destination, ADDRESSES, st.just(0), weight=st.integers(0, 65535))
TABLES = st.lists(
    st.builds(
        VirtualService,
        ADDRESSES,
        PORTS,
        st.sampled_from([TCP, UDP, SCTP]),
        st.sampled_from(["rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf", "sh", "dh"]),
        st.lists(DESTINATIONS, max_size=3, unique_by=lambda each: each.address).map(tuple),
        persistence=st.integers(0, 86400),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda each: (each.address, each.port, each.protocol),
)


@given(TABLES)
def test_rules_are_imported_as_what_they_were_made_of(services):
    remarks = Remarks()

    plan = read_rules(File("rules", format_rules(services)), lambda name, protocol: None, remarks)

    assert remarks.all() == ()
    found = {
        (each.addresses[0], each.ports, each.protocol, dict(each.keys).get("persistence", 0)): {
            (server.address, server.weight) for server in each.servers
        }
        for each in plan.services
    }
    names = {TCP: "tcp", UDP: "udp", SCTP: "sctp"}
    assert found == {
        (each.address, (each.port,), names[each.protocol], each.persistence): {
            (server.address, server.weight) for server in each.destinations
        }
        for each in services
    }
