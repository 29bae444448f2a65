"""Opening a receive that consists of transport messages of one keypair: all in place, with their nonces in between."""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag

from overlay.forwarding.offload.flow import HEADER_SIZE
from overlay.wire.messages import TAG_SIZE, TRANSPORT_HEADER, TYPE_TRANSPORT

if TYPE_CHECKING:
    from overlay.forwarding.keypair import Keypair
    from overlay.forwarding.peer import LivePeer
    from overlay.forwarding.upcalls import Upcalls

# Ours
VIEWS = 256  # (datagram size, count) pairs remembered before starting over
# datagrams in all of them: each costs some 600 bytes of views, before anybody is authenticated
VIEW_ROWS = 16_384


class Opening:
    """Opens the messages at the start of the buffer of *view*, and counts those that are refused."""

    def __init__(self, core: Upcalls, view: memoryview) -> None:
        self._core, self._view = core, view
        self._views: dict[tuple[int, int], tuple[list[memoryview], list[memoryview], list[memoryview]]] = {}
        self._view_rows = 0  # datagrams in all of them

    def open(self, keypair: Keypair[LivePeer], counters: list[int], stride: int, last: int) -> list[int]:
        """Open messages of *stride* bytes, the last of *last* bytes, whose *counters* are preceded by zeros; return
        the rows of those that are authentic and new.
        """
        nonces, sealed, plain = self._views_of(stride, len(counters))
        end = (len(counters) - 1) * stride
        sealed[-1] = self._view[end + HEADER_SIZE : end + last]
        plain[-1] = self._view[end + HEADER_SIZE : end + last - TAG_SIZE]
        opened: list[int] = []
        try:
            opened.extend(map(keypair.open, nonces, sealed, repeat(None), plain))
            good = list(range(len(counters)))
        except InvalidTag:
            # Messages before the forged one are in `opened`; the rest are handled one by one, because an attacker may
            # send many.
            good = list(range(len(opened)))
            self._refuse(keypair, counters[len(opened)])
            for row in range(len(opened) + 1, len(counters)):
                try:
                    keypair.open(nonces[row], sealed[row], None, plain[row])
                    good.append(row)
                except InvalidTag:
                    self._refuse(keypair, counters[row])
        return _fresh(keypair, good, counters, plain) if good else good

    def _refuse(self, keypair: Keypair[LivePeer], counter: int) -> None:
        header = header_of(keypair.local_index, counter)
        self._core.refused(keypair.peer, "transport_auth", 1, None, header)

    def _views_of(
        self, stride: int, count: int
    ) -> tuple[list[memoryview], list[memoryview], list[memoryview]]:
        """Return views of nonces, sealed payloads and plaintexts."""
        views = self._views.get((stride, count))
        if views is None:
            if len(self._views) >= VIEWS or self._view_rows + count > VIEW_ROWS:
                self._views.clear()
                self._view_rows = 0
            self._view_rows += count
            starts, view = range(0, count * stride, stride), self._view
            views = self._views[stride, count] = (
                [view[at + 4 : at + HEADER_SIZE] for at in starts],
                [view[at + HEADER_SIZE : at + stride] for at in starts],
                [view[at + HEADER_SIZE : at + stride - TAG_SIZE] for at in starts],
            )
        return views


def _fresh(
    keypair: Keypair[LivePeer], rows: list[int], counters: list[int], plain: list[memoryview]
) -> list[int]:
    """Return the rows whose counters are new, and mark them."""
    window, first = keypair.window, counters[rows[0]]
    total = len(rows)
    if (
        total == len(counters)
        and counters == list(range(first, first + total))
        and window.accept_run(first, total)
    ):
        return rows
    fresh: list[int] = []
    for row in rows:
        if window.accept(counters[row]):
            fresh.append(row)
        else:
            keypair.peer.drops.add("replay", 1, plain[row])
    return fresh


def header_of(index: int, counter: int) -> bytes:
    """Return the header of a transport message, of which the rest is lost where it could not be opened in place."""
    return TRANSPORT_HEADER.pack(TYPE_TRANSPORT, index, counter)
