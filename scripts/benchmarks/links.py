"""The links between two hosts in a measurement of goodput: loss, delay and bottlenecks change while the hosts stay up.

Datagrams have wire size on all links: the veths neither segment nor join them.
"""

from __future__ import annotations

import dataclasses
import json
import random
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from scripts.benchmarks.relay import BURST_GAP, Conditions, Counts

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.netns.topology import End, Lab, Namespace

BURST = 10  # datagrams
RELAY_RATE = (
    200e6  # bit/s; the relay carries several times as much, so that its processor time is not compared
)
RELAY_TIME = 4 * 3600.0  # seconds; every run is shorter
# A bottleneck with room for 5 ms, and one with less than a super-packet: 25 kB and the bucket
QUEUES = {
    "tbf-5ms": ("rate", "200mbit", "burst", "32k", "latency", "5ms"),
    "tbf-1ms": ("rate", "200mbit", "burst", "16k", "latency", "1ms"),
}
NFT_LOSS = """
table ip loss {{
    chain loss {{
        type filter hook prerouting priority raw;
        iifname != "eth0" accept
        counter
        {rule}
    }}
}}
"""


@dataclass(frozen=True)
class Condition:
    """The effect of a link on datagrams."""

    path: str  # direct, relay, or one of QUEUES
    loss: float = 0.0  # percent, each way
    burst: int = 1  # datagrams lost in a row
    delay_ms: float = 0.0  # added to the round trip, half of it each way

    @property
    def name(self) -> str:
        pattern = f"-{'single' if self.burst == 1 else 'bursts'}" if self.loss else ""
        return f"{self.path}-{self.delay_ms:g}ms-{self.loss:g}%{pattern}"


class Link(Protocol):
    """The underlay of two hosts, each with its interface eth0."""

    def set(self, condition: Condition, seed: int) -> None:
        """Apply these conditions from now on, and count from zero."""

    def counts(self) -> tuple[int, int]:
        """Return how many datagrams came since set(), and how many of them were lost."""


class Direct:
    """A veth.  Netfilter drops datagrams as they arrive, which costs hardly any processor time."""

    def __init__(self, lab: Lab, _: str, one: End, other: End, mtu: int) -> None:
        lab.veth(one, other, mtu, offloads=False)
        self._hosts = [one.namespace, other.namespace]

    def set(self, condition: Condition, seed: int) -> None:
        """Drop single datagrams at random; bursts at regular distances, from a random start that *seed* determines."""
        rule = ""
        if condition.loss and condition.burst == 1:
            rule = f"numgen random mod 100000 < {round(condition.loss * 1000)} counter drop"
        elif condition.loss:
            cycle = round(condition.burst * 100 / condition.loss)
            first = random.Random(seed).randrange(cycle - condition.burst)
            # The limit lets the first datagram pass, and those that come alone, like BURST_GAP in the relay.
            limit = f"limit rate over {round(1 / BURST_GAP)}/second burst 1 packets"
            rule = f"numgen inc mod {cycle} {first}-{first + condition.burst} {limit} counter drop"
        for host in self._hosts:
            host.run(
                "nft", "-f", "-", stdin="table ip loss\ndelete table ip loss" + NFT_LOSS.format(rule=rule)
            )

    def counts(self) -> tuple[int, int]:
        """Count datagrams as netfilter saw them."""
        counted = []
        for host in self._hosts:
            listed = json.loads(host.run("nft", "-j", "list", "chain", "ip", "loss", "loss"))["nftables"]
            rules = [each["rule"]["expr"] for each in listed if "rule" in each]
            counters = [part["counter"]["packets"] for rule in rules for part in rule if "counter" in part]
            counted.append([*counters, 0][:2])
        return counted[0][0] + counted[1][0], counted[0][1] + counted[1][1]


class Relayed:
    """A namespace in between in which the relay runs: loss, delay and a rate."""

    def __init__(self, lab: Lab, name: str, one: End, other: End, mtu: int) -> None:
        middle = lab.namespace(name)
        middle.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
        for end, port in ((one, "port0"), (other, "port1")):
            lab.veth(end, middle.end(port), mtu, offloads=False)
            # Otherwise the relay would see partial checksums.
            end.namespace.run("ethtool", "-K", end.interface, "tx", "off")
        command = (sys.executable, "-m", "scripts.benchmarks.relay", "port0", "port1")
        self._process = middle.popen(
            *command, "--seconds", str(RELAY_TIME), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._conditions = Conditions(rate=RELAY_RATE)

    def set(self, condition: Condition, seed: int) -> None:
        """Drop and delay datagrams according to *condition* and *seed*."""
        self._conditions = Conditions(
            loss=condition.loss / 100,
            burst=condition.burst,
            delay=condition.delay_ms / 2000,
            rate=RELAY_RATE,
            seed=seed,
        )
        self._tell()

    def counts(self) -> tuple[int, int]:
        """Count frames; the relay restarts with the same conditions."""
        counts = self._tell()
        return counts.frames + counts.missed, counts.lost + counts.overflowed + counts.missed

    def _tell(self) -> Counts:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(dataclasses.asdict(self._conditions)), file=self._process.stdin, flush=True)
        return Counts(**json.loads(self._process.stdout.readline()))


class Bottleneck:
    """A switch whose ports are limited by a token bucket with a short queue in front of it."""

    def __init__(self, lab: Lab, name: str, one: End, other: End, mtu: int) -> None:
        self._switch = lab.switch(name, mtu)
        self._ports = [lab.plug(self._switch, end, mtu, offloads=False) for end in (one, other)]

    def set(self, condition: Condition, _seed: int) -> None:
        """Set the queues according to *condition*."""
        for port in self._ports:
            self._switch.run("tc", "qdisc", "delete", "dev", port, "root", check=False)
            self._switch.run("tc", "qdisc", "add", "dev", port, "root", "tbf", *QUEUES[condition.path])

    def counts(self) -> tuple[int, int]:
        """Count frames as the queues saw them."""
        shown = [self._qdisc(port) for port in self._ports]
        lost = sum(queue["drops"] for queue in shown)
        return sum(queue["packets"] for queue in shown) + lost, lost

    def _qdisc(self, port: str) -> Any:
        shown = json.loads(self._switch.run("tc", "-s", "-j", "qdisc", "show", "dev", port))
        return next(queue for queue in shown if queue["kind"] == "tbf")


def join(lab: Lab, path: str, name: str, a: Namespace, b: Namespace, mtu: int = 1500) -> Link:
    """Return the link that joins the hosts *a* and *b*, with the addresses that the peers file of the lab has."""
    kinds: dict[str, Callable[[Lab, str, End, End, int], Link]] = {"direct": Direct, "relay": Relayed}
    return kinds.get(path, Bottleneck)(
        lab, name, a.end("eth0", "192.0.2.1/24"), b.end("eth0", "192.0.2.2/24"), mtu
    )
