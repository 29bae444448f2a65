"""Commands of this host's operator that run on events: a node, a peer or a service goes up or down.

They are files in a directory of this host, never lines of the peers file: someone who can write that, or etcd, must not
be able to run programs here.  A file that others than root can change is refused.  Each hook gets the event as JSON on
its standard input, runs without the agent's privileges unless it is in the directory for those that have them, and is
ended when its time is up, with everything that it has started.  The agent does not wait for hooks.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
import stat
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from overlay.hooks.happening import EVENTS
from overlay.hooks.keeping import run_kept
from overlay.keys.permissions import describe_writers
from overlay.services.checks import programs
from overlay.services.checks.script import PATH, unprivileged_identity

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Ours
PRIVILEGED = "root"  # the subdirectory of hooks that run with the agent's privileges
SCHEMA = 1
TIMEOUT = 30.0  # seconds that a hook may take
LAST_TIMEOUT = 5.0  # and at the agent's end
MOST_WAITING = 1000  # events; beyond that the oldest is dropped
# Events that make an older one about the same object void, because only its last state counts
_SUPERSEDED = {"peer-up": "peer", "peer-down": "peer"}
# Suffixes of the copies that editors and package managers leave next to a file, and of files that are switched off
_LEFT_ASIDE = re.compile(r".*(~|\.(bak|orig|old|disabled|swp|example)|\.dpkg-[^.]*|\.rpm[^.]*)", re.DOTALL)

log = logging.getLogger("overlay")


@dataclass(frozen=True, slots=True)
class Hook:
    """A file to run for an event; *is_privileged* if it runs with the agent's privileges."""

    path: Path
    is_privileged: bool


@dataclass(frozen=True, slots=True)
class Happened:
    """One event, with its details."""

    event: str
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def subject(self) -> tuple[str, object] | None:
        """Return the object if only the last event about it counts; None if each event counts."""
        about = _SUPERSEDED.get(self.event)
        return None if about is None else (about, self.fields.get(about))


def find(directory: Path, event: str) -> list[Hook]:
    """Return the hooks for *event*, by name: files called like the event, or the event, a dot and more.

    Backup copies, such as peer-down.bak, do not count.  A file that others can change, or that cannot be run, is
    refused with a line in the log.  Blocks.
    """
    found = list[Hook]()
    for place, is_privileged in ((directory, False), (directory / PRIVILEGED, True)):
        try:
            names = sorted(os.listdir(place))
        except OSError:  # there are no hooks
            continue
        meant = (place / name for name in names if _is_for(name, event) and not _LEFT_ASIDE.fullmatch(name))
        found += [Hook(path, is_privileged) for path in meant if _is_fit(path)]
    return found


def strangers(directory: Path) -> list[Path]:
    """Return the files among the hooks that are named after no event, except for backups, READMEs and hidden files.

    Blocks.
    """
    found: list[Path] = []
    for place in (directory, directory / PRIVILEGED):
        try:
            names = sorted(os.listdir(place))
        except OSError:  # there are no hooks
            continue
        for name in names:
            is_aside = name.startswith((".", "README")) or _LEFT_ASIDE.fullmatch(name)
            if (
                not is_aside
                and not any(_is_for(name, event) for event in EVENTS)
                and (place / name).is_file()
            ):
                found.append(place / name)
    return found


def _is_for(name: str, event: str) -> bool:
    return name == event or name.startswith(f"{event}.")


def _is_fit(path: Path) -> bool:
    wrong = describe_writers(path, "whoever can change it can run programs here")
    try:
        mode = path.stat().st_mode
    except OSError as error:
        log.warning("hook refused path=%s: %s", path, programs.describe(error, path))
        return False
    if not stat.S_ISREG(mode):
        log.warning("hook refused path=%s: it is not a file; move it out of the directory of hooks", path)
        return False
    if not mode & stat.S_IXUSR:
        log.warning("hook refused path=%s: it is not a program; run `chmod 755 %s`", path, path)
        return False
    if wrong:
        log.warning("hook refused path=%s: %s; %s", path, wrong[0].problem, wrong[0].remedy)
        return False
    return True


class Hooks:
    """Runs the hooks of *directory*, one event after the other; *describe* describes the node."""

    def __init__(self, directory: Path, describe: Callable[[], dict[str, Any]]) -> None:
        self._directory, self._describe = directory, describe
        self._waiting: deque[Happened] = deque()
        self._wake = trio.Event()
        self._left_out = 0

    def tell(self, event: str, **fields: Any) -> None:
        """Queue the hooks for *event*, after those of earlier events.  Never waits."""
        assert event in EVENTS, event
        happened = Happened(event, {**fields, "timestamp_seconds": round(time.time(), 3)})
        if happened.subject is not None:
            self._waiting = deque(each for each in self._waiting if each.subject != happened.subject)
        if len(self._waiting) >= MOST_WAITING:
            self._waiting.popleft()
            self._left_out += 1
        self._waiting.append(happened)
        self._wake.set()

    async def run(self) -> None:
        """Run hooks until cancelled; then run those for the node's end, for a short while."""
        try:
            for path in await trio.to_thread.run_sync(strangers, self._directory):
                close = difflib.get_close_matches(path.name.partition(".")[0], EVENTS, n=1)
                hint = f"did you mean {close[0]}?" if close else f"events are {', '.join(EVENTS)}"
                log.warning("hook never runs path=%s: it is not named after an event; %s", path, hint)
            while True:
                while self._waiting:
                    await self._run_all(self._waiting.popleft(), TIMEOUT)
                if self._left_out:
                    log.warning("hooks are too slow: events dropped count=%d", self._left_out)
                    self._left_out = 0
                self._wake = trio.Event()
                await self._wake.wait()
        finally:
            with trio.CancelScope(shield=True):
                await self._run_all(
                    Happened("down", {"timestamp_seconds": round(time.time(), 3)}), LAST_TIMEOUT
                )

    async def _run_all(self, happened: Happened, timeout: float) -> None:
        """Run all hooks for one event, at the same time."""
        if not self._directory.exists():
            return
        hooks = await trio.to_thread.run_sync(find, self._directory, happened.event)
        async with trio.open_nursery() as nursery:
            for hook in hooks:
                nursery.start_soon(self._run, hook, happened, timeout)

    async def _run(self, hook: Hook, happened: Happened, timeout: float) -> None:
        described = {"schema": SCHEMA, "event": happened.event, **self._describe(), **happened.fields}
        environment = {"PATH": PATH, "OVERLAY_EVENT": happened.event}
        text = json.dumps(described).encode() + b"\n"
        began, status = time.monotonic(), None
        identity: programs.Identity = (None, None)
        try:
            identity = identity if hook.is_privileged else unprivileged_identity()
            with trio.move_on_after(timeout):
                status = await run_kept(hook.path, environment, text, identity)
        except LookupError as error:
            log.warning("hook failed path=%s event=%s: %s", hook.path, happened.event, error.args[0])
            return
        except OSError as error:
            why = programs.describe(error, hook.path, identity)
            log.warning("hook failed path=%s event=%s: %s", hook.path, happened.event, why)
            return
        if status is None:
            log.warning("hook ended after %g s path=%s event=%s", timeout, hook.path, happened.event)
        elif status:
            log.warning("hook failed path=%s event=%s status=%d", hook.path, happened.event, status)
        else:
            took = time.monotonic() - began
            log.debug("hook ran path=%s event=%s took=%.3f", hook.path, happened.event, took)
