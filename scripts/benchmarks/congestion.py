"""Sets the congestion control of the streams of a measurement, from their first packet on."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.netns.topology import Namespace

# Route fields: what `ip -j route get` prints, and the keyword for it
PARTS = (("gateway", "via"), ("dev", "dev"), ("prefsrc", "src"))


@contextlib.contextmanager
def controlled(sender: Namespace, receiver: Namespace, address: str, congestion: str) -> Iterator[None]:
    """Put connections from one namespace to an *address* that leads to another under *congestion*, at both ends.

    Separate routes set it.  A namespace accepts only some controls as its default, and iperf3 sets the one of -C once
    it is connected: if the default is bbr, its pacing stays on, and slows the new control for as long as the connection
    lasts.
    """
    with contextlib.ExitStack() as stack:
        there = _route(sender, address)
        for namespace, other in ((sender, address), (receiver, there["prefsrc"])):
            route = _route(namespace, other)
            words = [word for part, word in PARTS if part in route for word in (word, route[part])]
            words += ["onlink"] if "gateway" in route else []  # the address may be the end of a tunnel itself
            for metrics in route.get("metrics", []):
                words += [str(word) for metric in metrics.items() for word in metric]
            namespace.run("ip", "route", "add", f"{other}/32", *words, "congctl", congestion)
            stack.callback(namespace.run, "ip", "route", "delete", f"{other}/32", check=False)
        yield


def _route(namespace: Namespace, address: str) -> dict[str, Any]:
    """Return the route that the kernel uses for *address*, as printed by ip."""
    found: list[dict[str, Any]] = json.loads(namespace.run("ip", "-j", "route", "get", address))
    return found[0]
