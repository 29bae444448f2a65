"""A fault of a setting of a host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.host import sysctl

if TYPE_CHECKING:
    from overlay.diagnosis.finding import Finding


@dataclass(frozen=True, slots=True)
class Fault:
    """A setting of the host that blocks traffic, the value that lets it pass, and the texts of the finding.

    *before* are settings and values that must be set first, because the value alone would do harm.
    """

    name: str
    value: int
    finding: Finding
    before: tuple[tuple[str, int], ...] = ()


def command(name: str, value: int) -> str:
    """Return the command that corrects the setting *name*, for the end of a sentence."""
    return f"`sysctl -w {sysctl.key(name)}={value}`, or start with --fix-sysctl"
