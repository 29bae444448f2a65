from __future__ import annotations

from ipaddress import ip_address

import pytest

from overlay.forwarding.peer import LivePeer
from overlay.forwarding.services import permits as permits_of
from overlay.forwarding.services.permits import Permit, Permits
from tests import packets
from tests.overlay.forwarding.services.conftest import CLIENTS, VIPS

TCP, UDP, ICMP, ICMPV6 = packets.TCP, packets.UDP, 1, 58
DIRECTOR, OTHER = LivePeer(1), LivePeer(2)
both = pytest.mark.parametrize("version", [4, 6])


def vip(version):
    return ip_address(VIPS[version]).packed


def question(version, protocol=packets.udp, *, to=80, client=1, **ip):
    """Return what a client sends to the service, from a port that is not the service's."""
    ends = {"source": CLIENTS[version].format(client), "destination": VIPS[version]}
    return protocol(b"question", version=version, ports=(5000, to), **ends, **ip)


def answer(version, protocol=packets.udp, *, port=80, client=1):
    """Return what a server sends to a client on behalf of the service."""
    ends = {"source": VIPS[version], "destination": CLIENTS[version].format(client)}
    return protocol(b"answer", version=version, ports=(port, 5000), **ends)


def without_ports(version, protocol, data=bytes(16)):
    build = packets.ipv4 if version == 4 else packets.ipv6
    return build(data, source=CLIENTS[version].format(1), destination=VIPS[version], protocol=protocol)


def later_fragment(version, protocol=UDP):
    if version == 4:
        ends = {"source": CLIENTS[4].format(1), "destination": VIPS[4]}
        return packets.ipv4(bytes(16), protocol=protocol, fragment=3, **ends)
    return without_ports(6, 44, bytes([protocol, 0, 0, 24]) + bytes(4) + bytes(16))


def permitted(*permits, version=4, is_source=False):
    made = Permits()
    made.set((vip(version), is_source, permit) for permit in permits)
    return made


def permit(peers=(1,), protocols=(UDP,), ports=((80, 80),), *, returns=False):
    return Permit(None if peers is None else frozenset(peers), frozenset(protocols), tuple(ports), returns)


@both
def test_nobody_may_send_what_is_not_its_own_without_a_permit(version):
    for made in (Permits(), permitted(version=version)):
        assert not made.admits(DIRECTOR, question(version))
        assert not made.admits(DIRECTOR, answer(version))


@both
@pytest.mark.parametrize(
    ("peers", "expected"), [((1,), [True, False]), ((1, 2), [True] * 2), (None, [True] * 2)]
)
def test_a_permit_is_for_the_peers_that_it_names_or_for_all(version, peers, expected):
    made = permitted(permit(peers), version=version)

    assert [made.admits(peer, question(version)) for peer in (DIRECTOR, OTHER)] == expected


@both
@pytest.mark.parametrize("protocol", [packets.udp, packets.tcp])
def test_a_permit_is_for_its_protocols_alone(version, protocol):
    other = packets.tcp if protocol is packets.udp else packets.udp
    made = permitted(permit(protocols=[UDP if protocol is packets.udp else TCP]), version=version)

    assert made.admits(DIRECTOR, question(version, protocol))
    assert not made.admits(DIRECTOR, question(version, other))


@both
def test_a_permit_reaches_from_the_first_port_of_each_range_to_the_last(version):
    made = permitted(permit(ports=[(80, 82), (443, 443)]), version=version)

    admitted = [port for port in range(500) if made.admits(DIRECTOR, question(version, to=port))]

    assert admitted == [80, 81, 82, 443]


@both
def test_a_permit_without_ports_is_for_all(version):
    made = permitted(permit(ports=()), version=version)

    assert all(made.admits(DIRECTOR, question(version, to=port)) for port in (0, 80, 65_535))


@both
def test_a_permit_of_another_address_permits_nothing(version):
    made = Permits()
    made.set([(vip(10 - version), False, permit()), (b"\1" + vip(version)[1:], False, permit())])

    assert not made.admits(DIRECTOR, question(version))


@both
def test_questions_go_by_the_port_that_they_are_for_and_answers_by_the_one_they_are_from(version):
    questions, answers = (permitted(permit(), version=version, is_source=way) for way in (False, True))

    assert questions.admits(DIRECTOR, question(version))
    assert not questions.admits(DIRECTOR, question(version, to=5000))
    assert not questions.admits(DIRECTOR, answer(version))
    assert answers.admits(DIRECTOR, answer(version))
    assert not answers.admits(DIRECTOR, answer(version, port=5000))
    assert not answers.admits(DIRECTOR, question(version))


@both
def test_one_permit_of_several_is_enough(version):
    made = permitted(permit([2]), permit(ports=[(1, 2)]), permit(), version=version)

    assert made.admits(DIRECTOR, question(version))
    assert made.admits(OTHER, question(version))
    assert not made.admits(OTHER, question(version, to=1))


@both
@pytest.mark.parametrize("protocol", [ICMP, ICMPV6])
def test_icmp_to_the_service_is_permitted_with_whatever_protocol(version, protocol):
    made = permitted(permit(), version=version)

    assert made.admits(DIRECTOR, without_ports(version, protocol))
    assert not made.admits(OTHER, without_ports(version, protocol))


@both
def test_later_fragments_are_permitted_by_their_protocol_for_they_have_no_ports(version):
    made = permitted(permit(), version=version)

    assert made.admits(DIRECTOR, later_fragment(version))
    assert not made.admits(DIRECTOR, later_fragment(version, TCP))
    assert not made.admits(OTHER, later_fragment(version))


@both
def test_the_first_fragment_is_permitted_by_its_ports(version):
    if version == 4:
        first, other = (question(4, to=port, fragment=0x2000) for port in (80, 81))
    else:
        ports = (bytes([19, 136, 0, port]) + bytes(12) for port in (80, 81))
        first, other = (without_ports(6, 44, bytes([UDP, 0, 0, 1]) + bytes(4) + data) for data in ports)
    made = permitted(permit(), version=version)

    assert made.admits(DIRECTOR, first)
    assert not made.admits(DIRECTOR, other)


@both
def test_a_packet_that_ends_inside_its_ports_has_the_port_of_no_range(version):
    made = permitted(permit(ports=[(0, 65_535)]), version=version)

    assert made.admits(DIRECTOR, without_ports(version, UDP, bytes(4)))
    for size in (1, 2, 3):
        assert not made.admits(DIRECTOR, without_ports(version, UDP, bytes(size)))


@both
def test_a_packet_that_ends_inside_its_headers_is_permitted_to_nobody(version):
    made = permitted(permit(ports=()), version=version)

    assert not made.admits(DIRECTOR, without_ports(version, UDP, b""))


@both
def test_other_permits_take_the_place_of_all_that_were_there(version):
    made = permitted(permit(returns=True), version=version)
    made.admits(DIRECTOR, question(version))

    made.set([(vip(version), True, permit())])

    assert not made.admits(DIRECTOR, question(version))
    assert made.admits(DIRECTOR, answer(version))
    assert made.director_of(answer(version)) is None


# The return path


@both
def test_answers_go_back_to_the_director_that_the_client_s_last_packet_came_from(version):
    made = permitted(permit([1, 2], returns=True), version=version)

    made.admits(DIRECTOR, question(version, client=1))
    made.admits(DIRECTOR, question(version, client=2))
    made.admits(OTHER, question(version, client=2))

    assert [made.director_of(answer(version, client=client)) for client in (1, 2)] == [DIRECTOR, OTHER]


@both
def test_answers_to_clients_that_are_not_known_go_back_to_the_director_that_sent_last(version):
    made = permitted(permit([1, 2], returns=True), version=version)
    assert made.director_of(answer(version)) is None

    for director in (OTHER, DIRECTOR):
        made.admits(director, question(version, client=1))

        assert made.director_of(answer(version, client=2)) is director


@both
def test_answers_of_one_service_do_not_go_back_as_those_of_another(version):
    other = ip_address("192.0.2.101" if version == 4 else "2001:db8::101")
    made = Permits()
    made.set([(each, False, permit([1, 2], returns=True)) for each in (vip(version), other.packed)])
    ends = CLIENTS[version].format(1), str(other)

    made.admits(DIRECTOR, question(version))
    assert made.director_of(packets.udp(version=version, source=ends[1], destination=ends[0])) is None

    made.admits(OTHER, packets.udp(version=version, ports=(5000, 80), source=ends[0], destination=ends[1]))
    assert made.director_of(packets.udp(version=version, source=ends[1], destination=ends[0])) is OTHER
    assert made.director_of(answer(version)) is DIRECTOR


@both
def test_only_answers_of_a_service_that_asks_for_it_go_back_through_a_director(version):
    for made in (
        permitted(permit(), version=version),
        permitted(permit([2], returns=True), version=version),
        permitted(permit(returns=True), version=version, is_source=True),
    ):
        made.admits(DIRECTOR, question(version))
        made.admits(DIRECTOR, answer(version))

        assert made.director_of(answer(version)) is None
        assert made.director_of(question(version)) is None


@both
def test_no_packet_of_another_address_goes_back_through_a_director(version):
    made = permitted(permit(returns=True), version=version)
    made.admits(DIRECTOR, question(version))

    assert made.director_of(question(version)) is None
    assert made.director_of(packets.udp(version=version)) is None


@both
def test_what_a_server_of_one_service_says_to_another_shows_no_director_of_that(version):
    """A permit to answer is not a permit to ask, even if the answer is for an address whose answers go back."""
    other = "192.0.2.101" if version == 4 else "2001:db8::101"
    made = Permits()
    made.set(
        [
            (ip_address(other).packed, False, permit([2], returns=True)),
            (vip(version), True, permit([1], returns=True)),
        ]
    )
    said = packets.udp(version=version, ports=(80, 5000), source=VIPS[version], destination=other)

    assert made.admits(DIRECTOR, said)

    back = packets.udp(version=version, ports=(80, 5000), source=other, destination=VIPS[version])
    assert made.director_of(back) is None


@both
def test_one_permit_of_an_address_that_asks_for_it_is_enough_for_its_answers(version):
    made = permitted(permit(ports=[(1, 1)]), permit(returns=True), permit(ports=[(2, 2)]), version=version)

    made.admits(DIRECTOR, question(version))

    assert made.director_of(answer(version)) is DIRECTOR


@both
def test_the_same_permits_once_more_leave_the_ways_back_and_others_do_not(version):
    permits = [permit(returns=True), permit(ports=[(1, 1)])]
    made = permitted(*permits, version=version)
    made.admits(DIRECTOR, question(version))

    made.set((vip(version), False, each) for each in permits)
    assert made.director_of(answer(version)) is DIRECTOR

    made.set((vip(version), False, each) for each in permits[:1])
    assert made.director_of(answer(version)) is None


@both
def test_this_node_is_the_director_of_what_it_delivers_to_a_server_of_its_own(version):
    made = permitted(permit(returns=True), version=version)
    made.admits(DIRECTOR, question(version, client=1))

    made.delivered(OTHER, question(version, client=2))

    assert [made.director_of(answer(version, client=client)) for client in (1, 2, 3)] == [
        DIRECTOR,
        OTHER,
        OTHER,
    ]


@both
def test_what_is_delivered_to_another_address_shows_no_way_back(version):
    for made in (permitted(permit(), version=version), permitted(permit(returns=True), version=version)):
        made.delivered(OTHER, packets.udp(version=version))
        made.delivered(OTHER, answer(version))

        assert made.director_of(answer(version)) is None


def test_the_client_that_was_new_first_makes_room_for_another(monkeypatch):
    monkeypatch.setattr(permits_of, "RETURNS", 3)
    made = permitted(permit([1, 2], returns=True))

    for client in (1, 2, 3, 1, 2, 3):
        made.admits(DIRECTOR, question(4, client=client))
    for client in (4, 5):
        made.admits(OTHER, question(4, client=client))

    found = [made.director_of(answer(4, client=client)) for client in (1, 2, 3, 4, 5)]
    assert found == [OTHER, OTHER, DIRECTOR, OTHER, OTHER], "of the first two is known but who sent last"
