"""What an agent that was killed, or ended with an error, left on the host.  It is found only by the name of the
interface.

The next agent of that name takes it over.  If there will be none, ``overlay down`` removes it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from overlay.host import control, nftables
from overlay.host.interfaces import index_of
from overlay.host.netlink.routing import Routing
from overlay.host.own_rules.own_rules import SUFFIX as RULES
from overlay.host.own_rules.own_rules import OwnRules
from overlay.host.settings import SUFFIX, Settings
from overlay.host.translations import table_name

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What was removed: the names of settings that were restored, how many routes and rules, and the tables of the
    packet filters that had rules of ours.
    """

    settings: list[str]
    routes: int
    filters: list[str] = field(default_factory=list)


def remove(path: Path, interface: str) -> Leftovers | None:
    """Remove what an agent of *interface* left whose control socket was *path*; return None if there is nothing.

    Raises HostError, also if a running agent has *path*.
    """
    settings = Settings(path.with_suffix(SUFFIX))
    rules = OwnRules(interface, path.with_suffix(RULES))
    with contextlib.closing(Routing(interface, index_of(interface))) as routing:
        if not routing.read_back() and not settings.is_left and not rules.is_left:
            return None
        with control.nobody_listening(path):
            routes = routing.read_back()
            routing.withdraw()
            with contextlib.suppress(OSError):  # a kernel without nftables has no table of ours
                nftables.remove_table(table_name(interface))
            filters = rules.close()
            return Leftovers(settings.restore(), routes, filters)
