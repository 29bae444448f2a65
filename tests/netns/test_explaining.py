"""`overlay explain` predicts correctly what happens to packets that are sent."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from overlay.crypto.keys import PrivateKey, encode_key
from overlay.linux import IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_DO
from tests.netns.network import INTERFACE, PATIENCE, Network
from tests.netns.topology import CommandError, wait_until

UDP_HEADERS = {socket.AF_INET: 28, socket.AF_INET6: 48}  # bytes, IP header included
NUMBER, PORT = 3, 5555  # packets of each kind, and their destination
MORE = """
[peers.absent]
public_key = "{}"
subnets = ["10.244.77.0/24"]

[peers.lost]
public_key = "{}"
endpoint = "198.51.100.9"
subnets = ["10.244.78.0/24"]
"""


@pytest.fixture(scope="module")
def place(module_lab, tmp_path_factory):
    """Paris and tokyo with a container each, and peers of paris that are unreachable."""
    network = Network(module_lab, tmp_path_factory.mktemp("explaining"))
    network.more = MORE.format(*(encode_key(PrivateKey(bytes([each] * 32)).public) for each in (7, 8)))
    paris = network.host("paris", subnets=["10.244.1.0/24", "fd00:244:1::/64", "10.244.90.0/24"])
    tokyo = network.host("tokyo")
    web, db = paris.container("web"), tokyo.container("db")
    for place, address in ((web, "172.31.5.5"), (tokyo, "172.31.9.9")):
        place.namespace.run("ip", "address", "add", f"{address}/32", "dev", "lo")
    for address in ("10.244.2.3", "10.244.2.64"):
        db.run("ip", "address", "add", f"{address}/32", "dev", "lo")
    bridge = json.loads(paris.namespace.run("ip", "-j", "route", "get", web.address))[0]["dev"]
    paris.namespace.run("ip", "route", "add", "172.31.5.5/32", "via", web.address, "dev", bridge)
    network.start()
    paris.ping(tokyo.address)
    paris.namespace.run("ip", "route", "add", "unreachable", "10.244.2.66/32")
    paris.namespace.run("ip", "route", "add", "10.244.2.64/32", "via", "192.0.2.2")
    tokyo.namespace.run("ip", "route", "add", "10.244.2.3/32", "via", db.address)
    with contextlib.suppress(CommandError, FileNotFoundError):
        paris.namespace.run(
            "nft", "add table ip strict; add chain ip strict f { type filter hook forward priority 0; }; "
            "add rule ip strict f ip daddr 10.244.2.3 drop",
        )  # fmt: skip
    yield SimpleNamespace(network=network, paris=paris, tokyo=tokyo, web=web, db=db)
    network.close()


@dataclass(frozen=True)
class Case:
    """A packet, its sender and where it arrives, or how its path ends otherwise."""

    destination: str
    source: str | None
    by: str
    to: str | None = None
    path: str = "nowhere"
    refused_by: str | None = None
    reason: str | None = None


CASES = [
    Case("10.244.2.1", None, "paris", "tokyo", "tunnel"),
    Case("10.244.2.2", None, "paris", "db", "tunnel"),
    Case("10.244.2.2", "10.244.1.2", "web", "db", "tunnel"),
    Case("fd00:244:2::2", "fd00:244:1::2", "web", "db", "tunnel"),
    Case("192.0.2.2", None, "paris", "tokyo", "outside"),
    Case("10.244.1.1", None, "paris", "paris", "here"),
    Case("10.244.1.2", "10.244.2.2", "db", "web", "outside"),
    Case("10.244.1.1", "10.244.2.2", "db", "paris", "here"),
    Case("10.244.99.1", None, "paris", refused_by="node", reason="no_peer"),
    Case("10.244.99.1", "10.244.1.2", "web", refused_by="node", reason="no_peer"),
    Case("10.244.90.1", None, "paris", refused_by="node", reason="own_subnet"),
    Case("10.244.77.1", None, "paris", refused_by="node", reason="no_endpoint"),
    Case("10.244.78.1", None, "paris", refused_by="kernel", reason="send_refused"),
    Case("10.244.2.2", "192.0.2.1", "paris", path="tunnel", refused_by="peer", reason="source"),
    Case("10.244.2.2", "172.31.5.5", "web", path="tunnel", refused_by="peer", reason="source"),
    Case("10.244.1.2", "172.31.9.9", "tokyo", refused_by="node", reason="source"),
    Case("10.244.2.66", None, "paris", refused_by="kernel"),
    Case("203.0.113.7", None, "paris", refused_by="kernel"),
    Case("10.244.2.64", None, "paris", path="outside", refused_by="kernel"),
    Case("10.244.2.3", "10.244.1.2", "web", refused_by="packet filter"),
    Case("10.244.2.3", None, "paris", "db", "tunnel"),
]


def namespace(place, name):
    found = getattr(place, name)
    return found.namespace


def drops(place):
    """Return all drops, by where they are counted and by reason."""
    found = {}
    for host in (place.paris, place.tokyo):
        status = host.status()
        found |= {(host.name, None, reason): count for reason, count in status["drops"].items()}
        for row in status["peers"]:
            found |= {
                (host.name, row["name"], reason): count for reason, count in (row["drops"] or {}).items()
            }
    return found


def send(place, case):
    """Send packets of *case*, and return how many arrived where they should."""
    family = socket.AF_INET6 if ":" in case.destination else socket.AF_INET
    with contextlib.ExitStack() as opened:
        receiver = None
        if case.to is not None:
            with namespace(place, case.to).entered():
                receiver = opened.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            receiver.bind((case.destination, PORT))
            receiver.settimeout(PATIENCE)
        with namespace(place, case.by).entered():
            sender = opened.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        if case.source is not None:
            sender.bind((case.source, 0))
        for _ in range(NUMBER):
            with contextlib.suppress(OSError):  # the kernel reports at once that there is no route
                sender.sendto(b"x" * 100, (case.destination, PORT))
        return [receiver.recv(1000) for _ in range(NUMBER)] if receiver is not None else []


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.destination} from {case.source}")
def test_what_is_explained_is_what_happens(place, case):
    if case.refused_by == "packet filter" and "strict" not in place.paris.namespace.run(
        "nft", "list", "tables"
    ):
        pytest.skip("nft of this host takes no rule")
    asked = [case.destination, *(["from", case.source] if case.source is not None else [])]

    done = place.paris.overlay("explain", *asked, "--json")

    told = json.loads(done.stdout)
    expected = case.path, case.refused_by, case.reason, case.to is not None
    assert (told["path"], told["refused_by"], told["reason"], told["goes"]) == expected, done.stdout
    assert done.returncode == (0 if case.to is not None else 1)
    before = drops(place)
    arrived = send(place, case)
    assert len(arrived) == (NUMBER if case.to is not None else 0)
    where = place.tokyo.name if case.refused_by == "peer" else place.paris.name
    least = 1 if case.reason == "send_refused" else NUMBER  # that counter counts handshakes

    def grown():
        return {key: count - before.get(key, 0) for key, count in drops(place).items() if key[0] == where}

    if case.reason is not None:
        wait_until(
            lambda: sum(count for key, count in grown().items() if key[2] == case.reason) >= least,
            PATIENCE,
            f"{case.reason} to be counted at {where}",
        )
    else:
        of_others = {"send_refused"}  # handshakes with a peer that this case is not about
        # Occasionally a kernel sends a packet of its own.
        assert not {
            key: count for key, count in grown().items() if count >= NUMBER and key[2] not in of_others
        }


def test_names_stand_for_addresses_and_wrong_ones_are_refused(place):
    to_peer = json.loads(place.paris.overlay("explain", "tokyo", "from", "paris", "--json").stdout)
    found = to_peer["destination"], to_peer["source"], to_peer["peer"]
    assert found == ("10.244.2.0", "10.244.1.0", "tokyo")

    for wrong in (
        ["tokio"],
        ["10.244.2.2", "from"],
        ["10.244.2.2", "to", "tokyo"],
        ["10.244.2.2", "from", "fd00::1"],
    ):
        done = place.paris.overlay("explain", *wrong)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr


def test_an_interface_that_is_down_is_explained_by_its_guard(place):
    def is_explained():
        """The agent soon sets the interface up again, perhaps before it is asked."""
        place.paris.namespace.run("ip", "link", "set", INTERFACE, "down")
        done = place.paris.overlay("explain", place.db.address)
        return done.returncode == 1 and "nothing leaves unencrypted" in " ".join(done.stdout.split())

    try:
        wait_until(is_explained, PATIENCE, "an explanation while the interface is down")
    finally:
        place.paris.namespace.run("ip", "link", "set", INTERFACE, "up")
        wait_until(
            lambda: (
                INTERFACE in place.paris.namespace.run("ip", "route", "get", place.db.address, check=False)
            ),
            PATIENCE,
            "the agent to have its routes again",
        )


def is_sent_whole(sender, destination, size):
    """Send a UDP packet of *size* bytes that must not be fragmented; return False if the kernel refuses it."""
    family = sender.family
    level, option = (
        (socket.IPPROTO_IP, IP_MTU_DISCOVER)
        if family == socket.AF_INET
        else (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER)
    )
    sender.setsockopt(level, option, PMTUDISC_DO)
    try:
        sender.sendto(bytes(size - UDP_HEADERS[family]), (destination, PORT))
    except OSError as error:
        if error.errno != errno.EMSGSIZE:
            raise
        return False
    return True


@pytest.mark.parametrize("by", ["paris", "web"])
@pytest.mark.parametrize(("to", "own"), [("10.244.2.2", "10.244.1.2"), ("fd00:244:2::2", "fd00:244:1::2")])
def test_a_size_that_does_not_fit_is_refused_and_its_sender_told(place, by, to, own):
    origin = [] if by == "paris" else ["from", own]
    mtu = place.paris.status()["mtu"]
    family = socket.AF_INET6 if ":" in to else socket.AF_INET

    def explained(size):
        return json.loads(place.paris.overlay("explain", to, *origin, "--size", str(size), "--json").stdout)[
            "size"
        ]

    fits, exceeds = explained(mtu), explained(mtu + 1)

    assert (fits["fate"], fits["largest_bytes"], fits["device_mtu_bytes"]) == ("whole", mtu, mtu)
    is_cut_by_source = by == "paris" and ":" in to  # unless the program forbids fragmentation
    assert exceeds["fate"] == ("fragmented" if is_cut_by_source else "too_big")
    assert exceeds["icmp_mtu_bytes"] == (None if by == "paris" else mtu)
    with place.db.namespace.entered():
        receiver = socket.socket(family, socket.SOCK_DGRAM)
    with namespace(place, by).entered():
        sender = socket.socket(family, socket.SOCK_DGRAM)
    with receiver, sender:
        receiver.bind((to, PORT))
        receiver.settimeout(PATIENCE)
        assert is_sent_whole(sender, to, mtu)
        # A container's own device accepts it; the answer to the first informs the container.
        wait_until(lambda: not is_sent_whole(sender, to, mtu + 1), PATIENCE, "the sender to be told")
        assert is_sent_whole(sender, to, mtu)
        assert [len(receiver.recv(2000)) + UDP_HEADERS[family] for _ in range(2)] == [mtu, mtu]
