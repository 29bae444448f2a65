"""Which flows are moved: those of one server and one IP version; test_vip.py sends packets."""

from __future__ import annotations

import pytest

from overlay.forwarding.services.flows import SHARD, FlowTable
from overlay.forwarding.services.losing import give_to
from overlay.services.states import State, timeouts
from overlay.wire.flow_key import flow_key


def keys(version, count):
    size = 4 if version == 4 else 16
    return [
        flow_key(protocol, number.to_bytes(size, "big"), 5000, bytes(size), 80)
        for number in range(count)
        for protocol in (6, 17)
    ]


@pytest.mark.parametrize("version", [4, 6])
def test_only_flows_of_the_server_and_the_version_are_given_away(version):
    flows = FlowTable(4 * SHARD, timeouts(900.0, 120.0, 300.0))
    flows.make_room(3)
    every = {each: keys(each, 200) for each in (4, 6)}
    for each in every.values():
        for place, key in enumerate(each):
            flows.add(key, State.ESTABLISHED, place % 2, 0.0)
    gone = next(iter(every[version]))
    flows.remove(flows.find(gone)[0], gone)

    for _ in give_to(flows, 0, version, 2):
        pass

    servers = {
        each: [found[0].server[found[1]] for key in every[each] if (found := flows.find(key))]
        for each in (4, 6)
    }
    other = 10 - version
    assert servers[other] == [0, 1] * 200
    assert servers[version] == [1] + [2, 1] * 199
    assert flows.loads.active == [200, 400, 199]
