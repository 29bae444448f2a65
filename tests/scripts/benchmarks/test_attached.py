"""scripts/bench attach and --places attached: what is timed is the program alone, and where streams go."""

from __future__ import annotations

import sys
from types import SimpleNamespace

from scripts.benchmarks.attached import timed
from scripts.benchmarks.nodes import ATTACHED, Pair

ECHO = "import os, sys; print(os.environ['WORD'], sys.stdin.read()); sys.exit(3)"


def test_program_that_is_timed_gets_its_input_and_says_its_part():
    status, said, took = timed([sys.executable, "-IS", "-c", ECHO], {"WORD": "here"}, b"and there")

    assert (status, said) == (3, b"here and there\n")
    assert took.processor > 0
    assert took.wall > 0


def test_streams_between_attached_containers_go_from_the_one_to_the_other():
    a, b = (SimpleNamespace(host=f"host {name}", container=f"container {name}", number=1) for name in "ab")
    pair = Pair("ours", a, b, attached=("one", "other", "10.244.4.2"))

    assert pair.ends(ATTACHED) == ("one", "other", "10.244.4.2")
    assert pair.ends("containers") == ("container a", "container b", "10.244.1.2")
