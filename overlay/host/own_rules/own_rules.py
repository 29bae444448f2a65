"""Our rules in force: made, restored after others flushed them, and removed.

Before the first rule is made, a file next to the control socket records that there are some.  After an agent was
killed, the next one, or ``overlay down``, then reads the packet filters and finds the rules by their names.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from overlay.errors import HostError
from overlay.host import advice, nftables
from overlay.host.firewall.load import MissingError, ScriptRefusedError, load
from overlay.host.firewall.read import read_firewall
from overlay.host.own_rules.places import find_places
from overlay.host.own_rules.scripts import Script, replace_table, rewrite
from overlay.host.own_rules.wanted import Wanted
from overlay.host.translations import table_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from overlay.host.firewall.rules import Firewall
    from overlay.host.own_rules.places import RulePlace

# Ours
SUFFIX = ".rules"
_PURPOSES = {"nat": "masquerading", "ports": "publishing ports"}  # by the end of a table's name


class OwnRules:
    """The rules of the agent of *interface*; the file *saved* records that there are some."""

    def __init__(
        self,
        interface: str,
        saved: Path,
        read: Callable[[], Firewall] = read_firewall,
        carry_out: Callable[[tuple[str, ...], str], None] = load,
    ) -> None:
        """Nothing is touched."""
        self._interface, self._saved = interface, saved
        self._read, self._carry_out = read, carry_out
        self._prefix = table_name(interface)  # no other table of this project has a dot in its name
        self._wanted: Wanted | None = None

    @property
    def is_left(self) -> bool:
        """Return whether there may be rules of this project, of this agent or a killed one."""
        return os.path.lexists(self._saved)

    def hold(self, wanted: Wanted) -> list[str]:
        """Put the rules for *wanted* into force instead of our others; return where rules were changed, for the log.

        Rules that are in force already stay untouched, so this also restores what others removed.  Blocks.  Raises
        HostError after doing what could be done; the next call tries the rest.
        """
        former = self._wanted or Wanted(self._interface)
        is_new = self._wanted is None or replace(wanted, published="") != replace(former, published="")
        is_nothing = not any(wanted.tables.values()) and not wanted.forward
        if is_nothing and not self.is_left:
            self._wanted = wanted
            return []
        if not is_nothing:
            self._save()
        firewall = self._read()
        changed, failures = [], list[HostError]()
        for end, chains in wanted.tables.items():
            name = f"{self._prefix}.{end}"
            if not chains:
                if self._wanted is None or former.tables[end]:
                    _remove_table(name)
            elif self._wanted is None or chains != former.tables[end] or not _is_whole(firewall, name):
                with _collected(failures):
                    self._run(replace_table(name, chains), _PURPOSES[end])
                    changed.append(f"inet {name}")
        for place in find_places(firewall, wanted, is_new=is_new):
            with _collected(failures):
                self._run(rewrite(place, wanted), "forwarding")
                changed.append(_describe(place))
        if failures:
            raise failures[0]
        self._wanted = wanted
        if is_nothing:
            self._saved.unlink(missing_ok=True)
        return changed

    def close(self) -> list[str]:
        """Remove all our rules, including those of a killed agent; return where there were any.  Raises HostError."""
        if not self.is_left:
            return []
        return self.hold(Wanted(self._interface))

    def _run(self, script: Script, what: str) -> None:
        try:
            self._carry_out(*script)
        except MissingError as error:
            package = "nftables" if script.command[0] == "nft" else "iptables"
            raise HostError(f"{what} cannot be set up: {error}: install {package}") from error
        except ScriptRefusedError as error:
            raise HostError(
                f"{what} cannot be set up: {error}: see whether something else keeps that table to itself, and "
                "whether the kernel has the modules"
            ) from error

    def _save(self) -> None:
        if self.is_left:
            return
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(self._saved, flags, 0o600))
        except OSError as error:
            raise HostError(
                f"{self._saved} could not be written ({error.strerror}), so no rules are made, because nobody would "
                f"remove them: {advice.after(error)}"
            ) from error


def _is_whole(firewall: Firewall, name: str) -> bool:
    """Return whether the table is as it was made: others may flush it."""
    table = next((each for each in firewall.tables if (each.family, each.name) == ("inet", name)), None)
    return table is not None and len(table.chains) > 1 and all(each.rules for each in table.chains.values())


def _remove_table(name: str) -> None:
    with contextlib.suppress(OSError):  # without nftables in the kernel, or the privilege, we have none
        nftables.remove_table(name)


@contextlib.contextmanager
def _collected(failures: list[HostError]) -> Iterator[None]:
    try:
        yield
    except HostError as error:
        failures.append(error)


def _describe(place: RulePlace) -> str:
    where = f"{place.table.family} {place.table.name}"
    return f"{where} {place.jumps_from}" if place.jumps_from is not None else where
