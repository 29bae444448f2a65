"""What may be wrong with a setting of a host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.host import sysctl

if TYPE_CHECKING:
    from overlay.diagnosis.finding import Finding


@dataclass(frozen=True, slots=True)
class Fault:
    """A setting of the host that keeps traffic from going, with the value that lets it, and what to say of it.

    *before* are settings, with values, without which that value would do harm: they have to be there first.
    """

    name: str
    value: int
    finding: Finding
    before: tuple[tuple[str, int], ...] = ()


def command(name: str, value: int) -> str:
    """Return what mends the setting *name*, for the end of a sentence."""
    return f"`sysctl -w {sysctl.key(name)}={value}`, or start with --fix-sysctl"
