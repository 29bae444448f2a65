"""Every contender that can join two hosts, one module for each program."""

from __future__ import annotations

from scripts.benchmarks.contenders import clear, fastd, kernel, nebula, openvpn, tap, tinc, wireguard
from scripts.benchmarks.contenders.contender import Contender, Program

__all__ = ["CONTENDERS", "Contender", "Program", "registry"]


def registry(wireguard_go: str = "wireguard-go") -> dict[str, Contender]:
    """Return the contenders by name, in the order of the tables; *wireguard_go* is the program."""
    known = [
        *wireguard.contenders(wireguard_go),
        *clear.contenders(),
        *tap.contenders(),
        *openvpn.contenders(),
        *tinc.contenders(),
        *fastd.contenders(),
        *nebula.contenders(),
        *kernel.contenders(),
    ]
    return {contender.name: contender for contender in known}


CONTENDERS = tuple(registry())
