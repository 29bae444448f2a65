"""Containers are namespaces here; the kernel is real."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
from ipaddress import ip_address, ip_network

import pytest

from overlay.containers.addresses import AddressError, FullError, Holder
from overlay.containers.attachments import GATEWAY_MAC, inner_name, outer_name
from overlay.containers.subnets import Offer
from overlay.errors import HostError
from overlay.host.attaching import Attaching, InterfaceRequest, StandsError
from overlay.host.netlink.container_namespace import ContainerNamespace
from tests.netns.topology import wait_until

pytestmark = pytest.mark.netns

SUBNETS = (ip_network("10.244.1.0/24"), ip_network("fd00:244:1::/64"))
OFFER = Offer(SUBNETS, kept=frozenset({ip_address("10.244.1.2")}))
MTU = 1420


def holder(container="web", interface="eth0"):
    return Holder("overlay", container, interface)


class Host:
    """A host that the calling thread is on, and its containers."""

    def __init__(self, lab, namespace, record):
        self.lab, self.namespace, self.record = lab, namespace, record
        self.containers = {}
        self.attaching = Attaching("overlay0", record)

    def restart(self, mtu=MTU):
        """Replace the agent by another; return what it says about the containers."""
        self.attaching.close()
        self.attaching = Attaching("overlay0", self.record)
        return self.attaching.take_over(mtu)

    def container(self, name="web"):
        self.containers[name] = self.lab.namespace(name)
        return self.containers[name]

    @contextlib.contextmanager
    def inside(self, container):
        """Pass what the plugin passes of *container*."""
        with container.entered():
            kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            settings = os.open("/proc/sys/net/ipv6/conf", os.O_RDONLY | os.O_DIRECTORY)
        namespace = os.open(f"/run/netns/{container.full_name}", os.O_RDONLY)
        inside = ContainerNamespace(namespace, kernel.fileno(), settings)
        try:
            yield inside
        finally:
            inside.close()
            kernel.close()
            os.close(settings)
            os.close(namespace)

    def attach(self, name="web", offer=OFFER, mtu=MTU, **wanted):
        container = self.containers.get(name) or self.container(name)
        with self.inside(container) as inside:
            return self.attaching.attach(InterfaceRequest(holder(name), **wanted), offer, mtu, inside)

    def check(self, name="web"):
        with self.inside(self.containers[name]) as inside:
            return self.attaching.check(holder(name), MTU, inside)

    def links(self, of=None):
        return {
            link["ifname"]: link for link in json.loads((of or self.namespace).run("ip", "-j", "-d", "link"))
        }

    def routes(self, version=4):
        return {
            r["dst"]: r for r in json.loads(self.namespace.run("ip", "-j", f"-{version}", "route", "show"))
        }


@pytest.fixture
def host(lab, tmp_path):
    namespace = lab.namespace("host")
    namespace.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    namespace.run("ip", "link", "set", "lo", "up")
    for address in ("10.244.1.2/32", "fd00:244:1::1/128"):
        namespace.run("ip", "address", "add", address, "dev", "lo")
    with namespace.entered():
        made = Host(lab, namespace, tmp_path / "overlay0.containers")
        yield made
        made.attaching.close()


def ping(container, address):
    container.run("ping", "-c1", "-W5", str(address))


def test_containers_reach_each_other_and_the_host_by_both_versions_at_once(host):
    web, db = host.attach("web"), host.attach("db")

    assert list(map(str, web.addresses)) == ["10.244.1.3", "fd00:244:1::2"]
    for one, other in (("web", db), ("db", web)):
        for address in other.addresses:
            ping(host.containers[one], address)
    for address in (*web.addresses, *db.addresses):
        ping(host.namespace, address)


def test_nobody_asks_for_ethernet_addresses_and_no_address_is_tentative(host):
    made = host.attach()
    web = host.containers["web"]

    addresses = json.loads(web.run("ip", "-j", "-6", "address", "show", "eth0", "scope", "global"))
    neighbours = json.loads(web.run("ip", "-j", "neigh")) + json.loads(
        host.namespace.run("ip", "-j", "neigh")
    )

    assert not any("tentative" in each for each in addresses[0]["addr_info"])
    assert {(each["dst"], each["lladdr"], *each["state"]) for each in neighbours} == {
        ("169.254.1.1", GATEWAY_MAC, "PERMANENT"),
        ("fe80::1", GATEWAY_MAC, "PERMANENT"),
        *((str(address), made.mac, "PERMANENT") for address in made.addresses),
    }


def test_there_is_no_bridge_and_the_hosts_end_has_no_address(host):
    made = host.attach()

    shown = json.loads(host.namespace.run("ip", "-j", "address", "show", made.outer))
    links = host.links()
    assert [
        link for link in host.links().values() if link.get("linkinfo", {}).get("info_kind") == "bridge"
    ] == []
    assert shown[0]["addr_info"] == []
    assert links[made.outer]["ifalias"] == "overlay0: eth0 of web in overlay"


def test_mtu_is_on_the_device_and_on_the_route(host):
    made = host.attach()

    assert host.links(host.containers["web"])["eth0"]["mtu"] == made.mtu == MTU
    assert host.routes()["10.244.1.3"]["metrics"] == [{"mtu": MTU}]
    assert host.routes(6)["fd00:244:1::2"]["metrics"] == [{"mtu": MTU}]


def mtus(host):
    """Return the MTU of the routes to web, and of its device."""
    routes = {
        host.routes()["10.244.1.3"]["metrics"][0]["mtu"],
        host.routes(6)["fd00:244:1::2"]["metrics"][0]["mtu"],
    }
    return routes, host.links(host.containers["web"])["eth0"]["mtu"]


def test_mtu_of_the_routes_follows_the_tunnel_and_a_check_brings_it_to_the_container(host):
    made = host.attach("web")

    for tunnel, looked, checked in (
        (1380, ({1380}, MTU), ({1380}, 1380)),
        (1500, ({1380}, 1380), ({1500}, 1500)),
    ):
        host.attaching.look(tunnel)
        assert mtus(host) == looked  # packets larger than the device's MTU would vanish
        with host.inside(host.containers["web"]) as inside:
            host.attaching.check(holder("web"), tunnel, inside)
        assert mtus(host) == checked

    host.restart(mtu=1500)
    assert mtus(host) == ({1500}, 1500)
    ping(host.containers["web"], "fd00:244:1::1")
    ping(host.namespace, made.addresses[0])


def test_container_cannot_send_as_another(host):
    for switch in ("all", "default"):
        host.namespace.run("sysctl", "-qw", f"net.ipv4.conf.{switch}.rp_filter=0")
    host.attach("web")
    host.attach("db")
    web = host.containers["web"]
    web.run("ip", "address", "add", "10.244.1.4/32", "dev", "lo")

    web.completed("ping", "-c2", "-i0.2", "-W1", "-I", "10.244.1.4", "10.244.1.2")

    refused = host.namespace.run("nstat", "-az", "TcpExtIPReversePathFilter")
    assert int(refused.split()[-2]) == 2


def test_mtu_stays_below_a_limit_that_was_asked_for(host):
    container = host.container("web")
    with host.inside(container) as inside:
        made = host.attaching.attach(InterfaceRequest(holder(), mtu=1300), OFFER, MTU, inside)

    host.attaching.look(1500)

    assert made.mtu == 1300
    assert host.links(container)["eth0"]["mtu"] == 1300
    assert host.routes()["10.244.1.3"]["metrics"] == [{"mtu": 1300}]


@pytest.mark.parametrize("address", ["10.244.1.4", "fd00:244:1::3"])
def test_container_hears_that_the_tunnel_takes_less_than_when_it_started(host, address):
    host.attach("web")
    host.attach("db")
    host.attaching.look(1300)

    done = host.containers["web"].completed("ping", "-c2", "-W5", "-Mdo", "-s1352", address)

    assert re.search("mtu ?= ?1300", done.stdout + done.stderr)


def test_default_route_of_another_interface_stays(host):
    host.attach("web")

    with host.inside(host.containers["web"]) as inside:
        made = host.attaching.attach(InterfaceRequest(holder(interface="eth1")), OFFER, MTU, inside)

    assert made.networks == ()
    assert "dev eth0" in host.containers["web"].run("ip", "route", "show", "default")


def test_routes_are_those_that_were_asked_for(host):
    made = host.attach("web", networks=(ip_network("10.244.0.0/16"),))

    assert made.networks == (ip_network("10.244.0.0/16"),)
    assert host.containers["web"].run("ip", "route", "show", "default") == ""
    assert "via 169.254.1.1" in host.containers["web"].run("ip", "route", "show", "10.244.0.0/16")


def test_interface_that_is_there_is_refused_and_stays(host):
    host.attach("web")
    before = host.record.read_bytes()

    with pytest.raises(StandsError, match="there is an interface eth0 of web in overlay already"):
        host.attach("web")

    assert host.record.read_bytes() == before
    host.check("web")


def test_foreign_interface_of_the_name_is_refused_and_no_address_is_lost(host):
    web = host.container("web")
    web.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other")

    with pytest.raises(StandsError, match="has an interface eth0 already"):
        host.attach("web")

    assert not host.attaching.attachments.addresses.taken


def test_refusal_of_the_kernel_leaves_nothing(host):
    """As where the container may have no IPv6."""
    web = host.container("web")
    with host.inside(web) as inside:
        inside._settings = None

        with pytest.raises(HostError, match="enable IPv6 in this kernel"):
            host.attaching.attach(InterfaceRequest(holder()), OFFER, MTU, inside)

    assert outer_name(holder()) not in host.links()
    assert set(host.links(web)) == {"lo"}
    assert not host.attaching.attachments.addresses.taken
    assert host.restart() == (0, 0)


def test_record_that_cannot_be_written_leaves_nothing(host):
    host.attaching._record = host.record.parent / "none" / "record"

    with pytest.raises(HostError, match="could not be written"):
        host.attach("web")

    assert outer_name(holder()) not in host.links()
    assert not host.attaching.attachments.addresses.taken


def test_container_whose_ipv6_the_runtime_turned_off_gets_its_address(host):
    web = host.container("web")
    web.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")

    made = host.attach("web")

    assert "fd00:244:1::2" in web.run("ip", "-6", "address", "show", "eth0")
    ping(host.namespace, made.addresses[1])


def test_host_without_an_ipv6_subnet_leaves_ipv6_of_containers_alone(host):
    web = host.container("web")
    web.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")

    made = host.attach("web", offer=Offer(SUBNETS[:1]))

    assert list(map(str, made.addresses)) == ["10.244.1.2"]
    assert web.run("ip", "-6", "address", "show", "eth0") == ""


def test_addresses_are_given_out_once_over_restarts_of_the_agent(host):
    first = host.attach("web")

    assert host.restart() == (1, 0)

    assert not set(first.addresses) & set(host.attach("db").addresses)
    ping(host.containers["db"], first.addresses[0])


def test_addresses_of_a_lost_record_are_not_given_out_while_containers_have_them(host):
    first = host.attach("web")
    host.record.write_bytes(b"{")

    assert host.restart() == (0, 0)

    assert "nothing is known about the running containers" in host.attaching.trouble
    assert not set(first.addresses) & set(host.attach("db").addresses)
    assert host.attaching.detach(holder("web"))
    assert outer_name(holder("web")) not in host.links()


def test_record_of_somebody_else_is_not_believed(host):
    host.attach("web")
    host.record.chmod(0o666)

    host.restart()

    assert "not trusted" in host.attaching.trouble
    assert not host.attaching.attachments.by_holder


@pytest.mark.parametrize("is_made", [False, True])
def test_what_a_killed_agent_left_half_made_is_undone(host, is_made):
    host.attach("web")
    record = json.loads(host.record.read_bytes())
    record["attachments"][0][-1] = False
    host.record.write_text(json.dumps(record))
    if not is_made:
        host.namespace.run("ip", "link", "delete", outer_name(holder()))

    assert host.restart() == (0, 1)

    assert outer_name(holder()) not in host.links()
    assert not host.attaching.attachments.addresses.taken
    host.attach("web")
    host.check("web")


def test_container_whose_namespace_is_gone_is_forgotten(host):
    host.attach("web")
    host.namespace.run("ip", "netns", "delete", host.containers.pop("web").full_name)

    def is_gone():
        return host.attaching.look(MTU) == [holder("web")]

    wait_until(is_gone)
    assert not host.attaching.attachments.addresses.taken


def test_container_that_goes_while_it_is_looked_at_is_forgotten_and_keeps_nothing_from_others(
    host, monkeypatch
):
    """Before, the look ended with an error."""
    host.attach("web")
    other = host.attach("db")
    host.namespace.run("ip", "route", "delete", str(other.addresses[0]))
    look = host.attaching._veths.all

    def go_after_a_look():
        found = look()
        host.namespace.run("ip", "link", "delete", outer_name(holder("web")))
        return found

    monkeypatch.setattr(host.attaching._veths, "all", go_after_a_look)

    assert host.attaching.look(MTU) == [holder("web")]

    assert str(other.addresses[0]) in host.routes()


def test_container_that_comes_again_in_another_namespace_is_made_anew(host):
    """A runtime that was killed does not always report that the first is gone."""
    host.attach("web")
    host.containers["web"] = host.lab.namespace("again")

    host.attach("web")

    host.check("web")
    assert len(host.attaching.attachments.by_holder) == 1
    assert len(host.attaching.attachments.addresses.taken) == 2


def test_detached_is_gone_and_detached_again_is_no_error(host):
    host.attach("web")

    assert [host.attaching.detach(holder("web")) for _ in range(3)] == [True, False, False]

    assert outer_name(holder()) not in host.links()
    assert set(host.links(host.containers["web"])) == {"lo"}
    assert "10.244.1.3" not in host.routes()
    assert not host.record.exists()


def test_routes_that_somebody_removed_come_back(host):
    made = host.attach("web")
    host.namespace.run("ip", "link", "set", made.outer, "down")
    host.namespace.run("ip", "link", "set", made.outer, "up")

    host.attaching.look(MTU)

    for address in made.addresses:
        ping(host.namespace, address)


def test_look_writes_nothing_where_all_is_as_it_should_be(host):
    """Each write would be a change of the network, after which the agent looks again."""
    host.attach("web")
    host.attaching.look(MTU)
    host.attaching.bar(SUBNETS)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as watch:
        watch.bind((0, 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400))
        watch.settimeout(0.5)
        with contextlib.suppress(TimeoutError):  # the consequences of the attachment
            while watch.recv(65536):
                pass

        host.attaching.look(MTU)
        host.attaching.bar(SUBNETS)

        with pytest.raises(TimeoutError):
            watch.recv(65536)


def test_packets_for_no_container_are_rejected_while_there_are_containers(host):
    host.attach("web")

    host.attaching.bar(SUBNETS)
    done = host.containers["web"].completed("ping", "-c1", "-W5", "10.244.1.77")
    host.attaching.detach(holder("web"))
    host.attaching.bar(SUBNETS)

    assert "Destination Host Unreachable" in done.stdout
    assert host.routes() == {}


def test_bar_of_a_killed_agent_is_taken_away(host):
    host.attach("web")
    host.attaching.bar((*SUBNETS, ip_network("10.9.0.0/24")))
    host.restart()

    host.attaching.bar(SUBNETS)

    assert "10.9.0.0/24" not in host.routes()
    assert host.routes()["10.244.1.0/24"]["type"] == "unreachable"


def test_inner_end_stays_here_where_somebody_else_moves_it(host):
    """Docker does this; it has requested the address before."""
    pool, endpoint = Holder("docker", "pool", "10.244.1.9"), Holder("docker", "endpoint", "e")
    address = host.attaching.lend(pool, 4, ip_address("10.244.1.9"), Offer(SUBNETS))

    made = host.attaching.attach(InterfaceRequest(endpoint, (address,), pool), Offer(()), MTU, None)

    assert made.inner == inner_name(endpoint)
    assert host.links()[made.inner]["mtu"] == MTU
    assert host.links()[made.inner]["address"] == made.mac
    assert "inet 169.254.1.1/32 scope host" in host.namespace.run("ip", "address", "show", made.outer)
    with pytest.raises(AddressError, match=r"10\.244\.1\.9 belongs to another container"):
        host.attaching.attach(
            InterfaceRequest(Holder("docker", "two", "e"), (address,), pool), Offer(()), MTU, None
        )
    host.attaching.detach(endpoint)
    assert host.attaching.attachments.addresses.held_by(pool) == (address,)
    host.attaching.give_back(pool, address)
    host.attaching.give_back(pool, address)
    assert not host.attaching.attachments.addresses.taken


def test_addresses_are_lent_one_by_one_and_none_of_them_twice(host):
    pool, offered = Holder("docker", "pool", "e"), Offer(SUBNETS)

    lent = [host.attaching.lend(pool, version, None, offered) for version in (4, 4, 6)]

    assert list(map(str, lent)) == ["10.244.1.2", "10.244.1.3", "fd00:244:1::2"]
    with pytest.raises(AddressError, match=r"10\.244\.1\.3 belongs to another container"):
        host.attaching.lend(pool, 4, lent[1], offered)
    with pytest.raises(AddressError, match=r"10\.9\.9\.9 is not in 10\.244\.1\.0/24"):
        host.attaching.lend(pool, 4, ip_address("10.9.9.9"), offered)
    with pytest.raises(AddressError, match="no subnet of IPv6 for containers"):
        host.attaching.lend(pool, 6, None, Offer(SUBNETS[:1]))
    host.restart()
    assert set(lent) == set(host.attaching.attachments.addresses.taken)


def test_asked_for_address_and_mac_are_taken(host):
    made = host.attach("web", addresses=(ip_address("10.244.1.77"),), mac="02:00:00:00:00:77")

    assert list(map(str, made.addresses)) == ["10.244.1.77", "fd00:244:1::2"]
    assert host.links(host.containers["web"])["eth0"]["address"] == "02:00:00:00:00:77"


def test_servers_of_the_peers_file_get_their_address_when_they_ask_for_it(host):
    offer = Offer(SUBNETS[:1], named=frozenset({ip_address("10.244.1.2")}))

    assert host.attach("web", offer).addresses == (ip_address("10.244.1.3"),)
    assert host.attach("named", offer, addresses=(ip_address("10.244.1.2"),)).addresses == (
        ip_address("10.244.1.2"),
    )


def test_full_subnet_is_told(host):
    offer = Offer((ip_network("10.244.1.0/30"),))
    host.attach("web", offer)

    with pytest.raises(FullError, match=r"no address of 10\.244\.1\.0/30 is free"):
        host.attach("late", offer)


def test_check_tells_what_the_container_has_lost(host):
    made = host.attach("web")
    web = host.containers["web"]
    host.check("web")

    web.run("ip", "address", "delete", f"{made.addresses[0]}/32", "dev", "eth0")
    with pytest.raises(HostError, match=r"eth0 of web in overlay has lost 10\.244\.1\.3"):
        host.check("web")
    web.run("ip", "link", "set", "eth0", "down")
    web.run("ip", "link", "set", "eth0", "name", "eth9")
    with pytest.raises(HostError, match="no longer has eth0"):
        host.check("web")
    host.namespace.run("ip", "link", "delete", made.outer)
    with pytest.raises(HostError, match="this host's end of eth0 of web in overlay, is gone"):
        host.check("web")
    host.attaching.detach(holder("web"))
    with pytest.raises(HostError, match="there is no eth0 of web in overlay"):
        host.check("web")


def test_garbage_is_collected_in_one_network_alone(host):
    for name in ("a", "b", "c"):
        host.attach(name)
    other = Holder("other", "a", "eth1")
    with host.inside(host.containers["a"]) as inside:
        host.attaching.attach(InterfaceRequest(other), OFFER, MTU, inside)

    removed = host.attaching.collect("overlay", {("b", "eth0")})

    assert [each.container for each in removed] == ["a", "c"]
    assert set(host.attaching.attachments.by_holder) == {holder("b"), other}


def test_namespace_of_the_host_itself_is_refused(host):
    with (
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel,
        pytest.raises(HostError, match="is that of the host"),
    ):
        ContainerNamespace(kernel.fileno(), kernel.fileno(), None)


def test_descriptors_of_something_else_are_refused(host, tmp_path):
    file = os.open(tmp_path, os.O_RDONLY)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        for passed in (file, other.fileno()):
            with pytest.raises(HostError, match="the request came without a network namespace"):
                ContainerNamespace(file, passed, None)
    container = host.container("web")
    with container.entered():
        kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    with (
        kernel,
        contextlib.closing(ContainerNamespace(file, kernel.fileno(), None)) as inside,
        pytest.raises(HostError, match="could not be made"),
    ):
        host.attaching.attach(InterfaceRequest(holder()), OFFER, MTU, inside)
    os.close(file)

    assert not host.attaching.attachments.addresses.taken


def test_nothing_keeps_the_namespace_of_a_container(host):
    """Only the descriptors that came with the question remain open."""
    before = set(os.listdir("/proc/self/fd"))

    host.attach("web")

    assert set(os.listdir("/proc/self/fd")) == before
