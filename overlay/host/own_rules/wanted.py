"""What is to pass, and to be masqueraded, on one host: a value, and the rules of it that depend on nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import TYPE_CHECKING, TypeAlias

from overlay.linux import SOURCE_NAT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from overlay.host.plan import IPNetwork

# Specification: kube-proxy's mark of what it masquerades itself
KUBE_PROXY_MARK = 0x4000
MULTICAST = {4: ip_network("224.0.0.0/4"), 6: ip_network("ff00::/8")}

# Ours
BEFORE, AFTER = SOURCE_NAT - 5, SOURCE_NAT + 5  # on either side of where everybody else masquerades
NEARLY_EVERYTHING = 1  # prefixes of this length or shorter are no places behind a host, but the world

_FAMILIES = {4: "ip", 6: "ip6"}

Words: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the host of *interface* is to let pass and to masquerade, if anything.

    *subnets* are behind this host, *prefixes* what the overlay carries.  With *masquerade* what leaves the overlay gets
    an address of this host; with *forward* what is from or for *subnets* passes filters that would drop it.
    *published* are chains that lead ports of the host to containers.
    """

    interface: str
    subnets: tuple[IPNetwork, ...] = ()
    prefixes: tuple[IPNetwork, ...] = ()
    masquerade: bool = False
    forward: bool = False
    published: str = ""

    @property
    def tables(self) -> dict[str, str]:
        """Our tables of the family inet, by the end of their names: chains as nft reads them,
        empty for none.
        """
        return {"nat": self.table, "ports": self.published}

    def inside(self, version: int) -> list[IPNetwork]:
        """Return what of IP *version* is of the overlay, each address once; nothing that is nearly everything."""
        return _collapsed((*self.subnets, *self.prefixes), version)

    def behind(self, version: int) -> list[IPNetwork]:
        """Return what of IP *version* is behind this host, each address once."""
        return _collapsed(self.subnets, version)

    @property
    def table(self) -> str:
        """The chains of our table of the family inet, as nft reads them; empty for nothing to masquerade.

        What goes from here into the tunnel keeps its source, which peers check, whoever else masquerades it: it is
        translated to itself first, and a packet is translated by one chain only.  What goes outside is masqueraded
        last, so that others who know a better address for it come first.
        """
        versions = [each for each in (4, 6) if self.inside(each)]
        if not self.masquerade or not versions:
            return ""
        marked = f"\t\tmeta mark & {KUBE_PROXY_MARK:#x} == {KUBE_PROXY_MARK:#x} return\n"
        kept, masqueraded = "", ""
        for version in versions:
            family = _FAMILIES[version]
            behind, inside = self.behind(version), self.inside(version)
            if behind:
                same = ", ".join(f"{each} : {each}" for each in behind)
                kept += f'\t\toifname "{self.interface}" snat {family} prefix to {family} saddr map {{ {same} }}\n'
            passed = ", ".join(map(str, (*inside, MULTICAST[version])))
            masqueraded += f"\t\t{family} daddr {{ {passed} }} return\n"
            masqueraded += f"\t\t{family} saddr {{ {', '.join(map(str, inside))} }} masquerade fully-random\n"
        past = f'\t\toifname {{ "lo", "{self.interface}" }} return\n'
        return _chain("within", BEFORE, marked + kept) + _chain("outside", AFTER, marked + past + masqueraded)

    def accepts(self, version: int) -> list[Accept]:
        """Return what of IP *version* is to pass; nothing unless it is to be forwarded."""
        if not self.forward:
            return []
        found = [Accept(enters=self.interface, leaves=self.interface)]  # a hub's, between its peers
        for subnet in _everything(self.subnets, version):  # this host is the way out of the overlay
            found += self._through(subnet)
        for subnet in self.behind(version):
            found += [
                *self._through(subnet),
                Accept(source=subnet, destination=subnet),
                Accept(destination=subnet, is_known=True),
            ]
            if self.masquerade:
                found.append(Accept(source=subnet))
        return found

    def _through(self, subnet: IPNetwork) -> list[Accept]:
        return [
            Accept(enters=self.interface, destination=subnet),
            Accept(leaves=self.interface, source=subnet),
        ]


@dataclass(frozen=True, slots=True)
class Accept:
    """A rule that lets packets pass; what is None does not matter.

    With *is_known* only what belongs to a connection that was let pass before, or that somebody translated on purpose,
    as for a published port.
    """

    source: IPNetwork | None = None
    destination: IPNetwork | None = None
    enters: str | None = None
    leaves: str | None = None
    is_known: bool = False

    def iptables(self) -> Words:
        """Return it as iptables reads it, without the chain."""
        return (
            tuple(
                word
                for option, value in (
                    ("-s", self.source),
                    ("-d", self.destination),
                    ("-i", self.enters),
                    ("-o", self.leaves),
                )
                if value is not None
                for word in (option, str(value))
            )
            + (("-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED,DNAT") if self.is_known else ())
            + ("-j", "ACCEPT")
        )

    def nft(self) -> Iterator[str]:
        """Yield it as nft reads it; what is said of connections is two rules there."""
        words = []
        for key, address in (("saddr", self.source), ("daddr", self.destination)):
            if address is not None:
                words.append(f"{_FAMILIES[address.version]} {key} {address}")
        words += [
            f'{key} "{name}"' for key, name in (("iifname", self.enters), ("oifname", self.leaves)) if name
        ]
        text = " ".join(words)
        if not self.is_known:
            yield f"{text} accept"
            return
        yield f"{text} ct state established,related accept"
        yield f"{text} ct status dnat accept"


def _chain(name: str, priority: int, rules: str) -> str:
    return (
        f"\tchain {name} {{\n\t\ttype nat hook postrouting priority {priority}; policy accept;\n{rules}\t}}\n"
    )


def _collapsed(prefixes: Iterable[IPNetwork], version: int) -> list[IPNetwork]:
    if version == 4:
        return list(
            collapse_addresses(each for each in prefixes if isinstance(each, IPv4Network) and _is_place(each))
        )
    return list(
        collapse_addresses(each for each in prefixes if isinstance(each, IPv6Network) and _is_place(each))
    )


def _is_place(prefix: IPNetwork) -> bool:
    return prefix.prefixlen > NEARLY_EVERYTHING


def _everything(subnets: Iterable[IPNetwork], version: int) -> list[IPNetwork]:
    return [each for each in subnets if each.version == version and not _is_place(each)]
