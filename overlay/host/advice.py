"""What to do where the kernel said no for want of privilege, as the end of a sentence: who is root is not sent for root."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from overlay.host.privileges import Capability


def gain(capability: Capability) -> str:
    """Return how this process comes by *capability*."""
    if os.geteuid() != 0:
        return f"run as root with {capability}"
    return f"give the container or service {capability}, for it runs as root without"


def become_root() -> str:
    """Return how this process comes to what belongs to root."""
    if os.geteuid() != 0:
        return "run as root"
    return "root is refused here too, so see whether the file system is read-only or a security policy forbids it"
