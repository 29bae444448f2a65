"""A host whose interface, routes and sockets tests set up and examine."""

from __future__ import annotations

import contextlib
import socket

import pytest

from overlay.config import Node
from overlay.crypto.keys import PrivateKey
from overlay.encap.encapsulation import Role
from overlay.provisioning.setup import HostSetup
from tests.netns.topology import wait_until
from tests.peers.examples import peer, table

PRIVATE = PrivateKey(bytes(range(32)))
TOKYO = ("tokyo", ("192.0.2.2", 51820))


@pytest.fixture
def host(lab, tmp_path):
    """A host with a wide and a narrow underlay, and a default route by the wide one."""
    host, wide, narrow = (lab.namespace(name) for name in ("host", "wide", "narrow"))
    lab.veth(host.end("eth0", "192.0.2.1/24", "2001:db8::1/64"), wide.end("eth0", "192.0.2.254/24"))
    lab.veth(host.end("eth1", "198.51.100.1/24"), narrow.end("eth0", "198.51.100.254/24"), mtu=1400)
    host.run("ip", "route", "add", "default", "via", "192.0.2.254")
    # The kernel makes rules of its own visible with the first that anybody adds.
    for version, source in (("-4", "192.0.2.1"), ("-6", "2001:db8::1")):
        host.run("ip", version, "rule", "add", "from", source, "lookup", "99", "priority", "500")
    wait_until(lambda: "tentative" not in host.run("ip", "-6", "address"))
    host.saved = tmp_path / "overlay0.sysctl"
    return host


@contextlib.contextmanager
def set_up(host, *arguments, **fields):
    """Have the calling thread on *host*, which is set up for node(*arguments*)."""
    with host.entered(), contextlib.closing(HostSetup("overlay0", host.saved)) as setup:
        setup.adopt(node(*arguments, **fields), {TOKYO})
        yield setup


def node(*tokyo_subnets, own=(), **fields):
    own_fields = {key: fields.pop(key) for key in ("listen", "listen_port", "endpoint") if key in fields}
    paris = peer("paris", *own or ("10.244.1.0/24",), public_key=PRIVATE.public, **own_fields)
    tokyo = peer("tokyo", *tokyo_subnets or ("10.244.2.0/24",))
    return Node(PRIVATE, table(paris, tokyo, **fields), paris, {})


def notes_of(setup, node):
    return [str(finding) for finding in setup.findings(node)]


def marks(setup):
    return {udp.socket.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) for udp in setup.underlay}


def bound(setup):
    """Return where the node listens, for the sockets that receive handshake messages and those that
    receive the rest.
    """
    bound = [[], []]
    for udp in setup.underlay:
        bound[udp.role == Role.HANDSHAKES].append(udp.socket.getsockname()[:2])
    assert bound[0] == bound[1]
    return bound[0]


def state(host, setup):
    """Return everything that a refused change must leave unchanged."""
    return host.dump(), bound(setup), marks(setup), setup.plan, setup.icmp, setup.mtu_reason, setup.paths


def clear_node(encapsulation="udp", **fields):
    """Return a node whose only tunnel is of *encapsulation*."""
    tokyo = peer("tokyo", "10.244.2.0/24", endpoint="192.0.2.2", encapsulation=encapsulation)
    paris = peer("paris", "10.244.1.0/24", public_key=PRIVATE.public)
    return Node(PRIVATE, table(paris, tokyo, **fields), paris, {})
