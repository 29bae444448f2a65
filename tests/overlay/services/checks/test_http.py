"""``http`` and ``https`` against a server that answers as it is told, and one that misbehaves."""

from __future__ import annotations

import gzip
import hashlib
import ssl
from datetime import UTC, datetime, timedelta

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from overlay.services.checking import Result

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready"


def answering(answer, heard=None):
    async def serve(stream):
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive_some()
        if heard is not None:
            heard.append(data)
        await stream.send_all(answer)

    return serve


def test_it_asks_for_the_path_by_the_name_of_the_host(check):
    heard = []
    assert check("http", answering(OK, heard), path="/health?full", host="www.example.org") == Result(
        True, "answers 200"
    )
    lines = heard[0].decode().split("\r\n")
    assert lines[0] == "GET /health?full HTTP/1.1"
    assert "Host: www.example.org" in lines
    assert "Connection: close" in lines


def test_without_a_name_the_host_is_the_virtual_address(check):
    heard = []
    check("http", answering(OK, heard))
    assert b"\r\nHost: 127.0.0.1:" in heard[0]


@pytest.mark.parametrize(
    ("status", "accepted", "is_good"),
    [
        (b"204 No Content", ((200, 299),), True),
        (b"301 Moved", ((200, 299),), False),
        (b"301 Moved", ((200, 204), (301, 301)), True),
        (b"500 Oops", ((200, 299),), False),
        (b"404 Not Found", ((400, 404),), True),
    ],
)
def test_status_decides(check, status, accepted, is_good):
    result = check("http", answering(b"HTTP/1.1 " + status + b"\r\n\r\n"), status=accepted)
    assert result == Result(is_good, f"answers {int(status[:3])}")


@pytest.mark.parametrize("chunked", [False, True])
def test_body_is_compared_with_a_regular_expression_and_a_digest(check, chunked):
    answer = OK
    if chunked:
        answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nre\r\n3\r\nady\r\n0\r\n\r\n"
    serve = answering(answer)
    for digest in (hashlib.md5, hashlib.sha256):
        assert check("http", serve, digest=digest(b"ready").hexdigest()).is_good
    assert check("http", serve, regex="r.*y$").is_good
    assert check("http", serve, digest="0" * 32) == Result(
        False, "answers 200 with a body that has a different digest"
    )
    assert check("http", serve, regex="steady") == Result(
        False, "answers 200 with a body in which 'steady' is not found"
    )
    # Neither makes up for a wrong status.
    assert not check("http", serve, regex="ready", status=((204, 204),)).is_good


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 2",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000,
        b"\0" * 1000,
    ],
)
def test_anything_but_http_is_reported_as_such(check, answer):
    result = check("http", answering(answer))
    assert not result.is_good
    assert result.reason.startswith("does not speak HTTP: ")


def test_body_that_ends_early_or_never_is_bad_where_it_counts(check):
    cut = answering(OK[:-2])
    assert not check("http", cut, regex="re").is_good
    assert check("http", cut).is_good

    endless = answering(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(3 << 20))
    assert check("http", endless, regex="x") == Result(
        False, "answers 200 with a body of more than 1048576 bytes"
    )


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate for www.example.org, and its key."""
    directory = tmp_path_factory.mktemp("tls")
    key, name = ec.generate_private_key(ec.SECP256R1()), "www.example.org"
    subject, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "certificate.pem", directory / "key.pem"
    paths[0].write_bytes(made.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


@pytest.fixture
def tls(certificate):
    def wrap(serve, names=None, *, client_ca=None):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*certificate)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        if names is not None:
            context.sni_callback = lambda _, name, __: names.append(name)

        async def secured(stream):
            inner = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
            await inner.do_handshake()
            await serve(inner)

        return secured

    return wrap


def test_https_takes_any_certificate_unless_it_is_to_be_verified(check, tls):
    names = []
    serve = tls(answering(OK), names)
    assert check("https", serve, sni="www.example.org").is_good
    assert names == ["www.example.org"]
    refused = check("https", serve, sni="www.example.org", verify=True)
    assert refused == Result(False, "TLS fails: self-signed certificate")


def test_https_verifies_by_the_authorities_of_a_file_and_by_name(check, tls, certificate):
    serve = tls(answering(OK))
    keys = {"verify": True, "ca_file": certificate[0]}
    assert check("https", serve, sni="www.example.org", **keys).is_good
    other = check("https", serve, sni="other.example.org", **keys)
    assert other.reason.startswith("TLS fails: Hostname mismatch")


def test_https_shows_the_certificate_of_the_client(check, tls, certificate):
    serve = tls(answering(OK), client_ca=certificate[0])
    assert check("https", serve, certificate_file=certificate[0], key_file=certificate[1]).is_good
    assert not check("https", serve).is_good


def test_https_whose_files_are_missing_says_which(check, tls, tmp_path):
    result = check("https", tls(answering(OK)), verify=True, ca_file=tmp_path / "none.pem")
    assert result == Result(False, "the files of the certificate cannot be used: no such file or directory")


def test_https_of_a_server_without_tls_is_bad(check):
    async def serve(stream):
        await stream.send_all(OK)

    assert check("https", serve).reason == "TLS fails: wrong version number"


def test_https_whose_key_has_a_passphrase_does_not_ask_for_it(check, tls, certificate, tmp_path):
    key = serialization.load_pem_private_key(certificate[1].read_bytes(), None)
    locked = tmp_path / "locked.pem"
    encryption = serialization.BestAvailableEncryption(b"secret")
    locked.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    result = check("https", tls(answering(OK)), certificate_file=certificate[0], key_file=locked)
    assert not result.is_good
    assert result.reason.startswith("the files of the certificate cannot be used: ")


def test_https_takes_a_certificate_that_was_renewed(check, tls, certificate, tmp_path):
    path = tmp_path / "ca.pem"
    path.write_text("nothing yet")
    serve = tls(answering(OK))
    keys = {"verify": True, "ca_file": path, "sni": "www.example.org"}
    assert check("https", serve, **keys).reason.startswith("the files of the certificate cannot be used: ")
    path.write_bytes(certificate[0].read_bytes())
    assert check("https", serve, **keys).is_good


# Hostile servers


def test_expression_that_takes_years_for_a_page_is_a_failure_and_delays_nothing(check):
    page = b"a" * 60_000
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page)
    alive, serve = [], answering(answer)

    async def serve_and_live(stream):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live)
            await serve(stream)
            await trio.sleep_forever()

    async def live():
        while True:
            alive.append(trio.current_time())
            await trio.sleep(0.005)

    result = check("http", serve_and_live, regex="(a+)+b")

    assert result == Result(False, "answers 200 with a body in which '(a+)+b' takes too long to find")
    assert len(alive) > 3  # the loop continued during the search


def test_expression_that_another_engine_refuses_is_reported_as_such(check):
    result = check("http", answering(OK), regex="(")
    assert result.reason.startswith("'(' is not a regular expression: ")


@pytest.mark.parametrize(
    "piece",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"1\r\nx\r\n",
    ],
)
def test_answer_in_endless_small_pieces_ends(check, piece):
    async def serve(stream):
        if piece.startswith(b"1"):
            await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await stream.send_all(piece * 1000)

    result = check("http", serve, regex="y")
    assert result == Result(False, "does not speak HTTP: the answer is in more than 10000 pieces")


def test_redirection_is_not_followed_and_a_compressed_body_not_unpacked(check):
    moved = b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"
    assert check("http", answering(moved)) == Result(False, "answers 302")
    bomb = gzip.compress(bytes(1 << 24))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    assert check("http", answering(head + bomb), digest=hashlib.md5(bomb).hexdigest()).is_good


def test_answer_that_drips_ends_in_the_time_of_the_check(check):
    async def serve(stream):
        for byte in OK * 1000:
            await stream.send_all(bytes([byte]))
            await trio.sleep(0.05)

    assert check("http", serve, timeout=0.3) == Result(False, "no answer within 0.3 s")
