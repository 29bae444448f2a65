"""A server for every kind of check, as a program in a namespace: python checked_server.py NAME ADD CERTIFICATE KEY.

It answers HTTP at port 80 and, to clients that show the certificate, at 443 by TLS; datagrams at 9000; DNS queries at
53; and it accepts connections at 8001.  ADD is added to each port.  A datagram is answered with the name and then with
itself.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import threading

import dns.message

HTTP, HTTPS, TCP, DATAGRAMS, NAMES = 80, 443, 8001, 9000, 53
BODY = b"all is ready at "


def main(name: str, add: int, certificate: str, key: str) -> None:
    """Serve until the process is killed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    for port, secured in ((HTTP, None), (HTTPS, context), (TCP, None)):
        start(accept, listening(socket.SOCK_STREAM, port + add), name, secured)
    for port, answer in ((DATAGRAMS, lambda data: name.encode() + b" " + data), (NAMES, answered)):
        start(echo, listening(socket.SOCK_DGRAM, port + add), answer)
    print("ready", flush=True)  # noqa: T201
    threading.Event().wait()


def start(run, *arguments):
    threading.Thread(target=run, args=arguments, daemon=True).start()


def listening(kind, port):
    made = socket.socket(socket.AF_INET6, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.bind(("::", port))
    if kind == socket.SOCK_STREAM:
        made.listen(64)
    return made


def accept(server, name, context):
    while True:
        connection, _ = server.accept()
        start(answer_http, connection, name, context)


def answer_http(connection, name, context):
    with connection, contextlib.suppress(OSError):
        connection.settimeout(10)
        secured = context.wrap_socket(connection, server_side=True) if context else connection
        secured.recv(4096)
        body = BODY + name.encode()
        secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        secured.close()


def echo(server, answer):
    """Answer from the address that a datagram was sent to: the default would be another where the host has several."""
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    while True:
        data, control, _, source = server.recvmsg(65535, 256)
        with contextlib.suppress(OSError, Exception):
            server.sendmsg(
                [answer(data)], [each for each in control if each[1] == socket.IPV6_PKTINFO], 0, source
            )


def answered(data):
    return dns.message.make_response(dns.message.from_wire(data)).to_wire()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:5])
