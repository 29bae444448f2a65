"""What can go wrong, by who must act.

OverlayError
├── PacketError    someone sent what we refuse; dropped and counted by its reason, never leaves the core
├── ConfigError    an operator must edit a file or an option; exit 2
└── HostError      the kernel or the machine said no; exit 1
"""

from __future__ import annotations


class OverlayError(Exception):
    """Every error that this package raises on purpose.  Its text is one sentence for a person."""


class PacketError(OverlayError):
    """A message that is refused.  *reason* is the name it is counted under, such as ``transport_short``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ConfigError(OverlayError):
    """An option or a file that an operator must change."""


class HostError(OverlayError):
    """The kernel refused something.  Raised only in ``host``, always from the error that caused it."""
