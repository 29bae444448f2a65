"""Commands of a user without privileges, or with a few capabilities, in a namespace.

Where the machine keeps /dev/net/tun, the interpreter or the test's files from everybody, the command sees them in a
mount namespace of its own where it may use them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.netns.topology import ROOT, Namespace

if TYPE_CHECKING:
    import subprocess

USER = 65534

# Arguments: a number of directories, each with the closed one above it, or "-"; then "--" and the command.
SCRIPT = """
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


class AsUser(Namespace):
    """A namespace whose commands are run by the user USER, with *capabilities* such as ``net_admin``."""

    takes_forks = False

    def __init__(self, namespace: Namespace, *directories: Path, capabilities: tuple[str, ...] = ()) -> None:
        """*directories* are those that the commands use; they go over to the user."""
        super().__init__(namespace.name, namespace.full_name, namespace.lab)
        wanted = (*directories, Path(sys.prefix), Path(sys.base_prefix), ROOT)
        self._exposed = [(path, above) for path in wanted if (above := _closed_above(path)) is not None]
        self._set = ",".join(["-all", *(f"+{name}" for name in capabilities)])

    def popen(self, *command: str | Path, **options: Any) -> subprocess.Popen[str]:
        """Start *command* as the user."""
        exposed = [str(each) for pair in self._exposed for each in pair]
        return super().popen(
            *("unshare", "--mount", "sh", "-c", SCRIPT, "sh", *exposed, "--"),
            *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"),
            *(f"--inh-caps={self._set}", f"--ambient-caps={self._set}", "--", *command),
            **options,
        )


def _closed_above(path: Path) -> Path | None:
    """Return the topmost directory above *path* that others may not pass; None if they may.

    Whoever begins to run pytest on this machine closes its directory, whatever a test has made of it.
    """
    return next(
        (
            above
            for above in reversed(path.parents)
            if above.name.startswith("pytest-of-") or not above.stat().st_mode & 0o001
        ),
        None,
    )
