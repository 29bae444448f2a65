"""Keypairs by index, for those who should know them."""

from __future__ import annotations

import pytest

from overlay.forwarding.indices import ReceiverIndices


class Lane:
    def __init__(self):
        self.listed = []

    def list(self, keypair):
        self.listed.append(keypair)

    def unlist(self, keypair):
        self.listed.remove(keypair)


def test_a_lane_knows_what_is_in_the_dictionary():
    indices, lane = ReceiverIndices(), Lane()
    indices.lane = lane
    indices[1], indices[2] = "first", "second"
    del indices[1]
    assert lane.listed == ["second"]
    assert indices == {2: "second"}


def test_nobody_else_need_know():
    indices = ReceiverIndices()
    indices[1] = "first"
    del indices[1]
    assert indices == {}


def test_what_is_not_there_cannot_be_taken_out():
    indices, lane = ReceiverIndices(), Lane()
    indices.lane = lane
    with pytest.raises(KeyError):
        del indices[1]
    assert lane.listed == []
