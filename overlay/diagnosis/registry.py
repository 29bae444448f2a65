"""All checks of the host, in the order in which their findings are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.diagnosis.device import check_device
from overlay.diagnosis.endpoints import check_endpoints
from overlay.diagnosis.finding import Finding
from overlay.diagnosis.firewall import check_firewall
from overlay.diagnosis.kernel_tunnels import check_kernel_tunnels
from overlay.diagnosis.listen import check_listen
from overlay.diagnosis.routes import check_routes
from overlay.diagnosis.services import check_services
from overlay.diagnosis.settings import check_settings
from overlay.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from overlay.diagnosis.facts import Facts

CHECKS: tuple[Callable[[Facts], Iterable[Finding]], ...] = (
    check_device,
    check_listen,
    check_endpoints,
    check_kernel_tunnels,
    check_settings,
    check_routes,
    check_services,
    check_firewall,
)


def diagnose(facts: Facts) -> list[Finding]:
    """Return everything that keeps traffic from going, or from going fast, in the order of the registry."""
    found: list[Finding] = []
    for check in CHECKS:
        try:
            found += check(facts)
        except (HostError, OSError) as error:  # not known is not the same as nothing found
            cause = error if isinstance(error, HostError) else error.strerror
            found.append(Finding("unknown", f"not all of this host could be examined: {cause}"))
    return found
