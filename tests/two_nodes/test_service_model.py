"""Two directors, with the health and the settings of their agents, and four servers, compared with a slow twin of the
invariants.

A story is any sequence of connections, packets, time, results of checks at each director, settings by hand, reloads,
restarts and takeovers.  A flow keeps its server while that lives; nothing is delivered to a server that does not belong
to the service; and only a director brings a client's packet to a server.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.services.schedulers import SCHEDULERS
from tests.hypothesis_profiles import examples, seeds
from tests.packets import ACK, FIN
from tests.two_nodes.directed import BY_HAND, DIRECTORS, File, Site

versions = st.sampled_from([4, 6])
weights = st.tuples(*[st.sampled_from([1, 1, 2, 5, None])] * 3)
files = st.builds(
    File,
    weights,
    st.sampled_from(sorted(SCHEDULERS)),
    st.sampled_from([0, 0, 300]),
    st.booleans(),
    st.sampled_from(["remove", "remove", "keep"]),
)
steps = st.one_of(
    st.tuples(st.just("open"), st.integers(0, 9), versions, st.sampled_from([True, True, False]), st.sampled_from([True, True, True, False])),
    st.tuples(st.just("open"), st.integers(0, 9), versions, st.just(True), st.just(True)),
    st.tuples(st.just("packet"), st.integers(0, 30), st.sampled_from([ACK, ACK, ACK, FIN | ACK])),
    st.tuples(st.just("check"), st.integers(0, 1), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("by_hand"), st.integers(0, 1), st.integers(0, 2), st.sampled_from(BY_HAND)),
    st.tuples(st.just("run"), st.sampled_from([0.1, 1.0, 10.0, 100.0])),
    st.tuples(st.just("takeover"), st.sampled_from([True, True, False])),
    st.tuples(st.just("reload"), files),
    st.tuples(st.just("restart"), st.integers(0, 1)),
    st.tuples(st.just("lie"), st.integers(0, 1), st.integers(0, 2), st.integers(0, 30)),
)  # fmt: skip


def tell(file, story):
    """Tell a story, and check in the end that all flows go where they went before, at both directors."""
    site = Site(file)
    for what, *how in story:
        getattr(site, what)(*how)
    for _ in DIRECTORS:
        site.takeover(True)
        for flow in list(site.twin.flows):
            site.send(flow, ACK)


@pytest.mark.slow
@examples(20)
@given(files, st.lists(steps, max_size=20))
def test_a_flow_keeps_its_server_whatever_happens_to_directors_while_that_lives(file, story):
    tell(file, story)


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["maglev", "wlc", "sh"])
@pytest.mark.parametrize("seed", seeds(3))
def test_many_flows_keep_their_servers_whatever_happens_to_directors(scheduler, seed):
    chance = random.Random(f"{scheduler} {seed}")
    file = File(tuple(chance.choice([1, 2, 5]) for _ in range(3)), scheduler, has_sorry=chance.random() < 0.3)
    story = []
    for _ in range(12):
        story += [("open", chance.randrange(10), chance.choice([4, 6]), True, True) for _ in range(5)]
        story.append(
            chance.choice(
                [
                    ("check", chance.randrange(2), chance.randrange(3), chance.random() < 0.6),
                    ("by_hand", chance.randrange(2), chance.randrange(3), chance.choice(BY_HAND)),
                    ("takeover", chance.random() < 0.7),
                    ("run", chance.choice([1.0, 100.0])),
                ]
            )
        )
    tell(file, story)


INTRUSIONS = (
    "stranger asks servers", "stranger asks directors", "server asks directors", "stranger answers",
    "server answers as a client",
)  # fmt: skip


@pytest.mark.parametrize("version", [4, 6])
def test_nobody_but_a_director_brings_a_packet_to_a_server_whatever_the_service_is(version):
    site = Site(File())
    for file in (
        File(),
        File((None, 1, 1)),
        File((1, None, None), "wlc", has_sorry=True),
        File((None, None, None)),
    ):
        site.reload(file)
        for what in INTRUSIONS:
            site.intrude(what, version)
