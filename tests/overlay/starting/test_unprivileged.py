from __future__ import annotations

from pathlib import Path

from overlay.config import Options
from overlay.host.process import privileges
from overlay.host.process.privileges import Capability
from overlay.starting.unprivileged import check
from peers.stores import Location


def test_with_the_privilege_nothing_is_looked_at():
    """The messages without it are tested in tests/netns/test_device.py, by a user of a namespace."""
    if not privileges.missing([Capability.NET_ADMIN]):
        check(Options(Location.parse("/nowhere"), Path("/nowhere"), "no-such", fix_sysctl=True))
