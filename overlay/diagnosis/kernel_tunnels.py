"""The kernel's own tunnels, which take the same packets as ours; see `overlay.host.modules`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding
from overlay.host import modules

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.diagnosis.finding import Facts


def check_kernel_tunnels(facts: Facts) -> Iterator[Finding]:
    """Yield each of the kernel's tunnels that is in the way of an encapsulation in use."""
    for note in modules.notes(facts.node.encapsulations):
        yield Finding("kernel_tunnel", note)
