"""One question to the agent, over its control socket (overlay/host/control.py)."""

from __future__ import annotations

import _socket  # as in namespace.py
import contextlib
import json
import os
import struct
import time

from overlay.cni.errors import IO_FAILURE, TRY_LATER, PluginError

TYPE_CHECKING = False  # typing takes a while to load
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

# Ours
DIRECTORY = "/run/overlay"
# As in overlay.host.control, which loads much more; a test compares the two.
ONLY_IN_INITIAL_NAMESPACE = "/proc/sys/net/core/netdev_max_backlog"
PATIENCE = 60.0  # seconds; hundreds of containers may start at once
BUSY_INTERVAL = 0.02  # seconds between two attempts while the queue is full
ANSWER_SIZE = 1024 * 1024


class NoAgentError(PluginError):
    """No agent runs here for that interface."""


def control_path(interface: str) -> str:
    """Return where the agent of *interface* in this network namespace answers."""
    if os.path.exists(ONLY_IN_INITIAL_NAMESPACE):
        return f"{DIRECTORY}/{interface}.sock"
    return f"{DIRECTORY}/{interface}.{os.stat('/proc/self/ns/net').st_ino}.sock"


def ask(path: str, message: dict[str, Any], descriptors: Sequence[int] = ()) -> dict[str, Any]:
    """Return the answer of the agent that listens at *path*.  Raises NoAgentError and PluginError."""
    data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
    deadline = time.monotonic() + PATIENCE
    opened = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    with contextlib.closing(opened) as client:
        client.settimeout(PATIENCE)
        try:
            _connect(client, path, deadline)
            rights = struct.pack(f"={len(descriptors)}i", *descriptors)
            ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if descriptors else []
            sent = client.sendmsg([data], ancillary)
            if sent < len(data):  # sending nothing fails, too, if the agent has answered and hung up
                client.sendall(data[sent:])
            answer = bytearray()
            while not answer.endswith(b"\n") and len(answer) < ANSWER_SIZE:
                chunk = client.recv(65536)
                if not chunk:
                    break
                answer += chunk
        except (FileNotFoundError, ConnectionRefusedError):
            raise NoAgentError(
                TRY_LATER,
                f"no overlay agent runs for {os.path.basename(path).partition('.')[0]} here",
                'start it with `overlay up --peers FILE`, or name its interface as "interface" in the network',
            ) from None
        except PermissionError:
            raise PluginError(IO_FAILURE, f"{path} may be used by root only: run as root") from None
        except TimeoutError:
            raise PluginError(
                TRY_LATER, f"the overlay agent did not answer in {PATIENCE:g} s: see its log"
            ) from None
        except OSError as error:
            raise PluginError(
                TRY_LATER, f"the overlay agent closed the connection ({error.strerror}): see its log"
            ) from None
    try:
        found = json.loads(answer)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise PluginError(TRY_LATER, "the overlay agent ended before it answered: see its log")
    return found


def _connect(client: _socket.socket, path: str, deadline: float) -> None:
    while True:
        try:
            client.connect(path)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError from None
            time.sleep(BUSY_INTERVAL)
        else:
            return
