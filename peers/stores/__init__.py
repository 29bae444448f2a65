"""Where the peer table comes from.  A store is opened by name; adding one is one module and one row here.

What a store needs is imported when one is opened: most hosts read a file.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from peers.encapsulation import PORTS, WIREGUARD
from peers.errors import StoreError
from peers.stores.file import FileStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peers.stores.etcd.location import EtcdLocation
    from peers.stores.store import Store

FILE = "file"  # the store of a path alone
NAME = re.compile(r"([a-z][a-z0-9+.-]*):")  # a store in front of its place, as a scheme in a URI (RFC 3986)


@dataclass(frozen=True, slots=True)
class StoreKind:
    """What is known of a store: *open* takes a place in the store's own words, and reads nothing yet.

    *check* raises StoreError for a place that cannot be one.  *absolute* returns it for a reader in another directory,
    and raises OSError where the current one is gone.  *port_remedy* takes a place and an encapsulation, and returns
    what to write, and where, so that every host has another port for that.  *editor* returns what sections are edited
    with, as the end of a sentence, where that is not any editor.
    """

    open: Callable[[str], Store]
    port_remedy: Callable[[str, str], str]
    check: Callable[[str], object] = lambda _: None
    absolute: Callable[[str], str] = lambda place: place
    editor: Callable[[str], str] = lambda _: ""


def _etcd(scheme: str) -> StoreKind:
    def locate(place: str) -> EtcdLocation:
        from peers.stores.etcd.layout import check_network
        from peers.stores.etcd.location import EtcdLocation

        location = EtcdLocation.parse(scheme, place, ("admin-key",))
        check_network(location.path, location)
        return location

    def open_store(place: str) -> Store:
        from peers.stores.etcd.store import EtcdStore

        return EtcdStore(locate(place))

    def make_absolute(place: str) -> str:
        return locate(place).absolute().place

    def name_editor(place: str) -> str:
        return f" with `overlay network edit --peers {shlex.quote(f'{scheme}:{place}')}`"

    def port_remedy(place: str, encapsulation: str) -> str:
        return f"another {PORTS[encapsulation].key} under [network]{name_editor(place)}"

    return StoreKind(open_store, port_remedy, locate, make_absolute, name_editor)


def _flannel(scheme: str) -> StoreKind:
    def locate(place: str) -> EtcdLocation:
        from peers.stores.etcd.location import EtcdLocation
        from peers.stores.flannel.lease import locate

        return locate(
            EtcdLocation.parse(scheme, place, example=f"{scheme}://10.0.0.5:2379/coreos.com/network")
        )

    def open_store(place: str) -> Store:
        from peers.stores.flannel.store import FlannelStore

        return FlannelStore(locate(place))

    def make_absolute(place: str) -> str:
        return locate(place).absolute().place

    def port_remedy(place: str, encapsulation: str) -> str:
        where = f"flannel's config, /{locate(place).path}/config in etcd"
        if encapsulation == WIREGUARD:
            return f"another Backend.ListenPort into {where}, if Backend.Type there is wireguard"
        return f"another Backend.Port into {where}, and restart flanneld on its hosts"

    return StoreKind(open_store, port_remedy, locate, make_absolute)


def _file() -> StoreKind:
    def port_remedy(_: str, encapsulation: str) -> str:
        return f"another {PORTS[encapsulation].key} under [network] into the peers file of every host"

    return StoreKind(
        lambda place: FileStore(Path(place)), port_remedy, absolute=lambda place: str(Path(place).absolute())
    )


STORES: Mapping[str, StoreKind] = {
    FILE: _file(),
    "etcd": _etcd("etcd"),
    "etcds": _etcd("etcds"),
    "flannel+etcd": _flannel("flannel+etcd"),
    "flannel+etcds": _flannel("flannel+etcds"),
}


@dataclass(frozen=True, slots=True)
class Location:
    """Where a peer table is: the name of a *store*, and a *place* in its own words.

    Prints as ``STORE:PLACE``, but a file prints as its path alone, so that errors name it as other programs do.
    """

    store: str
    place: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``STORE:PLACE`` or a path.  Raises StoreError for a store that is not known, and for
        a place that it cannot have.

        A path of something that exists is that path, whatever its name looks like.
        """
        found = NAME.match(text)
        if found is None or os.path.lexists(text):
            return cls(FILE, text)
        if found[1] not in STORES:
            raise StoreError(
                f"there is no store named {found[1]}; accepted are the path of a file and "
                f"{', '.join(f'{name}:' for name in STORES)} in front of a place (a file of that name is ./{text})"
            )
        STORES[found[1]].check(text[found.end() :])
        return cls(found[1], text[found.end() :])

    def absolute(self) -> Location:
        """Return the location for a reader in another directory; as it is where the current directory is gone."""
        try:
            return Location(self.store, STORES[self.store].absolute(self.place))
        except OSError:
            return self

    def open(self) -> Store:
        """Return the store at this location; nothing is read yet."""
        return STORES[self.store].open(self.place)

    def port_remedy(self, encapsulation: str) -> str:
        """Return what to write so that every host has another UDP port for *encapsulation*, for after "write"."""
        return STORES[self.store].port_remedy(self.place, encapsulation)

    def editor(self) -> str:
        """Return what sections are edited with, as the end of a sentence; empty where any editor does."""
        return STORES[self.store].editor(self.place)

    def is_missing_file(self) -> bool:
        """Return whether this is a file, and nothing has that path."""
        return self.store == FILE and not os.path.lexists(self.place)

    def __str__(self) -> str:
        return str(Path(self.place)) if self.store == FILE else f"{self.store}:{self.place}"
