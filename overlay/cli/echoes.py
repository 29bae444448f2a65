"""Asking many peers at once whether they answer, as `overlay ping` asks one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.cli.agents import ask, read_peer
from overlay.cli.exits import Failure
from overlay.cli.explain import name_sender, why_no_echo
from overlay.cli.ping import Ping, choose_addresses, explain, open_echo_socket, open_in_band
from overlay.cli.surroundings import Surroundings

if TYPE_CHECKING:
    from collections.abc import Sequence

    import click

    from overlay.cli.echo import EchoSocket
    from overlay.diagnosis.finding import Finding

# Ours
COUNT, INTERVAL, TIMEOUT = 2, 0.5, 2.5  # of the requests to one peer
AT_ONCE = 64  # peers asked at the same time


@dataclass(frozen=True, slots=True)
class Asked:
    """Whether *peer* answered, and in how many *seconds*; *finding* says why it did not.

    One that cannot be asked, as neither end has an address and it takes no in-band pings, has neither.
    """

    peer: str
    seconds: float | None = None
    finding: Finding | None = None


def ask_all(ctx: click.Context, interface: str, names: Sequence[str]) -> list[Asked]:
    """Return how each of the peers *names* of the agent of *interface* answered, in some seconds."""
    if not names:
        return []
    with ThreadPoolExecutor(min(AT_ONCE, len(names))) as executor:
        return list(executor.map(lambda name: _ask(ctx, interface, name), names))


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

    ping = Ping(
        open_in_band(ctx, interface, name, TIMEOUT),
        open_echo,
        surroundings.now,
        f"{name} ({address})" if address else name,
        lambda _: None,
        lambda sender: name_sender(answer, sender),
    )
    began_at = surroundings.now()
    try:
        ping.run(COUNT, INTERVAL, TIMEOUT)
    except Failure:
        return Asked(name)
    finally:
        ping.close()
    if ping.times:
        return Asked(name, min(ping.times))
    elapsed = surroundings.now() - began_at
    answer = read_peer(interface, ask(ctx, interface, op="peer", name=name, is_counted=True))
    return Asked(name, None, explain(ctx, interface, answer, own, ping, elapsed, is_asking=True))
