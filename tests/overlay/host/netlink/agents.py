"""Agents that set up a host's network, and what they leave behind."""

from __future__ import annotations

import dataclasses
import re
import signal
import socket
import subprocess
import sys
from ipaddress import ip_address, ip_interface, ip_network

from overlay.host.netlink.routing import Routing
from overlay.host.netlink.watch import RTMGRP_IPV4_ROUTE
from overlay.host.ownership import PROTOCOL
from overlay.host.plan import HostPlan
from overlay.host.tun import open_tun
from overlay.linux import NETLINK_HEADER
from tests.netns.topology import wait_until

MARK = 0x51820


def networks(*texts):
    return tuple(ip_network(text) for text in texts)


def plan(
    routes=(),
    policy_routes=(),
    addresses=("10.244.1.0/32", "fd00:244:1::/128"),
    mtu=1420,
    fwmark=None,
    far=(),
    on_link=(),
):
    return HostPlan(
        mtu,
        tuple(ip_interface(address) for address in addresses),
        networks(*routes),
        networks(*policy_routes),
        fwmark,
        tuple(ip_address(each) for each in far),
        on_link=networks(*on_link),
    )


OVERLAY = plan(["10.244.0.0/16", "192.168.77.0/24", "fd00:244::/48"])
FULL = plan(["10.244.0.0/16", "fd00:244::/48"], ["0.0.0.0/0", "::/0", "198.51.100.0/24"], fwmark=MARK)

ANSWERING = dataclasses.replace(
    OVERLAY,
    held=(ip_interface("203.0.113.80/32"), ip_interface("2001:db8:9::80/128")),
    returned=(ip_address("203.0.113.80"), ip_address("203.0.113.81"), ip_address("2001:db8:9::80")),
    inside=networks("10.244.1.0/24", "fd00:244:1::/64"),
)


class Agent:
    """A tun and its routing in a namespace that the calling thread has entered."""

    def __init__(self, interface="overlay0", *, is_tap=False):
        self.tun = open_tun(interface, is_tap=is_tap)
        self.routing = Routing(interface, self.tun.index)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.routing.close()
        self.tun.close()

    def destinations(self):
        """Return the destinations of the packets that wait in the tun."""
        found = []
        while True:
            try:
                import os

                packet = os.read(self.tun.descriptor, 65600)[10:]
            except BlockingIOError:
                return found
            found.append(str(ip_address(packet[16:20] if packet[0] >> 4 == 4 else packet[24:40])))


def our_routes(host, version=4):
    return host.run("ip", f"-{version}", "route", "show", "table", "all", "proto", str(PROTOCOL)).splitlines()


def start_and_kill(host, expression, interface="overlay0"):
    """Make another process apply the plan *expression*, and kill it so that it cannot clean up."""
    code = (
        "import sys, time; from tests.overlay.host.netlink.agents import *\n"
        f"agent = Agent({interface!r}); agent.routing.read_back(); agent.routing.apply({expression})\n"
        "print('ready', flush=True); time.sleep(100)"
    )
    process = host.popen(sys.executable, "-c", code, stdout=subprocess.PIPE)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    wait_until(lambda: interface not in host.run("ip", "link"))


MAC = bytes([2, 0, 0, 0, 0, 7])


def route_of(host, to, *options):
    return (
        host.run("ip", *("-6" if ":" in to else "-4", "route", "get", to, *options))
        .split(" dev ")[1]
        .split()[0]
    )


LAN = ("192.0.2.0/24", "2001:db8::/64")


PAIRS = r"inet6? (\S+) (?:peer (\S+) )?.*scope global"


class Events:
    """The route messages that the kernel sends to everybody."""

    def __enter__(self):
        self.socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self.socket.bind((0, RTMGRP_IPV4_ROUTE))
        return self

    def __exit__(self, *_):
        self.socket.close()

    def read(self, table=None):
        kinds = []
        while True:
            try:
                message = self.socket.recv(65536)
            except BlockingIOError:
                return kinds
            if table in {None, message[20]}:
                kinds.append(NETLINK_HEADER.unpack_from(message)[1])


def send(target, mark=0):
    with socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        udp.sendto(b"test", (target, 9))


def destinations_of(frames):
    """Return the destinations of the UDP datagrams to port 9 in *frames*."""
    found = []
    for frame in frames:
        if frame[12:14] == b"\x08\x00" and frame[23] == 17 and frame[36:38] == b"\x00\x09":
            found.append(str(ip_address(frame[30:34])))
        elif frame[12:14] == b"\x86\xdd" and frame[20] == 17 and frame[56:58] == b"\x00\x09":
            found.append(str(ip_address(frame[38:54])))
    return found


def without_ages(state):
    """Return *state* without what differs between two devices of one name: index and counters."""
    return {
        kind: sorted(re.sub(r"^\d+: |fe80::\S+", "", line) for line in lines) for kind, lines in state.items()
    }
