"""An underlay whose MTU is silently smaller than its ends assume: TCP adapts to it, and back."""

from __future__ import annotations

import threading

import pytest

from tests.netns.network import PATIENCE, Network, connect, nft, ping, transfer
from tests.netns.topology import wait_until

QUICK = {"path_probe_time": 0.3, "path_confirm_time": 0.5, "path_raise_time": 2.0}
LIMIT = 1400  # bytes of an IP packet
WIDEST = {
    "IPv4": 1328,
    "IPv6": 1312,
}  # of the inner packets; multiples of 16 that leave 60 or 80 bytes for headers


@pytest.fixture(scope="module", params=WIDEST)
def site(request, module_lab, tmp_path_factory):
    """Two hosts with containers; between them, datagrams are as they would be on a wire."""
    network = Network(module_lab, tmp_path_factory.mktemp("site"), offloads=False)
    network.outer = request.param
    paris, tokyo = network.host("paris"), network.host("tokyo")
    if request.param == "IPv6":
        for host in (paris, tokyo):
            host.settings["endpoint"] = f"[{host.outside6}]"
    web, shop = paris.container("web"), tokyo.container("shop")
    network.start(timing=QUICK)
    paris.wait_up(tokyo)
    yield network, paris, tokyo, web, shop
    network.close()


def become_narrow(network):
    """Silently drop what is larger than LIMIT."""
    nft(
        network.underlay,
        "table bridge strait {\n chain wires {\n type filter hook forward priority 0;\n"
        f" ip length > {LIMIT} drop\n ip6 length > {LIMIT - 40} drop\n }}\n}}\n",
    )


def become_wide(network):
    network.underlay.run("nft", "delete", "table", "bridge", "strait")


def move(sender, receiver, size):
    """Send *size* bytes over a connection, and wait until they have arrived."""
    thread = threading.Thread(target=sender.sendall, args=(bytes(size),))
    thread.start()
    while size:
        arrived = len(receiver.recv(min(size, 1 << 18)))
        assert arrived, "the connection has ended"
        size -= arrived
    thread.join(PATIENCE)


@pytest.mark.parametrize("between", ["hosts", "containers"])
@pytest.mark.parametrize("inner", ["address", "address6"])
def test_tcp_begun_before_and_after_a_path_became_narrow_completes_and_the_path_s_mtu_rises_again(
    site, between, inner
):
    network, paris, tokyo, web, shop = site
    one, other = (paris, tokyo) if between == "hosts" else (web, shop)
    address = getattr(other, inner)
    ping(one.namespace, address)
    near, far = connect(one.namespace, other.namespace, address)
    with near, far:
        move(near, far, 4 << 20)
        paris.wait_peer(tokyo, "on a wide path", lambda row: row["path_mtu"] == paris.status()["mtu"])

        become_narrow(network)
        try:
            move(near, far, 4 << 20)
            transfer(far, near, 4 << 20)
            paris.wait_peer(tokyo, "on a narrow path", lambda row: row["path_mtu"] == WIDEST[network.outer])
            later, beyond = connect(one.namespace, other.namespace, address)
            with later, beyond:
                transfer(later, beyond, 4 << 20)
        finally:
            become_wide(network)

    def is_wide_again() -> bool:
        ping(one.namespace, address)
        return all(host.status()["peers"][0]["path_mtu"] == host.status()["mtu"] for host in (paris, tokyo))

    wait_until(is_wide_again, PATIENCE, "the path's MTU to rise")
