"""The input for nft and iptables-restore, each of which executes a script as a whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from overlay.host.own_rules.places import NFT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.host.own_rules.places import RulePlace
    from overlay.host.own_rules.wanted import Wanted


class Script(NamedTuple):
    """A program, with its arguments, and its input."""

    command: tuple[str, ...]
    text: str


def rewrite(place: RulePlace, wanted: Wanted) -> Script:
    """Return the commands that make our chain at *place* accept what *wanted* accepts, or remove it if it is not
    needed.
    """
    if place.table.program == NFT:
        return Script((NFT, "-f", "-"), "\n".join(_nft(place, wanted)) + "\n")
    # The legacy variant waits for the program that has its lock; the other accepts the option and needs no lock.
    command = (f"{place.table.program}-restore", "--noflush", "--wait=5")
    return Script(command, "\n".join(_iptables(place, wanted)) + "\n")


def replace_table(name: str, rules: str) -> Script:
    """Return the script that makes the table *name*, of the family inet, contain *rules*, in place of any other of that
    name.
    """
    anew = f"add table inet {name}\ndelete table inet {name}\n"
    return Script((NFT, "-f", "-"), f"{anew}table inet {name} {{\n{rules}}}\n")


def _iptables(place: RulePlace, wanted: Wanted) -> Iterator[str]:
    yield f"*{place.table.name}"
    if place.jumps_from is not None:
        yield f":{place.chain} - [0:0]"  # made, or emptied
    for chain, handles in place.stale:
        for _ in handles:
            yield f"-D {chain} -j {place.chain}"
    if place.jumps_from is not None:
        for version in place.versions:
            for accept in wanted.accepts(version):
                yield f"-A {place.chain} {' '.join(accept.iptables())}"
        yield f"-I {place.jumps_from} 1 -j {place.chain}"
    elif place.is_there:
        yield f"-F {place.chain}"
        yield f"-X {place.chain}"
    yield "COMMIT"


def _nft(place: RulePlace, wanted: Wanted) -> Iterator[str]:
    table = f"{place.table.family} {place.table.name}"
    ours = f"{table} {place.chain}"
    if place.jumps_from is not None:
        yield f"add chain {ours}"
        yield f"flush chain {ours}"
    for chain, handles in place.stale:
        for handle in handles:
            yield f"delete rule {table} {chain} handle {handle}"
    if place.jumps_from is not None:
        rules = (
            rule for version in place.versions for accept in wanted.accepts(version) for rule in accept.nft()
        )
        for rule in dict.fromkeys(rules):
            yield f"add rule {ours} {rule}"
        yield f"insert rule {table} {place.jumps_from} jump {place.chain}"
    elif place.is_there:
        yield f"flush chain {ours}"
        yield f"delete chain {ours}"
