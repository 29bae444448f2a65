from __future__ import annotations

import math

from overlay.forwarding.moves import MOVES_INTERVAL, SETTLED_TIME, UNDER_WAY, Moves, Turn

HERE, THERE = ("192.0.2.1", 1), ("192.0.2.1", 2)
NOW = 1000.0


def test_a_move_is_told_and_its_path_searched_at_once():
    moves = Moves()
    moves.moved(HERE, NOW)

    assert moves.turn(NOW) == Turn(1, HERE, True, math.inf)


def test_moves_that_follow_are_told_together_once_in_an_interval():
    moves = Moves()
    moves.moved(HERE, NOW)
    moves.turn(NOW)

    is_new = moves.moved(THERE, NOW + 0.1)
    early = moves.turn(NOW + 0.1)
    others_are_new = [moves.moved(THERE, NOW + step / 10) for step in range(2, 8)]
    due = moves.turn(NOW + MOVES_INTERVAL)

    assert (is_new, any(others_are_new)) == (True, False)
    assert (early.count, early.due) == (0, NOW + MOVES_INTERVAL)
    assert (due.count, due.before) == (7, THERE)


def test_path_of_a_peer_that_moves_on_is_searched_when_it_has_settled():
    moves = Moves()
    moves.moved(HERE, NOW)
    moves.turn(NOW)
    moves.moved(THERE, NOW + 2)
    moves.turn(NOW + 2)
    moves.moved(HERE, NOW + 4)

    assert moves.turn(NOW + 4) == Turn(1, HERE, False, NOW + 4 + SETTLED_TIME)
    assert moves.turn(NOW + 4 + SETTLED_TIME) == Turn(0, HERE, True, math.inf)


def test_a_move_after_a_while_in_one_place_is_like_the_first():
    moves = Moves()
    moves.moved(HERE, NOW)
    moves.turn(NOW)
    moves.moved(THERE, NOW + SETTLED_TIME)

    assert moves.turn(NOW + SETTLED_TIME) == Turn(1, THERE, True, math.inf)


def test_a_first_endpoint_is_no_move():
    moves = Moves()
    moves.moved(None, NOW, is_known=True)
    moves.turn(NOW)
    moves.moved(HERE, NOW + 1)

    assert moves.turn(NOW + 1) == Turn(1, HERE, True, math.inf)


def test_a_move_that_the_agent_knows_of_is_not_told():
    moves = Moves()
    moves.moved(HERE, NOW, is_known=True)

    assert moves.turn(NOW) == Turn(0, None, True, math.inf)


def test_moves_that_the_link_did_not_take_are_told_later():
    moves = Moves()
    moves.moved(HERE, NOW)
    due = moves.not_told(moves.turn(NOW))

    assert due == NOW + MOVES_INTERVAL
    assert moves.turn(due).count == 1


def test_moves_that_the_link_did_not_take_are_told_with_those_that_followed():
    moves = Moves()
    moves.moved(HERE, NOW)
    turn = moves.turn(NOW)
    moves.moved(THERE, NOW + 0.1)

    due = moves.not_told(turn)

    assert (moves.turn(due).count, moves.turn(due).count) == (2, 0)


def test_a_peer_that_never_moved_has_nothing_due():
    assert Moves().turn(NOW) == Turn(0, None, False, math.inf)


def test_what_was_under_way_from_the_place_left_is_late_for_a_moment():
    moves = Moves()
    moves.leave(HERE, NOW)

    assert moves.is_late(HERE, NOW + UNDER_WAY / 2)
    assert not moves.is_late(THERE, NOW + UNDER_WAY / 2)
    assert not moves.is_late(HERE, NOW + UNDER_WAY)


def test_nothing_is_late_before_the_first_move():
    assert not Moves().is_late(HERE, NOW)
