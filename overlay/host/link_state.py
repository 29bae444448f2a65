"""Whether interfaces are up, and which of the kernel's offloads are on for them.  Any user may ask."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
from pathlib import Path

from overlay.host import modules
from overlay.host.netlink.xdp import read_programs
from overlay.host.tun import IFREQ_POINTER, SIOCETHTOOL

# Specification: linux/ethtool.h; the names are those of `ethtool -K`
QUESTIONS = {"gso": 0x23, "gro": 0x2B, "tso": 0x1E}  # ETHTOOL_GGSO, ETHTOOL_GGRO, ETHTOOL_GTSO
VALUE = struct.Struct("=II")  # struct ethtool_value: command, data
INTERFACES = Path("/sys/class/net")


def bridge_of(name: str) -> str | None:
    """Return the bridge that the interface *name* is a port of; None if it is not a port."""
    try:
        return os.path.basename(os.readlink(f"/sys/class/net/{name}/master"))
    except OSError:
        return None


def below(name: str, directory: Path = INTERFACES) -> set[str]:
    """Return the interfaces that the interface *name* is made of: the ports of a bond or a bridge, the parent of a
    VLAN, and the interfaces that those are made of.
    """
    found: set[str] = set()
    left = [name]
    while left:
        lower = {each.name.removeprefix("lower_") for each in (directory / left.pop()).glob("lower_*")}
        left += lower - found
        found |= lower
    return found


class LinkState:
    """The state of interfaces according to the kernel."""

    def is_up(self, name: str) -> bool:
        """Return whether the interface *name* exists and is up."""
        return modules.is_up(name)

    def xdp_programs(self, name: str) -> list[int]:
        """Return the numbers of the XDP programs that are attached to the interface *name*."""
        return read_programs(name)

    def offloads(self, name: str) -> dict[str, bool]:
        """Return which offloads are on, by name, as far as the kernel reports them.

        GRO of interfaces without hardware is left out: a veth has none by itself and needs none, because what arrives
        through it has been joined before.
        """
        found = {}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
            for offload, command in QUESTIONS.items():
                answer = array.array("B", VALUE.pack(command, 0))
                try:
                    fcntl.ioctl(
                        asking, SIOCETHTOOL, IFREQ_POINTER.pack(name.encode(), answer.buffer_info()[0])
                    )
                except OSError:
                    continue
                found[offload] = bool(VALUE.unpack(answer.tobytes())[1])
        if not os.path.exists(f"/sys/class/net/{name}/device"):
            found.pop("gro", None)
        return found
