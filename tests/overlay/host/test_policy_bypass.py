from __future__ import annotations

import os
import socket
import threading

import pytest

from overlay.host import policy_bypass

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
UID = 65520


def owner():
    """Return who owns a socket that the calling thread makes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        return os.fstat(made.fileno()).st_uid


def test_sockets_of_a_look_up_are_those_of_the_user_and_of_that_thread_alone():
    others = []

    def look():
        thread = threading.Thread(target=lambda: others.append(owner()))
        before = owner()
        thread.start()
        thread.join()
        return before

    assert policy_bypass.as_owner(UID, look) == UID
    assert owner() == 0


def test_a_look_up_that_fails_leaves_the_thread_as_it_was():
    with pytest.raises(OSError, match="no"):
        policy_bypass.as_owner(UID, lambda: (_ for _ in ()).throw(OSError("no")))

    assert owner() == 0


def test_addresses_are_found():
    assert policy_bypass.getaddrinfo(UID, "192.0.2.7", 9)[0][4] == ("192.0.2.7", 9)


def test_connections_are_of_the_user_from_when_it_is_known_those_that_were_open_too():
    passing = policy_bypass.Passing()
    with passing.open_socket(socket.AF_INET) as before, passing.open_socket(socket.AF_INET) as closed:
        assert os.fstat(before.fileno()).st_uid == 0
        closed.close()

        passing.take(UID)

        assert os.fstat(before.fileno()).st_uid == UID
        with passing.open_socket(socket.AF_INET6) as after:
            assert os.fstat(after.fileno()).st_uid == UID
            assert (after.family, after.type) == (socket.AF_INET6, socket.SOCK_STREAM)
    assert owner() == 0
