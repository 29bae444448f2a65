from __future__ import annotations

from overlay.session.indices import Indices


def test_an_index_in_use_is_not_drawn_again():
    draws = iter([b"\0\1\0\0", b"\0\1\0\0", b"\0\2\0\0"])
    indices = Indices(lambda _: next(draws))

    first = indices.draw(0)
    indices.claim(first, "a")

    assert first == 0x100
    assert indices.draw(0) == 0x200


def test_a_freed_index_belongs_to_nobody():
    indices = Indices(bytes)
    indices.claim(0, "a")
    indices.free(0)

    assert indices.owner(0) is None
    assert indices.draw(0) == 0
    assert len(indices) == 0


def test_a_mark_is_the_highest_byte_of_every_index():
    draws = iter([b"\1\2\3\4", b"\xff\xff\xff\xff"])
    indices = Indices(lambda _: next(draws), mark=0xA5)

    assert [indices.draw(1), indices.draw(7)] == [0xA5030201, 0xA5FFFFFF]


def test_the_lowest_bits_stay_the_same_for_one_peer():
    indices = Indices(lambda size: b"\xff" * size)

    assert [indices.draw(number) & 7 for number in range(10)] == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1]
