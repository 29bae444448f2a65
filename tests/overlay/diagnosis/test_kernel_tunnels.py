from __future__ import annotations

from types import SimpleNamespace

import pytest

from overlay.diagnosis.kernel_tunnels import check_kernel_tunnels
from overlay.encap import ENCAPSULATIONS
from overlay.host.modules import TUNNELS

IPIP, SIT = TUNNELS[:2]


def found(*, prevented=(), up=(), present=None):
    facts = SimpleNamespace(
        node=SimpleNamespace(encapsulations=[ENCAPSULATIONS["udp"], ENCAPSULATIONS["ipip"]]),
        errors_prevented=frozenset(prevented),
    )
    return [
        (each.name, str(each))
        for each in check_kernel_tunnels(
            facts,
            lambda _: {IPIP: frozenset({4})} if present is None else present,
            lambda device: device in up,
        )
    ]


def test_nothing_is_said_of_a_tunnel_that_is_kept_from_answering():
    assert found(prevented={4, 41}) == []
    assert found(present={}) == []


def test_one_that_answers_is_named_with_the_remedy():
    ((name, sentence),) = found()

    assert name == "kernel_tunnel_answers"
    assert "the kernel's module ipip answers packets of ipip" in sentence
    assert "`modprobe -r ipip`" in sentence


@pytest.mark.parametrize("prevented", [{4}, {4, 41}])
def test_a_device_that_takes_packets_a_second_time_is_named_whether_it_answers_or_not(prevented):
    notes = found(prevented=prevented, up={"sit0"}, present={SIT: frozenset({4, 41})})

    assert notes[-1][0] == "kernel_tunnel_up"
    assert "`ip link set sit0 down`" in notes[-1][1]
    assert len(notes) == 1 + (prevented == {4})
