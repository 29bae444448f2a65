"""A web client.  It reports the results of its requests in lines of JSON.

client.py count ADDRESS N       N requests, each on its own connection: how many each server answered
client.py stay ADDRESS SERVER   a connection to SERVER, and one request on it for each line of stdin: which one answered
client.py download ADDRESS      `/file`: its sender after the first bytes, then its size, checksum and longest pause
"""

from __future__ import annotations

import collections
import hashlib
import http.client
import json
import sys
import time

TIMEOUT = 5.0  # seconds for one request
DOWNLOAD_TIMEOUT = 15.0  # seconds without a byte
ATTEMPTS = 200  # to reach one of a few servers
CHUNK = 1 << 16


def say(value: object) -> None:
    print(json.dumps(value), flush=True)


def asked(connection: http.client.HTTPConnection) -> str:
    """Return the name of the server that answers on *connection*, or of the error."""
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__


def count(address: str, requests: int) -> None:
    answers = collections.Counter[str]()
    for _ in range(requests):
        connection = http.client.HTTPConnection(address, timeout=TIMEOUT)
        answers[asked(connection)] += 1
        connection.close()
    say(answers)


def stay(address: str, server: str) -> None:
    for _ in range(ATTEMPTS):
        connection = http.client.HTTPConnection(address, timeout=TIMEOUT)
        if asked(connection) == server:
            say(server)
            break
        connection.close()
    else:
        say("nobody")
        return
    connection.auto_open = 0  # a lost connection is not replaced by another
    for _ in sys.stdin:
        say(asked(connection))


def download(address: str) -> None:
    connection = http.client.HTTPConnection(address, timeout=DOWNLOAD_TIMEOUT)
    connection.request("GET", "/file")
    response = connection.getresponse()
    size, digest, longest, last = 0, hashlib.sha256(), 0.0, time.monotonic()
    while chunk := response.read1(CHUNK):
        now = time.monotonic()
        if not size:
            say(response.headers["X-Server"])
            last = now
        size, longest, last = size + len(chunk), max(longest, now - last), now
        digest.update(chunk)
    say({"size": size, "sha256": digest.hexdigest(), "pause": longest})


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["count", where, number]:
            count(where, int(number))
        case ["stay", where, name]:
            stay(where, name)
        case ["download", where]:
            download(where)
        case _:
            sys.exit(__doc__)
