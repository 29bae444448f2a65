from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest

from overlay.diagnosis.offloads import check_offloads
from tests.overlay.diagnosis.examples import Interfaces, facts

LOOPBACK = socket.if_nametoindex("lo")
FAR = frozenset({("tokyo", ("192.0.2.2", 51820))})


def found(interfaces, *, index=LOOPBACK, **given):
    known = facts(endpoints=FAR, interfaces=interfaces, **given)
    known.routes.route_index = lambda address, fwmark=None: index
    return list(check_offloads(known))


def test_offloads_of_the_underlay_that_are_off_are_found_with_the_command():
    (finding,) = found(Interfaces(lo=["gso", "gro"]))

    assert finding.name == "offloads_off"
    assert finding.problem.startswith("GSO and GRO of lo are disabled")
    assert finding.remedy == "run `ethtool -K lo gso on gro on`"


def test_offload_of_the_own_device_that_is_off_is_found():
    (finding,) = found(Interfaces(overlay0=["tso"]))

    assert finding.problem.startswith("TSO of overlay0 is disabled")


@pytest.mark.parametrize(
    "given",
    [
        {"interfaces": Interfaces()},
        {"interfaces": None},
        {"interfaces": SimpleNamespace(offloads=lambda name: {}, is_up=lambda name: True)},  # not reported
        {"interfaces": Interfaces(eth9=["gso"])},  # nothing leaves there
        {"interfaces": Interfaces(overlay0=["tso"]), "offloads": (False, False)},  # lacking in the kernel
        {"interfaces": Interfaces(overlay0=["tso"]), "is_set_up": False},
        {"interfaces": Interfaces(lo=["gso"]), "index": None},
        {"interfaces": Interfaces(lo=["gso"]), "index": 7},  # a tunnel in the tunnel
    ],
)
def test_nothing_is_found_where_all_are_on_or_not_told(given):
    assert found(**given) == []
