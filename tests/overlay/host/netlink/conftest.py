"""A host, in a namespace."""

from __future__ import annotations

import pytest

from tests.netns.topology import wait_until


@pytest.fixture
def host(lab):
    """A host with an underlay, a default route, and settings of others that must stay as they are."""
    host, underlay = lab.namespace("host"), lab.namespace("underlay")
    lab.veth(
        host.end("eth0", "192.0.2.1/24", "2001:db8::1/64"),
        underlay.end("eth0", "192.0.2.254/24", "2001:db8::fe/64"),
    )
    lab.bridge(host, "br0", "10.244.1.1/24", "fd00:244:1::1/64")
    for route in (
        "default via 192.0.2.254",
        "default via 2001:db8::fe",
        "192.168.77.0/24 via 192.0.2.254 metric 6000",  # one of our prefixes, with a worse metric
        "192.168.78.0/24 via 192.0.2.254",
        "unreachable 172.16.0.0/12 metric 1000",
        "203.0.113.0/24 via 192.0.2.254 table 99",
    ):
        host.run("ip", *("-6" if "::" in route else "-4", "route", "add", *route.split()))
    host.run("ip", "rule", "add", "from", "192.0.2.1", "lookup", "99", "priority", "500")
    # The kernel makes rules of its own visible with the first that anybody adds.
    host.run("ip", "-6", "rule", "add", "from", "2001:db8::1", "lookup", "99", "priority", "500")
    for gateway in ("192.0.2.254", "2001:db8::fe"):  # neighbours are known: nothing waits for them later
        wait_until(
            lambda gateway=gateway: "1 received" in host.run("ping", "-c1", "-W1", gateway, check=False)
        )
    wait_until(lambda: "tentative" not in host.run("ip", "-6", "address"))
    return host
