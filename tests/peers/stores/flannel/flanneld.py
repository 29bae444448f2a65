"""flanneld's lease rules, reimplemented as obviously as possible (flannel-io/flannel pkg/subnet/etcd/local_manager.go).

Everything goes through etcd; only the calls of the gateway are shared with the code under test.
"""

from __future__ import annotations

import base64
import json
import secrets
from ipaddress import IPv4Address, IPv4Network

from peers.stores.etcd.messages import Put, is_absent, prefix_end

TTL = 24 * 3600
TRIES = 10


class OutOfSubnetsError(Exception):
    """The errors in its log."""


class Flanneld:
    """flanneld on the host *address*; *previous* is the subnet in its subnet.env."""

    def __init__(self, gateway, address, previous=None, prefix="/coreos.com/network"):
        self.gateway, self.address, self.prefix = gateway, address, prefix
        self.previous = IPv4Network(previous) if previous else None
        self.subnet = None
        self.public_key = base64.b64encode(secrets.token_bytes(32)).decode()
        self.mac = ":".join(["02", *(f"{byte:02x}" for byte in secrets.token_bytes(5))])

    async def start(self):
        """Acquire a lease."""
        [kv] = (await self.gateway.range(f"{self.prefix}/config".encode())).kvs
        self.config = json.loads(kv.value)
        self.backend = self.config.get("Backend", {"Type": "udp"})["Type"]
        network = IPv4Network(self.config["Network"])
        self.length = self.config.get("SubnetLen") or (
            24 if network.prefixlen <= 22 else network.prefixlen + 2
        )
        size = 2 ** (32 - self.length)
        self.lowest = IPv4Address(self.config.get("SubnetMin", network.network_address + size))
        self.highest = IPv4Address(self.config.get("SubnetMax", network.broadcast_address + 1 - size))
        for _ in range(TRIES):
            if await self._try():
                return
        raise OutOfSubnetsError("max retries reached trying to acquire a subnet")

    async def _try(self):
        leases = await self.leases()
        for subnet, (attributes, has_lease) in leases.items():
            if attributes["PublicIP"] != self.address:
                continue
            if self._fits(subnet):
                await self._update(subnet, TTL if has_lease else 0)
                return True
            await self.gateway.delete(self._key(subnet))
            break
        if self.previous is not None and self.previous not in leases and self._fits(self.previous):
            return await self._create(self.previous)
        free, number = [], int(self.lowest)
        while number <= int(self.highest) and len(free) < 100:
            subnet = IPv4Network((number, self.length))
            if not any(subnet.overlaps(each) for each in leases):
                free.append(subnet)
            number += subnet.num_addresses
        if not free:
            raise OutOfSubnetsError("out of subnets")
        return await self._create(secrets.choice(free))

    async def renew(self):
        """Renew the lease, as an hour before its end."""
        await self._update(self.subnet, TTL)

    async def leases(self):
        """Return the attributes of each subnet, and whether it has a lease of etcd's."""
        folder = f"{self.prefix}/subnets/".encode()
        found = {}
        for kv in (await self.gateway.range(folder, prefix_end(folder))).kvs:
            address, _, length = kv.key.removeprefix(folder).decode().rpartition("-")
            found[IPv4Network(f"{address}/{length}")] = json.loads(kv.value), kv.lease != 0
        return found

    async def routes(self):
        """Return where the packets for each other subnet go: udp takes all leases, the others those of their type."""
        return {
            str(subnet): attributes["PublicIP"]
            for subnet, (attributes, _) in (await self.leases()).items()
            if subnet != self.subnet
            and (self.backend == "udp" or attributes.get("BackendType") == self.backend)
        }

    def attributes(self):
        """Return what its lease has."""
        found = {"PublicIP": self.address, "PublicIPv6": None}
        if self.backend != "udp":
            found["BackendType"] = self.backend
        if self.backend == "vxlan":
            found["BackendData"] = {"VNI": 1, "VtepMAC": self.mac}
        if self.backend == "wireguard":
            found["BackendData"] = {"PublicKey": self.public_key, "Port": 51820}
        return found

    def _fits(self, subnet):
        return self.lowest <= subnet.network_address <= self.highest and subnet.prefixlen == self.length

    def _key(self, subnet):
        return f"{self.prefix}/subnets/{str(subnet).replace('/', '-')}".encode()

    def _value(self):
        return json.dumps(self.attributes(), separators=(",", ":")).encode()

    async def _create(self, subnet):
        lease = (await self.gateway.grant(TTL)).number
        put = Put(self._key(subnet), self._value(), lease)
        if not (await self.gateway.transact([is_absent(put.key)], [put])).succeeded:
            await self.gateway.revoke(lease)
            return False
        self.subnet = subnet
        return True

    async def _update(self, subnet, ttl):
        lease = (await self.gateway.grant(ttl)).number if ttl else 0
        await self.gateway.put(self._key(subnet), self._value(), lease)
        self.subnet = subnet
