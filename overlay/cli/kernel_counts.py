"""What the kernel of this host has dropped before a socket got it, by its own counters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding
from overlay.numbers import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Specification: Documentation/networking/snmp_counter.rst; a line of names is followed by one of numbers
REVERSE_PATH, CHECKSUMS = ("TcpExt", "IPReversePathFilter"), ("Udp", "InCsumErrors")
CHECKSUMS_IPV6 = "Udp6InCsumErrors"  # in snmp6, one on a line

# Ours
COUNTERS = Path("/proc/thread-self/net")  # of the network namespace of the caller
NAMED = 3  # peers or interfaces in a sentence


@dataclass(frozen=True, slots=True)
class KernelCounts:
    """Packets that the reverse path check has dropped, and UDP datagrams with a wrong checksum."""

    reverse_path: int = 0
    checksums: int = 0

    @classmethod
    def read(cls, directory: Path = COUNTERS) -> KernelCounts:
        """Return the counters now; 0 for one that this kernel does not have."""
        return cls(
            _read_pair(directory / "netstat", *REVERSE_PATH),
            _read_pair(directory / "snmp", *CHECKSUMS) + _read_line(directory / "snmp6", CHECKSUMS_IPV6),
        )

    def bounded(self, *, checksums: int) -> KernelCounts:
        """Return the counts, with at most so many *checksums*."""
        return KernelCounts(self.reverse_path, max(0, min(self.checksums, checksums)))

    def since(self, before: KernelCounts) -> KernelCounts:
        """Return what was counted since *before*."""
        return KernelCounts(
            max(0, self.reverse_path - before.reverse_path), max(0, self.checksums - before.checksums)
        )


def describe(counted: KernelCounts, silent: Sequence[str], strict: Sequence[str]) -> Iterable[Finding]:
    """Yield findings on what was *counted* while the peers *silent* did not answer; *strict* are interfaces.

    A host with several interfaces may drop other hosts' packets for their sources, so that is only reported if a peer
    is silent.
    """
    if counted.reverse_path and silent and strict:
        yield Finding(
            "rp_filter",
            f"the strict reverse path check of this host dropped {count(counted.reverse_path, 'packet')} while "
            f"{_listed(silent)} did not answer: datagrams of peers may come by another interface than the one by which "
            "this host sends to them",
            f"see by which of {_listed(strict)} they come, for example with `tcpdump -ni any udp`, and run "
            "`sysctl -w net.ipv4.conf.IF.rp_filter=2` for that interface IF",
        )
    if counted.checksums:
        yield Finding(
            "checksums",
            f"{count(counted.checksums, 'UDP datagram')} arrived with a wrong checksum, and the kernel of this host "
            "dropped them",
            "see whether a link on the way, or an offload of a network card, damages them: `ethtool -K IF rx off tx "
            "off` on either host shows whether it is a card",
        )


def _read_pair(path: Path, group: str, name: str) -> int:
    lines = [line.split() for line in _lines(path) if line.startswith(f"{group}:")]
    if len(lines) < 2 or name not in lines[0]:
        return 0
    return _number(lines[1][lines[0].index(name)])


def _read_line(path: Path, name: str) -> int:
    fields = next((line.split() for line in _lines(path) if line.startswith(f"{name} ")), [])
    return _number(fields[-1]) if len(fields) == 2 else 0


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"
