"""Settings of the host that an agent changes if it is asked to, and restores.

The former value of each is written to a file next to the control socket before anything is changed, so that it can be
restored after the agent was killed: by the next agent of that interface, or by ``overlay down``.

- A setting is restored only if it still has the value that the agent gave it.  Otherwise somebody else changed it
  since.
- Two agents may need the same setting.  The second finds the first one's file, and records the administrator's value
  instead of the value that it finds.  An agent that ends while another still has the setting in its file does not
  restore it.  A lock keeps agents from doing this at the same time.  It is on a file that only the agents' user can
  open, not on the directory: everybody may open that, and anyone who can open a file, even only to read it, can lock
  it.
- A file names its network namespace.  A file of a namespace that is gone, or of an earlier boot, says nothing about
  current settings, even if a file of that name is used again.
- A file is trusted only if nobody else can have written it, and even then it can only name the settings listed here.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.errors import HostError
from overlay.host import advice, sysctl
from overlay.host.records import is_of_this_user, own_namespace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# Ours
SUFFIX = ".sysctl"
LOCK = ".settings"  # stays when the agents are gone: a removed file may still be locked by another agent
# Seconds; it is held for milliseconds, unless the kernel takes time for a setting: forwarding needs a lock that the
# kernel holds while namespaces with many interfaces go, for seconds on a busy machine.
LOCK_PATIENCE = 30.0
LOCK_INTERVAL = 0.01  # seconds
FILE_SIZE = 2 * 1024 * 1024  # bytes; a host with 10,000 interfaces needs up to two thirds of it
NAMES = re.compile(
    r"ipv4/ip_forward|ipv4/conf/all/accept_redirects"
    r"|ipv6/conf/(?!\.\.?/)[^/\0]{1,15}/(accept_ra|forwarding)|ipv4/conf/(?!\.\.?/)[^/\0]{1,15}/(rp_filter|forwarding|send_redirects|accept_local|arp_ignore|arp_announce)"
)
VALUES = range(3)


@dataclass(frozen=True, slots=True)
class Change:
    """A setting with its former and its new value; *along* are those that the kernel changes together with it."""

    name: str
    former: int
    value: int
    along: tuple[Change, ...] = ()


class Settings:
    """What one agent has changed, and the file that records it."""

    def __init__(self, path: Path) -> None:
        """*path* is the path of the file; nothing is touched."""
        self._path = path

    @property
    def is_left(self) -> bool:
        """Return whether the file exists: something was changed and has not been restored."""
        return os.path.lexists(self._path)

    def read(self, name: str) -> int | None:
        """Return the value that *name* would have without the other agents here; None if there is no such setting."""
        with self._opened() as directory:
            others = self._of_others(directory)
        along = {each.name: each for change in others.values() for each in change.along}
        change = others.get(name) or along.get(name)
        found = sysctl.read(name)
        return change.former if change is not None and found == change.value else found

    def hold(self, wanted: Mapping[str, int]) -> list[str]:
        """Give the settings in *wanted* these values until restore(); return the names of those that were changed.

        A setting that already has its value stays as it is, and so does one that this agent held and somebody else has
        changed since.  Raises HostError if a setting cannot be changed.
        """
        with self._opened() as directory:
            mine = {change.name: change for change in self._load(directory, self._path.name)}
            others = self._of_others(directory)
            new: list[Change] = []
            for name, value in wanted.items():
                if name in mine:
                    continue
                found, other = sysctl.read(name), others.get(name)
                if other is not None and found == other.value == value:
                    new.append(other)
                elif found is not None and found != value:
                    new.append(Change(name, found, value, _along(name)))
            if not new:
                return []
            self._save(directory, [*mine.values(), *new])
            changed = []
            for change in [each for each in new if sysctl.read(each.name) != each.value]:
                try:
                    if _write_if_present(change.name, change.value):
                        changed.append(change.name)
                except OSError as error:
                    raise HostError(
                        f"{sysctl.key(change.name)} could not be set to {change.value} ({error.strerror}): "
                        "make /proc/sys writable, or set it before the start and omit --fix-sysctl"
                    ) from error
        return changed

    def restore(self) -> list[str]:
        """Restore the settings that are held, also by a killed agent of the same interface; return their names.

        Raises HostError for a setting that cannot be restored; it stays in the file.
        """
        if not self.is_left:
            return []
        restored: list[str] = []
        with self._opened() as directory:
            left = self._load(directory, self._path.name)
            others = self._of_others(directory)
            for change in reversed(left.copy()):
                if change.name not in others:
                    try:
                        is_restored = _put_back(change)
                    except OSError as error:
                        self._save(directory, left)
                        raise HostError(
                            f"{sysctl.key(change.name)} could not be set back to {change.former} ({error.strerror}): "
                            f"run `sysctl -w {sysctl.key(change.name)}={change.former}` and remove {self._path}"
                        ) from error
                    if is_restored:
                        restored.append(change.name)
                left.remove(change)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path.name, dir_fd=directory)
        return restored

    # The file

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        """Open the directory, which must belong to this user alone, and keep other agents from it."""
        parent = self._path.parent
        try:
            directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise HostError(
                f"{parent} could not be opened: {error.strerror}; {advice.after(error)}"
            ) from error
        try:
            if not is_of_this_user(os.fstat(directory)):
                raise HostError(
                    f"{parent} belongs to another user or can be written by others: correct its owner and mode"
                ) from _not_permitted()
            lock = self._lock(directory)
            try:
                yield directory
            finally:
                os.close(lock)
        finally:
            os.close(directory)

    def _lock(self, directory: int) -> int:
        """Keep other agents from the directory until the returned descriptor is closed."""
        path = self._path.with_name(LOCK)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            lock = os.open(LOCK, flags, 0o600, dir_fd=directory)
        except OSError as error:
            raise HostError(
                f"{path} could not be opened ({error.strerror}): {advice.instead(error)}"
            ) from error
        try:
            status = os.fstat(lock)
            if not stat.S_ISREG(status.st_mode) or not is_of_this_user(status) or status.st_mode & 0o077:
                raise HostError(
                    f"{path} is not a file that this user alone can open, so others could lock it: "
                    "look at it and remove it"
                ) from _not_permitted()
            _wait_for(lock, path)
        except BaseException:
            os.close(lock)
            raise
        return lock

    def _of_others(self, directory: int) -> dict[str, Change]:
        """Return what the other agents of this namespace have changed; an untrusted file counts as empty."""
        found: dict[str, Change] = {}
        for name in sorted(os.listdir(directory)):
            if name.endswith(SUFFIX) and name != self._path.name:
                with contextlib.suppress(HostError):
                    found.update((change.name, change) for change in self._load(directory, name))
        return found

    def _load(self, directory: int, name: str) -> list[Change]:
        """Return the changes in the file *name*; none if it is missing or about another namespace."""
        path = self._path.with_name(name)
        try:
            descriptor = os.open(
                name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory
            )
        except FileNotFoundError:
            return []
        except OSError as error:
            raise HostError(
                f"{path} could not be opened ({error.strerror}): {advice.instead(error)}"
            ) from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or not is_of_this_user(status):
                raise HostError(
                    f"{path} was not written by an agent of this user, so the settings in it are not trusted: "
                    "look at it and remove it"
                ) from _not_permitted()
            namespace, changes = _decode(os.pread(descriptor, FILE_SIZE, 0))
        except ValueError as error:
            raise HostError(
                f"{path} does not contain what an agent writes there: look at it and remove it"
            ) from error
        finally:
            os.close(descriptor)
        return changes if namespace == own_namespace() else []

    def _save(self, directory: int, changes: list[Change]) -> None:
        """Write *changes* to the file in one step, so that it is complete whatever happens."""
        name, fresh = self._path.name, f".{self._path.name}.new"
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh, dir_fd=directory)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(fresh, flags, 0o600, dir_fd=directory), "wb") as file:
                file.write(_encode(own_namespace(), changes))
                file.flush()
                os.fsync(file.fileno())
            os.rename(fresh, name, src_dir_fd=directory, dst_dir_fd=directory)
            os.fsync(directory)
        except OSError as error:
            raise HostError(
                f"{self._path} could not be written ({error.strerror}), so no setting is changed, because none could "
                f"be restored: {advice.after(error)}"
            ) from error


def _wait_for(lock: int, path: Path) -> None:
    """Lock *lock*, the file at *path*.  Raises HostError if another process has it for too long."""
    deadline = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno != errno.EWOULDBLOCK or time.monotonic() >= deadline:
                raise HostError(
                    f"{path} could not be locked ({error.strerror}): end the process that holds it (fuser {path})"
                ) from error
            time.sleep(LOCK_INTERVAL)
        else:
            return


def _not_permitted() -> OSError:
    return PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def _along(name: str) -> tuple[Change, ...]:
    """Return what the kernel changes when *name* is set to 1: forwarding then applies to every interface.

    See inet_forward_change() and addrconf_fixup_forwarding() in the kernel.
    """
    changes: list[Change] = []
    for version, switch in sysctl.FORWARDING.items():
        if name == switch:
            for interface in sysctl.interfaces(version, with_default=True):
                each = f"ipv{version}/conf/{interface}/forwarding"
                if (found := sysctl.read(each)) is not None:
                    changes.append(Change(each, found, 1))
    redirects = "ipv4/conf/all/accept_redirects"
    if name == sysctl.FORWARDING[4] and (found := sysctl.read(redirects)) is not None:
        changes.append(Change(redirects, found, 0))
    return tuple(changes)


def _put_back(change: Change) -> bool:
    """Restore *change* with those in `along`; return whether it still had the agent's value.

    Settings of an interface that goes meanwhile go with it.  Raises OSError.
    """
    if sysctl.read(change.name) != change.value:
        return False
    wanted = {}
    for each in change.along:
        found = sysctl.read(each.name)
        wanted[each.name] = each.former if found == each.value else found
    is_restored = _write_if_present(change.name, change.former)
    for name, value in wanted.items():
        if value is not None and sysctl.read(name) != value:
            _write_if_present(name, value)
    return is_restored


def _write_if_present(name: str, value: int) -> bool:
    """Set *name* to *value*, and return whether there is still such a setting.  Raises OSError."""
    try:
        sysctl.write(name, value)
    except FileNotFoundError:
        return False
    return True


def _encode(namespace: str, changes: list[Change]) -> bytes:
    rows = [
        [each.name, each.former, each.value, [[sub.name, sub.former, sub.value] for sub in each.along]]
        for each in changes
    ]
    return json.dumps({"namespace": namespace, "changes": rows}, separators=(",", ":")).encode()


def _decode(data: bytes) -> tuple[str, list[Change]]:
    """Return the values that _encode() was given.  Raises ValueError, and nothing else, for any bytes."""
    try:
        match json.loads(data):
            case {"namespace": str(namespace), "changes": [*rows]}:
                return namespace, [_read_row(row) for row in rows]
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    raise ValueError("not what _encode() makes")


def _read_row(row: object) -> Change:
    match row:
        case [str(name), int(former), int(value), [*along]] if bool not in {type(former), type(value)}:
            subs = [[*sub, []] for sub in along if isinstance(sub, list) and len(sub) == 3]
            change = Change(name, former, value, tuple(map(_read_row, subs)))
        case _:
            raise ValueError("not a change")
    if (
        not NAMES.fullmatch(name)
        or former not in VALUES
        or value not in VALUES
        or len(change.along) != len(along)
    ):
        raise ValueError("not a setting that agents change")
    return change
