"""The table of packet translations for virtual services, made by the program nft.

It is replaced as a whole and removed with the agent.  The table that a killed agent left has the same name: the next
agent replaces or removes it, and ``overlay down`` removes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.errors import HostError
from overlay.host import nftables
from overlay.host.firewall.load import MissingError, ScriptRefusedError, load

if TYPE_CHECKING:
    from collections.abc import Callable


def table_name(interface: str) -> str:
    """Return the name of the table of an agent's *interface*: letters, digits and ``_``; other characters as ``x`` and
    hex digits.
    """
    return "overlay_" + "".join(
        each if each.isascii() and (each.isalnum() or each == "_") else f"x{ord(each):02x}"
        for each in interface
    )


class Translations:
    """The rules of the agent of *interface*; *run* makes nft execute a script."""

    def __init__(self, interface: str, run: Callable[[str], None] | None = None) -> None:
        self._name, self._run = table_name(interface), run or run_nft
        self._rules: str | None = None  # None: whether a killed agent left any is not known
        self._wanted: tuple[str, str] | None = None

    def hold(self, rules: str, limits: str = "") -> str:
        """Put *rules*, the chains of the table in nft's language, in force instead of any others; empty for none.

        Raises HostError; then the former rules stay in force.  *limits* are chains that this host can do without: if
        nft is missing, or accepts only the rules, the reason is returned, once.
        """
        if (rules, limits) == self._wanted:
            return ""
        without = ""
        try:
            self._replace(rules + limits)
        except HostError as error:
            if not limits:
                raise
            self._replace(rules)
            without = str(error)
        self._wanted = (rules, limits)
        return without

    def _replace(self, rules: str) -> None:
        if rules == self._rules:
            return
        if rules:
            made_anew = f"add table inet {self._name}\ndelete table inet {self._name}\n"
            self._run(f"{made_anew}table inet {self._name} {{\n{rules}}}\n")
        else:
            self._remove()
        self._rules = rules

    def close(self) -> None:
        """Remove the table."""
        if self._rules:
            self._remove()
        self._rules, self._wanted = "", None

    def _remove(self) -> None:
        try:
            nftables.remove_table(self._name)
        except OSError as error:
            if self._rules:
                raise HostError(
                    f"the table {self._name} of nftables could not be removed ({error.strerror}): "
                    f"run `nft delete table inet {self._name}`"
                ) from error
            # Without nftables in the kernel, or the privilege, we have none.


def run_nft(script: str) -> None:
    """Make nft execute *script*, as a whole or not at all.  Raises HostError."""
    try:
        load(("nft", "-f", "-"), script, "rules for services")
    except MissingError as error:
        raise HostError(
            "services need the program nft for their translations on this host: install nftables"
        ) from error
    except ScriptRefusedError as error:
        raise HostError(f"{error}: see whether the kernel has nf_tables and nft_nat") from error
