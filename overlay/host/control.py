"""The control socket of an agent: where it is, who may use it, and one question with its answer.

A connection carries one request, a JSON object on one line, and one answer of the same form.  Before the answer there
may be lines ``{"rows": [...], "more": true}``, whose rows are part of it: in a status they are the peers.

The directory is /run/overlay, which belongs to root.  An agent without root that may not write there answers in its
user's directory, $XDG_RUNTIME_DIR/overlay, where the commands of the same user look, too.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from overlay.errors import HostError
from overlay.host import advice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Message: TypeAlias = dict[str, Any]  # what JSON holds; the agent and each command parse their own

# Ours
DIRECTORY = Path("/run/overlay")
LINE_SIZE = (
    64 * 1024 * 1024
)  # bytes; a line of the status has a few peers and takes some 20 KB, however many peers there are
TIMEOUT = 10.0  # seconds for a question and the first line of its answer, and for each further line
BACKLOG = 16
BUSY_INTERVAL = 0.02  # seconds between two attempts when the queue is full
SWEPT_LOOKS, SWEPT_INTERVAL = (
    25,
    0.01,
)  # attempts at a lock that is held, and seconds between two: see _take_lock()

# A sysctl that the kernel shows only in the initial network namespace.  Simpler ways fail: the inode of that namespace
# differs from kernel to kernel, and /proc/1/ns/net can be read only with CAP_SYS_PTRACE, which a service often lacks
# while the operator's shell has it.  Both must arrive at the same path.
ONLY_IN_INITIAL_NAMESPACE = Path("/proc/sys/net/core/netdev_max_backlog")
OWN_NAMESPACE = Path("/proc/self/ns/net")


class NoAgentError(HostError):
    """No agent answers for that interface here."""

    kind = "no_agent"


class WaitingError(HostError):
    """The agent of that interface is waiting and not yet a node: *problem* says for what, *reason* why and what to
    do.
    """

    kind = "waiting"

    def __init__(self, problem: str, reason: str) -> None:
        super().__init__(f"{problem}: {reason}")
        self.problem, self.reason = problem, reason


class TakenError(HostError):
    """A running agent has that interface here, or is about to start for it."""


def own_directory() -> Path:
    """Return where the agents of this user answer.  Raises HostError if there is no such directory."""
    if os.geteuid() == 0 or os.access(DIRECTORY, os.W_OK):
        return DIRECTORY
    directory = _user_directory()
    if directory is None:
        raise HostError(
            f"there is no directory for the control socket, because only root may write to {DIRECTORY}: set "
            "XDG_RUNTIME_DIR to a directory of this user, such as /run/user/UID"
        ) from PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return directory


def directories() -> list[Path]:
    """Return the directories of agents that this user may ask, the most likely first."""
    user = None if os.geteuid() == 0 else _user_directory()
    return [DIRECTORY] if user is None else [user, DIRECTORY]


def find(interface: str, among: Sequence[Path]) -> Path:
    """Return the control socket of the agent of *interface*; if there is none, where it would be in the first of
    *among*.

    Raises nothing.
    """
    paths = [control_path(interface, directory) for directory in among]
    return next((path for path in paths if os.path.exists(path)), paths[-1])


def control_path(interface: str, directory: Path = DIRECTORY) -> Path:
    """Return where the agent of *interface* in this network namespace answers.

    ``/run/overlay/overlay0.sock`` on the host itself; in another namespace the name contains its inode,
    ``overlay0.4026532177.sock``, because namespaces usually share /run and may use the same interface name.
    """
    if ONLY_IN_INITIAL_NAMESPACE.exists():
        return directory / f"{interface}.sock"
    return directory / f"{interface}.{OWN_NAMESPACE.stat().st_ino}.sock"


@dataclass(frozen=True, slots=True)
class ControlSocket:
    """The agent's listening end.  While it is open, no other agent can have the same path."""

    path: Path
    socket: socket.socket  # listening, non-blocking
    lock: int  # descriptor of the locked file next to the socket

    def close(self) -> None:
        """Remove the socket, then the lock."""
        self.path.unlink(missing_ok=True)
        _lock_path(self.path).unlink(missing_ok=True)
        self.socket.close()
        os.close(self.lock)


def listen(path: Path) -> ControlSocket:
    """Take *path* for this process and listen on it, mode 0600.  What a killed agent left there is replaced.

    Raises HostError if a running agent has it, or if the directory cannot be written or belongs to somebody else.
    """
    _make_directory(path.parent)
    lock = _take_lock(path)
    _sweep(path.parent)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        path.unlink(missing_ok=True)  # the lock is ours, so its last owner is dead
        os.fchmod(listener.fileno(), 0o600)  # bind() gives the file this mode, so it never has another
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        os.close(lock)
        raise HostError(
            f"{path} could not be created: {error.strerror or error}; {advice.after(error)}"
        ) from error
    return ControlSocket(path, listener, lock)


@contextlib.contextmanager
def listening(interface: str) -> Iterator[ControlSocket]:
    """Be the agent of *interface* in this network namespace inside the block.  Raises HostError as listen() does."""
    opened = listen(control_path(interface, own_directory()))
    try:
        yield opened
    finally:
        opened.close()


@contextlib.contextmanager
def nobody_listening(path: Path) -> Iterator[None]:
    """Keep agents from *path* inside the block.  Raises HostError if one has it already."""
    lock = _take_lock(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # a killed agent's
        _lock_path(path).unlink(missing_ok=True)
        os.close(lock)


def request(path: Path, message: Message, timeout: float = TIMEOUT) -> Message:
    """Return the agent's answer to *message*; in a status, the rows that came before it are under ``peers``.

    Raises HostError if no first line, or no further line, came within *timeout* seconds.
    """
    rows: list[Any] = []
    answer = converse(path, message, rows.extend, timeout)
    if isinstance(status := answer.get("status"), dict):
        status.setdefault("peers", rows)
    return answer


def converse(
    path: Path,
    message: Message,
    take: Callable[[list[Any]], object],
    timeout: float = TIMEOUT,
    descriptors: Sequence[int] = (),
) -> Message:
    """Return the agent's answer to *message*, and pass the rows that come before it to *take*, a few at a time.

    The agent gets copies of *descriptors*.

    Raises HostError if no first line, or no further line, came within *timeout* seconds.
    """
    interface = interface_of(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as client:
        try:
            client.settimeout(timeout)
            connect(client, path, timeout)
            data = encode(message)
            if descriptors:
                data = data[socket.send_fds(client, [data], descriptors) :]
            if data:  # sending nothing fails if the agent has answered and hung up
                client.sendall(data)
            lines = _Lines(client, timeout)
            answer = decode(lines.read())
            while answer.get("more") is True:
                take(_rows(answer))
                answer = decode(lines.read())
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NoAgentError(f"no overlay agent runs for {interface} here") from error
        except PermissionError as error:
            raise _not_permitted(path) from error
        except TimeoutError as error:
            raise HostError(
                f"the agent of {interface} did not answer in {timeout:g} s: see its log"
            ) from error
        except OSError as error:
            raise HostError(f"the agent of {interface} closed the connection: {error.strerror}") from error
        except ValueError as error:
            raise HostError(f"the agent of {interface} did not answer completely: see its log") from error
    return answer


def refuse_unless_permitted(path: Path) -> None:
    """Raise HostError if an agent answers at *path* but this user may not ask it."""
    try:
        path.stat()
    except FileNotFoundError:
        return
    except PermissionError as error:
        raise _not_permitted(path) from error
    if not os.access(path, os.W_OK):
        raise _not_permitted(path)


def _not_permitted(path: Path) -> HostError:
    return HostError(f"{path} may be used by root only: {advice.become_root()}")


def connect(client: socket.socket, path: Path, timeout: float) -> None:
    """Connect *client*, which has a timeout, to *path* within *timeout* seconds.

    If the queue of *path* is full, connect(2) fails with EAGAIN at once; this function tries until there is room.
    Raises TimeoutError, and other OSErrors.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            client.connect(str(path))
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError from None
            time.sleep(BUSY_INTERVAL)
        else:
            return


def is_answered(path: Path) -> bool:
    """Return whether a process listens at *path*, as opposed to what a killed agent left there."""
    with socket.socket(
        socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    ) as client:
        try:
            client.connect(str(path))
        except BlockingIOError:  # many ask at once
            return True
        except OSError:
            return False
        return True


def encode(message: Message) -> bytes:
    """Return *message* as one line of JSON."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Message:
    """Return the value that encode() was given.  Raises ValueError, and nothing else, for any bytes."""
    if not line.endswith(b"\n"):
        raise ValueError("a message ends with its line")
    try:
        message = json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(message, dict):
        raise ValueError("a message is a JSON object")  # noqa: TRY004  one error class for anything the other end sends
    return message


def interface_of(path: Path) -> str:
    """Return the interface that control_path() was given for *path*."""
    name = path.name.removesuffix(".sock")
    base, _, inode = name.rpartition(".")
    return base if base and len(inode) >= 10 and inode.isdigit() else name


def _user_directory() -> Path | None:
    """Return the directory for the sockets of a user without root; None if the environment names none."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(runtime, "overlay") if os.path.isabs(runtime) else None


def _make_directory(directory: Path) -> None:
    """Make *directory*, writable only for its owner, if it does not exist."""
    is_shared = directory == DIRECTORY or os.geteuid() == 0
    try:
        directory.mkdir(mode=0o755 if is_shared else 0o700, parents=True, exist_ok=True)
        status = directory.stat(follow_symlinks=False)
    except OSError as error:
        raise HostError(
            f"{directory} could not be created: {error.strerror}; {advice.after(error)}"
        ) from error
    if status.st_uid not in {0, os.geteuid()} or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise HostError(
            f"{directory} belongs to another user or can be written by others: correct its owner and mode"
        ) from PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def _take_lock(path: Path) -> int:
    """Return a descriptor that holds the lock of *path* until it is closed; our process id is in the file.

    The file is removed at a clean stop, so the locked file may no longer be the one in the directory, and a newcomer
    could lock another: then this tries again.  It also tries again, SWEPT_LOOKS times, while the file is locked: an
    agent that starts elsewhere locks it for a moment to see whether its owner lives.
    """
    file = _lock_path(path)
    looks = 0
    while True:
        try:
            lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise HostError(
                f"{file} could not be created: {error.strerror}; {advice.after(error)}"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_ino == file.stat().st_ino:
                os.ftruncate(lock, 0)
                os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
                return lock
        except FileNotFoundError:
            pass
        except BlockingIOError as error:
            owner = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            looks += 1
            if looks < SWEPT_LOOKS:
                time.sleep(SWEPT_INTERVAL)
                continue
            interface = interface_of(path)
            raise TakenError(
                f"{interface} is already run by process {owner}: "
                f"stop it with `overlay down --interface {interface}`, or choose another --interface"
            ) from error
        except OSError as error:  # as on a full disk
            os.close(lock)
            raise HostError(
                f"{file} could not be written: {error.strerror}; make room, then start again"
            ) from error
        os.close(lock)


def _sweep(directory: Path) -> None:
    """Remove what killed agents left in *directory*, including those of namespaces that are gone.

    A running agent holds the lock of its file.  A newcomer that opened a file just before it is removed here notices
    that it is no longer the one in the directory, and makes another.  So does this: a file that was opened just before
    its agent ended may have been replaced by that of the next.
    """
    for file in directory.glob("*.lock"):
        with contextlib.suppress(OSError):
            lock = os.open(file, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(lock).st_ino == file.stat().st_ino:
                    file.with_suffix(".sock").unlink(missing_ok=True)
                    file.unlink()
            finally:
                os.close(lock)


def _lock_path(path: Path) -> Path:
    return path.with_suffix(".lock")


def _rows(piece: Message) -> list[Any]:
    rows = piece.get("rows")
    if not isinstance(rows, list):
        raise ValueError("a piece of an answer has rows")  # noqa: TRY004  one class for anything the other end sends
    return rows


class _Lines:
    """The lines of an answer, each of which may take *timeout* seconds."""

    def __init__(self, client: socket.socket, timeout: float) -> None:
        self._client, self._timeout = client, timeout
        self._rest = b""

    def read(self) -> bytes:
        """Return the next line, or its beginning if it does not end or is too long."""
        deadline = time.monotonic() + self._timeout
        line, self._rest = bytearray(self._rest), b""
        at = line.find(b"\n")
        while at < 0 and len(line) <= LINE_SIZE:
            self._client.settimeout(max(deadline - time.monotonic(), 0.001))
            chunk = self._client.recv(1 << 20)
            if not chunk:
                return bytes(line)
            found = chunk.find(b"\n")
            at = len(line) + found if found >= 0 else -1
            line += chunk
        if at >= 0:
            self._rest = bytes(line[at + 1 :])
            del line[at + 1 :]
        return bytes(line)
