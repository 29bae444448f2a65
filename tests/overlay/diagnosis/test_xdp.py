from __future__ import annotations

import socket

from overlay.diagnosis.xdp import check_xdp
from tests.overlay.diagnosis.examples import Interfaces, facts


def found(programs):
    interfaces = Interfaces()
    interfaces.programs = programs
    known = facts(endpoints=frozenset({("tokyo", ("192.0.2.2", 51820))}), interfaces=interfaces)
    known.routes.route_index = lambda address, fwmark=None: socket.if_nametoindex("lo")
    return list(check_xdp(known))


def test_programs_of_the_underlay_and_the_own_device_are_named():
    here, own = found({"lo": [12], "overlay0": [13], "eth7": [14]})

    assert here.name == own.name == "xdp"
    assert here.problem.startswith("an XDP program is attached to lo; it sees each packet")
    assert "`bpftool prog show id 12`" in here.remedy
    assert own.problem.startswith("an XDP program is attached to overlay0")


def test_without_programs_nothing_is_named():
    assert found({}) == []
