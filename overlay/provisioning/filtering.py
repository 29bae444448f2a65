"""Keeps our rules in the packet filters of this host, if ``masquerade`` or ``forward`` asks for them.

The kernel reports changes by others, except to the tables of iptables-legacy, which are checked from time to time.
Reading takes programs about 50 ms, so it is done in a worker thread, and only for a small part of the time: Docker
changes rules with each container.
"""

from __future__ import annotations

import contextlib
import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from overlay.diagnosis.finding import Finding
from overlay.errors import HostError
from overlay.host import clock
from overlay.host.firewall.read import has_legacy_tables
from overlay.host.firewall.watch import RulesWatch
from overlay.host.own_rules.wanted import Wanted

if TYPE_CHECKING:
    from collections.abc import Callable

    from overlay.config import Node, Options
    from overlay.host.own_rules.own_rules import OwnRules

# Ours
GATHER_TIME = 0.2  # seconds; a reload of a firewall is many changes
LEGACY_INTERVAL = 10.0  # seconds between two checks of tables that do not report changes
RETRY_INTERVAL = 30.0  # seconds until failed changes are tried again
SHARE = 0.1  # of the time that checks take, at most

log = logging.getLogger("overlay")


def wanted_of(node: Node, options: Options) -> Wanted:
    """Return the rules that *node* needs in its host's packet filters, by its options and the network."""
    network, own = node.table.network, node.own
    return Wanted(
        options.interface,
        tuple(each for each in own.subnets if each.num_addresses > 1),
        network.prefixes,
        masquerade=options.masquerade or network.masquerade,
        forward=options.forward or network.forward,
    )


class Filtering:
    """The rules of a running node; *changed* is called when they changed after the start."""

    def __init__(self, rules: OwnRules, options: Options, changed: Callable[[], None]) -> None:
        self._rules, self._options, self._changed = rules, options, changed
        self._wanted = Wanted(options.interface)
        self._asked = trio.Event()
        self._trouble: str | None = None
        self._published = ""
        self._thread = trio.CapacityLimiter(1)
        self._holding = trio.Lock()

    @property
    def findings(self) -> list[Finding]:
        """Why the rules are not all in force, if so."""
        return [Finding("own_rules", self._trouble)] if self._trouble is not None else []

    def set_up(self, node: Node) -> None:
        """Put the rules into force before any packet is sent.  A failure becomes a finding, because the tunnel works
        without them.
        """
        self._wanted = wanted_of(node, self._options)
        try:
            self._rules.hold(self._wanted)
        except HostError as error:
            self._trouble = str(error)

    async def publish(self, chains: str) -> None:
        """Make exactly *chains*, in nft's language, lead ports of the host to containers.

        Raises HostError; then the former ones stay.
        """
        before = self._published
        self._publish(chains)
        try:
            await self._hold()
        except HostError:
            self._publish(before)
            raise
        finally:
            self._asked.set()

    def _publish(self, chains: str) -> None:
        self._published = chains
        self._wanted = replace(self._wanted, published=chains)

    def adopt(self, node: Node) -> None:
        """Replace the rules soon with those that *node* asks for."""
        wanted = replace(wanted_of(node, self._options), published=self._published)
        if wanted != self._wanted:
            self._wanted = wanted
            self._asked.set()

    async def keep(self) -> None:
        """Restore rules that others remove, and apply changes."""
        while True:
            if self._is_idle:
                await self._asked.wait()
            with contextlib.ExitStack() as stack:
                watch = self._open_watch(stack)
                self._asked.set()  # others may have changed something before the watch
                while not self._is_idle:
                    await self._wait(watch)
                    await self._look()

    @property
    def _is_idle(self) -> bool:
        nothing = not (self._wanted.masquerade or self._wanted.forward or self._wanted.published)
        return nothing and self._trouble is None and not self._asked.is_set()

    def _open_watch(self, stack: contextlib.ExitStack) -> RulesWatch | None:
        try:
            watch = RulesWatch()
        except HostError as error:
            log.warning("%s, so rules that others remove are back only after %g s", error, LEGACY_INTERVAL)
            return None
        stack.callback(watch.close)
        return watch

    async def _wait(self, watch: RulesWatch | None) -> None:
        """Wait until there may be something to do."""
        patience = RETRY_INTERVAL if self._trouble is not None else math.inf
        if watch is None or has_legacy_tables():
            patience = LEGACY_INTERVAL

        async with trio.open_nursery() as nursery:

            async def until(wait: Callable[[], object]) -> None:
                await wait()  # type: ignore[misc]
                nursery.cancel_scope.cancel()

            nursery.cancel_scope.deadline = trio.current_time() + patience
            nursery.start_soon(until, self._asked.wait)
            if watch is not None:
                nursery.start_soon(until, lambda: trio.lowlevel.wait_readable(watch.fileno()))
        if not self._asked.is_set():
            await trio.sleep(GATHER_TIME)
        self._asked = trio.Event()
        if watch is not None:
            with contextlib.suppress(HostError):
                watch.drain()

    async def _look(self) -> None:
        """Change the rules to those that are wanted now."""
        began, before = clock.now(), self._trouble
        try:
            changed = await self._hold()
        except HostError as error:
            self._trouble, changed = str(error), []
        else:
            self._trouble = None
        if changed:
            log.info("rules of the packet filters set places=%s", ", ".join(changed))
        if changed or self._trouble != before:
            self._changed()
        await trio.sleep(max(GATHER_TIME, (clock.now() - began) / SHARE))

    async def _hold(self) -> list[str]:
        async with self._holding:
            return await trio.to_thread.run_sync(self._rules.hold, self._wanted, limiter=self._thread)
