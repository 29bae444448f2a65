"""Attaching containers to this host: the record, and the kernel brought into the state of the record.

Every call is synchronous and takes some milliseconds, most of them in the kernel.  Only one thread may call at a time.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

from overlay.containers.addresses import AddressError, IPAddress
from overlay.containers.attachments import (
    GATEWAY_MAC,
    MOST,
    RECORD_SIZE,
    Attachment,
    Attachments,
    derived_mac,
    inner_name,
    outer_name,
)
from overlay.errors import HostError
from overlay.host import records, sysctl
from overlay.host.interfaces import index_of
from overlay.host.netlink.barred_subnets import BarredSubnets
from overlay.host.netlink.container_namespace import GATEWAYS
from overlay.host.netlink.fib import match, read_links
from overlay.host.netlink.kernel import Kernel, refusal
from overlay.host.netlink.veth import VethEnds, Veths

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from overlay.containers.addresses import Holder
    from overlay.containers.subnets import Offer
    from overlay.host.netlink.container_namespace import ContainerNamespace
    from overlay.host.netlink.veth import Outer
    from overlay.host.plan import IPNetwork

# Ours
SUFFIX = ".containers"  # next to the control socket


class StandsError(HostError):
    """The interface exists already; nothing was changed."""


@dataclass(frozen=True, slots=True)
class InterfaceRequest:
    """A request for an interface for *holder*.

    The container gets exactly *addresses*, which are held by *held_by* if that is not *holder* itself; if there are
    none, this module chooses.  *networks* are what the container reaches through its gateways.  *mtu* is an upper
    bound.
    """

    holder: Holder
    addresses: tuple[IPAddress, ...] = ()
    held_by: Holder | None = None
    networks: tuple[IPNetwork, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))
    mac: str | None = None
    mtu: int | None = None


@dataclass(frozen=True, slots=True)
class Attached:
    """What was made.  *inner* is the name of the container's end, *networks* those it has routes to."""

    addresses: tuple[IPAddress, ...]
    outer: str
    inner: str
    outer_mac: str
    mac: str
    mtu: int
    networks: tuple[IPNetwork, ...]

    @property
    def gateways(self) -> tuple[IPAddress, ...]:
        """Return the gateway of each IP version of which the container has an address."""
        return tuple(GATEWAYS[version] for version in sorted({each.version for each in self.addresses}))


class Attaching:
    """The containers of one agent's interface on this host."""

    def __init__(self, interface: str, record: Path) -> None:
        """Read the *record*, a file.  Raises HostError if the kernel's tables cannot be reached.

        `trouble` then says what was wrong with the record, if anything; a faulty record counts as empty.
        """
        self._interface, self._record = interface, record
        self.trouble: str | None = None
        try:
            self._kernel = Kernel()
        except OSError as error:
            raise refusal("the network devices of this host cannot be accessed", error) from error
        self._veths = Veths(self._kernel)
        self._barred = BarredSubnets(self._kernel, interface)
        self._namespace = records.own_namespace()
        self.attachments = self._load()

    def close(self) -> None:
        """Close the socket to the kernel.  Containers keep their interfaces."""
        self._kernel.close()

    # Addresses without an attachment

    def elsewhere(self, subnets: Iterable[IPNetwork]) -> set[IPNetwork]:
        """Return networks that this host reaches other than through the tunnel: directly, or by a gateway.

        Of those behind a gateway, only the ones that overlap *subnets*.  Raises HostError.
        """
        try:
            own = index_of(self._interface)
            found = {link.network for link in read_links(self._kernel) if link.index != own}
            for subnet in subnets:
                for at in {0, 1 % subnet.num_addresses, subnet.num_addresses - 1}:
                    route = match(self._kernel, subnet[at], None)
                    if route is not None and route.gateway is not None and route.network.prefixlen:
                        found.add(route.network)
        except OSError as error:
            raise refusal("the routing tables of this host could not be read", error) from error
        return found

    def lend(self, holder: Holder, version: int, wanted: IPAddress | None, offer: Offer) -> IPAddress:
        """Lend *holder* one more address of that IP version, *wanted* if given, and return it.

        Raises AddressError and HostError, with nothing changed.
        """
        addresses = self.attachments.addresses
        kept = offer.kept | self._led_elsewhere()
        subnets = [each for each in offer.subnets if each.version == version]
        if wanted is None:
            if not subnets:
                raise AddressError(f"this host has no subnet of IPv{version} for containers: give it one")
            (found,) = addresses.allocate(holder, subnets, kept | offer.named)
        else:
            if wanted in addresses.taken:
                raise AddressError(f"{wanted} belongs to another container: ask for another, or for none")
            addresses.claim(holder, (wanted,), subnets, kept)
            found = wanted
        try:
            self._save()
        except HostError:
            addresses.give_back(holder, found)
            raise
        return found

    def give_back(self, holder: Holder, address: IPAddress) -> None:
        """Take *address* back from *holder*, if it has it.  Raises HostError if that cannot be recorded."""
        if self.attachments.addresses.give_back(holder, address):
            self._save()

    # Attachments

    def attach(
        self, wanted: InterfaceRequest, offer: Offer, mtu: int, inside: ContainerNamespace | None
    ) -> Attached:
        """Make an interface for a container, with addresses and routes; without *inside*, its inner end stays here.

        *mtu* is that of the tunnel.  Raises AddressError, StandsError and HostError, and leaves nothing behind.
        """
        holder = wanted.holder
        self._make_way(holder, inside)
        if len(self.attachments.by_holder) >= MOST:
            raise HostError(f"this host has {MOST} containers attached, which is the maximum: remove some")
        try:
            addresses = self._choose(wanted, offer)
            made = Attachment(
                holder, addresses, outer_name(holder), wanted.mac or derived_mac(holder), wanted.mtu
            )
            made = replace(made, device_mtu=made.mtu(mtu))
            self.attachments.put(made)
            self._save()  # before the change, so that what is left after a kill is known
            networks = self._make(made, wanted.networks, made.mtu(mtu), inside)
            self.attachments.put(replace(made, is_whole=True))
            self._save()
        except BaseException:
            self._undo(holder)
            raise
        inner = holder.interface if inside is not None else inner_name(holder)
        return Attached(addresses, made.outer, inner, GATEWAY_MAC, made.mac, made.mtu(mtu), tuple(networks))

    def detach(self, holder: Holder) -> bool:
        """Remove the interface and the addresses of *holder*; return whether there was anything.

        What is gone already is not an error.  Raises HostError if the kernel refuses.
        """
        try:
            was_there = self._veths.remove(outer_name(holder))
        except OSError as error:
            raise refusal(f"the interface {holder} could not be removed", error) from error
        held = self.attachments.addresses.held_by(holder)
        attachment = self.attachments.drop(holder)
        if attachment is not None or held:
            self._save()
        return was_there or attachment is not None or bool(held)

    def check(self, holder: Holder, mtu: int, inside: ContainerNamespace | None) -> Attachment:
        """Return the attachment of *holder* if it is complete, after repairing what can be repaired without touching
        the container.

        Raises HostError that says what differs from how it was made.
        """
        attachment = self.attachments.by_holder.get(holder)
        if attachment is None or not attachment.is_whole:
            raise HostError(f"there is no {holder}: remove the container and start it again")
        try:
            outer = self._veths.find(attachment.outer)
            if outer is None:
                raise HostError(
                    f"{attachment.outer}, this host's end of {holder}, is gone: start the container again"
                )
            led = self._veths.led().get(outer.index, {})
            if inside is not None:
                _check_inside(attachment, inside, attachment.mtu(mtu))
                attachment = replace(attachment, device_mtu=attachment.mtu(mtu))
                self.attachments.put(attachment)
                self._save()
            self._lead(attachment, outer, led, attachment.route_mtu(mtu))
        except OSError as error:
            raise refusal(f"the interface {holder} could not be examined", error) from error
        return attachment

    def collect(self, network: str, valid: set[tuple[str, str]]) -> list[Holder]:
        """Detach everything in *network* that does not belong to the *valid* containers and interfaces; return its
        holders.

        Raises HostError for what could not be removed, after removing the rest.
        """
        problems, removed = [], []
        for holder in self.attachments.stale(network, valid):
            try:
                self.detach(holder)
            except HostError as error:
                problems.append(str(error))
            else:
                removed.append(holder)
        if problems:
            raise HostError("; ".join(problems))
        return removed

    def take_over(self, mtu: int) -> tuple[int, int]:
        """Take over at the start: undo what is unfinished, forget what is gone; return how many attachments remain, and
        how many were undone.
        """
        halves = [each.holder for each in self.attachments.by_holder.values() if not each.is_whole]
        for holder in halves:
            self.detach(holder)
        gone = self.look(mtu)
        return len(self.attachments.by_holder), len(halves) + len(gone)

    def look(self, mtu: int) -> list[Holder]:
        """Check the containers: forget and return those whose namespace is gone.

        The others get back routes that somebody removed, and routes with the tunnel's *mtu* in place of another.  The
        MTU of their own device stays until check(), because it cannot be changed from here: if the tunnel's MTU has
        become smaller, this host tells the containers so by ICMP, packet by packet and for each address once in ten
        minutes.  Nothing is written to the kernel if everything is in order.  Raises HostError.
        """
        if not self.attachments.by_holder:
            return []
        gone = []
        try:
            there, led = self._veths.all(), self._veths.led()
            for holder, attachment in list(self.attachments.by_holder.items()):
                outer, wanted = there.get(attachment.outer), attachment.route_mtu(mtu)
                if outer is None or not self._lead_if_there(
                    attachment, outer, led.get(outer.index, {}), wanted
                ):
                    gone.append(holder)
                    self.attachments.drop(holder)
        except OSError as error:
            raise refusal("the interfaces of containers could not be examined", error) from error
        if gone:
            self._save()
        return gone

    def bar(self, subnets: Collection[IPNetwork]) -> None:
        """Reject packets to addresses of *subnets* that no container has, while there are containers.

        They would leave by the default route of this host, unencrypted, or circulate between the tunnel and this host.
        A route of a bridge, or any other route to the same subnet, takes precedence.  Raises HostError.
        """
        try:
            self._barred.apply(subnets if self.attachments.by_holder else ())
        except OSError as error:
            raise refusal("the subnets of containers could not be closed", error) from error

    # Parts

    def _make_way(self, holder: Holder, inside: ContainerNamespace | None) -> None:
        """Undo what *holder* had in a namespace that is gone.  Raises StandsError if it still has its interface."""
        former = self.attachments.by_holder.get(holder)
        try:
            outer = self._veths.find(outer_name(holder))
            if former is not None and former.is_whole and outer is not None:
                found = inside.link(holder.interface) if inside is not None else None
                if inside is None or (found is not None and found[0] == outer.inner):
                    raise StandsError(f"there is an interface {holder} already: remove it first")
            elif inside is not None and inside.link(holder.interface) is not None:
                raise StandsError(
                    f"the container has an interface {holder.interface} already: give this one another name"
                )
        except OSError as error:
            raise refusal(f"the interface {holder} could not be examined", error) from error
        if former is not None or outer is not None:
            self.detach(holder)

    def _choose(self, wanted: InterfaceRequest, offer: Offer) -> tuple[IPAddress, ...]:
        addresses = self.attachments.addresses
        if wanted.held_by is None:
            return self._give(wanted.holder, wanted.addresses, offer)
        foreign = [each for each in wanted.addresses if addresses.taken.get(each) != wanted.held_by]
        if foreign or not wanted.addresses:
            raise AddressError(f"{foreign[0] if foreign else 'no address'} was not requested before")
        in_use = {each for one in self.attachments.by_holder.values() for each in one.addresses}
        if used := in_use.intersection(wanted.addresses):
            raise AddressError(f"{min(map(str, used))} belongs to another container")
        return wanted.addresses

    def _give(self, holder: Holder, wanted: Sequence[IPAddress], offer: Offer) -> tuple[IPAddress, ...]:
        """Give *holder* the *wanted* addresses, if any, and one of each version that it then still lacks."""
        kept = offer.kept | self._led_elsewhere()
        subnets = [each for each in offer.subnets if each.version == 4 or sysctl.has_ipv6()]
        if wanted:
            self.attachments.addresses.claim(holder, wanted, subnets, kept)
        versions = {each.version for each in self.attachments.addresses.held_by(holder)}
        rest = [each for each in subnets if each.version not in versions]
        if rest:
            self.attachments.addresses.allocate(holder, rest, kept | offer.named)
        return self.attachments.addresses.held_by(holder)

    def _led_elsewhere(self) -> set[IPAddress]:
        """Return addresses that the kernel routes to containers, whether they are in this record or not.

        They belong to another agent on this host, or to one whose record was lost.
        """
        try:
            return {address for each in self._veths.led().values() for address in each}
        except OSError as error:
            raise refusal("the routes of this host could not be read", error) from error

    def _make(
        self,
        attachment: Attachment,
        networks: Sequence[IPNetwork],
        mtu: int,
        inside: ContainerNamespace | None,
    ) -> list[IPNetwork]:
        holder, mac = attachment.holder, _packed(attachment.mac)
        inner = holder.interface if inside is not None else inner_name(holder)
        alias = f"{self._interface}: {holder}"[:255]
        ends = VethEnds(attachment.outer, inner, _packed(GATEWAY_MAC), mac, mtu, alias)
        try:
            outer = self._veths.make(ends, None if inside is None else inside.namespace)
            if any(each.version == 6 for each in attachment.addresses):
                sysctl.enable_ipv6(outer.name)
            sysctl.stop_redirects(outer.name)
            sysctl.refuse_forged_sources(outer.name)
            self._veths.bring_up(outer)
            made: list[IPNetwork] = []
            if inside is not None:
                made = inside.set_up(inner, attachment.addresses, networks, _packed(GATEWAY_MAC))
            self._veths.lead(outer, attachment.addresses, mac, mtu)
            if inside is None:  # whoever moves it into a container does not tell the container its gateways
                self._veths.answer(outer, (GATEWAYS[each.version] for each in attachment.addresses))
        except OSError as error:
            raise refusal(f"the interface {holder} could not be made", error) from error
        return made

    def _lead(self, attachment: Attachment, outer: Outer, led: dict[IPAddress, int], mtu: int) -> None:
        """Restore the routes to a container that are missing or have another MTU."""
        if outer.is_up and led == dict.fromkeys(attachment.addresses, mtu):
            return
        self._veths.bring_up(outer)
        self._veths.lead(outer, attachment.addresses, _packed(attachment.mac), mtu)

    def _lead_if_there(
        self, attachment: Attachment, outer: Outer, led: dict[IPAddress, int], mtu: int
    ) -> bool:
        """Restore the routes to a container as _lead() does; return False if it has gone meanwhile."""
        try:
            self._lead(attachment, outer, led, mtu)
        except OSError:
            if self._veths.find(outer.name) is not None:
                raise
            return False
        return True

    def _undo(self, holder: Holder) -> None:
        """Remove everything of *holder* after a failure, which the caller reports."""
        with contextlib.suppress(OSError):
            self._veths.remove(outer_name(holder))
        self.attachments.drop(holder)
        with contextlib.suppress(HostError):
            self._save()

    # The record

    def _load(self) -> Attachments:
        try:
            data = records.read(self._record, RECORD_SIZE)
            return Attachments() if data is None else Attachments.decode(data, self._namespace)
        except ValueError:
            self.trouble = (
                f"{self._record} does not contain what an agent writes there, so nothing is known about the running "
                "containers: restart them"
            )
        except HostError as error:
            self.trouble = f"nothing is known about the running containers: {error}"
        return Attachments()

    def _save(self) -> None:
        """Write the record, or remove it if it would be empty."""
        if not self.attachments.by_holder and not self.attachments.addresses.taken:
            records.remove(self._record)
            return
        records.write(self._record, self.attachments.encode(self._namespace))


def _packed(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _check_inside(attachment: Attachment, inside: ContainerNamespace, mtu: int) -> None:
    holder = attachment.holder
    found = inside.link(holder.interface)
    if found is None:
        raise HostError(f"the container no longer has {holder.interface}: start it again")
    index, mac, has_mtu = found
    if mac != _packed(attachment.mac):
        raise HostError(
            f"{holder} has another Ethernet address than {attachment.mac}: start the container again"
        )
    missing = set(attachment.addresses) - inside.addresses(index)
    if missing:
        raise HostError(f"{holder} has lost {min(map(str, missing))}: start the container again")
    if has_mtu != mtu:
        inside.set_mtu(index, mtu)
