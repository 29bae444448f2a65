"""The dependencies of commands.  Tests pass their own as the object of the click context."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import click

    from overlay.cli.echo import EchoOpener
    from overlay.host.leftovers import Leftovers
    from peers.addresses import Prefix

Remover: TypeAlias = "Callable[[Path, str], Leftovers | None]"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where agents answer, the clock, how echoes are sent, routes and leftovers; the defaults are the real ones."""

    control_directory: Path | None = None  # None for the directory of this machine's agents
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    open_echo: EchoOpener | None = None  # None for a socket
    routes: Callable[[], Iterable[Prefix]] | None = None  # None for those of this host
    remove_leftovers: Remover | None = None  # None for those of this host
    count_guards: Callable[[str], int] | None = None  # None for those of this host
    wg_quick_directory: Path = Path("/etc/wireguard")

    @classmethod
    def of(cls, ctx: click.Context) -> Surroundings:
        """Return the surroundings of a command."""
        return ctx.find_object(cls) or cls()
