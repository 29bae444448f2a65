from __future__ import annotations

import socket

import pytest

from overlay.encap import ENCAPSULATIONS
from overlay.host.modules import notes

IPIP, GRE, UDP = (ENCAPSULATIONS[name] for name in ("ipip", "gre", "udp"))


@pytest.mark.parametrize(
    ("encapsulations", "loaded", "modules"),
    [
        ([IPIP], {"ipip"}, ["ipip"]),
        ([IPIP], {"tunl0"}, ["ipip"]),  # built into the kernel
        ([IPIP], {"sit0", "ipip"}, ["ipip", "sit"]),
        ([IPIP], {"ip6_tunnel"}, ["ip6_tunnel"]),
        ([IPIP], {"ip_gre", "gre"}, []),
        ([GRE], {"gre0"}, ["ip_gre", "gre"]),
        ([GRE], {"ip6_gre"}, ["ip6_gre"]),
        ([UDP], {"ipip", "ip_gre", "fou"}, []),
        ([UDP, IPIP], {"lo", "eth0"}, []),
    ],
)
def test_a_tunnel_of_the_kernel_s_own_is_named_with_the_remedy(encapsulations, loaded, modules):
    sentences = notes(encapsulations, loaded)

    assert len(sentences) == len(modules)
    for sentence, module in zip(sentences, modules, strict=True):
        assert f"tunnel {module} is loaded" in sentence
        assert f"`modprobe -r {module}`" in sentence


def test_this_host_is_asked_by_default():
    assert all("sit" in note or "tunnel" in note for note in notes([IPIP]))
    assert not any(name.startswith("tunl") for _, name in socket.if_nameindex()) or notes([IPIP])
