"""Handles the calls of dockerd: a network driver and an IPAM driver in one.

For Docker the two are separate: addresses are requested before it is known what they are for.  So all of them are lent
to one holder, and an endpoint takes over those that it comes with.  The two kinds of drivers have different names for
errors, and Docker ignores the wrong one.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import trio

from overlay.containers.addresses import AddressError, Holder
from overlay.containers.attachments import derived_mac
from overlay.docker import calls
from overlay.docker.calls import CallError, NewAddress, NewEndpoint, NewNetwork, NewPool
from overlay.docker.publishing import find_conflict, publishing
from overlay.docker.record import DockerEndpoint
from overlay.errors import HostError
from overlay.host.attaching import InterfaceRequest
from overlay.host.netlink.container_namespace import GATEWAYS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from overlay.docker.calls import Body, Published
    from overlay.docker.record import Endpoints, Networks
    from overlay.host.attaching import Attached
    from overlay.host.plan import IPAddress, IPNetwork

# Specification: libnetwork's docs/remote.md
NEXT_HOP, CONNECTED = 0, 1  # kinds of static routes

# Ours
LENT = "docker-ipam"  # the holder of addresses that Docker has asked for
INTERFACE = "eth0"  # of an endpoint, as far as names go: Docker counts
PREFIX = "eth"

Reply: TypeAlias = dict[str, Any]

log = logging.getLogger("overlay")


class Containers(Protocol):
    """The part of `overlay.provisioning.attaching.Containers` that the driver needs."""

    async def subnets(self) -> tuple[IPNetwork, ...]:
        """Return the subnets that containers here get addresses from.  Raises HostError for none."""

    async def lend(self, holder: Holder, version: int, wanted: IPAddress | None) -> IPAddress:
        """Give *holder* one more address.  Raises AddressError and HostError."""

    async def give_back(self, holder: Holder, address: IPAddress) -> None:
        """Release an address of *holder*.  Raises HostError."""

    async def attach(self, wanted: InterfaceRequest) -> Attached:
        """Make an interface for a container, whose inner end stays on the host.  Raises AddressError and HostError."""

    async def detach(self, holder: Holder) -> None:
        """Remove an interface; it is not an error if it is gone.  Raises HostError."""


class Edge(Protocol):
    """The other effects of the driver on the host."""

    def save_networks(self, networks: Networks) -> None:
        """Record the networks.  Raises HostError."""

    def save_endpoints(self, endpoints: Endpoints) -> None:
        """Record the endpoints.  Raises HostError."""

    async def publish(self, rules: str) -> None:
        """Put these chains into force in place of any earlier ones.  Raises HostError."""

    def is_free(self, port: Published) -> bool:
        """Return whether nothing on the host listens at the port."""


class Driver:
    """The driver *name*; *prefixes* returns the prefixes of the overlay."""

    def __init__(
        self,
        name: str,
        containers: Containers,
        edge: Edge,
        networks: Networks,
        endpoints: Endpoints,
        prefixes: Callable[[], Sequence[IPNetwork]],
    ) -> None:
        self._name, self._containers, self._edge, self._prefixes = name, containers, edge, prefixes
        self._networks, self._endpoints = networks, endpoints
        self._lent = Holder(LENT, LENT, INTERFACE)
        self._changing = trio.Lock()

    async def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Reply]:
        """Return the status and the answer to the call *path*."""
        call = _CALLS.get(path)
        if call is None:
            return 404, {"Err": f"this driver does not know the call {path:.80}"}
        try:
            async with self._changing:
                return 200, await call(self, body)
        except (CallError, AddressError, HostError) as error:
            log.warning("docker was refused call=%s reason=%s", path.removeprefix("/"), error)
            return 200, {"Error" if path.startswith("/IpamDriver.") else "Err": str(error)}

    async def set_up(self, attached: Sequence[Holder]) -> None:
        """After a start: publish the ports of endpoints that are still *attached*, and forget the others.
        Raises HostError.
        """
        there = {holder.container for holder in attached}
        gone = [each for each in self._endpoints.by_id if each not in there]
        for each in gone:
            del self._endpoints.by_id[each]
        if gone:
            self._edge.save_endpoints(self._endpoints)
        if self._endpoints.by_id:
            await self._publish()

    # The plugin

    async def _activate(self, _body: Body) -> Reply:
        return {"Implements": ["NetworkDriver", "IpamDriver"]}

    async def _nothing(self, _body: Body) -> Reply:
        return {}

    # Addresses

    async def _ipam_capabilities(self, _body: Body) -> Reply:
        return {"RequiresMACAddress": False, "RequiresRequestReplay": False}

    async def _address_spaces(self, _body: Body) -> Reply:
        return {
            "LocalDefaultAddressSpace": f"{self._name}-local",
            "GlobalDefaultAddressSpace": f"{self._name}-global",
        }

    async def _request_pool(self, body: Body) -> Reply:
        """A pool of the driver's choice would overlap with routes of the host, and Docker would ask for others
        forever.
        """
        asked, subnets = NewPool.parse(body), await self._containers.subnets()
        ours = [each for each in subnets if each.version == asked.version]
        if asked.pool is None:
            listed = (
                f"--subnet {ours[0]}" if ours else f"no IPv{asked.version}, of which this host has no subnet"
            )
            raise CallError(
                f"a network of {self._name} takes its addresses from this host's own subnet: write {listed}"
            )
        await self._check_pool(asked.pool)
        space = str(body.get("AddressSpace") or f"{self._name}-local").replace("/", "-")[:80]
        return {"PoolID": calls.pool_id(space, asked.pool), "Pool": str(asked.pool), "Data": {}}

    async def _request_address(self, body: Body) -> Reply:
        asked = NewAddress.parse(body)
        if asked.is_gateway:
            gateway = asked.address or GATEWAYS[asked.pool.version]
            return {"Address": f"{gateway}/{gateway.max_prefixlen}", "Data": {}}
        address = await self._containers.lend(self._lent, asked.pool.version, asked.address)
        return {"Address": f"{address}/{address.max_prefixlen}", "Data": {}}

    async def _release_address(self, body: Body) -> Reply:
        await self._containers.give_back(self._lent, calls.parse_address(str(body.get("Address", ""))))
        return {}

    # Networks

    async def _capabilities(self, _body: Body) -> Reply:
        return {"Scope": "local", "ConnectivityScope": "global"}

    async def _create_network(self, body: Body) -> Reply:
        made = NewNetwork.parse(body)
        for pool in made.pools:
            await self._check_pool(pool)
        before = self._networks.by_id.get(made.identifier)
        self._networks.by_id[made.identifier] = made
        try:
            self._edge.save_networks(self._networks)
        except HostError:
            del self._networks.by_id[made.identifier]
            if before is not None:
                self._networks.by_id[made.identifier] = before
            raise
        log.info("docker network made network=%s", made.identifier[:12])
        return {}

    async def _delete_network(self, body: Body) -> Reply:
        identifier = calls.identifier(body, "NetworkID")
        if self._networks.by_id.pop(identifier, None) is not None:
            self._edge.save_networks(self._networks)
            log.info("docker network removed network=%s", identifier[:12])
        return {}

    # Endpoints

    async def _create_endpoint(self, body: Body) -> Reply:
        made = NewEndpoint.parse(body)
        self._network(made.network)
        if made.identifier in self._endpoints.by_id:
            raise CallError(f"the endpoint {made.identifier[:12]} exists already")
        if not made.addresses:
            raise CallError(
                f"the endpoint has no address: create its network with --ipam-driver {self._name}"
            )
        mac = made.mac or derived_mac(_holder(made.network, made.identifier))
        self._endpoints.by_id[made.identifier] = DockerEndpoint(made.network, made.addresses, mac)
        return {"Interface": {} if made.mac else {"MacAddress": mac}}

    async def _delete_endpoint(self, body: Body) -> Reply:
        identifier = calls.identifier(body, "EndpointID")
        former = self._endpoints.by_id.pop(identifier, None)
        await self._containers.detach(_holder(calls.identifier(body, "NetworkID"), identifier))
        if former is not None:
            self._edge.save_endpoints(self._endpoints)
            if former.published:
                await self._publish()
        return {}

    async def _join(self, body: Body) -> Reply:
        network = self._network(calls.identifier(body, "NetworkID"))
        identifier = calls.identifier(body, "EndpointID")
        endpoint = self._endpoints.by_id.get(identifier)
        if endpoint is None:
            raise CallError(f"the endpoint {identifier[:12]} is not known: start the container again")
        holder = _holder(network.identifier, identifier)
        await self._containers.detach(holder)  # in case it joined before and never left
        wanted = InterfaceRequest(
            holder, endpoint.addresses, held_by=self._lent, mac=endpoint.mac, mtu=network.mtu
        )
        made = await self._containers.attach(wanted)
        try:
            self._edge.save_endpoints(self._endpoints)
        except HostError:
            await self._containers.detach(holder)
            raise
        return self._joined(network, made)

    def _joined(self, network: NewNetwork, made: Attached) -> Reply:
        """Return how Docker should set the interface up, which Docker itself moves into the container."""
        reply: Reply = {
            "InterfaceName": {"SrcName": made.inner, "DstPrefix": PREFIX},
            "DisableGatewayService": True,  # nor does it add a bridge of its own as a gateway
        }
        routes: list[Reply] = []
        for gateway in made.gateways:
            if gateway.version == 4:
                routes.append({"Destination": f"{gateway}/32", "RouteType": CONNECTED, "NextHop": ""})
            if not network.is_internal:
                reply["Gateway" if gateway.version == 4 else "GatewayIPv6"] = str(gateway)
            # A route of its own, for a container that is in other networks too, or has no gateway.
            routes += [
                {"Destination": str(prefix), "RouteType": NEXT_HOP, "NextHop": str(gateway)}
                for prefix in self._prefixes()
                if prefix.version == gateway.version and (gateway.version == 4 or network.is_internal)
            ]
        reply["StaticRoutes"] = routes
        return reply

    async def _leave(self, body: Body) -> Reply:
        """The interface goes with the endpoint: Docker takes it out of the container after this call."""
        calls.identifier(body, "EndpointID")
        return {}

    async def _operational(self, _body: Body) -> Reply:
        return {"Value": {}}

    # Ports

    async def _program(self, body: Body) -> Reply:
        identifier, ports = calls.identifier(body, "EndpointID"), calls.parse_published(body)
        endpoint = self._endpoints.by_id.get(identifier)
        if endpoint is None:
            raise CallError(f"the endpoint {identifier[:12]} is not known: start the container again")
        others = [each for name, each in self._endpoints.by_id.items() if name != identifier]
        taken = find_conflict(others, ports)
        if taken is None:
            taken = next((each for each in ports if not self._edge.is_free(each)), None)
        if taken is not None:
            raise CallError(
                f"port {taken.host_port} of {taken.protocol} is taken on this host: publish another"
            )
        if ports == endpoint.published:
            return {}
        self._endpoints.by_id[identifier] = replace(endpoint, published=ports)
        try:
            await self._publish()
            self._edge.save_endpoints(self._endpoints)
        except HostError:
            self._endpoints.by_id[identifier] = endpoint
            raise
        return {}

    async def _revoke(self, body: Body) -> Reply:
        identifier = calls.identifier(body, "EndpointID")
        endpoint = self._endpoints.by_id.get(identifier)
        if endpoint is not None and endpoint.published:
            self._endpoints.by_id[identifier] = replace(endpoint, published=())
            self._edge.save_endpoints(self._endpoints)
            await self._publish()
        return {}

    async def _publish(self) -> None:
        await self._edge.publish(publishing(self._endpoints.by_id.values()))

    # Parts

    def _network(self, identifier: str) -> NewNetwork:
        network = self._networks.by_id.get(identifier)
        if network is None:
            raise CallError(
                f"the network {identifier[:12]} is not known to the agent of {self._name}: remove it and create it "
                f"again"
            )
        return network

    async def _check_pool(self, pool: IPNetwork) -> None:
        """Raise CallError unless containers here get addresses from *pool*."""
        subnets = await self._containers.subnets()
        if pool not in subnets:
            raise CallError(
                f"{pool} is not a subnet of this host: create the network with --ipam-driver {self._name} and --subnet "
                f"{' or '.join(map(str, subnets))}"
            )


def _holder(network: str, endpoint: str) -> Holder:
    return Holder(network, endpoint, INTERFACE)


_CALLS: dict[str, Callable[[Driver, Body], Awaitable[Reply]]] = {
    "/Plugin.Activate": Driver._activate,
    "/IpamDriver.GetCapabilities": Driver._ipam_capabilities,
    "/IpamDriver.GetDefaultAddressSpaces": Driver._address_spaces,
    "/IpamDriver.RequestPool": Driver._request_pool,
    "/IpamDriver.ReleasePool": Driver._nothing,
    "/IpamDriver.RequestAddress": Driver._request_address,
    "/IpamDriver.ReleaseAddress": Driver._release_address,
    "/NetworkDriver.GetCapabilities": Driver._capabilities,
    "/NetworkDriver.CreateNetwork": Driver._create_network,
    "/NetworkDriver.DeleteNetwork": Driver._delete_network,
    "/NetworkDriver.CreateEndpoint": Driver._create_endpoint,
    "/NetworkDriver.DeleteEndpoint": Driver._delete_endpoint,
    "/NetworkDriver.EndpointOperInfo": Driver._operational,
    "/NetworkDriver.Join": Driver._join,
    "/NetworkDriver.Leave": Driver._leave,
    "/NetworkDriver.ProgramExternalConnectivity": Driver._program,
    "/NetworkDriver.RevokeExternalConnectivity": Driver._revoke,
    "/NetworkDriver.DiscoverNew": Driver._nothing,
    "/NetworkDriver.DiscoverDelete": Driver._nothing,
}
