from __future__ import annotations

import contextlib
import gc
import subprocess
import sys

from peers.garbage import growing

# Prints how many objects later collections visit, after that many have been created and stay.
PROGRAM = """
import gc, sys
from peers import garbage

gc.collect()
gc.freeze()
with garbage.growing():
    kept = [[] for _ in range(int(sys.argv[1]))]
print(len(gc.get_objects()))
"""


def test_no_garbage_is_collected_while_much_comes_to_be_and_again_afterwards():
    assert gc.isenabled()

    with contextlib.suppress(KeyError), growing():
        assert not gc.isenabled()
        with growing():
            pass
        assert not gc.isenabled()
        raise KeyError

    assert gc.isenabled()


def test_many_objects_that_have_come_to_be_are_left_out_of_later_collections():
    assert _looked_through(150_000) < 10_000


def test_few_objects_stay_where_they_are():
    assert _looked_through(50_000) > 49_000


def _looked_through(count):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(count)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)
