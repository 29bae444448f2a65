from __future__ import annotations

from overlay.session.indices import Indices


def test_an_index_in_use_is_not_drawn_again():
    draws = iter([b"\1\0\0\0", b"\1\0\0\0", b"\2\0\0\0"])
    indices = Indices(lambda _: next(draws))

    first = indices.draw()
    indices.claim(first, "a")

    assert first == 1
    assert indices.draw() == 2


def test_a_freed_index_belongs_to_nobody():
    indices = Indices(bytes)
    indices.claim(0, "a")
    indices.free(0)

    assert indices.owner(0) is None
    assert indices.draw() == 0
    assert len(indices) == 0


def test_a_mark_is_the_highest_byte_of_every_index():
    draws = iter([b"\1\2\3\4", b"\xff\xff\xff\xff"])
    indices = Indices(lambda _: next(draws), mark=0xA5)

    assert [indices.draw(), indices.draw()] == [0xA5030201, 0xA5FFFFFF]
