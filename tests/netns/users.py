"""Commands of a user without privileges, or with a few capabilities, in a namespace.

If other users may not access /dev/net/tun, the interpreter or the test's files on this machine, the command runs in a
mount namespace in which it may.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.netns.ordinary import USER, exposing
from tests.netns.topology import ROOT, Namespace

if TYPE_CHECKING:
    import subprocess


class AsUser(Namespace):
    """A namespace whose commands are run by the user USER, with *capabilities* such as ``net_admin``."""

    def __init__(self, namespace: Namespace, *directories: Path, capabilities: tuple[str, ...] = ()) -> None:
        """*directories* are those that the commands use; the user becomes their owner."""
        super().__init__(namespace.name, namespace.full_name, namespace.lab)
        wanted = (*directories, Path(sys.prefix), Path(sys.base_prefix), ROOT)
        closed = [(path, above) for path in wanted if (above := _closed_above(path)) is not None]
        exposed = [str(each) for pair in closed for each in pair]
        self.user = {"exposed": exposed, "capabilities": list(capabilities)}

    def popen(self, *command: str | Path, **options: Any) -> subprocess.Popen[str]:
        """Start *command* as the user."""
        assert self.user is not None
        chosen = ",".join(["-all", *(f"+{name}" for name in self.user["capabilities"])])
        user = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
        capabilities = (f"--inh-caps={chosen}", f"--ambient-caps={chosen}")
        shown = exposing(self.user["exposed"], *user, *capabilities, "--", *map(str, command))
        return super().popen("unshare", "--mount", *shown, **options)


def _closed_above(path: Path) -> Path | None:
    """Return the topmost directory above *path* that other users cannot enter; None if there is none.

    Each start of pytest on this machine closes its directory to others again, whatever a test has changed.
    """
    return next(
        (
            above
            for above in reversed(path.parents)
            if above.name.startswith("pytest-of-") or not above.stat().st_mode & 0o001
        ),
        None,
    )
