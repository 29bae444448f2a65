"""A tunnel to a server that turns out to be narrow: the virtual address tells the client what
fits, and TCP continues.
"""

from __future__ import annotations

import contextlib
import socket
import sys

import pytest

from tests.netns.farm import ask, names, serve
from tests.netns.network import IP_RECVERR, IPV6_RECVERR, Network, ping
from tests.netns.test_path_mtu_by_icmp import LIMIT, Site
from tests.netns.topology import wait_until

VIPS = {4: "203.0.113.80", 6: "2001:db8:80::80"}
OUTER = {"udp": 28, "ipip": 20, "gre": 24}  # bytes of the tunnel's headers
SERVICE = """
[services.web]
address = ["203.0.113.80", "2001:db8:80::80"]
ports = [80]
protocol = ["tcp", "udp"]
directors = ["paris"]
servers = ["tokyo"]
"""
# linux/in.h, linux/in6.h: set DF, and do not fragment
NEVER_CUT = {4: (socket.IPPROTO_IP, 10, 2), 6: (socket.IPPROTO_IPV6, 23, 2)}
EMSGSIZE, FROM_ICMP, FROM_ICMPV6 = 90, 2, 3


@pytest.fixture(scope="module", params=list(OUTER))
def narrow(request, module_lab, tmp_path_factory):
    """A director and a server with a tunnel in the clear, and a router between that takes less than their links."""
    network = Network(
        module_lab, tmp_path_factory.mktemp("narrow"), offloads=False, encapsulation=request.param
    )
    paris, tokyo = network.host("paris"), network.host("tokyo")
    for host in (paris, tokyo):
        host.settings |= {"public_key": None, "agent": True}
    network.more = SERVICE
    site = Site(network, paris, tokyo, OUTER[request.param])
    serve(tokyo.namespace, 80, "tokyo")
    for host in (paris, tokyo):
        host.launch("--node", host.name)
    for host in (paris, tokyo):
        host.wait_ready()
    ping(site.web.namespace, tokyo.address)
    site.become_narrow()
    yield site
    network.close()


def too_big(namespace, address, size):
    """Return the MTU that a client is told after sending packets of *size* bytes to *address*, and who reports it."""
    version = 6 if ":" in address else 4
    family, headers = (socket.AF_INET6, 48) if version == 6 else (socket.AF_INET, 28)
    with namespace.entered():
        udp = socket.socket(family, socket.SOCK_DGRAM)
    with udp:
        udp.setsockopt(*NEVER_CUT[version])
        udp.setsockopt(NEVER_CUT[version][0], IPV6_RECVERR if version == 6 else IP_RECVERR, 1)
        udp.setblocking(False)
        udp.connect((address, 80))
        told = []

        def hear():
            with contextlib.suppress(OSError):
                udp.send(bytes(size - headers))
            with contextlib.suppress(BlockingIOError):
                for _, _, data in udp.recvmsg(2048, 512, socket.MSG_ERRQUEUE)[1]:
                    code, origin = int.from_bytes(data[:4], sys.byteorder), data[4]
                    if code == EMSGSIZE and origin in {FROM_ICMP, FROM_ICMPV6}:
                        packed = data[24:40] if version == 6 else data[20:24]
                        told.append(
                            (int.from_bytes(data[8:12], sys.byteorder), socket.inet_ntop(family, packed))
                        )
            return told

        wait_until(hear, what=f"{address} to tell what fits")
    return told[0]


@pytest.mark.parametrize("version", [4, 6])
def test_client_hears_from_the_virtual_address_what_fits_the_tunnel(narrow, version):
    fits = LIMIT - narrow.outer
    assert too_big(narrow.web.namespace, VIPS[version], fits + 8) == (fits, VIPS[version])
    assert set(names(ask(narrow.web.namespace, VIPS[version], 3))) == {"tokyo"}
