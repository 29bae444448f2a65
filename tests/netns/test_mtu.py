"""Underlays from the smallest MTU that IPv6 allows to far above Ethernet's."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from tests.netns.network import PATIENCE, Container, Host, Network, nft, ping, trace, transfer_both_ways
from tests.netns.topology import wait_until

OVERHEAD = 80  # IPv6 40, UDP 8, header and tag 32


@dataclass(frozen=True)
class Site:
    """Two hosts, and a container behind each, on an underlay of one MTU."""

    mtu: int
    paris: Host
    tokyo: Host
    web: Container
    shop: Container


@pytest.fixture(
    scope="module",
    params=[(1280, ""), (1280, "6"), (1420, ""), (1500, "6"), (9000, ""), (9000, "6"), (34816, "")],
    ids=lambda param: f"underlay {param[0]} IPv{param[1] or 4}",
)
def site(request, module_lab, tmp_path_factory):
    mtu, family = request.param
    network = Network(module_lab, tmp_path_factory.mktemp("site"), mtu=mtu)
    paris, tokyo = network.host("paris"), network.host("tokyo")
    if family:
        for host in (paris, tokyo):
            host.settings["endpoint"] = f"[{host.outside6}]"
    web, shop = paris.container("web", mtu=mtu), tokyo.container("shop", mtu=mtu)
    network.start()
    paris.wait_up(tokyo)
    yield Site(mtu, paris, tokyo, web, shop)
    network.close()


def test_tun_has_the_mtu_that_fits_the_underlay(site):
    wanted = max(1280, site.mtu - OVERHEAD)

    assert site.paris.status()["mtu"] == wanted
    assert f"mtu {wanted} " in site.paris.namespace.run("ip", "link", "show", "overlay0")


@pytest.mark.parametrize("inner", ["address", "address6"])
def test_packets_up_to_the_mtu_of_the_tun_pass_whole(site, inner):
    mtu = site.paris.status()["mtu"]
    headers = 48 if inner == "address6" else 28

    for size in (mtu - headers, mtu - headers - 1, mtu - headers - 17):
        ping(site.paris.namespace, getattr(site.tokyo, inner), 2, "-M", "do", "-s", str(size))
    refused = site.paris.namespace.completed(
        *("ping", "-c1", "-W1", "-M", "do", "-s", str(mtu - headers + 1), getattr(site.tokyo, inner))
    )
    assert "0 received" in refused.stdout
    assert "too long" in refused.stdout + refused.stderr


@pytest.mark.parametrize("inner", ["address", "address6"])
def test_larger_pings_and_tcp_pass_between_containers(site, inner):
    ping(site.web.namespace, getattr(site.shop, inner), 2, "-s", "20000")
    transfer_both_ways(site.web.namespace, site.shop.namespace, getattr(site.shop, inner), 4 << 20)


def test_container_is_told_the_mtu_of_the_tunnel(site):
    if site.mtu == 1280:
        return  # the tun is as wide as the container's link: there is nothing to report
    size = str(site.mtu - 28)

    said = site.web.namespace.completed(
        "ping", "-c2", "-i0.2", "-W30", "-M", "do", "-s", size, site.shop.address
    )

    assert re.search(rf"mtu ?= ?{site.paris.status()['mtu']}\b", said.stdout + said.stderr)


def test_wider_mtu_than_the_underlay_s_is_carried_in_fragments(lab, tmp_path):
    network = Network(lab, tmp_path, mtu=1500)
    network.settings["mtu"] = 34736
    paris, tokyo = network.host("paris"), network.host("tokyo")
    network.start()
    paris.wait_up(tokyo)

    ping(paris.namespace, tokyo.address, 2, "-M", "do", "-s", "34000")
    transfer_both_ways(paris.namespace, tokyo.namespace, tokyo.address, 4 << 20)

    network.close()


def test_padding_never_exceeds_the_mtu(lab, tmp_path):
    """The largest datagram is that of a packet as large as the tun's MTU, although 16 bytes do not divide it.

    A packet of 1297 bytes padded to the next 16, or to an MTU of 1300, makes an IP packet of 1360 bytes or more.
    """
    network = Network(lab, tmp_path, offloads=False)
    network.settings["mtu"] = 1299
    paris, tokyo = network.host("paris"), network.host("tokyo")
    for host in (paris, tokyo):
        nft(
            host.namespace,
            "table ip strait {\n chain wires {\n type filter hook input priority 0;\n"
            ' iifname "eth0" ip length >= 1360 drop\n }\n}\n',
        )
    network.start()
    paris.wait_up(tokyo)

    for size in (1297, 1298, 1299):
        ping(paris.namespace, tokyo.address, 2, "-M", "do", "-s", str(size - 28))

    network.close()


@pytest.mark.parametrize("mtu", [9000, 1300])
def test_mtu_that_somebody_sets_by_hand_is_put_back(lab, tmp_path, mtu):
    """Before, it remained, and a larger one was sent in fragments, until an address of the host changed."""
    network = Network(lab, tmp_path)
    paris, tokyo = network.host("paris"), network.host("tokyo")
    network.start()
    paris.ping(tokyo.address)

    paris.namespace.run("ip", "link", "set", "overlay0", "mtu", str(mtu))

    wait_until(lambda: "mtu 1420 " in paris.namespace.run("ip", "link", "show", "overlay0"))
    paris.ping(tokyo.address)
    network.close()


@pytest.mark.parametrize("is_up", [True, False], ids=["while it is up", "while it is down"])
def test_interface_that_gets_another_name_has_its_own_again_and_goes_on(lab, tmp_path, is_up):
    network = Network(lab, tmp_path)
    paris, tokyo = network.host("paris"), network.host("tokyo")
    network.start()
    paris.ping(tokyo.address)
    before = trace(paris.namespace)

    if not is_up:
        paris.namespace.run("ip", "link", "set", "overlay0", "down")
    paris.namespace.run("ip", "link", "set", "overlay0", "name", "vpn7")
    if not is_up:
        paris.namespace.run("ip", "link", "set", "vpn7", "up")

    wait_until(lambda: "was=vpn7" in paris.log, PATIENCE, "the name to be put back")
    paris.ping(tokyo.address)
    tokyo.ping(paris.address)
    wait_until(lambda: trace(paris.namespace) == before, PATIENCE, "everything to be as it was")
    network.close()


def test_interface_whose_name_is_taken_ends_the_agent_with_a_sentence(lab, tmp_path):
    network = Network(lab, tmp_path)
    paris = network.host("paris")
    paris.start()

    batch = tmp_path / "batch"
    batch.write_text("link set overlay0 name vpn7\nlink add overlay0 type bridge\n")
    paris.namespace.run("ip", "-batch", str(batch))

    assert paris.process.wait(PATIENCE) == 1
    assert "interface overlay0 is now called vpn7: name it overlay0 again" in paris.log
    assert "Traceback" not in paris.log
