"""The few kernel settings under /proc/sys/net that decide whether an overlay works.

Only settings of our own interface are written here: they vanish with it, so nothing needs to be put back.  Those of
the host are written by ``settings``, on request.  A setting is named by its path below /proc/sys/net.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from overlay.errors import HostError
from overlay.linux import LOOSE

if TYPE_CHECKING:
    from collections.abc import Callable

NETWORK = Path("/proc/sys/net")

# Specification: Documentation/networking/ip-sysctl.rst
FORWARDING = {
    4: "ipv4/ip_forward",
    6: "ipv6/conf/all/forwarding",
}  # by IP version: whether this host forwards
STRICT = 1  # rp_filter: a packet must come from where its source is routed to


def read(name: str) -> int | None:
    """Return the number in the setting *name*; None where this kernel has no such setting."""
    try:
        return int(_path(name).read_text())
    except OSError:
        return None


def write(name: str, value: int) -> None:
    """Set *name* to *value*.  Raises OSError."""
    _path(name).write_text(f"{value}\n")


def key(name: str) -> str:
    """Return *name* as ``sysctl`` takes it; with slashes where an interface has a dot in its name."""
    return f"net/{name}" if "." in name else f"net.{name}".replace("/", ".")


def interfaces(version: int, *, with_default: bool = False) -> list[str]:
    """Return the interfaces with settings of that IP version, and on request the name for those to come."""
    without = {"all"} if with_default else {"all", "default"}
    try:
        return sorted(path.name for path in _path(f"ipv{version}/conf").iterdir() if path.name not in without)
    except OSError:
        return []


def filter_switch(interface: str = "all") -> str:
    """Return the setting of the reverse path check of *interface*."""
    return f"ipv4/conf/{interface}/rp_filter"


def forwards(version: int, interface: str) -> bool:
    """Return whether this host forwards what of an IP version comes in by *interface*.

    IPv4 is forwarded by what a packet comes in by, IPv6 by the whole host or not at all.
    """
    return read(f"ipv4/conf/{interface}/forwarding" if version == 4 else FORWARDING[6]) != 0


def is_strict(interface: str, read: Callable[[str], int | None] = read) -> bool:
    """Return whether a packet that comes in by *interface* must come from where its source is routed to.

    The kernel goes by the larger setting of the interface and ``all``, and 2 is loose: the source must be routed
    somewhere.  The check knows no firewall marks, unless src_valid_mark says so: who sets
    that also marks what comes in.
    """
    if any(read(f"ipv4/conf/{name}/src_valid_mark") for name in ("all", interface)):
        return False
    return max(read(filter_switch(name)) or 0 for name in ("all", interface)) == STRICT


def loosen_rp_filter(interface: str) -> None:
    """Make the reverse path check of *interface* loose.  Raises HostError if it is strict and stays so."""
    try:
        write(filter_switch(interface), LOOSE)
    except OSError as error:
        if is_strict(interface):
            raise HostError(
                f"net.ipv4.conf.{interface}.rp_filter is strict and may not be set to {LOOSE}: "
                f"make /proc/sys writable, or set net.ipv4.conf.default.rp_filter={LOOSE} before the start"
            ) from error


def redirect_switch(interface: str = "all") -> str:
    """Return the setting of ICMP redirects that this host sends by *interface*; by each where that of ``all`` is 1."""
    return f"ipv4/conf/{interface}/send_redirects"


def stop_redirects(interface: str) -> None:
    """Have no ICMP redirects sent by *interface*, as far as that may be set and ``all`` does not ask for them."""
    with contextlib.suppress(OSError):
        write(redirect_switch(interface), 0)


def refuse_forged_sources(interface: str) -> None:
    """Have no IPv4 packets taken from *interface* whose source is elsewhere, as far as that may be set.

    ``all`` prevails where it asks for less, as the kernel takes the larger of the two.
    """
    with contextlib.suppress(OSError):
        write(filter_switch(interface), STRICT)


def enable_ipv6(interface: str) -> None:
    """Let *interface* have IPv6 addresses, also where new interfaces have none by default; without IPv6, nothing."""
    if not is_ipv6_disabled(interface):
        return
    try:
        _path(f"ipv6/conf/{interface}/disable_ipv6").write_text("0")
    except OSError as error:
        raise HostError(
            f"IPv6 is disabled on {interface}: make /proc/sys writable, or set net.ipv6.conf.default.disable_ipv6=0"
        ) from error


def disable_ipv6(interface: str) -> None:
    """Take IPv6 from *interface* again, if it is still there."""
    with contextlib.suppress(OSError):
        _path(f"ipv6/conf/{interface}/disable_ipv6").write_text("1")


def is_ipv6_disabled(interface: str) -> bool:
    """Return whether *interface* may have no IPv6 addresses, though the kernel speaks IPv6."""
    return read(f"ipv6/conf/{interface}/disable_ipv6") == 1


def has_ipv6() -> bool:
    """Return whether this kernel speaks IPv6 at all."""
    return (NETWORK / "ipv6").is_dir()


def _path(name: str) -> Path:
    return NETWORK / name
