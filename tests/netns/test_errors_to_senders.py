"""Packets with no destination are answered with "host unreachable", as by a router, and the sender is informed."""

from __future__ import annotations

import re
import time

import pytest

from overlay.forwarding.unreachable import ERRORS_BURST, ERRORS_PER_SECOND
from tests.netns.network import (
    PATIENCE,
    IcmpError,
    Network,
    icmp_error,
    is_silent,
    nft,
)
from tests.netns.topology import wait_until

UNREACHABLE = {4: (3, 1), 6: (1, 3)}  # RFC 792, RFC 4443: type and code
QUICK = {
    "rekey_timeout": 0.3,
    "rekey_attempt_time": 1.2,
    "rekey_jitter": 0.05,
    "keepalive_timeout": 1.0,
}
CASES = {
    "no peer": ("10.244.200.1", "fd00:244:200::1"),
    "a dead address of its own subnet": ("10.244.60.9", "fd00:244:60::9"),
    "a peer without endpoint": ("10.244.2.1", "fd00:244:2::1"),
    "a peer that was given up": ("10.244.3.1", "fd00:244:3::1"),
}


@pytest.fixture(scope="module")
def site(module_lab, tmp_path_factory):
    """A host with containers, one of which has an address that only becomes an overlay address by masquerading."""
    network = Network(module_lab, tmp_path_factory.mktemp("site"))
    paris = network.host("paris")
    paris.settings["subnets"] += ["10.244.60.0/24", "fd00:244:60::/64"]
    network.host("silent", endpoint=None)
    network.host("dead")
    web = paris.container("web")
    guest = module_lab.container(
        paris.namespace,
        network.namespace_name("guest"),
        "172.20.0.2/24",
        "fd00:20::2/64",
        gateways=("172.20.0.1", "fd00:20::1"),
        bridge="br1",
    )
    for family in ("ip", "ip6"):
        nft(
            paris.namespace,
            f"table {family} hide {{\n chain out {{\n type nat hook postrouting priority 100;\n"
            f' oifname "overlay0" {family} saddr {"172.20.0.0/24" if family == "ip" else "fd00:20::/64"}'
            " masquerade\n }\n}\n",
        )
    paris.start(timing=QUICK)
    paris.namespace.completed("ping", "-c1", "-W1", "10.244.3.1")
    wait_until(
        lambda: any(row["state"] == "unreachable" for row in paris.status()["peers"]),
        PATIENCE,
        "the dead peer to be given up",
    )
    yield paris, web.namespace, guest
    network.close()


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("who", ["a process of the host", "a container", "a container behind a masquerade"])
def test_sender_is_told(site, who, case, family):
    paris, web, guest = site
    sender = {"a process of the host": paris.namespace, "a container": web}.get(who, guest)
    address = CASES[case][family == 6]

    error = icmp_error(sender, address)

    offender = paris.address if family == 4 else paris.address6
    assert error == IcmpError(*UNREACHABLE[family], offender)


@pytest.mark.parametrize("family", [4, 6])
def test_tcp_connection_is_refused_at_once(site, family):
    _paris, web, _ = site
    import errno
    import socket

    with web.entered():
        client = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET)
    with client:
        client.settimeout(PATIENCE)
        with pytest.raises(OSError, match="No route to host") as raised:
            client.connect((CASES["no peer"][family == 6], 80))

    assert raised.value.errno == errno.EHOSTUNREACH


def test_ping_says_so_too(site):
    paris, web, _ = site

    def is_told():
        said = web.completed("ping", "-n", "-c2", "-i0.3", "-W1", CASES["no peer"][0]).stdout
        return re.search(rf"From {re.escape(paris.address)} icmp_seq=\d Destination Host Unreachable", said)

    wait_until(is_told, PATIENCE, "ping to say so")


def test_errors_are_counted_and_limited_for_each_sender(site):
    paris, web, _ = site
    before, started, told = paris.drops().get("no_peer", 0), time.monotonic(), 0

    while not told:  # a busy machine may be late with the errors
        said = web.completed("ping", "-n", "-c200", "-i0.002", "-W1", CASES["no peer"][0]).stdout
        told = said.count("Destination Host Unreachable")

    assert told <= ERRORS_BURST + ERRORS_PER_SECOND * (time.monotonic() - started)
    wait_until(lambda: paris.drops()["no_peer"] >= before + 200, PATIENCE, "all of them to be counted")


def test_no_error_answers_an_error_or_a_packet_for_many(site):
    paris, _, _ = site
    sniffer = paris.namespace.sniff("overlay0")

    paris.namespace.completed("ping", "-c2", "-i0.2", "-W1", "-I", "overlay0", "224.0.0.77")
    # The error for this arrives after any errors for the others
    assert is_silent(paris.namespace, "10.244.200.1")

    assert not any(
        frame[9] == 1 and frame[20] == 3 and frame[44:48] == bytes([224, 0, 0, 77])
        for frame in sniffer.frames()
    )


@pytest.mark.parametrize("reason", ["no_endpoint", "given_up"])
def test_drops_are_counted_at_the_peer(site, reason):
    paris, _, _ = site
    name = {"no_endpoint": "silent", "given_up": "dead"}[reason]
    row = next(row for row in paris.status()["peers"] if row["name"] == name)

    icmp_error(paris.namespace, row["addresses"][0])
    wait_until(
        lambda: next(row for row in paris.status()["peers"] if row["name"] == name)["drops"].get(reason),
        PATIENCE,
        "the drop to be counted",
    )
