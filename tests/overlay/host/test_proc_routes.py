"""Routes as /proc shows them."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from overlay.host.proc_routes import read_ipv4, read_ipv6, read_routes

# Linux 6.18, x86-64: `cat /proc/net/route /proc/net/ipv6_route`
HEADER = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
DEFAULT = "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
LAN = "eth0\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
REFUSING = "*\t0000F40A\t00000000\t0200\t0\t0\t4096\t0000FFFF\t0\t0\t0\n"
LAN_6 = f"fd000244000100000000000000000000 40 {'0' * 32} 00 {'0' * 32} 00000100 00000001 00000000 00000001     eth0\n"
REFUSING_6 = f"fd000244000000000000000000000000 20 {'0' * 32} 00 {'0' * 32} 00001000 00000001 00000000 00200200       lo\n"


@pytest.mark.skipif("sys.byteorder == 'big'", reason="the lines are those of a little-endian host")
def test_lines_are_read():
    assert read_ipv4(HEADER) is None
    assert read_ipv4(DEFAULT) == ip_network("0.0.0.0/0")
    assert read_ipv4(LAN) == ip_network("10.0.2.0/24")
    assert read_ipv4(REFUSING) is None
    assert read_ipv6(LAN_6) == ip_network("fd00:244:1::/64")
    assert read_ipv6(REFUSING_6) is None
    assert read_ipv4("") is None
    assert read_ipv6("") is None


def test_routes_of_this_host_are_prefixes():
    assert all(0 <= prefix.prefixlen <= prefix.max_prefixlen for prefix in read_routes())
