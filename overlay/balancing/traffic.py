"""The counters and rates of services and servers, by their names."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.balancing.counting import Counts, Rate, rate

if TYPE_CHECKING:
    from overlay.balancing.counting import Counting
    from overlay.link.service_messages import ServerCounters, ServiceTotals
    from overlay.services.instructions import Numbers


@dataclass(frozen=True, slots=True)
class Traffic:
    """Counters and rates; None means unknown.  *numbers* are the forwarder's numbers of services and servers."""

    numbers: Numbers
    now: Counts | None
    before: Counts | None

    @property
    def seconds(self) -> float | None:
        """The time over which rates are computed; None if there are no rates."""
        return None if self.now is None or self.before is None else self.now.at - self.before.at

    @property
    def drops(self) -> dict[str, int] | None:
        """Dropped packets to virtual addresses that belong to no service, by reason."""
        return None if self.now is None else self.now.drops

    def server(self, service: str, key: str) -> tuple[ServerCounters | None, Rate | None]:
        """Return the counters of the server *key*, and its rate."""
        place = self.numbers.service(service), self.numbers.server(service, key)
        now = None if self.now is None else self.now.servers.get(place)
        before = None if self.before is None else self.before.servers.get(place)
        return now, rate(now, before, self.seconds or 1.0)

    def service(self, name: str) -> tuple[ServiceTotals | None, Rate | None]:
        """Return the counters of the service *name*, and its rate."""
        number = self.numbers.service(name)
        now = None if self.now is None else self.now.services.get(number)
        before = None if self.before is None else self.before.services.get(number)
        return now, rate(now, before, self.seconds or 1.0)


async def measure(counting: Counting, numbers: Numbers) -> Traffic:
    """Ask the forwarder for its counters, and compare them with those of a few seconds before."""
    now = await counting.ask()
    return Traffic(numbers, now, None if now is None else counting.before(now))


def tell_rate(rate: Rate | None) -> dict[str, float | None]:
    """Return *rate* as values for JSON; null means unknown."""
    return {
        f"{each.name}_per_s": None if rate is None else round(getattr(rate, each.name), 3)
        for each in dataclasses.fields(Rate)
    }
