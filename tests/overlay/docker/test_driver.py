"""The driver, called as dockerd calls it; the containers are values."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
import trio

from overlay.containers.addresses import AddressError, Holder
from overlay.docker.driver import _CALLS, Driver
from overlay.docker.record import Endpoints, Networks
from overlay.errors import HostError
from overlay.host.attaching import Attached

SUBNETS = (ip_network("10.244.1.0/24"), ip_network("fd00::/64"))
PREFIXES = (ip_network("10.244.0.0/16"), ip_network("fd00::/32"))
NETWORK, OTHER, ENDPOINT = "a" * 64, "b" * 64, "e" * 64


class Machine:
    """A host whose containers, files and packet filter are values, until *refusal* says why not."""

    def __init__(self):
        self.lent, self.attached = {}, {}
        self.networks, self.endpoints, self.rules = b"", b"", ""
        self.refusal, self.busy = None, set()

    def _refuse(self):
        if self.refusal:
            raise HostError(self.refusal)

    async def subnets(self):
        self._refuse()
        return SUBNETS

    async def lend(self, holder, version, wanted):
        self._refuse()
        subnet = next(each for each in SUBNETS if each.version == version)
        found = wanted or next(each for each in list(subnet.hosts())[1:9] if each not in self.lent)
        if found in self.lent:
            raise AddressError(f"{found} belongs to another container")
        self.lent[found] = holder
        return found

    async def give_back(self, holder, address):
        self.lent.pop(address, None)

    async def attach(self, wanted):
        self._refuse()
        assert all(self.lent[each] == wanted.held_by for each in wanted.addresses)
        assert wanted.holder not in self.attached
        self.attached[wanted.holder] = wanted
        return Attached(wanted.addresses, "oc1", "oi1", "ee:ee:ee:ee:ee:ee", wanted.mac, 1420, ())

    async def detach(self, holder):
        self._refuse()
        self.attached.pop(holder, None)

    def save_networks(self, networks):
        self._refuse()
        self.networks = networks.encode()

    def save_endpoints(self, endpoints):
        self._refuse()
        self.endpoints = endpoints.encode("boot")

    async def publish(self, rules):
        self._refuse()
        self.rules = rules

    def is_free(self, port):
        return port.host_port not in self.busy


@pytest.fixture
def machine():
    return Machine()


@pytest.fixture
def ask(machine):
    """Ask the driver, which starts anew for each question: it remembers nothing
    that is not written down or in Docker.
    """
    held = {}

    def ask(path, again=False, **body):
        if again or "driver" not in held:
            networks = Networks.decode(machine.networks) if machine.networks else Networks()
            endpoints = Endpoints.decode(machine.endpoints, "boot") if machine.endpoints else Endpoints()
            held["driver"] = Driver("ovl", machine, machine, networks, endpoints, lambda: PREFIXES)
        return trio.run(held["driver"].answer, path, body)[1]

    ask.held = held
    return ask


def network(ask, identifier=NETWORK, **fields):
    data = [{"AddressSpace": "ovl-local", "Gateway": "169.254.1.1/32", "Pool": "10.244.1.0/24"}]
    body = {"NetworkID": identifier, "Options": {}, "IPv4Data": data, "IPv6Data": [], **fields}
    return ask("/NetworkDriver.CreateNetwork", **body)


def ids(endpoint=ENDPOINT):
    return {"NetworkID": NETWORK, "EndpointID": endpoint}


def ports(*numbers):
    return {
        "com.docker.network.portmap": [
            {"Proto": 6, "Port": 80, "HostIP": "", "HostPort": each, "HostPortEnd": each} for each in numbers
        ]
    }


def start(ask, endpoint=ENDPOINT, address="", published=()):
    """Do what `docker run` does, and return the answer to Join."""
    lent = ask("/IpamDriver.RequestAddress", PoolID="ovl-local/10.244.1.0/24", Address=address, Options=None)[
        "Address"
    ]
    interface = {"Address": lent, "AddressIPv6": "", "MacAddress": ""}
    made = ask("/NetworkDriver.CreateEndpoint", **ids(endpoint), Interface=interface, Options={})
    assert "Err" not in made, made
    joined = ask("/NetworkDriver.Join", **ids(endpoint), SandboxKey="/var/run/docker/netns/x", Options={})
    programmed = ask("/NetworkDriver.ProgramExternalConnectivity", **ids(endpoint), Options=ports(*published))
    return joined, programmed, lent.partition("/")[0]


def stop(ask, address, endpoint=ENDPOINT):
    """Do what `docker stop` does."""
    for call in ("RevokeExternalConnectivity", "Leave", "DeleteEndpoint"):
        assert ask(f"/NetworkDriver.{call}", **ids(endpoint)) == {}
    assert ask("/IpamDriver.ReleaseAddress", PoolID="ovl-local/10.244.1.0/24", Address=address) == {}


def test_plugin_is_driver_and_ipam_of_this_host(ask):
    assert ask("/Plugin.Activate") == {"Implements": ["NetworkDriver", "IpamDriver"]}
    assert ask("/NetworkDriver.GetCapabilities") == {"Scope": "local", "ConnectivityScope": "global"}
    assert ask("/IpamDriver.GetCapabilities") == {"RequiresMACAddress": False, "RequiresRequestReplay": False}
    assert ask("/IpamDriver.GetDefaultAddressSpaces")["LocalDefaultAddressSpace"] == "ovl-local"


def test_pool_is_a_subnet_of_this_host_and_is_named_where_it_is_left_out(ask):
    pool = {"AddressSpace": "ovl-local", "SubPool": "", "Options": {}, "V6": False}

    assert ask("/IpamDriver.RequestPool", Pool="10.244.1.0/24", **pool) == {
        "PoolID": "ovl-local/10.244.1.0/24", "Pool": "10.244.1.0/24", "Data": {},
    }  # fmt: skip
    assert ask("/IpamDriver.RequestPool", Pool="", **pool)["Error"].endswith("write --subnet 10.244.1.0/24")
    assert ask("/IpamDriver.RequestPool", Pool="", **{**pool, "V6": True})["Error"].endswith(
        "--subnet fd00::/64"
    )
    assert ask("/IpamDriver.RequestPool", Pool="10.9.0.0/24", **pool)["Error"].startswith(
        "10.9.0.0/24 is not a subnet"
    )


def test_gateway_is_that_of_every_container_and_takes_no_address(ask, machine):
    options = {"RequestAddressType": "com.docker.network.gateway"}

    assert ask("/IpamDriver.RequestAddress", PoolID="s/10.244.1.0/24", Address="", Options=options) == {
        "Address": "169.254.1.1/32", "Data": {},
    }  # fmt: skip
    assert machine.lent == {}


def test_container_gets_an_interface_a_gateway_and_a_route_to_the_overlay(ask, machine):
    network(ask)

    joined, programmed, address = start(ask)

    assert joined == {
        "InterfaceName": {"SrcName": "oi1", "DstPrefix": "eth"},
        "DisableGatewayService": True,
        "Gateway": "169.254.1.1",
        "StaticRoutes": [
            {"Destination": "169.254.1.1/32", "RouteType": 1, "NextHop": ""},
            {"Destination": "10.244.0.0/16", "RouteType": 0, "NextHop": "169.254.1.1"},
        ],
    }
    assert programmed == {}
    (wanted,) = machine.attached.values()
    assert (wanted.holder, wanted.addresses) == (Holder(NETWORK, ENDPOINT, "eth0"), (ip_address(address),))
    stop(ask, address)
    assert (machine.attached, machine.lent) == ({}, {})


def test_network_that_is_internal_leads_to_the_overlay_alone(ask):
    network(ask, Options={"com.docker.network.internal": True})

    joined, _, _ = start(ask)

    assert "Gateway" not in joined
    assert {"Destination": "10.244.0.0/16", "RouteType": 0, "NextHop": "169.254.1.1"} in joined[
        "StaticRoutes"
    ]


def test_networks_and_ports_are_known_after_a_restart(ask, machine):
    network(ask)
    _, _, address = start(ask, published=[8080])
    rules = machine.rules
    assert "dport 8080" in rules

    machine.rules = ""
    assert ask("/Plugin.Activate", again=True)
    trio.run(ask.held["driver"].set_up, list(machine.attached))

    assert machine.rules == rules
    assert start(ask, "f" * 64, published=[8080])[1]["Err"].startswith(
        "port 8080 of tcp is taken on this host"
    )
    stop(ask, address)
    assert machine.rules == ""


def test_what_ended_meanwhile_is_published_no_more(ask, machine):
    network(ask)
    start(ask, published=[8080])
    machine.attached.clear()

    ask("/Plugin.Activate", again=True)
    trio.run(ask.held["driver"].set_up, [])

    assert start(ask, "f" * 64, published=[8080])[1] == {}


def test_port_that_somebody_listens_at_is_refused(ask, machine):
    network(ask)
    machine.busy.add(22)

    assert "port 22 of tcp is taken" in start(ask, published=[22])[1]["Err"]
    assert machine.rules == ""


def test_endpoint_takes_an_ethernet_address_that_was_asked_for_and_tells_its_own_otherwise(ask):
    network(ask)
    address = ask("/IpamDriver.RequestAddress", PoolID="s/10.244.1.0/24", Address="", Options=None)["Address"]

    def create(endpoint, mac):
        interface = {"Address": address, "AddressIPv6": "", "MacAddress": mac}
        return ask("/NetworkDriver.CreateEndpoint", **ids(endpoint), Interface=interface, Options={})

    assert create("1", "02:42:0a:60:07:05") == {"Interface": {}}
    assert len(create("2", "")["Interface"]["MacAddress"]) == 17


def test_unknown_networks_and_endpoints_are_refused_and_gone_ones_are_no_error(ask):
    interface = {"Address": "10.244.1.5/32"}

    assert (
        "remove it and create it again"
        in ask("/NetworkDriver.CreateEndpoint", **ids(), Interface=interface)["Err"]
    )
    network(ask)
    assert "start the container again" in ask("/NetworkDriver.Join", **ids(), SandboxKey="x")["Err"]
    for call in ("RevokeExternalConnectivity", "Leave", "DeleteEndpoint", "DeleteNetwork", "DeleteNetwork"):
        assert ask(f"/NetworkDriver.{call}", **ids()) == {}


def test_network_with_addresses_of_somebody_else_is_refused(ask):
    said = network(ask, IPv4Data=[{"Pool": "172.18.0.0/16"}])["Err"]

    assert said.endswith("create the network with --ipam-driver ovl and --subnet 10.244.1.0/24 or fd00::/64")


def test_endpoint_is_joined_once_however_often_docker_says_so(ask, machine):
    network(ask)
    start(ask)

    assert "InterfaceName" in ask("/NetworkDriver.Join", **ids(), SandboxKey="x")
    assert len(machine.attached) == 1


def test_two_ports_of_two_containers_go_side_by_side(ask, machine):
    network(ask)
    _, _, first = start(ask, "1", published=[8080])
    _, _, second = start(ask, "2", published=[8081])

    stop(ask, first, "1")

    assert (f"to {second}:80" in machine.rules, f"to {first}:80" in machine.rules) == (True, False)


@pytest.mark.parametrize("call", sorted(_CALLS))
def test_refusal_of_the_host_is_said_in_the_words_that_docker_reads(ask, machine, call):
    network(ask)
    _, _, address = start(ask, published=[8080])
    machine.refusal = "the kernel said no"
    body = {
        **ids(),
        "PoolID": "s/10.244.1.0/24",
        "Pool": "10.244.1.0/24",
        "Address": "10.244.1.200",
        "Options": ports(9),
        "IPv4Data": [],
    }

    reply = ask(call, **body)

    key = "Error" if call.startswith("/IpamDriver") else "Err"
    assert reply.get(key) in {
        None,
        "the kernel said no",
        "the endpoint " + ENDPOINT[:12] + " exists already",
    }
    assert ("Error" if key == "Err" else "Err") not in reply
    assert address


@pytest.mark.parametrize("call", sorted(_CALLS))
def test_body_that_is_empty_raises_nothing(ask, call):
    assert isinstance(ask(call), dict)


def test_network_that_cannot_be_written_down_is_not_there(ask, machine):
    machine.networks = b'{"networks":[]}'
    network(ask, OTHER)
    before = machine.networks

    def refuse(networks):
        raise HostError("the disk is full")

    machine.save_networks = refuse
    assert network(ask)["Err"] == "the disk is full"
    assert machine.networks == before
    assert "is not known" in ask("/NetworkDriver.Join", **ids(), SandboxKey="x")["Err"]


def test_call_of_a_later_docker_is_refused(ask):
    assert trio.run(ask.held.get("driver", Driver("o", None, None, Networks(), Endpoints(), tuple)).answer, "/X.Y", {}) == (
        404, {"Err": "this driver does not know the call /X.Y"},
    )  # fmt: skip
