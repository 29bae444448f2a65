"""Clients that connect to a unix socket and are not accepted, so many that its queue is full."""

from __future__ import annotations

import contextlib
import socket


@contextlib.contextmanager
def crowd_at(path):
    """Fill the queue of the socket that listens at *path*.  The clients disconnect at the end of the block,"""
    with contextlib.ExitStack() as crowd, contextlib.suppress(BlockingIOError):
        while True:
            one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            crowd.enter_context(one)
            try:
                one.connect(str(path))
            except BlockingIOError:
                yield
                raise


def first_line(listener):
    """Accept the first connection at *listener*, and return its first line."""
    listener.setblocking(True)
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as lines:
            if line := lines.readline():
                return line
