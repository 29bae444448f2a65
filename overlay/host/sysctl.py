"""The few kernel settings under /proc/sys/net that decide whether an overlay works.

Only settings of the tunnel's own interface are written here: they vanish with it, so nothing has to be restored.
``settings`` writes those of the host, on request.  A setting is named by its path below /proc/sys/net.
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
STRICT = 1  # rp_filter: a packet must come by the interface to which its source is routed


def read(name: str) -> int | None:
    """Return the number in the setting *name*; None if this kernel has no such setting."""
    try:
        return int(_path(name).read_text())
    except OSError:
        return None


def write(name: str, value: int) -> None:
    """Set *name* to *value*.  Raises OSError."""
    _path(name).write_text(f"{value}\n")


def key(name: str) -> str:
    """Return *name* in the form that ``sysctl`` takes; with slashes if an interface has a dot in its name."""
    return f"net/{name}" if "." in name else f"net.{name}".replace("/", ".")


def interfaces(version: int, *, with_default: bool = False) -> list[str]:
    """Return the interfaces that have settings of that IP version, and on request the name of the default for new
    ones.
    """
    without = {"all"} if with_default else {"all", "default"}
    try:
        return sorted(path.name for path in _path(f"ipv{version}/conf").iterdir() if path.name not in without)
    except OSError:
        return []


def filter_switch(interface: str = "all") -> str:
    """Return the setting of the reverse path check of *interface*."""
    return f"ipv4/conf/{interface}/rp_filter"


def forwards(version: int, interface: str) -> bool:
    """Return whether this host forwards packets of an IP version that arrive by *interface*.

    For IPv4 the incoming interface decides; for IPv6 the whole host forwards, or nothing does.
    """
    return read(f"ipv4/conf/{interface}/forwarding" if version == 4 else FORWARDING[6]) != 0


def is_strict(interface: str, read: Callable[[str], int | None] = read) -> bool:
    """Return whether packets must arrive by *interface* only if their source is routed to it.

    The kernel uses the larger setting of the interface and ``all``, and 2 is loose: the source must have a route by any
    interface.  The check ignores firewall marks unless src_valid_mark is set; those who set it mark incoming packets,
    too.
    """
    if any(read(f"ipv4/conf/{name}/src_valid_mark") for name in ("all", interface)):
        return False
    return max(read(filter_switch(name)) or 0 for name in ("all", interface)) == STRICT


def loosen_rp_filter(interface: str) -> None:
    """Make the reverse path check of *interface* loose.  Raises HostError if it stays strict."""
    try:
        write(filter_switch(interface), LOOSE)
    except OSError as error:
        if is_strict(interface):
            raise HostError(
                f"net.ipv4.conf.{interface}.rp_filter is strict and may not be set to {LOOSE}: "
                f"make /proc/sys writable, or set net.ipv4.conf.default.rp_filter={LOOSE} before the start"
            ) from error


def redirect_switch(interface: str = "all") -> str:
    """Return the setting of the ICMP redirects that this host sends by *interface*; if ``all`` is 1, every interface
    sends them.
    """
    return f"ipv4/conf/{interface}/send_redirects"


def stop_redirects(interface: str) -> None:
    """Stop ICMP redirects on *interface*, as far as permitted and unless ``all`` asks for them."""
    with contextlib.suppress(OSError):
        write(redirect_switch(interface), 0)


def refuse_forged_sources(interface: str) -> None:
    """Drop IPv4 packets that arrive by *interface* while their source is routed elsewhere, as far as permitted.

    ``all`` prevails if it is looser, because the kernel uses the larger of the two.
    """
    with contextlib.suppress(OSError):
        write(filter_switch(interface), STRICT)


def enable_ipv6(interface: str) -> None:
    """Let *interface* have IPv6 addresses, even if new interfaces have none by default; without IPv6, do nothing."""
    if not is_ipv6_disabled(interface):
        return
    try:
        _path(f"ipv6/conf/{interface}/disable_ipv6").write_text("0")
    except OSError as error:
        raise HostError(
            f"IPv6 is disabled on {interface}: make /proc/sys writable, or set net.ipv6.conf.default.disable_ipv6=0"
        ) from error


def disable_ipv6(interface: str) -> None:
    """Disable IPv6 on *interface* again, if it still exists."""
    with contextlib.suppress(OSError):
        _path(f"ipv6/conf/{interface}/disable_ipv6").write_text("1")


def is_ipv6_disabled(interface: str) -> bool:
    """Return whether *interface* may have no IPv6 addresses although the kernel supports IPv6."""
    return read(f"ipv6/conf/{interface}/disable_ipv6") == 1


def has_ipv6() -> bool:
    """Return whether this kernel supports IPv6 at all."""
    return (NETWORK / "ipv6").is_dir()


def _path(name: str) -> Path:
    return NETWORK / name
