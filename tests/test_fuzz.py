from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.fuzz import native
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
    others = {
        "both",
        "native",
    }  # test_compiled tells the stories of the one; those of the other are told here

    assert {path.name for path in CORPUS.iterdir() if path.is_dir()} <= set(TARGETS) | others


@pytest.mark.slow
def test_no_story_that_the_fuzzer_found_makes_the_compiled_path_do_what_it_must_not(tmp_path):
    compiler = next(filter(shutil.which, ("gcc", "clang-19", "clang")), None)
    if compiler is None:
        pytest.skip("no C compiler")
    program = tmp_path / "story"
    try:
        native.build(compiler, program, is_guided=False)
    except subprocess.CalledProcessError:
        pytest.skip(f"{compiler} has no sanitizers, or there are no headers")

    done = native.replay(program, sorted((CORPUS / "native").iterdir()))

    assert done.returncode == 0, done.stderr[-3000:]
    assert "inputs" in done.stderr


def test_pieces_that_were_joined_are_split_again():
    pieces = [b"one", b"", b"three" * 100]

    assert split(join(pieces), 4) == pieces
