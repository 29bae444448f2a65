"""Advice if a privilege is missing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from overlay.host.advice import after, instead, with_reason

CODE = """
import os, sys
from overlay.host.advice import become_root, gain
from overlay.host.process.privileges import Capability
if sys.argv[1] != "0":
    os.setuid(int(sys.argv[1]))
print(gain(Capability.NET_ADMIN))
print(become_root())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else: run as root")
@pytest.mark.parametrize(
    ("user", "advice"),
    [
        (65534, ["run as root with CAP_NET_ADMIN", "run as root"]),
        (
            0,
            [
                "give the container or service CAP_NET_ADMIN, which it lacks although it runs as root",
                "root was refused, too, so see whether the file system is read-only or a security policy forbids it",
            ],
        ),
    ],
)
def test_root_is_not_sent_for_root(user, advice):
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(user)], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.splitlines() == advice


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.EACCES, "root"),
        (errno.ENOSPC, "make room"),
        (errno.EISDIR, "see what is in its place"),
        (errno.EMFILE, "raise the limit of open files of this process"),
        (errno.EAGAIN, "raise the limit of processes"),
        (errno.ENFILE, "raise fs.file-max"),
        (errno.ENOBUFS, "free memory"),
        (errno.ENAMETOOLONG, "choose a shorter path"),
        (errno.EIO, "see what is wrong with that place"),
    ],
)
def test_advice_goes_by_why_a_file_could_not_be_made(code, advice):
    """Before, a directory in place of a socket was blamed on a file system that may be read-only."""
    assert advice in after(OSError(code, os.strerror(code)))


@pytest.mark.parametrize(
    ("code", "advice"), [(errno.ELOOP, "look at it and remove it"), (errno.EMFILE, "raise the limit")]
)
def test_a_file_is_not_to_be_removed_because_something_ran_short(code, advice):
    """Before, it was, although the file had what the agent is to restore."""
    assert advice in instead(OSError(code, os.strerror(code)))


def test_name_of_a_socket_that_is_too_long_has_no_number():
    assert after(OSError("AF_UNIX path too long")) == "choose a shorter path"


def test_a_shortage_has_its_remedy_where_no_file_is_named():
    assert with_reason(OSError(errno.EMFILE, "Too many open files")) == (
        "Too many open files; raise the limit of open files of this process (ulimit -n, LimitNOFILE= of a service)"
    )
    assert with_reason(OSError(errno.EAFNOSUPPORT, "Not supported")) == "Not supported"
