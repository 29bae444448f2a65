"""Ethernet between hosts: taps with addresses, and LANs joined through bridges that have the taps as ports."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass

import pytest

from overlay.forwarding import native
from tests.netns.dhcp import lease
from tests.netns.network import Network, ping, transfer_both_ways
from tests.netns.topology import wait_until

PREFIXES = ["10.244.0.0/16", "fd00:244::/64"]
REPLY = b"\x08\x06\0\1\x08\0\6\4\0\2"
REQUEST = b"\x08\x06\0\1\x08\0\6\4\0\1"


def with_addresses(network, *names):
    """Return hosts whose taps have addresses."""
    return [
        network.host(name, subnets=None, address=[f"10.244.0.{number}", f"fd00:244::{number}"])
        for number, name in enumerate(names, 1)
    ]


def inside(host, version=4):
    return host.settings["address"][0 if version == 4 else 1]


def mac_of(namespace, interface):
    return bytes.fromhex(namespace.run("cat", f"/sys/class/net/{interface}/address").strip().replace(":", ""))


@pytest.fixture(scope="module", params=["compiled", "interpreted"])
def three(request, module_lab, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "interpreted":
            patch.setenv("OVERLAY_NATIVE", "0")
        is_forked = request.param == "compiled"  # a forked process has what its parent loaded
        place = tmp_path_factory.mktemp("three")
        network = Network(module_lab, place, device="tap", prefix=PREFIXES, is_forked=is_forked)
        hosts = with_addresses(network, "paris", "tokyo", "rome")
        network.start()
    for host in hosts:
        host.wait_up(*[other for other in hosts if other is not host])
    yield hosts
    network.close()


def test_frames_go_by_the_path_that_is_there(three, request):
    wanted = request.node.callspec.params["three"] if native.core is not None else "interpreted"

    assert [host.status()["packet_path"] for host in three] == [wanted] * 3


@pytest.mark.parametrize("version", [4, 6])
def test_hosts_reach_each_other(three, version):
    for one in three:
        for other in three:
            if one is not other:
                one.ping(inside(other, version), 2)


@pytest.mark.parametrize("version", [4, 6])
def test_tcp_transfers_arrive_unchanged_both_ways(three, version):
    paris, tokyo, _ = three
    transfer_both_ways(paris.namespace, tokyo.namespace, inside(tokyo, version), 4 << 20)


@pytest.mark.parametrize("size", [0, 1, 1376, 1377, 8000, 60000])
def test_pings_of_any_size_are_answered(three, size):
    paris, _, rome = three
    ping(paris.namespace, inside(rome), 2, "-s", str(size))


def test_status_tells_the_device_and_what_was_learnt(three):
    paris, tokyo, _ = three
    status = paris.status()

    assert (status["device"], status["mtu"]) == ("tap", 1404)
    assert paris.peer(tokyo)["learnt_macs"] == 0, "its address is in the peers file"
    assert "device      tap" in paris.overlay("status").stdout


def arps(sniffer, form=REQUEST):
    """Return the ARP packets of one kind that passed."""
    return [frame for frame in sniffer.frames() if frame[12:22] == form]


def test_a_request_for_an_address_of_the_peers_file_never_leaves(three):
    paris, tokyo, rome = three
    seen = [(host, host.namespace.sniff(host.interface)) for host in (paris, tokyo, rome)]
    paris.namespace.run("ip", "neighbour", "flush", "dev", paris.interface)

    paris.ping(inside(tokyo))

    mac = mac_of(paris.namespace, paris.interface)
    asked = {
        host.name: [each for each in arps(sniffer) if each[6:12] == mac and not each[0] ^ 0xFF]
        for host, sniffer in seen
    }
    assert asked["paris"]
    assert (asked["tokyo"], asked["rome"]) == ([], [])


def test_a_frame_with_the_address_of_another_host_goes_nowhere(three):
    paris, tokyo, rome = three
    before = rome.drops().get("mac", 0)
    sniffer = paris.namespace.sniff(paris.interface)
    forged = mac_of(tokyo.namespace, tokyo.interface)
    send_frame(rome, b"\xff" * 6 + forged + b"\x88\xb5" + b"forged".ljust(46))

    wait_until(lambda: rome.drops().get("mac", 0) > before, what="the frame to be refused")
    assert not [frame for frame in sniffer.frames() if b"forged" in frame]


def test_who_claims_the_address_of_another_host_is_not_heard(three):
    paris, tokyo, rome = three
    paris.ping(inside(tokyo))
    own, target = mac_of(rome.namespace, rome.interface), mac_of(paris.namespace, paris.interface)
    claim = own + socket.inet_aton(inside(tokyo)) + target + socket.inet_aton(inside(paris))
    send_frame(rome, target + own + REPLY + claim)

    paris.wait_peer(rome, "refused", lambda row: row["drops"].get("neighbour"))
    paris.ping(inside(tokyo))  # all namespaces share one table, and an older entry may have been evicted
    known = paris.namespace.run("ip", "neighbour", "show", inside(tokyo))
    assert mac_of(rome.namespace, rome.interface).hex(":") not in known
    assert mac_of(tokyo.namespace, tokyo.interface).hex(":") in known


def send_frame(host, frame):
    with host.namespace.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((host.interface, 0))
        raw.send(frame)


def test_vlan_tags_pass(three):
    paris, tokyo, _ = three
    for number, host in enumerate((paris, tokyo), 1):
        run = host.namespace.run
        if host.namespace.completed(
            "ip", "link", "add", "link", host.interface, "name", "v5", "type", "vlan", "id", "5"
        ).returncode:
            pytest.skip("this kernel has no VLAN devices (8021q)")
        run("ip", "address", "add", f"10.5.5.{number}/24", "dev", "v5")
        run("ip", "link", "set", "v5", "up")

    ping(paris.namespace, "10.5.5.2", 2, "-s", "1376")
    transfer_both_ways(paris.namespace, tokyo.namespace, "10.5.5.2", 4 << 20)


# Two LANs, joined


@dataclass(frozen=True)
class Site:
    """Two hosts that are only bridges, two stations behind the first and one behind the second."""

    network: Network
    paris: object
    tokyo: object
    desk: object
    chair: object
    printer: object


@pytest.fixture(scope="module")
def site(module_lab, tmp_path_factory):
    network = Network(module_lab, tmp_path_factory.mktemp("site"), device="tap")
    paris, tokyo = (network.host(name, subnets=None) for name in ("paris", "tokyo"))
    stations = [
        station(module_lab, network, host, name, *addresses)
        for host, name, *addresses in (
            (paris, "desk", "172.16.0.1/24", "fd00:172::1/64"),
            (paris, "chair", "172.16.0.2/24", "fd00:172::2/64"),
            (tokyo, "printer", "172.16.0.9/24", "fd00:172::9/64"),
        )
    ]
    network.start()
    for host in (paris, tokyo):
        module_lab.attach(host.namespace, "lan0", host.interface)
    paris.wait_up(tokyo)
    yield Site(network, paris, tokyo, *stations)
    network.close()


def station(lab, network, host, name, *addresses):
    made = lab.namespace(network.namespace_name(name))
    if host.namespace.completed("ip", "link", "show", "lan0").returncode:
        lab.bridge(host.namespace, "lan0")
    lab.veth(made.end("eth0", *addresses), host.namespace.end(f"to-{name}"))
    lab.attach(host.namespace, "lan0", f"to-{name}")
    return made


def test_the_tap_of_a_bridge_has_no_address(site):
    shown = site.paris.namespace.run("ip", "address", "show", "dev", site.paris.interface)

    assert "inet" not in shown


@pytest.mark.parametrize("address", ["172.16.0.9", "fd00:172::9"])
def test_stations_reach_each_other_across(site, address):
    ping(site.desk, address, 3)
    ping(site.chair, address, 3)


@pytest.mark.parametrize("address", ["172.16.0.9", "fd00:172::9"])
def test_tcp_transfers_across_arrive_unchanged_both_ways(site, address):
    """The stations do not know about the smaller MTU: the MSS in SYNs is clamped."""
    transfer_both_ways(site.desk, site.printer, address, 4 << 20)


def test_stations_of_one_side_are_not_sent_for(site):
    ping(site.desk, "172.16.0.2", 2)
    sniffer = site.tokyo.namespace.sniff(site.tokyo.interface)
    ping(site.desk, "172.16.0.2", 5, interval=0.1)

    between = {mac_of(site.desk, "eth0"), mac_of(site.chair, "eth0")}
    assert not [frame for frame in sniffer.frames() if {frame[:6], frame[6:12]} == between]


def test_what_was_learnt_is_told(site):
    ping(site.desk, "172.16.0.9")

    assert site.paris.peer(site.tokyo)["learnt_macs"] >= 1
    assert site.tokyo.peer(site.paris)["learnt_macs"] >= 1


def test_where_a_station_is_is_explained(site):
    ping(site.desk, "172.16.0.9", 2)
    printer, desk = (mac_of(each, "eth0").hex(":") for each in (site.printer, site.desk))

    def explained(asked):
        return json.loads(site.paris.overlay("explain", asked, "--json").stdout)

    there, here, unknown, address = map(explained, (printer, desk, "02:00:5e:10:00:01", "172.16.0.9"))

    assert (there["path"], there["peer"], there["station"]["place"]) == ("tunnel", "tokyo", "peer")
    assert there["station"]["heard_seconds"] < 300
    assert (here["path"], here["station"]["place"]) == ("here", "here")
    assert (unknown["path"], unknown["peer"], unknown["station"]["place"]) == ("tunnel", None, "unknown")
    assert (address["station"]["mac"], address["station"]["peer"]) == (printer, "tokyo")


@pytest.mark.parametrize("address", ["172.16.0.9", "fd00:172::9"])
def test_the_second_station_that_asks_is_answered_on_its_own_side(site, address):
    ping(site.desk, address)
    site.chair.run("ip", "neighbour", "flush", "dev", "eth0")
    sniffer = site.tokyo.namespace.sniff(site.tokyo.interface)

    ping(site.chair, address)

    chair = mac_of(site.chair, "eth0")
    frames = [frame for frame in sniffer.frames() if frame[6:12] == chair]
    assert [frame for frame in frames if frame[:6] == mac_of(site.printer, "eth0")], "the echo request"
    assert not [frame for frame in frames if frame[0] & 1 and is_question(frame)]


def is_question(frame):
    """Return whether *frame* asks for a neighbour: an ARP request or an IPv6 solicitation."""
    return frame[12:22] == REQUEST or (frame[12:14] == b"\x86\xdd" and frame[20] == 58 and frame[54] == 135)


def test_a_station_gets_its_address_from_the_other_side_by_dhcp(site, module_lab):
    phone = station(module_lab, site.network, site.paris, "phone")

    address = lease(phone, site.printer, "172.16.0.77")

    phone.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
    ping(phone, "172.16.0.9", 2)


def test_hosts_without_addresses_are_pinged_in_band(site):
    done = site.paris.overlay("ping", "tokyo", "-c", "1")

    assert (done.returncode, done.stderr) == (0, "")
    assert "in-band" in done.stdout
