"""Services in generated peers files, valid and invalid."""

from __future__ import annotations

import tomllib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from peers.errors import TableError
from peers.hints import warnings
from peers.peer import Network
from peers.problems import find_problems
from peers.service import SCHEDULERS, Check, Server, Service, Vrrp
from peers.services.keys import EVERY_CHECK, SERVER, SERVICE, VRRP
from peers.services.reading import read_service
from peers.toml import parse
from peers.toml_section import Section
from tests.hypothesis_profiles import examples
from tests.peers.services.files import HEAD, PATH, toml, written

NAMES = st.from_regex(r"[A-Za-z0-9._-]{1,63}", fullmatch=True)
ADDRESSES = st.ip_addresses(network="192.0.2.0/24") | st.ip_addresses(network="2001:db8::/32")
WORDS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20), max_size=4)
COMMANDS = WORDS.map(lambda words: ("/bin/x", *words))
SECONDS = st.floats(0.1, 3600)


def ranges(least, most):
    """Return ranges from *least* to *most*, sorted and separate."""
    bounds = st.lists(st.integers(least, most), min_size=2, max_size=8, unique=True).map(sorted)
    return bounds.map(lambda numbers: tuple(zip(numbers[::2], numbers[1::2], strict=False)))


TIMES = {
    "every": SECONDS,
    "timeout": SECONDS,
    "retries": st.integers(0, 1000),
    "retry_delay": SECONDS,
    "warmup": st.none() | SECONDS,
    "rise": st.integers(1, 1000),
    "start": st.sampled_from(["up", "down"]),
    "port": st.none() | st.integers(1, 65535),
}
PAGES = {
    "path": st.from_regex(r"/[a-z0-9?=&%]{0,20}", fullmatch=True),
    "status": ranges(100, 599).filter(bool),
    "regex": st.none() | st.sampled_from(["ready", "^a.*b$", "(?i)OK"]),
    "digest": st.none() | st.from_regex(r"[0-9a-f]{32}|[0-9a-f]{64}", fullmatch=True),
    "host": st.none() | st.just("www.example.net"),
}
CHECKS = st.one_of(
    st.builds(Check, st.sampled_from(["tcp", "ping"]), **TIMES),
    st.builds(Check, st.just("http"), **TIMES, **PAGES),
    st.builds(
        Check, st.just("https"), **TIMES, **PAGES, sni=st.none() | st.just("a.b"), verify=st.booleans()
    ),
    st.builds(
        Check,
        st.just("udp"),
        **TIMES,
        send=st.binary(max_size=9),
        expect=st.none() | st.binary(min_size=1, max_size=9),
    ),
    st.builds(Check, st.just("dns"), **TIMES, query=st.just("a.example."), query_type=st.just("MX")),
    st.builds(Check, st.just("script"), **TIMES, command=COMMANDS, weight_from_exit=st.booleans()),
)
SERVERS = st.builds(
    Server,
    NAMES,
    NAMES,
    st.none() | ADDRESSES,
    st.none() | st.integers(1, 65535),
    st.integers(0, 65535),
    st.integers(100, 4_000_000),
    st.integers(0, 100),
    st.none() | st.lists(CHECKS, max_size=2).map(tuple),
)
GROUPS = st.builds(
    Vrrp,
    st.just("services/web"),
    st.integers(1, 255),
    st.just("eth0"),
    version=st.sampled_from([2, 3]),
    priority=st.none() | st.integers(1, 255),
    interval=st.sampled_from([1.0, 2.0, 40.0]),
    preempt=st.booleans(),
    preempt_delay=st.floats(0, 1000),
    track_overlay=st.booleans(),
    track_weight=st.integers(0, 253),
)
SERVICES_AT_ALL = st.builds(
    Service,
    st.just("web"),
    st.lists(ADDRESSES, min_size=1, max_size=3, unique=True).map(tuple),
    ranges(1, 65535),
    st.lists(st.sampled_from(["tcp", "udp", "sctp"]), min_size=1, unique=True).map(tuple),
    st.none()
    | st.lists(NAMES.filter(lambda name: name != "all"), min_size=1, max_size=3, unique=True).map(tuple),
    st.sampled_from(SCHEDULERS),
    st.integers(0, 2678400),
    servers=st.lists(SERVERS, max_size=4, unique_by=(lambda each: each.name, lambda each: each.key)).map(
        tuple
    ),
    checks=st.lists(CHECKS, max_size=2).map(tuple),
    sorry=st.none() | SERVERS,
    quorum=st.integers(1, 2**31 - 1),
    hysteresis=st.integers(0, 2**31 - 1),
    on_failure=st.sampled_from(["remove", "keep"]),
    reply=st.sampled_from(["direct", "director"]),
    one_packet=st.booleans(),
    slow_start=st.floats(0, 86400),
    idle_tcp=SECONDS.map(lambda seconds: seconds + 1),
    recent_flows=st.integers(0, 4_000_000),
    up_command=st.just(()) | COMMANDS,
    vrrp=st.none() | GROUPS,
)


@given(SERVICES_AT_ALL)
@examples(200)
def test_every_service_reads_back_from_what_writes_it(service):
    text = "[web]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in written(service).items())

    draft = read_service(Section(("services",), tomllib.loads(text)), "web", Network(()), Path("/etc"))

    assert draft.finish({}, {}) == service


ANY_NAME = st.sampled_from([key.name for key in (*SERVICE, *SERVER, *EVERY_CHECK, *VRRP)])
KNOWN_WORDS = st.sampled_from(
    [
        "web1",
        "lb1",
        "nobody",
        "tcp",
        "http",
        "https",
        "udp",
        "dns",
        "script",
        "all",
        "192.0.2.1",
        "10.244.0.3",
        "::1",
        "8000-8099",
        "9-1",
        "200-299",
        "/health",
        "maglev",
        "rr",
        "eth0",
        "page",
        "lan",
        "",
        "(",
        "\u00e9\0\n",
    ]
)
NUMBERS = st.integers(-1, 70000) | st.integers() | st.floats()
DATES = st.dates().map(str) | st.just("07:32:00")
VALUES = st.recursive(
    NUMBERS.map(toml)
    | KNOWN_WORDS.map(toml)
    | st.text(st.characters(codec="utf-8"), max_size=9).map(toml)
    | DATES,
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(ANY_NAME, inner, max_size=4).map(
            lambda table: f"{{ {', '.join(f'{key} = {value}' for key, value in table.items())} }}"
        )
    ),
    max_leaves=8,
)
TABLES = st.sampled_from(
    [
        "[services.web]",
        "[services.web.check]",
        "[[services.web.servers]]",
        "[services.other]",
        "[services.web.vrrp]",
        "[checks.page]",
        "[vrrp.lan]",
        "[services]",
        "[checks]",
        '[services."a/b"]',
        "[vrrp.lan.priority]",
    ]
)
SECTIONS_OF_ANY_KIND = st.builds(
    lambda header, keys: header + "\n" + "".join(f"{key} = {value}\n" for key, value in keys.items()),
    TABLES,
    st.dictionaries(ANY_NAME, VALUES, max_size=5),
)


@given(st.lists(SECTIONS_OF_ANY_KIND, max_size=4))
@examples(300)
def test_what_is_no_service_is_one_sentence_and_nothing_worse(sections):
    text = HEAD + "".join(sections)

    problems = find_problems(text, PATH)
    try:
        found = warnings(parse(text, PATH))
    except TableError as error:
        found = [str(error)]

    assert len({(each.line, each.problem) for each in problems}) == len(problems)
    assert bool(problems) == found[0].startswith(f"{PATH}") if found else not problems
    assert not [each for each in found if "\n" in each]
