"""The few kernel settings under /proc/sys/net that decide whether an overlay works.

Only settings of our own interface are written: they vanish with it, so nothing needs to be put back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from overlay.errors import HostError

NETWORK = Path("/proc/sys/net")

# Specification: Documentation/networking/ip-sysctl.rst
STRICT = 1  # rp_filter: a packet must come from where its source is routed to
LOOSE = 2  # rp_filter: its source must be routed somewhere


def forwarding_enabled(version: Literal[4, 6]) -> bool:
    """Return whether this host forwards packets, as it must for the containers or the LAN behind it."""
    return _read("ipv4/ip_forward" if version == 4 else "ipv6/conf/all/forwarding") == 1


def rp_filter(interface: str = "all") -> int | None:
    """Return net.ipv4.conf.INTERFACE.rp_filter.  The kernel goes by the larger of it and that of ``all``."""
    return _read(f"ipv4/conf/{interface}/rp_filter")


def strict_interfaces() -> list[str]:
    """Return the interfaces with a strict reverse path check.

    The check knows no firewall marks.  Where a subnet that holds an endpoint is routed into the tunnel, it drops
    that endpoint's datagrams on such an interface.
    """
    names = [
        path.name for path in (NETWORK / "ipv4/conf").iterdir() if path.name not in {"all", "default", "lo"}
    ]
    return sorted(name for name in names if max(rp_filter(name) or 0, rp_filter() or 0) == STRICT)


def loosen_rp_filter(interface: str) -> None:
    """Make the reverse path check of *interface* loose.  Raises HostError if it is strict and stays so."""
    try:
        _path(f"ipv4/conf/{interface}/rp_filter").write_text(str(LOOSE))
    except OSError as error:
        if interface in strict_interfaces():
            raise HostError(
                f"net.ipv4.conf.{interface}.rp_filter is strict and may not be set to {LOOSE}: "
                f"make /proc/sys writable, or set net.ipv4.conf.default.rp_filter={LOOSE} before the start"
            ) from error


def enable_ipv6(interface: str) -> None:
    """Let *interface* have IPv6 addresses, also where new interfaces have none by default; without IPv6, nothing."""
    if _read(f"ipv6/conf/{interface}/disable_ipv6") != 1:
        return
    try:
        _path(f"ipv6/conf/{interface}/disable_ipv6").write_text("0")
    except OSError as error:
        raise HostError(
            f"IPv6 is disabled on {interface}: make /proc/sys writable, or set net.ipv6.conf.default.disable_ipv6=0"
        ) from error


def has_ipv6() -> bool:
    """Return whether this kernel speaks IPv6 at all."""
    return (NETWORK / "ipv6").is_dir()


def _path(name: str) -> Path:
    return NETWORK / name


def _read(name: str) -> int | None:
    """Return the number in the setting *name*; None where this kernel has no such setting."""
    try:
        return int(_path(name).read_text())
    except OSError:
        return None
