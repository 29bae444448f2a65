"""Commands of a user without privileges, or with a few capabilities, in a namespace.

Where the machine keeps /dev/net/tun, the interpreter or the test's files from everybody, the command sees them in a
mount namespace of its own where it may use them.
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
        """*directories* are those that the commands use; they go over to the user."""
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
