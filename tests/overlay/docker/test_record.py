"""The driver's record: round trips, other boots, and invalid bytes."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.docker.calls import NewNetwork, Published
from overlay.docker.record import RECORD_SIZE, DockerEndpoint, Endpoints, Networks

IDS = st.from_regex(r"[0-9a-f]{1,64}", fullmatch=True)
POOLS = st.sampled_from((ip_network("10.244.1.0/24"), ip_network("fd00::/64")))
MADE_NETWORKS = st.dictionaries(
    IDS,
    st.tuples(st.lists(POOLS, max_size=2), st.none() | st.integers(576, 65535), st.booleans()),
    max_size=4,
).map(
    lambda rows: Networks(
        {each: NewNetwork(each, tuple(pools), mtu, inside) for each, (pools, mtu, inside) in rows.items()}
    )
)
PORTS = st.builds(
    Published,
    st.sampled_from(("tcp", "udp", "sctp")),
    st.integers(1, 65535),
    st.integers(1, 65535),
    st.sampled_from(("", "192.0.2.1", "2001:db8::1")),
)
MADE_ENDPOINTS = st.dictionaries(
    IDS,
    st.builds(
        DockerEndpoint,
        IDS,
        st.lists(st.ip_addresses(), max_size=2).map(tuple),
        st.none() | st.just("02:42:0a:60:07:05"),
        st.lists(PORTS, max_size=3).map(tuple),
    ),
    max_size=4,
).map(Endpoints)


@given(MADE_NETWORKS)
def test_networks_come_back(networks):
    assert Networks.decode(networks.encode()) == networks


@given(MADE_ENDPOINTS)
def test_endpoints_come_back_in_the_same_boot_and_no_other(endpoints):
    data = endpoints.encode("boot/1")

    assert Endpoints.decode(data, "boot/1") == endpoints
    assert Endpoints.decode(data, "boot/2") == Endpoints()


@given(
    st.binary(max_size=200)
    | MADE_ENDPOINTS.map(lambda made: made.encode("b"))
    | MADE_NETWORKS.map(Networks.encode),
    st.data(),
)
def test_any_bytes_are_read_or_refused(data, draw):
    if data:
        at = draw.draw(st.integers(0, len(data) - 1))
        data = data[:at] + draw.draw(st.binary(max_size=3)) + data[at + 1 :]
    for read in (Networks.decode, lambda given: Endpoints.decode(given, "b")):
        try:
            read(data)
        except ValueError:
            continue


@pytest.mark.parametrize(
    "data",
    [
        b" " * (RECORD_SIZE + 1),
        b"[" * 100_000,
        b'{"networks":[["x",["10.0.0.0/8"],true,false]]}',
        b'{"networks":[["../x",[],null,false]]}',
        b'{"networks":[["x",[7],null,false]]}',
    ],
)
def test_what_is_no_record_is_refused(data):
    with pytest.raises(ValueError, match=r"."):
        Networks.decode(data)


@pytest.mark.parametrize(
    "port", ['["icmp",1,1,""]', '["tcp",0,1,""]', '["tcp",true,1,""]', '["tcp",1,1,"x\\n"]', "[]"]
)
def test_port_that_nobody_wrote_is_refused(port):
    """It would end up in a script for nft."""
    data = f'{{"boot":"b","endpoints":[["1","2",["10.0.0.1"],null,[{port}]]]}}'.encode()

    with pytest.raises(ValueError, match=r"."):
        Endpoints.decode(data, "b")


def test_what_is_remembered_is_of_one_boot():
    record = Endpoints({"1": DockerEndpoint("2", (ip_address("10.0.0.1"),))})

    assert Endpoints.decode(record.encode("a"), "a").by_id == record.by_id
