"""``overlay doctor``: find what is wrong with this node, its host and its peers."""

# ruff: noqa: PLC0415  see overlay/cli/__init__.py

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from overlay import defaults
from overlay.cli.agents import agent_path, ask_in_pieces, is_of_wg_quick, read_examination, running_interfaces
from overlay.cli.grouping import group
from overlay.cli.options import (
    PeersLocation,
    interface_option,
    json_option,
    key_option,
    peer_argument,
)
from overlay.cli.output import show, show_json
from overlay.documents import WORST_FIRST, tell_examination
from overlay.numbers import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from overlay.cli.echoes import Asked
    from overlay.config import Options
    from overlay.host.control import NoAgentError, WaitingError
    from peers.stores import Location

# Ours
LEAST_LOOK = 0.5  # seconds during which the load of the forwarder is measured
SHOWN = 50  # findings in the text; the JSON has all
SILENT = {"no_answer", "silent"}  # findings that only say that a peer is silent
DOUBTFUL = {*SILENT, "unconfirmed"}  # the agent's, that may have a more certain cause
ELSEWHERE = "wrong_place_there"  # a finding that does not matter to this node if the peer answers
DISPROVED = {*DOUBTFUL, "wrong_key_there"}  # findings that are over, or were never true, if the peer answers
# Faults of the host itself that keep peers from answering; they come first.
SILENCING = {
    "device_down",
    "firewall_port",
    "forwarder_silent",
    "route_taken",
    "route_refused",
    "address_taken",
}
LABEL = 9  # columns of a severity


@click.command("doctor", epilog="Example: overlay doctor tokyo")
@peer_argument(required=False)
@interface_option
@click.option(
    "--peers",
    type=PeersLocation(readable=False),
    default=defaults.PEERS,
    metavar="FILE",
    help="The peers file to examine if no agent runs.",
)
@key_option("The private key to examine if no agent runs.")
@click.option(
    "--node", metavar="NAME", help="The peer that this host is, if no agent runs.  [default: by the key]"
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    peer: str | None,
    interface: str,
    peers: Location,
    key: Path,
    node: str | None,
    as_json: bool,
) -> None:
    """Find what is wrong with this node, its host and its peers, or with PEER alone, and how to fix it.

    It changes nothing, and sends only what `overlay ping` sends: a few requests to each of up to 64 peers, those in
    trouble first.  It takes a few seconds.  If no agent runs, it examines what it can: the peers file, keys and the
    host.

    A finding is an error (packets do not arrive), a warning (they do, but something is at risk) or a notice
    (something limits this host).  The exit code is 0 if there are no errors and no warnings, 1 if there are, and 2 for
    wrong usage.
    """
    from overlay.config import Options
    from overlay.host.control import NoAgentError, WaitingError, is_answered

    is_named = ctx.get_parameter_source("interface") is ParameterSource.COMMANDLINE
    try:
        report = _examine(ctx, interface, peer)
    except NoAgentError as error:
        if peer is not None or (
            not is_named and any(is_answered(agent_path(ctx, each)) for each in running_interfaces(ctx))
        ):
            raise
        report = _examine_host(Options(peers, key, interface, node), error, is_of_wg_quick(ctx, interface))
    except WaitingError as error:
        report = _describe_waiting(interface, error)
    if as_json:
        show_json(report)
    else:
        show(render(report, shutil.get_terminal_size().columns if sys.stdout.isatty() else None))
    if any(each["severity"] != "notice" for each in report["findings"]):
        ctx.exit(1)


def _examine(ctx: click.Context, interface: str, peer: str | None) -> dict[str, Any]:
    """Return the report of an examination with the agent's help."""
    from overlay.cli.echoes import ask_all
    from overlay.cli.kernel_counts import KernelCounts
    from overlay.cli.kernel_counts import describe as describe_counts
    from overlay.cli.load import Load
    from overlay.cli.load import describe as describe_load
    from overlay.cli.queueing import describe as describe_queueing
    from overlay.cli.queueing import read_queueing
    from overlay.diagnosis.dropping import check_dropping, check_floods
    from overlay.diagnosis.kinds import describe
    from overlay.host import sysctl

    about = {} if peer is None else {"name": peer}
    answer = ask_in_pieces(ctx, interface, lambda _: None, op="doctor", is_survey=True, **about)
    survey = read_examination(interface, answer)
    pid, before = survey.forwarder_pid, Load.read(survey.forwarder_pid, time.monotonic())
    counted, queued = KernelCounts.read(), read_queueing(survey.devices)
    asked = ask_all(ctx, interface, survey.ask, survey.rekey_timeout_seconds)
    if not asked:
        time.sleep(LEAST_LOOK)
    found: list[dict[str, Any]] = []
    latest = read_examination(
        interface, ask_in_pieces(ctx, interface, found.extend, op="doctor", is_compared=True, **about)
    )
    after = Load.read(pid, time.monotonic())
    busy = describe_load(pid, before, after)
    here = [busy] if busy is not None else []
    settled = settle(found, asked, latest.findings)
    # The kernel also counts a datagram with a wrong checksum, maybe another program's, as one that a socket did not
    # take.
    lost = latest.drops.get("receive_full", 0) - survey.drops.get("receive_full", 0)
    dropped = KernelCounts.read().since(counted).bounded(checksums=lost)
    silent = [each.peer for each in asked if each.was_asked and each.seconds is None]
    here += describe_counts(
        dropped, silent, [each for each in sysctl.interfaces(4) if sysctl.is_strict(each)]
    )
    here += describe_queueing(queued, read_queueing(survey.devices), silent)
    if latest.forwarder_pid == pid and survey.is_complete and latest.is_complete:  # else growth is not known
        full = {"receive_full": max(0, latest.drops.get("receive_full", 0) - dropped.checksums)}
        here += check_dropping(survey.drops, latest.drops | full, after.now - before.now)
        settled = hear_foreign(settled, asked, survey.foreign, latest.foreign)
        here += check_floods(survey.floods, latest.floods, after.now - before.now)
    return tell_examination(
        interface=interface,
        node=latest.node,
        packet_path=latest.packet_path,
        peers=latest.peers,
        asked=sum(each.was_asked for each in asked),
        answered=sum(each.seconds is not None for each in asked),
        findings=[*latest.findings, *map(describe, here), *settled],
    )


def hear_foreign(
    settled: list[dict[str, Any]], asked: Sequence[Asked], before: Mapping[str, int], after: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Return the findings *settled* about peers, updated with those whose packets were dropped for their sources
    meanwhile: they are not silent.

    *before* and *after* are the numbers of such packets, by peer.
    """
    from overlay.cli.unanswered import foreign_meanwhile, foreign_sources
    from overlay.diagnosis.kinds import describe

    named = {each["peer"] for each in settled if each["name"] in {"foreign_source", "files_differ"}}
    grown = {
        name: count - before.get(name, 0) for name, count in after.items() if count > before.get(name, 0)
    }
    kept = [each for each in settled if each["name"] not in SILENT or each["peer"] not in grown]
    by_name = {each.peer: each for each in asked}
    for name, more in grown.items():
        one = by_name.get(name)
        if one is not None and one.finding is not None and one.answer is not None and one.is_little(more):
            if one.finding.name in SILENT:
                kept.append(describe(foreign_meanwhile(one.answer, more)))
        elif name not in named:
            kept.append(describe(foreign_sources(name, after[name])))
    return kept


def _examine_host(options: Options, error: NoAgentError, is_bare: bool) -> dict[str, Any]:
    """Return the report of an examination without an agent, for which *error* is the reason.

    An interface that *is_bare* has no peers file: wg-quick configures it.
    """
    from overlay.diagnosis.finding import Finding
    from overlay.diagnosis.kinds import describe
    from overlay.diagnosis.unstarted import Examined, examine

    examined = Examined() if is_bare else examine(options)
    problem, _, remedy = str(error).partition("; ")[0].partition(": ")  # leftovers are a finding of their own
    found = [Finding("no_agent", problem, remedy), *examined.findings]
    return tell_examination(
        interface=options.interface,
        node=examined.node,
        is_running=False,
        findings=map(describe, found),
    )


def _describe_waiting(interface: str, error: WaitingError) -> dict[str, Any]:
    """Return the findings on an agent that is not a node yet."""
    from overlay.diagnosis.finding import Finding
    from overlay.diagnosis.kinds import describe

    return tell_examination(
        interface=interface,
        node=None,
        findings=[describe(Finding("waiting", error.problem, error.reason))],
    )


def settle(
    found: Iterable[dict[str, Any]], asked: Iterable[Asked], of_node: Sequence[dict[str, Any]] = ()
) -> list[dict[str, Any]]:
    """Return the agent's findings about peers, updated with the answers of the peers that were *asked* since.

    For a peer that did not answer, the most certain finding is kept: a certain fault of the peer, or one *of_node* that
    prevents its answer; otherwise an ICMP error from a host on the path, otherwise what handshakes make likely,
    otherwise that it is silent.
    """
    from overlay.diagnosis.kinds import describe

    by_name = {each.peer: each for each in asked}
    answered = {name for name, each in by_name.items() if each.seconds is not None}
    kept = [
        each | ({"name": "misdirected", "severity": "notice"} if _is_elsewhere(each, answered) else {})
        for each in found
        if each["peer"] not in answered or each["name"] not in DISPROVED
    ]
    sure = [each for each in kept if each["name"] not in DOUBTFUL or each["peer"] not in by_name]
    explained = {each["peer"] for each in (*sure, *of_node) if each["severity"] == "error"}
    if any(each["name"] in SILENCING and each["peer"] is None for each in of_node):
        return sure
    for name, each in by_name.items():
        if each.finding is None or name in explained or _is_checked(each):
            continue
        likely = [one for one in kept if one["name"] == "unconfirmed" and one["peer"] == name]
        sure += likely if likely and each.finding.name in SILENT else [describe(each.finding)]
    return sure


def _is_checked(asked: Asked) -> bool:
    """Return whether *asked* is a server that need not answer, because checks show that it works."""
    if asked.finding is None or asked.finding.name != "server_unasked" or asked.answer is None:
        return False
    return all(each["is_checked"] for each in asked.answer.services)


def _is_elsewhere(finding: dict[str, Any], answered: set[str]) -> bool:
    """Return whether *finding* is about a peer that *answered*, but expects another peer at this node."""
    return finding["name"] == ELSEWHERE and finding["peer"] in answered


def render(report: dict[str, Any], width: int | None = None) -> str:
    """Return *report* as text of *width* columns; None leaves sentences on one line."""
    groups = group(report["findings"])
    lines = [_heading(report), ""]
    for each in groups[:SHOWN]:
        first, others = each.first, each.describe_others()
        lines += _paragraph(first["severity"].ljust(LABEL), first["problem"], width)
        if first["remedy"]:
            lines += _paragraph(" " * LABEL, f"-> {first['remedy']}", width)
        if others is not None:
            lines += _paragraph(" " * LABEL, others, width)
    if len(groups) > SHOWN:
        lines.append(f"{count(len(groups) - SHOWN, 'more finding')}: --json has them")
    if not groups:
        lines.append("nothing is wrong")
    return "\n".join(lines)


def _heading(report: dict[str, Any]) -> str:
    numbers = {each: sum(one["severity"] == each for one in report["findings"]) for each in WORST_FIRST}
    counts = ", ".join(count(number, severity) for severity, number in numbers.items() if number)
    if not report["is_running"]:
        who = f"{report['node']} on " if report["node"] else ""
        return f"{who}{report['interface']}, without an agent: {counts}"
    if not report["node"]:
        return f"{report['interface']}, whose agent is not a node yet: {counts}"
    asked = f"{report['answered']} of {count(report['asked'], 'peer')} answered"
    if not report["peers"]:
        asked = "it has no tunnels"
    elif not report["asked"]:
        peers = report["peers"]
        asked = "its peer was not asked" if peers == 1 else f"none of its {peers} peers was asked"
    elif report["asked"] < report["peers"]:
        others = report["peers"] - report["asked"]
        asked += f", {others} {'was' if others == 1 else 'were'} not asked"
    where = f"{report['node']} on {report['interface']} ({report['packet_path']} packet path)"
    return f"{where}: {asked}{'; ' if counts else ''}{counts}"


def _paragraph(label: str, text: str, width: int | None) -> list[str]:
    if width is None or width < 2 * LABEL:
        return [label + text]
    return textwrap.wrap(
        text,
        width,
        initial_indent=label,
        subsequent_indent=" " * LABEL,
        break_long_words=False,
        break_on_hyphens=False,
    )
