"""``script``: the exit status of a program of the operator says whether the server works.

0 is good, and anything else bad; if the status gives a weight, 2 to 255 is good with a weight of status - 2
(keepalived's ``misc_dynamic``).  The program runs as a user without privileges, never as root, in a session of its own:
when its time is up, the whole group gets SIGTERM, and SIGKILL two seconds later.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from overlay.services.checking import Result
from overlay.services.checks import programs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from overlay.services.checks.dialer import Dialer
    from peers.service import Check

# Ours
USERS = ("overlay_script", "keepalived_script", "nobody")  # the first that this host has
PATIENCE = 2.0  # seconds between SIGTERM and SIGKILL
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FIRST_WEIGHT = 2  # the exit status of weight 0


async def run(check: Check, dialer: Dialer) -> Result:
    """Run the program; its environment names the server."""
    environment = {
        "PATH": PATH,
        "OVERLAY_SERVICE": dialer.service,
        "OVERLAY_SERVER": dialer.server,
        "OVERLAY_PEER": dialer.peer,
        "OVERLAY_ADDRESS": dialer.address,
        "OVERLAY_PORT": str(dialer.port),
    }
    try:
        status = await run_as_nobody(check.command, environment)
    except (OSError, LookupError) as error:
        return Result(
            False, f"{check.command[0]} cannot be started: {describe_failure(error, check.command)}"
        )
    text = f"{check.command[0]} {programs.describe_end(status)}"
    if check.weight_from_exit and status >= FIRST_WEIGHT:
        return Result(True, text, status - FIRST_WEIGHT)
    return Result(not status, text)


def describe_failure(error: OSError | LookupError, command: tuple[str, ...]) -> str:
    """Return why run_as_nobody() raised *error* for *command*, and what to do."""
    if isinstance(error, LookupError):
        return str(error.args[0])
    return programs.describe(error, Path(command[0]), unprivileged_identity())


async def run_as_nobody(
    command: tuple[str, ...], environment: Mapping[str, str], standard_input: bytes = b""
) -> int:
    """Run *command* without the agent's privileges, and return its exit status, negative for a signal.

    Its output is discarded.  If cancelled, it ends the program and everything that the program started.  Raises
    OSError, and LookupError if there is no user to run it as.
    """
    user, group = unprivileged_identity()
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.PIPE if standard_input else subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=dict(environment),
        cwd="/",
        start_new_session=True,
        user=user,
        group=group,
        extra_groups=[] if user is not None else None,
    )
    try:
        async with trio.open_nursery() as nursery:
            if process.stdin is not None:
                nursery.start_soon(feed, process.stdin, standard_input)
            status: int = await process.wait()
            nursery.cancel_scope.cancel()
    finally:
        await _end(process)
    return status


async def feed(stdin: trio.abc.SendStream, data: bytes) -> None:
    """Write *data*, or as much of it as is read."""
    with contextlib.suppress(trio.BrokenResourceError):
        async with stdin:
            await stdin.send_all(data)


async def _end(process: trio.Process) -> None:
    """End the remaining processes in the session of *process*."""
    with trio.CancelScope(shield=True):
        for how, patience in ((signal.SIGTERM, PATIENCE), (signal.SIGKILL, 0.0)):
            try:
                os.killpg(process.pid, how)
            except ProcessLookupError:
                break
            with trio.move_on_after(patience):
                await _all_gone(process)
                break
        await process.wait()


async def _all_gone(process: trio.Process) -> None:
    await process.wait()
    with contextlib.suppress(ProcessLookupError):
        while True:
            os.killpg(process.pid, 0)
            await trio.sleep(0.05)


def unprivileged_identity() -> tuple[int | None, int | None]:
    """Return the user and group to run as, which have no privileges; None if the agent has none itself.

    Raises LookupError if there is no such user.
    """
    if os.geteuid():
        return None, None
    for name in USERS:
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            if user.pw_uid:
                return user.pw_uid, user.pw_gid
    raise LookupError(f"there is no user to run it as; add the user {USERS[0]}")
