"""The network that runtimes read, and the plugin that they start, as text."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import overlay

if TYPE_CHECKING:
    from collections.abc import Collection

# Specification: SPEC.md of CNI; CNI_PATH and the default folders of runtimes
PLUGIN = "overlay-cni"
PORTMAP = "portmap"
CONFIGURATIONS = Path("/etc/cni/net.d")
PLUGINS = Path("/opt/cni/bin")  # of containerd and CRI-O; podman looks there, too
DISTRIBUTIONS = (Path("/usr/lib/cni"), Path("/usr/libexec/cni"))  # where packages put the reference plugins
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
ENDINGS = (".conflist", ".conf", ".json")

# Ours
FILE = "10-overlay.conflist"
OLD, NEW = "1.0.0", "1.1.0"  # what podman 4 reads, and the first with STATUS and GC
SHEBANG_SIZE = 127  # bytes; older kernels cut the rest off
MARK = "# of `overlay cni install`"


def network(name: str, interface: str, portmap_versions: Collection[str] | None) -> str:
    """Return the network *name* of the agent of *interface*; *portmap_versions* is None if portmap is not available."""
    plugins: list[dict[str, Any]] = [
        {"type": PLUGIN, "interface": interface, "capabilities": {"ips": True, "mac": True}}
    ]
    if portmap_versions is not None:
        plugins.append({"type": PORTMAP, "capabilities": {"portMappings": True}, "snat": True})
    versions = [OLD] if portmap_versions is not None and NEW not in portmap_versions else [OLD, NEW]
    written = {"cniVersion": OLD, "cniVersions": versions, "name": name, "plugins": plugins}
    return json.dumps(written, indent=2) + "\n"


def launcher() -> str:
    """Return the program that a runtime starts: this installation's interpreter with the plugin and nothing else."""
    place = str(Path(overlay.__file__).parents[1])
    code = (
        f"import sys; sys.path.insert(0, {place!r}); from overlay.cni.__main__ import main; sys.exit(main())"
    )
    line = f"#!{sys.executable} -IS"
    if len(line.encode()) > SHEBANG_SIZE or " " in sys.executable:
        return f"#!/bin/sh\n{MARK}\nexec {shlex.quote(sys.executable)} -IS -c {shlex.quote(code)}\n"
    return f"{line}\n{MARK}\n{code}\n"


def is_name(text: str) -> bool:
    """Return whether a network may have that name."""
    return NAME.fullmatch(text) is not None


def is_ours(text: str) -> bool:
    """Return whether *text* is a network of the plugin."""
    return PLUGIN in types_of(text)


def types_of(text: str) -> list[str]:
    """Return the plugins of the network in *text*, none if it is not a network."""
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return []
    if not isinstance(read, dict):
        return []
    plugins = read.get("plugins", [read])
    return (
        [str(each.get("type")) for each in plugins if isinstance(each, dict)]
        if isinstance(plugins, list)
        else []
    )


def name_of(text: str) -> str | None:
    """Return the name of the network in *text*; None if it is not a network."""
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return None
    name = read.get("name") if isinstance(read, dict) else None
    return name if isinstance(name, str) else None
