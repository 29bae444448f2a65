"""The defaults of options; commands in sentences leave these out."""

from __future__ import annotations

from pathlib import Path

# Ours
INTERFACE = "overlay0"
KEY = Path("/etc/overlay/private.key")
PEERS = "/etc/overlay/peers.toml"
