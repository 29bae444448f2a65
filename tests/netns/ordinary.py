"""Become an ordinary user, or one with a few capabilities, on behalf of tests.netns.users.

It imports only what a process forked by tests.netns.forkserver has anyway.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from typing import TYPE_CHECKING

from overlay.host.process.privileges import (
    CAPABILITY_HEADER,
    CAPABILITY_SETS,
    CAPABILITY_VERSION_3,
    Capability,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

USER = 65534

# linux/prctl.h
PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 4, 8, 47, 2

_libc = ctypes.CDLL(None, use_errno=True)

# Arguments: a number of directories, each with the closed one above it, or "-"; then "--" and the command.
_SCRIPT = """
set -e
mount -t tmpfs -o mode=755 tmpfs /mnt
mknod /mnt/tun c 10 200
chmod 666 /mnt/tun
mount --bind /mnt/tun /dev/net/tun
count=0
closed=
pairs=
while [ "$1" != -- ]; do
    count=$((count + 1))
    mkdir /mnt/$count
    mount --bind "$1" /mnt/$count
    pairs="$pairs $count $1"
    case " $closed " in *" $2 "*) ;; *) closed="$closed $2" ;; esac
    shift 2
done
shift
for each in $closed; do mount -t tmpfs -o mode=755 tmpfs "$each"; done
set_up() { while [ $# -gt 0 ]; do mkdir -p "$2"; mount --bind /mnt/$1 "$2"; shift 2; done; }
set_up $pairs
exec "$@"
"""


def exposing(exposed: Sequence[str], *command: str) -> list[str]:
    """Return the command that runs *command* once its mount namespace shows the user the directories in *exposed*, as
    above.
    """
    return ["sh", "-c", _SCRIPT, "sh", *exposed, "--", *command]


def become(exposed: Sequence[str], capabilities: Sequence[str]) -> None:
    """Become the user as setpriv does, with *capabilities* such as ``net_admin``."""
    subprocess.run(exposing(exposed, "true"), check=True)
    wanted = [Capability[name.upper()] for name in capabilities]
    bits = sum(1 << each for each in wanted)
    _call("prctl", PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)
    _call(
        "capset",
        CAPABILITY_HEADER.pack(CAPABILITY_VERSION_3, 0),
        CAPABILITY_SETS.pack(bits, bits, bits, 0, 0, 0),
    )
    for each in wanted:
        _call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, each, 0, 0)
    # As after an exec: /proc/self belongs to the user.
    _call("prctl", PR_SET_KEEPCAPS, 0, 0, 0, 0)
    _call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)


def _call(name: str, *arguments: int | bytes) -> None:
    longs = [each if isinstance(each, bytes) else ctypes.c_ulong(each) for each in arguments]
    if getattr(_libc, name)(*longs) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
