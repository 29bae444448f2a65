from __future__ import annotations

import pytest

from tests.fuzz.target import CORPUS, join, split
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_a_target_takes_its_seeds_and_all_that_the_fuzzer_found_for_it(target):
    inputs = target.inputs()

    assert inputs
    for data in inputs.values():
        target.run(data)


@pytest.mark.parametrize("data", [b"", b"\0", b"\xff", bytes(64), b"\xff" * 64])
@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_a_target_takes_input_that_is_hardly_any(target, data):
    target.run(data)


def test_every_corpus_is_that_of_a_target():
    assert {path.name for path in CORPUS.iterdir() if path.is_dir()} <= set(TARGETS)


def test_pieces_that_were_joined_are_split_again():
    pieces = [b"one", b"", b"three" * 100]

    assert split(join(pieces), 4) == pieces
