from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
from ipaddress import ip_address

import pytest

from overlay.errors import HostError
from overlay.host.interfaces import index_of, is_own_address, is_there, sockaddr_of


@contextlib.contextmanager
def no_free_descriptor():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))  # what is open stays so
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def outcome(question):
    """Return the answer to *question*, or the sentence that says why there is none."""
    with no_free_descriptor():
        try:
            return question()
        except HostError as error:
            return str(error)


@pytest.mark.parametrize(
    ("address", "is_own"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", False),
        ("192.0.2.254", False),
        ("2001:db8::fe", False),
        ("fe80::1%no-such", False),
    ],
)
def test_an_address_is_own_if_datagrams_to_it_would_come_from_it(address, is_own):
    assert is_own_address(ip_address(address)) == is_own


@pytest.mark.parametrize("address", ["127.0.0.1", "192.0.2.254", "fe80::1%lo"])
def test_without_a_free_descriptor_no_address_is_called_another_hosts(address):
    said = outcome(lambda: is_own_address(ip_address(address)))

    assert "of this host: Too many open files; raise the limit of open files" in said


def test_interface_has_the_number_that_the_kernel_gives_it():
    assert index_of("lo") == socket.if_nametoindex("lo")
    assert is_there("lo")


@pytest.mark.parametrize("name", ["no-such", "", "sixteen-letters-", "with\0null", "l\udcff"])
def test_interface_that_is_not_there_has_no_number(name):
    assert index_of(name) is None
    assert not is_there(name)


def test_without_a_free_descriptor_no_interface_is_called_absent():
    said = outcome(lambda: is_there("lo"))

    assert said.startswith("cannot tell whether interface lo exists: Too many open files; raise the limit")


@pytest.mark.parametrize(
    ("text", "sockaddr"),
    [
        ("192.0.2.1", ("192.0.2.1", 7)),
        ("2001:db8::1", ("2001:db8::1", 7, 0, 0)),
        ("fe80::1%9", ("fe80::1", 7, 0, 9)),
        ("fe80::1%lo", ("fe80::1", 7, 0, socket.if_nametoindex("lo"))),
    ],
)
def test_socket_address_has_the_number_of_its_interface(text, sockaddr):
    assert sockaddr_of(ip_address(text), 7) == sockaddr


def test_scope_that_is_no_interface_is_no_device():
    with pytest.raises(OSError, match=os.strerror(errno.ENODEV)):
        sockaddr_of(ip_address("fe80::1%no-such"), 7)
