"""A search for flows in the table, a piece at a time, so that packets go on in between.

A question is answered for a part of a large table at most; the answer says where the next question goes on.  Flows keep
their place in the table, so a search to the end finds each flow that is there all the time once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from overlay.forwarding.services.flows import SHARD
from overlay.link.service_messages import FlowRow
from overlay.services.states import State
from overlay.wire.flow_key import parse_flow_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from overlay.forwarding.services.flows import FlowTable, Shard
    from overlay.link.service_messages import FlowFilter

# Ours
STEP = 256  # places looked at between packets, in less than 0.1 ms
STEP_ROWS = 25  # flows found between packets; a row takes three microseconds
MOST_PLACES = 65_536  # looked at for one question

_TCP = 6  # the protocol that is not part of a key


def search(
    flows: FlowTable, wanted: FlowFilter, numbers: Mapping[int, int], at: int, most: int, now: float
) -> Iterator[tuple[list[FlowRow], bool, int | None]]:
    """Yield flows that are *wanted*, at most *most* together, from the place *at* on, some in each step.

    *numbers* are those of the servers by index.  Behind the flows of a step is whether it is the last one, and then the
    place to go on at, None where the table ends.
    """
    finder = _Finder(flows, wanted, numbers, now)
    place, row = divmod(at, SHARD)
    budget = MOST_PLACES
    while most > 0 and budget > 0 and place < len(flows.shards):
        shard = flows.shards[place]
        used = len(shard.keys)
        if row >= used:
            place, row = place + 1, 0
            continue
        end = min(row + STEP, used)
        found, after = finder.find(shard, row, end, min(most, STEP_ROWS))
        most -= len(found)
        budget -= after - row
        row = after
        yield found, False, None
    yield [], True, place * SHARD + row if place < len(flows.shards) else None


class _Finder:
    """What is looked for in shards of *flows*."""

    def __init__(self, flows: FlowTable, wanted: FlowFilter, numbers: Mapping[int, int], now: float) -> None:
        states = wanted.states or [state for state in State if state is not State.NONE]
        self._states = np.array([state in states and state is not State.NONE for state in State])
        self._index: int | None = None
        if wanted.server is not None:
            self._index = next((index for index, each in numbers.items() if each == wanted.server), -1)
        self._numbers, self._timeouts, self._now = numbers, flows.timeouts, now
        self._is_meant = _matcher(wanted)

    def find(self, shard: Shard, first: int, end: int, most: int) -> tuple[list[FlowRow], int]:
        """Return at most *most* flows of the rows from *first* to before *end*, and the row to go on at."""
        states = np.frombuffer(shard.state, np.uint8)[first:end]
        is_meant = self._states[states]
        if self._index is not None:
            is_meant &= np.frombuffer(shard.server, np.uint16)[first:end] == self._index
        found: list[FlowRow] = []
        for row in (np.flatnonzero(is_meant) + first).tolist():
            key = shard.keys[row]
            if not self._is_meant(key):
                continue
            state = shard.state[row]
            idle = max(0.0, self._now - shard.seen[row])
            left = max(0.0, self._timeouts[state] - idle)
            found.append(flow_row(key, state, self._numbers.get(shard.server[row]), idle, left))
            if len(found) == most:
                return found, row + 1
        return found, end


def flow_row(key: bytes, state: int, server: int | None, idle: float, left: float) -> FlowRow:
    """Return the answer for the flow that has *key*."""
    return FlowRow(*parse_flow_key(key), state, server, idle, left)


def _protocol(key: bytes) -> int:
    return _TCP if len(key) in {12, 36} else key[-1]


def _matcher(wanted: FlowFilter) -> Callable[[bytes], bool]:
    """Return a predicate on keys: whether the flow is *wanted*, whatever its state and server."""
    tests: list[Callable[[bytes], bool]] = []
    if wanted.client is not None:
        tests.append(_client_test(wanted.client, wanted.prefix))
    if wanted.protocol is not None:
        protocol = wanted.protocol
        tests.append(lambda key: _protocol(key) == protocol)
    if wanted.port is not None:
        port = wanted.port.to_bytes(2, "big")
        tests.append(lambda key: (key[10:12] if len(key) < 32 else key[34:36]) == port)
    if len(tests) == 1:
        return tests[0]
    return lambda key: all(test(key) for test in tests)


def _client_test(client: bytes, prefix: int) -> Callable[[bytes], bool]:
    size, is_v4 = len(client), len(client) == 4
    if prefix % 8 == 0:
        head = client[: prefix // 8]
        return lambda key: key.startswith(head) and (len(key) < 32) is is_v4
    shift = max(0, size * 8 - prefix)
    network = int.from_bytes(client, "big") >> shift
    return lambda key: (len(key) < 32) is is_v4 and int.from_bytes(key[:size], "big") >> shift == network
