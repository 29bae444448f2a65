"""Where the forwarder takes the MTU of the paths to peers from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from overlay.forwarding.path.kernel import KernelPaths
    from overlay.forwarding.path.probes import Probes


@dataclass(frozen=True, slots=True)
class PathMtuSources:
    """*probes* for peers that answer them, what the *kernel* knows for the others."""

    probes: Probes
    kernel: KernelPaths
