"""The errors of failed calls of etcd: what happened, and what to do about it."""

from __future__ import annotations

import os
import re
import socket
import ssl
from typing import TYPE_CHECKING

from peers.stores.etcd import messages
from peers.stores.etcd.connection import EndedError, NotHttpError
from peers.stores.etcd.messages import CallRefusedError, Cause, GarbledError, GatewayError

if TYPE_CHECKING:
    from peers.peer import Endpoint
    from peers.stores.etcd.location import EtcdLocation

# Specification: reasons of OpenSSL for a server that speaks something else
NO_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}


def away(endpoint: Endpoint, what: str) -> GatewayError:
    """Return the error of an etcd that gives no answer; *what* continues its name."""
    return GatewayError(
        Cause.AWAY, f"etcd at {endpoint} {what}; see that it runs and that this host may reach it"
    )


def ended(endpoint: Endpoint, error: Exception) -> GatewayError:
    """Return the error of a connection that ended by *error*, as calls of Connection raise it."""
    if isinstance(error, NotHttpError):
        return GatewayError(
            Cause.AWAY,
            f"what answers at {endpoint} does not speak HTTP, as etcd does ({error}); correct the URL",
        )
    if isinstance(error, EndedError):
        return away(endpoint, str(error))
    cause = error.__cause__
    why = f" ({os.strerror(cause.errno)})" if isinstance(cause, OSError) and cause.errno else ""
    return away(endpoint, f"broke the connection off{why}")


def unanswered(endpoint: Endpoint, location: EtcdLocation) -> GatewayError:
    """Return the error of an etcd that closed or reset the connection without a word."""
    if location.is_tls:
        why, remedy = "refuses the certificate of this host", _remedy_of_certificate(location)
    else:
        why, remedy = "speaks TLS", f"write {_with_tls(location)}"
    return GatewayError(
        Cause.AWAY,
        f"etcd at {endpoint} closed the connection without an answer, as one does that {why}; see its log, or {remedy}",
    )


def garbled(endpoint: Endpoint, what: str) -> GatewayError:
    """Return the error of something that is not an etcd; *what* says why."""
    return GatewayError(
        Cause.GARBLED, f"what answers at {endpoint} is not etcd 3.4 or later: {what}; correct the URL"
    )


def refused(data: bytes) -> CallRefusedError:
    """Return the error in an answer, an empty one if there is none in it."""
    try:
        return messages.refusal_in(messages.parse_object(data))
    except GarbledError:
        return CallRefusedError(0, "")


def explain(data: bytes, status: int, endpoint: Endpoint, location: EtcdLocation) -> GatewayError:
    """Return the error that an answer with another *status* than 200 is."""
    if b"HTTP request to an HTTPS server" in data:
        return GatewayError(Cause.TLS, f"etcd at {endpoint} speaks TLS; write {_with_tls(location)}")
    found = refused(data)
    if status == 404 and found.code == 0:
        return garbled(endpoint, "it answers 404, as etcd older than 3.4 does")
    return describe(found, status, endpoint, location)


def describe(
    found: CallRefusedError, status: int, endpoint: Endpoint, location: EtcdLocation
) -> GatewayError:
    """Return the error that etcd *found*, with the HTTP *status*, or 0 in a stream."""
    at, message, code = f"etcd at {endpoint}", found.message, found.code
    if code == messages.INVALID and "user name is empty" in message:
        remedy = "write ?user=NAME&password-file=FILE at the end of its URL"
        return GatewayError(Cause.LOGIN, f"{at} asks for a login; {remedy}")
    if code == messages.INVALID and "authentication failed" in message:
        return GatewayError(
            Cause.LOGIN,
            f"{at} does not let {location.user} in; correct user, or the password in {location.password_file}",
        )
    if code == messages.FORBIDDEN or "permission denied" in message:
        return GatewayError(
            Cause.FORBIDDEN,
            f"{at} does not permit {location.user or 'this host'} to do that; grant its role readwrite on the keys "
            f"that overlay uses there, those of {location.path}",
        )
    if ("connection error" in message and "preface" in message) or "bad certificate" in message:
        return GatewayError(
            Cause.TLS,
            f"{at} cannot reach itself, because its own certificate is for servers alone; etcd with client "
            "certificates needs one for both (extendedKeyUsage serverAuth, clientAuth)",
        )
    if (
        code == messages.UNAVAILABLE
        and location.cert is not None
        and re.search(r"\bconnection\b|\btcp\b", message)
    ):
        return GatewayError(
            Cause.AWAY,
            f"{at} is not able to answer ({message}); see whether its cluster has a leader, and its own certificate "
            "is for clients too (extendedKeyUsage serverAuth, clientAuth)",
        )
    if code == messages.NOT_FOUND and "lease" in message:
        return GatewayError(Cause.GONE, f"{at} has no such lease any more")
    if code == messages.UNAUTHENTICATED or status == 401:
        return GatewayError(Cause.AWAY, f"{at} does not take the login any more; it is tried again")
    if code == messages.UNAVAILABLE or status in {502, 503, 504} or not message:
        told = f" ({message})" if message else f" (HTTP {status})" if status else ""
        return GatewayError(
            Cause.AWAY, f"{at} is not able to answer{told}; see whether its cluster has a leader"
        )
    return GatewayError(Cause.REFUSED, f"{at} refuses the call: {message}")


def explain_tls(endpoint: Endpoint, error: BaseException | None, location: EtcdLocation) -> GatewayError:
    """Return the error of a connection that broke off because of TLS."""
    at = f"etcd at {endpoint}"
    if isinstance(error, ssl.SSLCertVerificationError):
        found = error.verify_message
        remedy = (
            "name the certificate of its authority with ca=FILE"
            if "self" in found or "issuer" in found
            else "use a name or address that its certificate is for, or give it another"
        )
        return GatewayError(Cause.TLS, f"the certificate of {at} is not accepted: {found}; {remedy}")
    reason = (isinstance(error, ssl.SSLError) and error.reason) or ""
    plain = _without_tls(location)
    if reason in NO_TLS:
        return GatewayError(Cause.TLS, f"{at} speaks no TLS; write {plain}")
    if "CERTIFICATE" in reason or "HANDSHAKE_FAILURE" in reason or "UNKNOWN_CA" in reason:
        return GatewayError(
            Cause.TLS,
            f"{at} does not accept the certificate of this host; {_remedy_of_certificate(location)}",
        )
    # What speaks no TLS answers in plain text, closes the connection or resets it, whichever comes first.
    if not reason or "EOF" in reason:
        what = "broke off when TLS began, as one without TLS does"
        return GatewayError(Cause.AWAY, f"{at} {what}; see its log, or write {plain}")
    return away(endpoint, f"broke off while TLS began ({reason})")


def _with_tls(location: EtcdLocation) -> str:
    return str(location).replace("etcd:", "etcds:", 1)


def _without_tls(location: EtcdLocation) -> str:
    return str(location).replace("etcds:", "etcd:", 1).partition("?")[0]


def _remedy_of_certificate(location: EtcdLocation) -> str:
    if location.cert is None:
        return "name one with cert=FILE&key=FILE"
    return f"see that {location.cert} is signed by the authority that etcd trusts, and not expired"


def cause_of(error: BaseException) -> BaseException | None:
    """Return the first error of TLS that led to *error*, else its cause."""
    at: BaseException | None = error
    while at is not None and not isinstance(at, ssl.SSLError):
        at = at.__cause__
    return at or error.__cause__


def reason_of(error: BaseException) -> str:
    """Return why no connection was made, of all attempts the first reason."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, BaseExceptionGroup):
            at = at.exceptions[0]
        elif isinstance(at, socket.gaierror):
            return str(at.strerror)
        elif isinstance(at, OSError) and at.errno:
            return os.strerror(at.errno)
        else:
            at = at.__cause__
    return str(error)
