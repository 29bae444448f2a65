"""The gateway and the real etcd over TLS: certificates of both ends, right and wrong."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import threading

import pytest
import trio

from peers.stores.etcd import messages
from peers.stores.etcd.failures import describe
from peers.stores.etcd.gateway import Gateway
from peers.stores.etcd.location import EtcdLocation
from peers.stores.etcd.messages import CallRefusedError, Cause, GatewayError
from tests.etcd.certificates import Authority
from tests.etcd.real import RealEtcd, is_installed


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"))


def serve(tmp_path_factory, authority, name, *more, **usages):
    if not is_installed():
        pytest.skip("etcd is not installed (Debian: etcd-server)")
    cert, key = authority.issue(name, **usages)
    files = ["--cert-file", str(cert), "--key-file", str(key), *more]
    etcd = RealEtcd(tmp_path_factory.mktemp(name), more=files, scheme="https")
    etcd.start()
    return etcd


@pytest.fixture(scope="module")
def etcd(tmp_path_factory, authority):
    made = serve(tmp_path_factory, authority, "server", is_server=True)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def asking(tmp_path_factory, authority):
    """An etcd that asks clients for certificates."""
    files = ("--client-cert-auth", "--trusted-ca-file", str(authority.path))
    made = serve(tmp_path_factory, authority, "asking", *files, is_server=True, is_client=True)
    yield made
    made.stop()


def call(url, scheme="etcds"):
    async def main():
        gateway = Gateway(EtcdLocation.parse(scheme, f"//{url}"), patience=60.0)
        try:
            await gateway.put(b"/x", b"1")
            async with gateway.watch(b"/x", b"", 1) as watch:
                assert (await watch.next()).is_created
        finally:
            await gateway.aclose()

    trio.run(main)


def refusal(url, scheme="etcds"):
    with pytest.raises(GatewayError) as caught:
        call(url, scheme)
    return caught.value


def test_etcd_with_a_certificate_is_called(etcd, authority):
    call(f"{etcd.url}/office?ca={authority.path}")


def test_certificate_of_an_unknown_authority_is_refused(etcd, tmp_path):
    error = refusal(f"{etcd.url}/office?ca={Authority(tmp_path, 'stranger').path}")

    assert error.cause is Cause.TLS
    assert "is not accepted" in str(error)
    assert "name the certificate of its authority with ca=FILE" in str(error)
    assert refusal(f"{etcd.url}/office").cause is Cause.TLS


def test_certificate_for_another_host_is_refused(etcd, authority):
    error = refusal(f"localhost:{etcd.port}/office?ca={authority.path}")

    assert error.cause is Cause.TLS
    assert "use a name or address that its certificate is for" in str(error)


def test_etcd_that_speaks_tls_is_told_from_one_that_does_not(etcd, real_etcd):
    assert f"write etcds://{etcd.url}/office" in str(refusal(f"{etcd.url}/office", "etcd"))
    assert f"write etcd://{real_etcd.url}/office" in str(refusal(f"{real_etcd.url}/office"))


@contextlib.contextmanager
def ending(end, context=None):
    """Yield the address of a server that reads a client's first bytes, with TLS if there is a *context*, and then calls
    *end*.
    """

    def serve():
        client, _ = listener.accept()
        with client:
            stream = client if context is None else context.wrap_socket(client, server_side=True)
            stream.recv(65536)
            end(stream)
            stream.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=serve)
        serving.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        serving.join()


def close(_):
    pass


def reset(client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def answer(client):
    client.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize("end", [close, reset, answer])
def test_however_one_without_tls_ends_a_connection_it_is_told_what_to_write(end):
    with ending(end) as url:
        error = refusal(f"{url}/office")

    assert f"write etcd://{url}/office" in str(error)


@pytest.mark.parametrize("end", [close, reset])
def test_however_one_with_tls_ends_a_connection_it_is_told_what_to_write(end):
    with ending(end) as url:
        error = refusal(f"{url}/office", "etcd")

    assert f"as one does that speaks TLS; see its log, or write etcds://{url}/office" in str(error)


@pytest.mark.parametrize("end", [close, reset])
def test_however_one_ends_a_connection_that_it_lets_nobody_use_the_certificate_is_named(end, authority):
    cert, key = authority.issue("ending", is_server=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with ending(end, context) as url:
        error = refusal(f"{url}/office?ca={authority.path}")

    assert (
        "as one does that refuses the certificate of this host; see its log, or name one with cert=FILE"
        in str(error)
    )


def test_client_with_a_certificate_is_let_in(asking, authority):
    cert, key = authority.issue("client", is_client=True)

    call(f"{asking.url}/office?ca={authority.path}&cert={cert}&key={key}")


def test_client_without_a_certificate_is_told(asking, authority):
    error = refusal(f"{asking.url}/office?ca={authority.path}")

    assert error.cause is Cause.TLS
    assert "does not accept the certificate of this host; name one with cert=FILE&key=FILE" in str(error)


def test_client_of_another_authority_is_told(asking, authority, tmp_path):
    cert, key = Authority(tmp_path, "stranger").issue("client", is_client=True)
    error = refusal(f"{asking.url}/office?ca={authority.path}&cert={cert}&key={key}")

    assert error.cause is Cause.TLS
    assert "is signed by the authority that etcd trusts" in str(error)


def test_etcd_whose_certificate_is_for_servers_alone_cannot_reach_itself(tmp_path_factory, authority):
    files = ("--client-cert-auth", "--trusted-ca-file", str(authority.path))
    etcd = serve(tmp_path_factory, authority, "servers-alone", *files, is_server=True)
    cert, key = authority.issue("another", is_client=True)
    try:
        error = refusal(f"{etcd.url}/office?ca={authority.path}&cert={cert}&key={key}")
    finally:
        etcd.stop()

    assert re.search("cannot reach itself|its own certificate is for clients too", str(error))
    assert "serverAuth, clientAuth" in str(error)


@pytest.mark.parametrize(
    "said", ["connection closed", "write tcp 127.0.0.1:47000->127.0.0.1:54967: write: broken pipe"]
)
def test_what_etcd_says_when_its_call_of_itself_breaks_off_names_its_certificate(authority, said):
    cert, key = authority.issue("client", is_client=True)
    located = EtcdLocation.parse("etcds", f"//10.0.0.5/office?ca={authority.path}&cert={cert}&key={key}")

    error = describe(CallRefusedError(messages.UNAVAILABLE, said), 503, located.endpoints[0], located)

    assert error.cause is Cause.AWAY
    assert "its own certificate is for clients too" in str(error)
