"""How fast a capture reads, next to other processes and alone."""

from __future__ import annotations

import pytest

from overlay.capturing.pace import BURST, LEAST_SHARE, LONGEST_REST, LOOK, SPARE, Pace

TURN = 0.001  # seconds of a processor that one turn takes


class Machine:
    """One of *processors*, of which others leave *idle*, for a capture that always has work."""

    def __init__(self, processors, idle):
        self._processors, self._idle = processors, idle
        self.now = self.used = self.was_idle = 0.0
        self.pace = Pace(0, 0, 0)

    def run(self, seconds):
        """Return the share of a processor that the capture used in the end."""
        begun, before = self.now, self.used
        while self.now < begun + seconds:
            if self.pace.needs_look(self.now):
                self.pace.look(self.now, self.used, self.was_idle)
            rest = self.pace.rest(self.now, self.used)
            assert 0 <= rest <= LONGEST_REST
            passed, used = (rest, 0.0) if rest else (TURN, TURN)
            self.now += passed
            self.used += used
            self.was_idle += self._idle * passed - used  # what others do not get now they do in idle time
        return (self.used - before) / (self.now - begun)


def test_capture_on_a_machine_without_other_work_never_rests():
    assert Machine(processors=2, idle=2.0).run(5) == pytest.approx(1)


def test_capture_uses_hardly_anything_where_no_processor_is_idle():
    machine = Machine(processors=2, idle=0.0)
    machine.run(1)

    assert machine.run(60) == pytest.approx(LEAST_SHARE, rel=0.1)


@pytest.mark.parametrize("idle", [0.8, 1.0, 1.4])
def test_capture_uses_what_is_idle_but_the_spare(idle):
    machine = Machine(processors=2, idle=idle)
    machine.run(2)

    assert machine.run(20) == pytest.approx(idle - SPARE, rel=0.2)


def test_capture_leaves_the_spare_to_what_wakes():
    machine = Machine(processors=2, idle=SPARE)
    machine.run(2)

    assert machine.run(20) == pytest.approx(LEAST_SHARE, rel=0.1)


def test_few_packets_are_read_at_once_even_beside_others():
    pace = Pace(0, 0, 0)
    pace.look(LOOK, 0.0, 0.0)
    for second in range(1, 100):
        assert pace.rest(float(second), second * LEAST_SHARE * 0.9) == 0


def test_so_much_may_be_read_at_once_after_a_while_and_no_more():
    pace = Pace(0, 0, 0)
    pace.look(LOOK, 0.0, 0.0)
    pace.rest(1000.0, 0.0)

    assert pace.rest(1000.0, BURST) == 0
    assert pace.rest(1000.0, BURST + 0.002) > 0
