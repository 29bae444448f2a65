"""The checkers of a real server: translates keepalived's blocks into checks of a peers file.

Defaults are those of keepalived 2.2.7; what has the same default here is left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.services.importing import words
from overlay.services.importing.settings import BlockSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from ipaddress import IPv4Address, IPv6Address

    from overlay.importing.places import Remarks
    from overlay.importing.toml_text import Value
    from overlay.services.importing.blocks import Directive
    from overlay.services.importing.plan import Keys

# Specification (keepalived 2.2.7)
DEFAULT_DELAY_LOOP = 60.0
DEFAULT_TIMEOUT = 5.0
HTTP_RETRY_DELAY = 3.0
DNS_RETRIES, SCRIPT_RETRIES = 3, 0

# Ours
DEFAULTS: dict[str, Value] = {
    "every": 6.0,
    "timeout": 5.0,
    "retries": 1,
    "retry_delay": 1.0,
    "start": "up",
    "path": "/",
    "status": ("200-299",),
    "query": ".",
    "query_type": "SOA",
}
"""The defaults of keys of a check in a peers file; a test compares them with peers.service."""
MOST_EVERY, MOST_TIMEOUT, MOST_RETRIES = 86400.0, 3600.0, 1000
QUERY_TYPES = ("A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT")

TUNNELLED = "a check always uses the tunnel to its server"
NOT_CARRIED = {
    "bindto": TUNNELLED,
    "bind_port": TUNNELLED,
    "bind_if": TUNNELLED,
    "fwmark": TUNNELLED,
    "log_all_failures": "overlay services shows the reason of the last failure",
    "user": "scripts run without the agent's privileges, whatever user is named",
    "regex_min_offset": "the whole body is searched",
    "regex_max_offset": "the whole body is searched",
    "regex_stack": "regular expressions are Python's, not those of PCRE",
    "min_reply_length": "only the beginning of an answer is compared",
    "max_reply_length": "only the beginning of an answer is compared",
    "helo_name": "the agent does not check SMTP",
    "host": "the agent does not check SMTP",
}
REGEX_OPTIONS = {"caseless": "i", "multiline": "m", "dotall": "s", "extended": "x"}


@dataclass(frozen=True, slots=True)
class Defaults:
    """A real server's defaults for its checkers, None if not set, and the server that they apply to."""

    every: float
    timeout: float
    start_down: bool
    retries: int | None
    retry_delay: float | None
    warmup: float | None
    host: str | None
    port: int | None
    addresses: tuple[IPv4Address | IPv6Address, ...]
    protocol: str
    is_single_port: bool


def read_checks(directive: Directive, given: Defaults, remarks: Remarks) -> tuple[Keys, ...]:
    """Return the checks that correspond to the checker *directive*; all must succeed."""
    reader = CHECKERS.get(directive.keyword)
    if reader is None:
        remarks.add(directive.place, str(directive), REPLACED[directive.keyword])
        return ()
    return reader(_Checker(directive, given, remarks))


class _Checker:
    """One checker and the keys that all kinds have in common."""

    def __init__(self, directive: Directive, given: Defaults, remarks: Remarks) -> None:
        self.directive, self.given, self.remarks = directive, given, remarks
        self.settings = BlockSettings(directive.content, remarks)

    def keys(
        self, kind: str, extra: dict[str, Value], *, retries: int = 1, retry_delay: float | None = 1.0
    ) -> Keys:
        """Return the keys of a check; *retries* and *retry_delay* are the kind's defaults, None is delay_loop."""
        settings, given = self.settings, self.given
        every = settings.seconds("delay_loop", 0.1, MOST_EVERY) or given.every
        found: dict[str, Value] = {"kind": kind}
        if kind not in {"ping", "script"} and (port := self._port(kind)) is not None:
            found["port"] = port
        found |= extra
        found["every"] = every
        found.setdefault("timeout", settings.seconds("connect_timeout", 0.1, MOST_TIMEOUT) or given.timeout)
        own = settings.number("retry", 0, 2**32 - 1)
        own = given.retries if own is None else own
        if own is not None and own > MOST_RETRIES:
            self.remarks.add(
                self.directive.place, f"retry {own}", f"becomes {MOST_RETRIES}, the largest accepted value"
            )
        found["retries"] = min(retries if own is None else own, MOST_RETRIES)
        delay = settings.seconds("delay_before_retry", 0, MOST_EVERY)
        delay = given.retry_delay if delay is None else delay
        delay = retry_delay if delay is None else delay
        found["retry_delay"] = every if delay is None else delay
        warmup = settings.seconds("warmup", 0, MOST_EVERY)
        warmup = given.warmup if warmup is None else warmup
        if warmup is not None and warmup != every:
            found["warmup"] = warmup
        alpha = settings.flag("alpha")
        found["start"] = "down" if (given.start_down if alpha is None else alpha) else "up"
        return tuple((key, value) for key, value in found.items() if DEFAULTS.get(key) != value)

    def finish(self) -> None:
        """Add remarks on settings that were not read."""
        self.settings.remark(NOT_CARRIED)

    def _port(self, kind: str) -> int | None:
        """Return the port to write; None if it is the service's."""
        own = self.settings.number("connect_port", 1, 65535)
        port = own or self.given.port
        is_same_protocol = self.given.protocol == ("udp" if kind in {"udp", "dns"} else "tcp")
        if port == self.given.port and self.given.is_single_port and is_same_protocol:
            return None
        return port

    def has_port(self) -> bool:
        """Return whether there is a port to check; adds a remark if there is none, or if the check goes elsewhere."""
        self.check_address()
        if self.given.port is not None or self.settings.number("connect_port", 1, 65535):
            return True
        self.remarks.add(
            self.directive.place,
            self.directive.keyword,
            "is left out, because the service has every port and this names none; write one as connect_port",
        )
        return False

    def check_address(self) -> None:
        """Add a remark if the check goes to an address other than the server's or the virtual one."""
        directive = self.settings.last("connect_ip")
        if directive is not None and directive.value not in {str(each) for each in self.given.addresses}:
            self.remarks.add(
                directive.place,
                str(directive),
                "checks go to the virtual address at the server, as clients' packets do",
            )


def _tcp(checker: _Checker) -> tuple[Keys, ...]:
    found = (checker.keys("tcp", {}),) if checker.has_port() else ()
    checker.finish()
    return found


def _smtp(checker: _Checker) -> tuple[Keys, ...]:
    checker.remarks.add(
        checker.directive.place,
        checker.directive.keyword,
        "the agent does not check SMTP; this becomes a check that connects",
    )
    hosts = [each for each in checker.directive.content if each.keyword == "host" and each.block is not None]
    inner = hosts[0].content if hosts else []
    checker.settings = BlockSettings([*checker.directive.content, *inner], checker.remarks)
    checker.settings.each("helo_name", "host")
    found = (checker.keys("tcp", {}),) if checker.has_port() else ()
    checker.finish()
    return found


def _ping(checker: _Checker) -> tuple[Keys, ...]:
    checker.settings.each("connect_port")
    checker.check_address()
    found = checker.keys("ping", {})
    checker.finish()
    return (found,)


def _udp(checker: _Checker) -> tuple[Keys, ...]:
    extra: dict[str, Value] = {}
    payload, reply = checker.settings.last("payload"), checker.settings.each("require_reply")
    if payload is not None and (sent := _bytes(checker, payload)):
        extra["send_hex"] = sent
    if reply and not reply[-1].value:
        extra["expect"] = ""
    elif reply:
        expected = _bytes(checker, reply[-1])
        extra |= {"expect_hex": expected} if expected else {"expect": ""}
    found = (checker.keys("udp", extra),) if checker.has_port() else ()
    checker.finish()
    return found


def _bytes(checker: _Checker, directive: Directive) -> str:
    digits = "".join(directive.values)
    try:
        return bytes.fromhex(digits).hex(" ")
    except ValueError:
        checker.remarks.add(directive.place, str(directive), "has characters other than hexadecimal digits")
        return ""


def _dns(checker: _Checker) -> tuple[Keys, ...]:
    extra: dict[str, Value] = {"query_type": "SOA"}
    name, kind = checker.settings.last("name"), checker.settings.last("type")
    if name is not None:
        extra = {"query": name.value, **extra}
    if kind is not None and kind.value.upper() in QUERY_TYPES:
        extra["query_type"] = kind.value.upper()
    elif kind is not None:
        checker.remarks.add(
            kind.place, str(kind), f"is not one of {', '.join(QUERY_TYPES)}; SOA is asked for"
        )
    found: tuple[Keys, ...] = ()
    if checker.has_port():
        found = (checker.keys("dns", extra, retries=DNS_RETRIES, retry_delay=None),)
    checker.finish()
    return found


def _script(checker: _Checker) -> tuple[Keys, ...]:
    settings = checker.settings
    path, timeout = settings.last("misc_path"), settings.seconds("misc_timeout", 0, MOST_TIMEOUT)
    is_dynamic = bool(settings.each("misc_dynamic"))
    every = settings.seconds("delay_loop", 0.1, MOST_EVERY) or checker.given.every
    command = () if path is None else read_command(path, checker.remarks)
    found: tuple[Keys, ...] = ()
    if command:
        extra: dict[str, Value] = {"command": command}
        if is_dynamic:
            extra["weight_from_exit"] = True
        extra["timeout"] = min(timeout or every, MOST_TIMEOUT)
        found = (checker.keys("script", extra, retries=SCRIPT_RETRIES),)
    elif path is None:
        checker.remarks.add(
            checker.directive.place, checker.directive.keyword, "has no misc_path, and is ignored"
        )
    checker.finish()
    return found


def read_command(directive: Directive, remarks: Remarks) -> tuple[str, ...]:
    """Return the program and its arguments in *directive*; adds a remark if there are none."""
    reason = "is not a command"
    try:
        found = words.split_escaped(directive.text)
        command = words.split_escaped(found[1]) if len(found) > 1 else ()
        if command and command[0].startswith("/") and not any("\0" in word for word in command):
            if len(found) > 2 and directive.keyword != "misc_path":
                remarks.add(
                    directive.place,
                    " ".join(found[2:]),
                    "commands run without the agent's privileges, whatever user is named",
                )
            return command
        reason = "does not begin with the full path of a program"
    except ValueError as error:
        reason = str(error)
    remarks.add(directive.place, str(directive), reason)
    return ()


def _http(checker: _Checker) -> tuple[Keys, ...]:
    settings = checker.settings
    is_tls = checker.directive.keyword == "SSL_GET"
    checker.settings.each(
        "fast_recovery"
    )  # checks are independent here, so a server is up as soon as possible
    for directive in settings.each("nb_get_retry"):
        if not settings.each("retry"):
            directive.words = ("retry", *directive.values)
    protocol = settings.last("http_protocol")
    if protocol is not None and protocol.value != "1.1":
        checker.remarks.add(protocol.place, str(protocol), "requests use HTTP/1.1")
    host = settings.last("virtualhost")
    name = checker.given.host if host is None else host.value
    has_sni = settings.flag("enable_sni")
    urls = settings.each("url")
    found: list[Keys] = []
    if checker.has_port():
        for url in urls:
            extra = _url(url, name, checker.remarks)
            if extra is None:
                continue
            if is_tls and has_sni and "host" in extra:
                extra["sni"] = extra["host"]
            found.append(checker.keys("https" if is_tls else "http", extra, retry_delay=HTTP_RETRY_DELAY))
    if not urls:
        checker.remarks.add(checker.directive.place, checker.directive.keyword, "has no url, and is ignored")
    checker.finish()
    return tuple(dict.fromkeys(found))


def _url(url: Directive, host: str | None, remarks: Remarks) -> dict[str, Value] | None:
    """Return the keys for one page; None if it names none."""
    settings = BlockSettings(url.content, remarks)
    path = settings.last("path")
    if path is None:
        remarks.add(url.place, "url", "has no path, and is ignored")
        return None
    extra: dict[str, Value] = {"path": _path(path, remarks)}
    if (status := _status(settings, remarks)) is not None:
        extra["status"] = status
    digest = settings.last("digest")
    if digest is not None and re.fullmatch(r"[0-9a-fA-F]{32}", digest.value):
        extra["digest"] = digest.value.lower()
    elif digest is not None:
        remarks.add(
            digest.place, str(digest), "is not an MD5 digest in 32 hexadecimal digits, and is ignored"
        )
    if (regex := _regex(settings, remarks)) is not None:
        extra["regex"] = regex
    own_host = settings.last("virtualhost")
    name = host if own_host is None else own_host.value
    if name and name.isascii() and name.isprintable() and " " not in name and len(name) < 254:
        extra["host"] = name
    elif name:
        remarks.add((own_host or url).place, f"virtualhost {name}", "is not the name of a host")
    settings.remark(NOT_CARRIED)
    return extra


def _path(directive: Directive, remarks: Remarks) -> str:
    """Return the path of a page in the form that a request line allows."""
    path = "".join(
        each
        if each.isascii() and each.isprintable() and each != " "
        else "".join(f"%{byte:02X}" for byte in each.encode(errors="replace"))
        for each in directive.value
    )
    if path.startswith("/") and len(path) <= 1024:
        return path
    remarks.add(
        directive.place, str(directive), "is not a path that begins with / and has at most 1024 characters"
    )
    return f"/{path}"[:1024].replace("//", "/", 1)


def _status(settings: BlockSettings, remarks: Remarks) -> tuple[Value, ...] | None:
    found: list[Value] = []
    for directive in settings.each("status_code"):
        for value in directive.values:
            match = re.fullmatch(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?", value)
            if match is None or int(match[2] or match[1]) < int(match[1]):
                remarks.add(
                    directive.place, f"status_code {value}", "is not a status from 100 to 599, and is ignored"
                )
            elif match[2] is None or match[1] == match[2]:
                found.append(int(match[1]))
            else:
                found.append(value)
    return tuple(dict.fromkeys(found)) or None


def _regex(settings: BlockSettings, remarks: Remarks) -> str | None:
    directive = next(reversed(settings.each("regex")), None)
    options, is_reversed = settings.each("regex_options"), settings.each("regex_no_match")
    if directive is None:
        return None
    letters = ""
    for each in options:
        for option in each.values:
            if option in REGEX_OPTIONS:
                letters += REGEX_OPTIONS[option]
            else:
                remarks.add(
                    each.place, f"regex_options {option}", "Python's regular expressions have no such option"
                )
    try:
        found = words.split_escaped(directive.text)
        pattern = found[1] if len(found) == 2 else ""
        if not pattern:
            raise ValueError("is not one regular expression")
        flags = "".join(sorted(set(letters)))
        if is_reversed:
            pattern = f"\\A(?!(?s:.*?)(?{flags}:{pattern}))"
        elif flags:
            pattern = f"(?{flags}){pattern}"
        if len(pattern) > 1024:
            raise ValueError("has more than 1024 characters")
        re.compile(pattern.encode())
    except (ValueError, re.error, OverflowError, RecursionError) as error:
        reason = (
            f"is not a regular expression of Python: {error}" if isinstance(error, re.error) else str(error)
        )
        remarks.add(directive.place, str(directive), f"{reason}; the body is not searched")
        return None
    return pattern


CHECKERS: dict[str, Callable[[_Checker], tuple[Keys, ...]]] = {
    "TCP_CHECK": _tcp,
    "HTTP_GET": _http,
    "SSL_GET": _http,
    "UDP_CHECK": _udp,
    "DNS_CHECK": _dns,
    "PING_CHECK": _ping,
    "MISC_CHECK": _script,
    "SMTP_CHECK": _smtp,
}
REPLACED = {
    "BFD_CHECK": "the agent does not speak BFD; write a check of another kind",
    "FILE_CHECK": "files are not tracked; overlay services weight sets a weight by hand",
}
"""Checkers without a counterpart, with the reason."""
KEYWORDS = (*CHECKERS, *REPLACED)
