"""The forwarder process: ``python -m overlay.forwarding DESCRIPTOR UID``, started by the agent.

*DESCRIPTOR* is its end of the link, and *UID* the user and group that it becomes if it is root.

Everything is imported before privileges go: afterwards not even the interpreter's own files may be readable.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys

from overlay.errors import PacketError
from overlay.forwarding.loop import LinkEnd, Loop
from overlay.host import clock
from overlay.host.process import priority, seccomp
from overlay.host.process.privileges import THREADS, drop_all, start_nothing
from overlay.link.codec import OtherVersionError
from overlay.link.messages import Ready, Start

# Ours
GC_THRESHOLD = 50_000  # allocations between two collections: the packet path makes no cycles


def main() -> None:
    """Run until the agent closes the link."""
    # A terminal or a service manager signals every process; stopping is the agent's decision, by closing the link.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    link = socket.socket(fileno=int(sys.argv[1]))
    link.setblocking(False)  # first: once it is confined, this process changes no flag of a descriptor
    parent = os.getppid()
    priority.prefer()
    uid = int(sys.argv[2]) if os.geteuid() == 0 else None
    kept = drop_all(uid, parent, THREADS if uid is not None else 0) + seccomp.confine()
    notes = [f"the forwarder keeps privileges: {note}" for note in kept]
    end = LinkEnd(link)
    try:
        start, descriptors = end.wait()
    except OtherVersionError:
        _refuse(end)
        return
    except (EOFError, PacketError):
        return
    if not isinstance(start, Start):
        return
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    loop = Loop(end, clock.now, os.urandom, begun=start_nothing)
    gc.callbacks.append(loop.collecting)
    loop.run(start, descriptors, notes)


def _refuse(end: LinkEnd) -> None:
    """Let an agent of another release know the version of this forwarder, and wait until it ends the link."""
    with contextlib.suppress(EOFError):
        end.report(Ready([]))
        while True:
            with contextlib.suppress(PacketError):
                for descriptor in end.wait()[1]:
                    os.close(descriptor)


if __name__ == "__main__":
    main()
