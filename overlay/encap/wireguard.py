"""The WireGuard protocol, with bulk units between agents of this project: ``overlay.wire`` and ``overlay.session``."""

from __future__ import annotations

from overlay.encap.encapsulation import Encapsulation

# IPv6 40, UDP 8, transport header and tag 32, whatever the outer version: a peer may roam between IPv4 and IPv6.
OVERHEAD = 80

ENCAPSULATION = Encapsulation("wireguard", {4: OVERHEAD, 6: OVERHEAD})
