"""Where clients of a service may be."""

from __future__ import annotations

from peers.services.clients import places_of
from tests.peers.services.files import PLAIN, read, web

WIREGUARD = PLAIN.replace("[peers.plain]", "[peers.phone]").replace(
    'encapsulation = "ipip"', 'agent = false\npublic_key = "DY1X6q7LmSThjaSdMPmTs7LTkI971d+0dxdtL8ZfTH4="'
).replace(".50", ".60")  # fmt: skip


def places(*texts):
    """Return the places of the first service, by name."""
    table = read(*texts)
    (service, *_) = table.services.values()
    return {place.name: place for place in places_of(service, table.peers)}


def test_places_are_told_apart_by_what_the_hosts_are_to_the_service():
    found = places(
        web(
            'directors = ["lb1", "lb2"]', 'servers = ["web1", "lb2", { peer = "web2", address = "10.9.9.9" }]'
        ),
        PLAIN,
    )

    assert {name: place.peers for name, place in found.items()} == {
        "director": ("lb1", "lb2"),
        "peer": ("web2", "web3", "static"),
        "server": ("web1",),
        "plain": ("plain",),
        "lan": (),
        "routed": (),
    }
    assert all(place.works for place in found.values())


def test_where_every_node_balances_all_agents_are_directors():
    found = places(web("servers = 'web1'"), PLAIN)

    assert found["director"].peers == ("lb1", "lb2", "web1", "web2", "web3", "static")
    assert "peer" not in found
    assert "server" not in found


def test_wireguard_without_an_agent_needs_answers_from_one_director():
    direct = places(web('directors = "lb1"', "servers = 'web1'"), WIREGUARD)["wireguard"]
    through = places(web('directors = "lb1"', "servers = 'web1'", 'reply = "director"'), WIREGUARD)[
        "wireguard"
    ]
    several = places(web("servers = 'web1'", 'reply = "director"'), WIREGUARD)["wireguard"]

    assert (direct.works, through.works, several.works) == (False, True, False)
    assert 'write reply = "director"' in direct.way
    assert direct.peers == ("phone",)


def test_a_director_without_a_key_is_an_agent():
    assert places(web('directors = "plain"', "servers = 'web1'"), PLAIN)["director"].peers == ("plain",)
