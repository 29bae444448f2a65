import pytest

from overlay.forwarding.places import Places
from overlay.wire.addresses import pack_host

ONE, OTHER = ("192.0.2.1", 51820), ("2001:db8::1", 51821, 0, 0)


class FakePeer:
    place = b"", b""

    def move(self, endpoint):
        self.place = packed(endpoint)


def packed(endpoint):
    return pack_host(endpoint), endpoint[1].to_bytes(2, "big")


@pytest.fixture
def places():
    return Places()


def test_a_peer_is_where_it_moved_last(places):
    peer = FakePeer()
    places.move(peer, ONE)
    assert packed(ONE) in places

    places.move(peer, OTHER)

    assert packed(OTHER) in places
    assert packed(ONE) not in places


def test_a_place_is_one_until_the_last_of_its_peers_has_left(places):
    peers = [FakePeer() for _ in range(3)]
    for peer in peers:
        places.move(peer, ONE)

    for peer in peers[:2]:
        places.leave(peer)
    assert packed(ONE) in places

    places.move(peers[2], OTHER)
    assert packed(ONE) not in places


def test_a_peer_that_was_nowhere_leaves_nothing(places):
    places.leave(FakePeer())

    assert (b"", b"") not in places


def test_another_port_of_an_address_is_another_place(places):
    places.move(FakePeer(), ONE)

    assert packed(("192.0.2.1", 51821)) not in places


def test_what_was_left_takes_no_memory(places):
    peer = FakePeer()
    for port in range(1, 2000):
        places.move(peer, ("192.0.2.1", port))

    assert len(places._count) == 1
