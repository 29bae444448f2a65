"""Asks many peers at once whether they answer, as `overlay ping` asks one, and finds out why some are silent."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from overlay.cli.agents import ask, read_peer
from overlay.cli.exits import Failure
from overlay.cli.ping import Ping, choose_addresses, explain, open_echo_socket, open_in_band
from overlay.cli.refused import IcmpRefusals
from overlay.cli.surroundings import Surroundings
from overlay.cli.unanswered import name_sender, why_no_echo

if TYPE_CHECKING:
    from collections.abc import Sequence

    import click

    from overlay.cli.agents import PeerAnswer
    from overlay.cli.echo import EchoSocket
    from overlay.diagnosis.finding import Finding

# Ours
COUNT, INTERVAL, TIMEOUT = 2, 0.5, 2.5  # of the requests to one peer
PATIENT = (
    4.0  # seconds for one without an agent, which may not have the address: its host takes three to find that
)
AT_ONCE = 64  # peers asked at the same time
PAUSE = 0.05  # seconds between two checks for answers
SPREAD = 1.0  # seconds added to the pause between two handshakes, after which one has surely been sent
UNEXPLAINED = {"no_answer", "silent", "tunnel_one_way"}  # findings that an ICMP error may explain further


@dataclass(frozen=True, slots=True)
class Asked:
    """Whether *peer* answered, and in how many *seconds*; *finding* says why it did not.

    Neither is set for a peer that cannot be asked, because one end has no address and the peer does not accept in-band
    pings.  *answer* is the agent's answer about it.
    """

    peer: str
    seconds: float | None = None
    finding: Finding | None = None
    answer: PeerAnswer | None = None

    @property
    def was_asked(self) -> bool:
        """Whether a request was sent to it."""
        return self.seconds is not None or self.finding is not None

    def is_little(self, packets: int) -> bool:
        """Return whether a peer without an agent sends so many *packets* by itself, or as errors about the requests."""
        return self.answer is not None and not self.answer.is_agent and packets <= COUNT


def ask_all(ctx: click.Context, interface: str, names: Sequence[str], rekey_timeout: float) -> list[Asked]:
    """Return how each of the peers *names* of the agent of *interface* answered.

    It takes some seconds.  If a peer is silent, it takes until the next handshake is sent, one every *rekey_timeout*
    seconds: the peer's host, or one on the path, may then report why.
    """
    if not names:
        return []
    with (
        contextlib.closing(IcmpRefusals()) as refusals,
        ThreadPoolExecutor(min(AT_ONCE, len(names))) as executor,
    ):
        until = time.monotonic() + rekey_timeout + SPREAD
        futures = [executor.submit(_ask, ctx, interface, name) for name in names]
        while not all(each.done() for each in futures):
            refusals.hear(PAUSE)
        asked = [each.result() for each in futures]
        while time.monotonic() < until and any(_is_unexplained(each, refusals) for each in asked):
            refusals.hear(PAUSE)
        return [_explained(each, refusals) for each in asked]


def _is_unexplained(asked: Asked, refusals: IcmpRefusals) -> bool:
    """Return whether an ICMP error may still explain the silence of a peer."""
    if asked.finding is None or asked.finding.name not in UNEXPLAINED or asked.answer is None:
        return False
    return asked.answer.endpoint is not None and refusals.explain(asked.answer) is None


def _explained(asked: Asked, refusals: IcmpRefusals) -> Asked:
    if asked.finding is None or asked.finding.name not in UNEXPLAINED or asked.answer is None:
        return asked
    return replace(asked, finding=refusals.explain(asked.answer) or asked.finding)


def _ask(ctx: click.Context, interface: str, name: str) -> Asked:
    surroundings = Surroundings.of(ctx)
    answer = read_peer(interface, ask(ctx, interface, op="peer", name=name))
    try:
        addresses = choose_addresses(answer)
    except Failure:  # of different families
        addresses = None
    own, address = addresses or (None, None)

    def open_echo() -> EchoSocket:
        if addresses is None:
            raise Failure(why_no_echo(answer, is_asked_for=False))
        return open_echo_socket(surroundings, *addresses)

    timeout = TIMEOUT if answer.is_agent else PATIENT
    ping = Ping(
        open_in_band(ctx, interface, name, timeout),
        open_echo,
        surroundings.now,
        f"{name} ({address})" if address else name,
        lambda _: None,
        lambda sender: name_sender(answer, sender),
    )
    began_at = surroundings.now()
    try:
        ping.run(COUNT, INTERVAL, timeout)
    except Failure:
        return Asked(name)
    finally:
        ping.close()
    if ping.times:
        return Asked(name, min(ping.times))
    elapsed = surroundings.now() - began_at
    answer = read_peer(interface, ask(ctx, interface, op="peer", name=name, is_counted=True))
    return Asked(name, None, explain(ctx, interface, answer, own, ping, elapsed, is_asking=True), answer)
