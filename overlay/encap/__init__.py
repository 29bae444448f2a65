"""The encapsulations, by their names in the peers file: how a packet becomes a payload that travels between two peers.

Each is a module, and a line here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.encap import geneve, gre, ipip, udp, vxlan, wireguard

if TYPE_CHECKING:
    from overlay.encap.encapsulation import Encapsulation

ENCAPSULATIONS: dict[str, Encapsulation] = {
    each.name: each
    for each in (
        wireguard.ENCAPSULATION,
        udp.ENCAPSULATION,
        ipip.ENCAPSULATION,
        gre.ENCAPSULATION,
        vxlan.ENCAPSULATION,
        geneve.ENCAPSULATION,
    )
}
