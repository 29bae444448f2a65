"""What should pass, and what should be masqueraded, on one host: a value, and the rules that follow from it alone."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import TYPE_CHECKING, TypeAlias

from overlay.linux import SOURCE_NAT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from overlay.host.plan import IPNetwork

# Specification: kube-proxy's mark for what it masquerades itself
KUBE_PROXY_MARK = 0x4000
MULTICAST = {4: ip_network("224.0.0.0/4"), 6: ip_network("ff00::/8")}

# Ours
BEFORE, AFTER = SOURCE_NAT - 5, SOURCE_NAT + 5  # around the priority of everybody else
NEARLY_EVERYTHING = 1  # prefixes of at most this length are not behind a host, but the Internet

_FAMILIES = {4: "ip", 6: "ip6"}

Words: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the host of *interface* should let pass and masquerade, if anything.

    *subnets* are behind this host, *prefixes* what the overlay carries.  With *masquerade*, packets that leave the
    overlay get an address of this host; with *forward*, packets from or for *subnets* pass filters that would drop
    them.  *published* are chains that map ports of the host to containers.
    """

    interface: str
    subnets: tuple[IPNetwork, ...] = ()
    prefixes: tuple[IPNetwork, ...] = ()
    masquerade: bool = False
    forward: bool = False
    published: str = ""

    @property
    def tables(self) -> dict[str, str]:
        """Our tables of the family inet, by the end of their names: chains in nft's language, empty for none."""
        return {"nat": self.table, "ports": self.published}

    def inside(self, version: int) -> list[IPNetwork]:
        """Return the networks of IP *version* that belong to the overlay, each address once, without those that are
        nearly everything.
        """
        return _collapsed((*self.subnets, *self.prefixes), version)

    def behind(self, version: int) -> list[IPNetwork]:
        """Return the networks of IP *version* that are behind this host, each address once."""
        return _collapsed(self.subnets, version)

    @property
    def table(self) -> str:
        """The chains of our table of the family inet, in nft's language; empty if nothing is masqueraded.

        Packets from here into the tunnel keep their source, which peers check, even if others masquerade them: our
        table translates them to themselves first, and only one chain translates a packet.  Packets to the outside are
        masqueraded last, so that rules of others that know a better address come first.
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
        """Return the rules for what should pass in IP *version*; none unless it should be forwarded."""
        if not self.forward:
            return []
        found = [Accept(enters=self.interface, leaves=self.interface)]  # of a hub, between its peers
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
    """A rule that lets packets pass; None is a condition that does not apply.

    With *is_known*, only packets of connections that were accepted before, or that somebody translated on purpose, as
    for a published port.
    """

    source: IPNetwork | None = None
    destination: IPNetwork | None = None
    enters: str | None = None
    leaves: str | None = None
    is_known: bool = False

    def iptables(self) -> Words:
        """Return it in the form of iptables, without the chain."""
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
        """Yield it in the form of nft, in which the condition on connections takes two rules."""
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
