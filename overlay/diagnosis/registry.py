"""All checks of the host, in the order in which their findings are shown.

`overlay up` and `status` also show the findings of CHECKS as notes; those of MORE_CHECKS only appear when a user asks
what is wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from overlay.diagnosis.buffers import check_buffers
from overlay.diagnosis.conntrack import check_conntrack
from overlay.diagnosis.device import check_device
from overlay.diagnosis.endpoints import check_endpoints, check_ways
from overlay.diagnosis.finding import Finding
from overlay.diagnosis.firewall import check_firewall
from overlay.diagnosis.forwarded import check_forwarded
from overlay.diagnosis.ipv6 import check_ipv6
from overlay.diagnosis.kernel_tunnels import check_kernel_tunnels
from overlay.diagnosis.listen import check_listen
from overlay.diagnosis.marks import check_marks
from overlay.diagnosis.mtu import check_mtu
from overlay.diagnosis.offloads import check_offloads
from overlay.diagnosis.programs import check_programs
from overlay.diagnosis.routes import check_routes
from overlay.diagnosis.services import check_services
from overlay.diagnosis.settings import check_settings
from overlay.diagnosis.subnets import check_subnets
from overlay.diagnosis.xdp import check_xdp
from overlay.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from overlay.diagnosis.facts import Facts

Checks: TypeAlias = "tuple[Callable[[Facts], Iterable[Finding]], ...]"

CHECKS: Checks = (
    check_device,
    check_listen,
    check_endpoints,
    check_kernel_tunnels,
    check_settings,
    check_routes,
    check_services,
    check_firewall,
    check_marks,
)
MORE_CHECKS: Checks = (
    check_ways,
    check_forwarded,
    check_ipv6,
    check_mtu,
    check_conntrack,
    check_programs,
    check_subnets,
    check_offloads,
    check_xdp,
    check_buffers,
)


def diagnose(facts: Facts, checks: Checks = CHECKS) -> list[Finding]:
    """Return the findings of *checks*, in order: what blocks traffic or slows it down."""
    found: list[Finding] = []
    for check in checks:
        try:
            found += check(facts)
        except (HostError, OSError) as error:  # unknown is not the same as no findings
            cause = error if isinstance(error, HostError) else error.strerror
            unknown = Finding("unknown", f"not all of this host could be examined: {cause}")
            found += [] if unknown in found else [unknown]
    return found
