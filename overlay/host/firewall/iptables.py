"""The output of iptables-save, of either variant: the tables of iptables, whose matches `nft` does not show."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from overlay.host.firewall.rules import UNKNOWN, Chain, Field, Match, Rule, Span, Table, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# Specification: iptables(8), iptables-extensions(8), nft(8) on standard priorities
HOOKS = {
    "PREROUTING": "prerouting",
    "INPUT": "input",
    "FORWARD": "forward",
    "OUTPUT": "output",
    "POSTROUTING": "postrouting",
}
PRIORITIES = {"raw": -300, "mangle": -150, "nat": 100, "filter": 0, "security": 50}
VERDICTS = {
    "ACCEPT": Verdict.ACCEPT,
    "DROP": Verdict.DROP,
    "REJECT": Verdict.DROP,
    "RETURN": Verdict.RETURN,
    "MASQUERADE": Verdict.MASQUERADE,
    "SNAT": Verdict.MASQUERADE,
    "DNAT": Verdict.REDIRECT,
    "REDIRECT": Verdict.REDIRECT,
}
# Targets after which the packet goes on to the next rule
PASSING = {
    "AUDIT", "CHECKSUM", "CLASSIFY", "CONNMARK", "CT", "DSCP", "ECN", "HL", "IDLETIMER", "LOG", "MARK", "NFLOG",
    "NOTRACK", "RATEEST", "SECMARK", "SET", "TCPMSS", "TCPOPTSTRIP", "TOS", "TRACE", "TTL",
}  # fmt: skip
PROTOCOLS = {"4": "ipencap", "ipip": "ipencap", "6": "tcp", "17": "udp", "41": "ipv6", "47": "gre"}


def parse(lines: Iterable[str], family: str, program: str) -> list[Table]:
    """Return the tables in the output of ``iptables-save``.  A match that is not understood is uncertain for every
    packet.
    """
    tables: list[Table] = []
    chains: dict[str, Chain] = {}
    name = ""
    for line in lines:
        if line.startswith("*"):
            name, chains = line[1:].strip(), {}
            tables.append(Table(family, name, program, chains))
        elif line.startswith(":"):
            chain, policy, *_ = line[1:].split()
            kind = "nat" if name == "nat" else "filter"
            hook = HOOKS.get(chain) if policy != "-" else None
            verdict = VERDICTS.get(policy, Verdict.UNKNOWN)
            chains[chain] = Chain(chain, [], hook, kind, PRIORITIES.get(name, 0), verdict)
        elif line.startswith("-A "):
            _, chain, *words = _split(line)
            if chain in chains:
                chains[chain].rules.append(_rule(words))
    return tables


def _split(line: str) -> list[str]:
    if '"' not in line:
        return line.split()
    try:
        return shlex.split(line)
    except ValueError:
        return [*line.split()[:2], "--unknown"]


def _rule(words: list[str]) -> Rule:
    matches: list[Match] = []
    iterator, is_negated = iter(words), False
    for word in iterator:
        if word == "!":
            is_negated = True
            continue
        if word in {"-j", "-g"}:
            return _with_target(tuple(matches), next(iterator, ""), is_goto=word == "-g")
        if word in SILENT:
            next(iterator, None)
        elif word in READERS:
            field, read = READERS[word]
            try:
                matches.append(Match(field, tuple(read(next(iterator, ""))), is_negated))
            except ValueError:
                matches.append(UNKNOWN)
        else:
            matches.append(UNKNOWN)
        is_negated = False
    return Rule(tuple(matches))


def _with_target(matches: tuple[Match, ...], target: str, *, is_goto: bool) -> Rule:
    if target in VERDICTS:
        return Rule(matches, VERDICTS[target])
    if target in PASSING:
        return Rule(matches)
    # Any other word in capitals may be a target or a chain; an unknown target has no chain, so its effect is unknown.
    return Rule(matches, target=target, is_goto=is_goto)


def _interfaces(text: str) -> Iterator[str]:
    yield f"{text[:-1]}*" if text.endswith("+") else text


def _addresses(text: str) -> Iterator[Span]:
    yield Span.of_addresses(text)


def _ports(text: str) -> Iterator[Span]:
    for each in text.split(","):
        first, _, last = each.partition(":")
        yield Span.of_ports(first or "0", last or ("65535" if each.endswith(":") else None))


def _protocols(text: str) -> Iterator[str]:
    yield PROTOCOLS.get(text, text)


def _states(text: str) -> Iterator[str]:
    yield from text.lower().split(",")


READERS: dict[str, tuple[Field, Callable[[str], Iterator[str | Span]]]] = {
    "-i": (Field.ENTERS, _interfaces),
    "-o": (Field.LEAVES, _interfaces),
    "-s": (Field.SOURCE, _addresses),
    "-d": (Field.DESTINATION, _addresses),
    "-p": (Field.PROTOCOL, _protocols),
    "--dport": (Field.PORT, _ports),
    "--dports": (Field.PORT, _ports),
    "--ctstate": (Field.STATE, _states),
    "--state": (Field.STATE, _states),
}
SILENT = {"-m", "--comment", "-c"}
