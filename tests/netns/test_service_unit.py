"""An agent works with the permissions that the unit of `overlay service install` leaves it.

There is no systemd in a namespace: setpriv and prctl confine the agent as systemd would by the unit.
"""

from __future__ import annotations

import shutil

import pytest

from overlay.host.process.privileges import KEPT_CAPABILITIES
from tests.netns.network import PYTHON, Network

# MDWE_REFUSE_EXEC_GAIN by PR_SET_MDWE (linux/prctl.h, since Linux 6.3)
CONFINED = """#!/bin/sh
exec setpriv --no-new-privs --bounding-set=-all,{bounding} {python} -c '
import ctypes, os, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):
    sys.stderr.write("no PR_SET_MDWE here\\n")
os.execv(sys.argv[1], sys.argv[1:])
' {python} "$@"
"""


def test_agent_works_with_the_capabilities_of_its_unit_and_no_memory_to_write_and_run(lab, tmp_path):
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    bounding = ",".join(f"+{each.name.lower()}" for each in KEPT_CAPABILITIES)
    program = tmp_path / "python"
    program.write_text(CONFINED.format(bounding=bounding, python=PYTHON))
    program.chmod(0o755)
    network = Network(lab, tmp_path)
    paris, tokyo = network.host("paris"), network.host("tokyo")
    tokyo.start()

    paris.start("--fix-sysctl", "--forward", python=str(program))
    paris.ping(tokyo.address)
    status = paris.status()
    paris.stop()

    assert status["packet_path"] == tokyo.status()["packet_path"]
    assert not [note for note in status["notes"] if "privilege" in note or "not permitted" in note]
    network.close()
