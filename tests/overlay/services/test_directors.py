"""Who is active: directors that start, die, return and are cut off, and the nodes that follow them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.services.directors import ActiveChanged, Announce, Directors, group_number
from overlay.wire import control
from overlay.wire.control import Presence

GROUP = ("lb1", "lb2", "lb3")
NODES = (*GROUP, "web", "client")


class World:
    """Nodes of one group that hear each other immediately, except for those that are cut off, and a clock."""

    def __init__(self, names=NODES, group=GROUP):
        self.now, self.group, self.nodes, self.news = 0.0, group, {}, []
        self.cut = set()  # pairs that do not hear each other, and names of nodes that nobody hears
        for name in names:
            self.start(name)

    def start(self, name):
        self.nodes[name] = Directors(name)
        self.carry(name, self.nodes[name].adopt([self.group], self.now))
        for other in list(self.nodes):
            if other != name and self.hears(name, other):
                self.carry(other, self.nodes[other].met(name))
                self.carry(name, self.nodes[name].met(other))

    def kill(self, name):
        del self.nodes[name]

    def hears(self, one, other):
        return not {one, other, (one, other), (other, one)} & self.cut

    def carry(self, sender, outputs):
        for output in outputs:
            if isinstance(output, ActiveChanged):
                self.news.append((round(self.now, 3), sender, output.active))
                continue
            presence = control.parse(control.build(output.presence))
            for name in list(self.nodes):
                if (
                    name != sender
                    and (output.peers is None or name in output.peers)
                    and self.hears(sender, name)
                ):
                    self.carry(name, self.nodes[name].heard(sender, presence, self.now))

    def run(self, seconds):
        end = self.now + seconds
        while (due := min(node.next_deadline() for node in self.nodes.values())) <= end:
            self.now = max(self.now, due)
            for name in list(self.nodes):
                self.carry(name, self.nodes[name].handle_deadline(self.now))
        self.now = end

    def active(self):
        return {name: node.active(self.group) for name, node in self.nodes.items()}

    def everybody_goes_to(self, director):
        return set(self.active().values()) == {director}


@pytest.mark.parametrize(
    ("own", "reason"),
    [("lb1", "it is the first of its directors"), ("lb3", "lb1 and lb2 are silent")],
)
def test_director_that_starts_alone_says_why_it_is_active(own, reason):
    node = Directors(own)
    outputs = node.adopt([GROUP], 0.0)
    for _ in range(20):
        outputs += node.handle_deadline(node.next_deadline())

    assert [each for each in outputs if isinstance(each, ActiveChanged)] == [
        ActiveChanged(GROUP, own, reason)
    ]


def test_first_of_the_file_is_active_at_once():
    world = World()
    assert world.everybody_goes_to("lb1")
    world.run(30)
    assert world.everybody_goes_to("lb1")
    assert [name for name in GROUP if world.nodes[name].is_active(GROUP)] == ["lb1"]
    assert {name for _, name, _ in world.news} <= {"lb1"}  # no node has ever switched


@pytest.mark.parametrize("place", [0, 1])
def test_everybody_goes_to_the_next_within_two_seconds_after_the_active_one_died(place):
    world = World()
    world.run(30)
    for name in GROUP[:place]:
        world.kill(name)
        world.run(30)
    world.kill(GROUP[place])
    world.run(1.99)
    assert world.everybody_goes_to(GROUP[place + 1])


def test_more_directors_may_be_gone_than_a_message_names():
    group = tuple(f"lb{number}" for number in range(20))
    world = World((*group, "client"), group)
    world.run(30)
    for name in group[:17]:
        world.kill(name)
    world.run(3)
    assert world.everybody_goes_to("lb17")


def test_director_that_comes_back_is_active_again_at_once():
    world = World()
    world.run(30)
    world.kill("lb1")
    world.run(30)
    world.start("lb1")
    world.run(0.5)
    assert world.everybody_goes_to("lb1")


def test_second_director_that_starts_beside_the_first_does_not_take_over_for_a_moment():
    world = World(names=("lb1", "client"))
    world.run(30)
    world.news.clear()
    world.start("lb2")
    world.run(30)
    assert world.everybody_goes_to("lb1")
    assert world.news == []


@pytest.mark.parametrize("apart", [3.0, 3.1, 3.2, 3.3])
def test_claim_of_a_director_that_did_not_hear_the_first_is_over_as_soon_as_it_does(apart):
    """Like one that restarts, and whose sessions with clients are up before the one with the other director."""
    world = World(names=("lb1", "lb2", "client"))
    world.run(30)
    world.kill("lb2")
    world.run(5.0)
    world.cut.add(("lb1", "lb2"))
    world.start("lb2")
    world.run(apart)
    assert world.active()["client"] == "lb2"
    world.cut.clear()
    world.run(0.9)

    assert world.everybody_goes_to("lb1")
    count = len(world.news)
    world.run(100)
    assert len(world.news) == count


def test_two_that_are_active_tell_everybody_a_few_times_a_second_at_most():
    world = World(names=("lb1", "lb2", "client"))
    said = []
    carry = world.carry
    world.carry = lambda sender, outputs: (
        said.extend((sender, each) for each in outputs if isinstance(each, Announce)),
        carry(sender, outputs),
    )
    world.run(30)
    for _ in range(50):
        world.carry(
            "lb1", world.nodes["lb1"].heard("lb2", Presence(group_number(GROUP), True, (0,)), world.now)
        )
        world.run(0.1)

    assert len([each for name, each in said if name == "lb1" and each.peers is None]) < 25


def test_second_director_without_the_first_waits_as_long_as_one_would_be_heard():
    world = World(names=("lb2", "client"))
    assert not world.nodes["lb2"].is_active(GROUP)
    world.run(1.3)
    assert world.nodes["lb2"].is_active(GROUP)
    assert world.everybody_goes_to("lb2")


def test_node_that_starts_later_learns_who_is_active_from_the_session():
    world = World()
    world.run(30)
    world.kill("lb1")
    world.run(30)
    world.start("late")
    assert world.active()["late"] == "lb2"


def test_node_that_hears_nothing_from_a_director_goes_to_the_next():
    world = World()
    world.run(30)
    world.cut.add(("lb1", "client"))
    world.carry("client", world.nodes["client"].lost("lb1", world.now))
    assert world.active()["client"] == "lb2"
    assert world.active()["web"] == "lb1"


def test_claim_is_repeated_for_peers_that_missed_it():
    world = World()
    world.run(30)
    world.cut.add("client")
    world.kill("lb1")
    world.run(1.3)
    world.cut.clear()
    world.run(1.0)
    assert world.everybody_goes_to("lb2")


def test_after_a_cut_between_the_directors_all_is_as_before():
    world = World()
    world.run(30)
    world.cut.update({("lb1", "lb2"), ("lb1", "lb3")})
    world.run(30)
    assert world.nodes["lb1"].is_active(GROUP)
    assert world.nodes["lb2"].is_active(GROUP)
    assert world.active()["client"] in {"lb1", "lb2"}
    world.cut.clear()
    world.run(15)
    assert world.everybody_goes_to("lb1")


def test_peer_that_is_not_a_director_of_the_group_is_ignored():
    node = Directors("client")
    node.adopt([GROUP], 0.0)
    claim = Presence(group_number(GROUP), True, (0,))
    assert node.heard("web", claim, 1.0) == []
    assert node.heard("lb2", Presence(group_number(GROUP[:2]), True, (0,)), 1.0) == []
    assert node.active(GROUP) == "lb1"
    assert node.heard("lb2", claim, 1.0) == [ActiveChanged(GROUP, "lb2", "lb2 said so")]


def test_director_before_it_that_it_cannot_hear_counts_as_alive():
    node = Directors("lb2")
    node.adopt([GROUP], 0.0, {"lb1"})
    while (due := node.next_deadline()) < 10.0:
        node.handle_deadline(due)
    assert not node.is_active(GROUP)
    assert node.active(GROUP) == "lb1"


def test_places_beyond_the_group_and_its_own_are_passed_over():
    node = Directors("client")
    node.adopt([GROUP], 0.0)
    node.heard("lb2", Presence(group_number(GROUP), True, (0, 1, 77, 2**60)), 1.0)
    assert node.active(GROUP) == "lb2"


def test_heartbeats_go_to_directors_and_now_and_then_to_everybody():
    node = Directors("lb1")
    told = node.adopt([GROUP], 0.0)
    while (due := node.next_deadline()) < 30.0:
        told += node.handle_deadline(due)
    everybody = [each for each in told if isinstance(each, Announce) and each.peers is None]
    beats = [each for each in told if isinstance(each, Announce) and each.peers == ("lb2", "lb3")]
    assert len(everybody) == 1 + 2 + 2
    assert 70 <= len(beats) <= 80
    assert {each.presence for each in everybody} == {Presence(group_number(GROUP), True, (1, 2))}


def test_reload_keeps_what_is_known_of_groups_that_stay():
    world = World()
    world.run(30)
    world.kill("lb1")
    world.run(30)
    client = world.nodes["client"]
    assert client.adopt([GROUP, ("lb3",)], world.now) == []
    assert client.active(GROUP) == "lb2"
    assert client.active(("lb3",)) == "lb3"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("kill", "start", "cut", "heal")),
            st.sampled_from(NODES),
            st.sampled_from(NODES),
            st.floats(0.0, 3.0),
        ),
        max_size=15,
    )
)
def test_after_quiet_everybody_goes_to_the_first_that_lives(story):
    world = World()
    for event, one, other, pause in story:
        if event == "kill" and one in world.nodes and len(world.nodes) > 1:
            world.kill(one)
        elif event == "start" and one not in world.nodes:
            world.start(one)
        elif event == "cut":
            world.cut.add((one, other))
        elif event == "heal":
            world.cut.clear()
        world.run(pause)
    world.cut.clear()
    world.run(15)

    alive = [name for name in GROUP if name in world.nodes]
    if alive:
        assert world.everybody_goes_to(alive[0])
        assert [name for name in alive if world.nodes[name].is_active(GROUP)] == alive[:1]


def test_every_node_knows_why_a_director_is_active():
    world = World()
    world.run(5)
    reasons = {name: node.why(GROUP) for name, node in world.nodes.items()}
    assert reasons == {
        "lb1": "it is the first of its directors",
        "lb2": "lb1 comes before this node and is alive",
        "lb3": "lb1 comes before this node and is alive",
        "web": "lb1 says so",
        "client": "lb1 says so",
    }

    world.kill("lb1")
    world.run(5)
    assert world.nodes["lb2"].why(GROUP) == "lb1 is silent"
    assert world.nodes["client"].why(GROUP) == "lb2 says so"


def test_reasons_tell_what_is_not_known_yet_or_cannot_be():
    late = Directors("lb2")
    late.adopt([GROUP], 0.0)
    assert late.why(GROUP) == "it is not known yet which directors are alive"

    deaf = Directors("lb3")
    deaf.adopt([GROUP], 0.0, ["lb2"])
    deaf.handle_deadline(5.0)
    assert deaf.why(GROUP).startswith("lb2 comes before this node and cannot be heard through its tunnel")

    client = Directors("client")
    client.adopt([GROUP], 0.0)
    assert client.why(GROUP) == "it is the first of its directors"
    client.lost("lb1", 1.0)
    client.lost("lb2", 1.0)
    assert client.why(GROUP) == "lb1 and lb2 are gone"
