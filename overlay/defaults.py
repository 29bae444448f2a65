"""What commands take for options that are not given; a command in a sentence leaves these out."""

from __future__ import annotations

from pathlib import Path

# Ours
INTERFACE = "overlay0"
KEY = Path("/etc/overlay/private.key")
PEERS = "/etc/overlay/peers.toml"
