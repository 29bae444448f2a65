"""The two processes of the web page: one that talks to browsers, without privileges, and one that asks the agent.

The first is forked, gives up all privileges and becomes a user that owns nothing.  The second keeps the right to open
the control socket, as its owner, and to end the first; it reads only the first one's questions.  Everything is imported
before that: afterwards not even the interpreter's own files may be readable.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

import trio

from overlay.doors import http, page, readonly
from overlay.host import control
from overlay.host.process import privileges, user_ids
from overlay.host.process.privileges import Capability

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from overlay.doors.page import Page
    from peers.listening import Listening

# Ours
TOKEN_SIZE = 24  # bytes
KEPT_CAPABILITIES = (
    Capability.KILL,
)  # without it, the kernel would not end another user's process with its parent


def make_token() -> str:
    """Return a token that cannot be guessed, in characters that need no escaping in a URL."""
    return base64.urlsafe_b64encode(os.urandom(TOKEN_SIZE)).decode()


def run(
    listener: socket.socket,
    place: Listening,
    token: str | None,
    agent: Callable[[], Path],
    begun: Callable[[list[str]], None],
) -> None:
    """Serve the page at *listener*, with answers of the agent at *agent*, until the serving process ends.

    *begun* is called with a sentence for each privilege that could not be given up.  Raises HostError.
    """
    files = page.read_files()
    with contextlib.ExitStack() as stack:
        uid = stack.enter_context(_user()) if os.geteuid() == 0 else None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.enter_context(ours)
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            ours.close()
            _serve(listener, page_of(theirs, place, token, files), theirs, uid, parent)
        stack.callback(_end, child)
        theirs.close()
        listener.close()
        kept = privileges.keep_only(KEPT_CAPABILITIES)
        begun(json.loads(ours.recv(readonly.MESSAGE_SIZE) or b"[]") + kept)
        readonly.relay(ours, agent)


def page_of(
    link: socket.socket, place: Listening, token: str | None, files: Mapping[str, tuple[str, bytes]]
) -> Callable[[], Page]:
    """Return a function that, inside an event loop, makes the page at *place*, which asks over *link*."""
    return lambda: page.Page(readonly.RelayClient(link).ask, place, token, files)


@contextlib.contextmanager
def _user() -> Iterator[int]:
    """Yield a user id that owns nothing and that no running forwarder has.  Raises HostError."""
    directory = control.own_directory()
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o755)
    with contextlib.closing(user_ids.take(directory)) as taken:
        yield taken.uid


def _serve(
    listener: socket.socket, make: Callable[[], Page], link: socket.socket, uid: int | None, parent: int
) -> NoReturn:
    """Run the process that talks to browsers.  It ends with the process *parent*."""
    code = 1
    try:
        # A terminal or a service manager signals both processes, and the other one decides when to stop.
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        notes = privileges.drop_all(uid, parent)
        link.send(json.dumps(notes).encode())
        trio.run(_answer, listener, make, strict_exception_groups=True)
    except BaseException:  # noqa: BLE001  the process must not go on as the one it was forked from
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


async def _answer(listener: socket.socket, make: Callable[[], Page]) -> None:
    incoming = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
    await http.serve(incoming, make().answer, page.LIMITS, page.refuse, "readers of the page")


def _end(child: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
