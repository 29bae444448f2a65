"""The schedulers: how a virtual service chooses a server for a new flow, by the name in the peers file.

Each is a module and a line here.
"""

from __future__ import annotations

from overlay.services.schedulers import dh, fo, lc, maglev, nq, ovf, rr, sed, sh, wlc, wrr
from overlay.services.schedulers.scheduler import Hashed, Kind, Loads, Real, Scheduler

__all__ = ["SCHEDULERS", "Hashed", "Kind", "Loads", "Real", "Scheduler"]

SCHEDULERS: dict[str, Kind] = {
    each.name: each
    for each in (
        maglev.KIND,
        rr.KIND,
        wrr.KIND,
        lc.KIND,
        wlc.KIND,
        sed.KIND,
        nq.KIND,
        sh.KIND,
        dh.KIND,
        fo.KIND,
        ovf.KIND,
    )
}
