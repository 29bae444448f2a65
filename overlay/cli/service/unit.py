"""The unit of an agent, as text: what it runs, and what it may do on its host, with a reason for each permission."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from overlay.host.process.privileges import KEPT_CAPABILITIES

if TYPE_CHECKING:
    from collections.abc import Sequence

# Ours
MARK = "# Made by `overlay service install`; `overlay service remove` removes it."
_UNIT_NAME = re.compile(
    r"[\w:.@-]+", re.ASCII
)  # systemd.unit(5), without the backslash, which continues a line
_PLAIN = re.compile(r"[\w@+=:,./-]+", re.ASCII)

_TEMPLATE = """\
{mark}
# Make changes with `systemctl edit {name}`: the next install overwrites this file.

[Unit]
Description=Encrypted overlay network on {interface}
Wants=network-online.target
After=network-online.target nss-lookup.target
# It may wait for an address or a file that does not exist yet.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=1
# After a crash, routes keep packets from leaving unencrypted; their state is kept here.
RuntimeDirectory=overlay
RuntimeDirectoryPreserve=yes
StateDirectory=overlay
StateDirectoryMode=0700

# It is root with only these capabilities; the process that opens packets is another user without any.
CapabilityBoundingSet={capabilities}
NoNewPrivileges=yes
# Only the tunnel's device. There is no PrivateDevices, because it would hide this device.
DevicePolicy=closed
DeviceAllow=/dev/net/tun rw
# Packet sockets: ARP and neighbour discovery of virtual addresses.  Netlink: routes.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET
# It writes to /run and /var/lib: control sockets, files for container tools, what it knows about a network in etcd.
# So this is not strict.
ProtectSystem=full
ReadWritePaths=-/etc/overlay
ProtectHome=read-only
PrivateTmp={private_tmp}
# Not ProtectKernelTunables: sysctls of its own interface, and with --fix-sysctl those of the host.
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
# Not PrivateNetwork, PrivateUsers and IPAddressDeny: the agent configures the host's network.
# Network namespaces: containers are attached in theirs.
RestrictNamespaces=net
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
KeyringMode=private
RemoveIPC=yes
SystemCallArchitectures=native
# seccomp: the process that opens packets confines itself further.
SystemCallFilter=@system-service seccomp
SystemCallErrorNumber=EPERM
# Other users read the files for container tools.
UMask=0022

[Install]
WantedBy=multi-user.target
"""


def name_of(interface: str) -> str:
    """Return the name of the unit of the agent of *interface*."""
    return f"overlay@{interface}.service"


def build(interface: str, command: Sequence[str], *, uses_tmp: bool) -> str:
    """Return the unit that runs *command*, with the host's temporary files if it *uses_tmp*.

    Raises ValueError if a unit cannot contain *interface*, or a word of *command*.
    """
    if not _UNIT_NAME.fullmatch(interface):
        raise ValueError(interface)
    return _TEMPLATE.format(
        mark=MARK,
        name=name_of(interface),
        interface=interface,
        command=" ".join(map(quote, command)),
        capabilities=" ".join(f"CAP_{each.name}" for each in KEPT_CAPABILITIES),
        private_tmp="no" if uses_tmp else "yes",
    )


def quote(word: str) -> str:
    """Return *word*, of any characters, quoted for systemd (systemd.service(5), systemd.syntax(7)).

    Raises ValueError for a character that a unit cannot contain.
    """
    if _PLAIN.fullmatch(word):
        return word
    if not word.isprintable():
        raise ValueError(word)
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'
