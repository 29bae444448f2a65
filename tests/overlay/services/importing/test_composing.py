"""Plans as sections that follow a peers file, or are one."""

from overlay.services.importing.composing import CannotFollowError
from tests.overlay.services.importing.reading import keepalived, real_server, refusal, virtual_server
from tests.overlay.services.importing.test_owners import KEYS, PEERS

LINK = f"""[network]
prefix = "10.244.0.0/16"
{{}}
[peers.a]
public_key = "{KEYS[0]}"
endpoint = "192.0.2.1"
address = "10.244.0.1"
[peers.b]
public_key = "{KEYS[1]}"
address = "10.244.0.2"
"""
VRRP = "vrrp_instance v {\ninterface eth0\nvirtual_router_id 5\npriority 12\nvirtual_ipaddress {\n10.9.9.9\n}\n}\n"


def test_servers_are_the_peers_of_the_file():
    servers = (
        real_server(address="10.244.2.1")
        + real_server("weight 2", "10.244.1.7")
        + real_server(address="192.0.2.1")
    )

    imported = keepalived(virtual_server("sorry_server 10.244.1.8 80", servers), ("b",), PEERS)

    service = imported.service
    assert [(each.peer, each.address and str(each.address), each.weight) for each in service.servers] == [
        ("b", None, 1),
        ("a", "10.244.1.7", 2),
        ("a", None, 1),
    ]
    assert (service.sorry.peer, str(service.sorry.address)) == ("a", "10.244.1.8")
    assert "[peers" not in imported.text
    assert "[network]" not in imported.text


def test_servers_that_the_file_does_not_have_become_peers_in_the_clear():
    imported = keepalived(virtual_server(), ("a",), LINK.format(""))

    added = imported.table.peers["10.0.0.2"]
    assert (str(added.endpoint), added.encapsulation, added.is_agent) == ("10.0.0.2", "ipip", False)
    assert imported.table.peers.keys() == {"a", "b", "10.0.0.2"}


def test_two_servers_that_are_one_peer_are_named():
    imported = keepalived(
        virtual_server(servers=real_server(address="192.0.2.1") + real_server(address="10.244.1.0")),
        (),
        PEERS,
    )

    assert len(imported.service.servers) == 1
    assert imported.remarks == [
        "k.conf:8: real_server 10.244.1.0 80: is the same peer as the server of line 5"
    ]


def test_server_with_the_endpoint_of_two_peers_is_left_out():
    servers = real_server(address="192.0.2.3") + real_server(address="192.0.2.1")

    imported = keepalived(virtual_server(servers=servers), (), PEERS)

    assert [each.peer for each in imported.service.servers] == ["a"]
    assert "is where c and d have their endpoints" in imported.remarks[0]


def test_file_that_takes_no_peers_in_the_clear_keeps_its_own_servers():
    servers = real_server() + real_server(address="192.0.2.1")

    imported = keepalived(virtual_server(servers=servers), (), LINK.format("point_to_point = true"))

    assert [each.peer for each in imported.service.servers] == ["a"]
    (remark,) = imported.remarks
    assert remark.startswith(
        "k.conf:5: real_server 10.0.0.2 80: is not a peer of the file, and cannot become an unencrypted one"
    )


def test_service_without_a_server_that_is_left_is_left_out():
    imported = keepalived(virtual_server(), (), LINK.format("point_to_point = true"))

    assert imported.text == ""
    assert len(imported.remarks) == 2


def test_names_of_the_file_are_not_taken_again():
    own = '[checks.tcp]\nkind = "tcp"\n[services."10.9.9.9-tcp-80"]\naddress = "10.9.9.1"\nservers = ["a"]\n'
    servers = real_server("TCP_CHECK {\n}")
    both = virtual_server(servers=servers) + virtual_server(servers=servers, head="10.9.9.8 80")

    imported = keepalived(both, (), LINK.format("") + own)

    assert set(imported.table.services) == {"10.9.9.9-tcp-80", "10.9.9.9-tcp-80-imported", "10.9.9.8-tcp-80"}
    assert imported.text.count('check = "tcp-2"') == 2


def test_what_the_reader_refuses_is_left_out_with_its_reason():
    both = virtual_server(head="10.244.0.1 80") + virtual_server()

    imported = keepalived(both, (), LINK.format(""))

    assert list(imported.table.services) == ["10.9.9.9-tcp-80"]
    (remark,) = imported.remarks
    assert remark.startswith("k.conf:1: virtual_server 10.244.0.1 80: address ")
    assert remark.endswith("; it is left out")


def test_what_is_there_already_is_left_out_however_much_it_is():
    text = "".join(virtual_server(head=f"10.9.9.{number} 80") for number in range(1, 31))
    first = keepalived(text, ("lb1",))

    again = keepalived(text, ("lb1",), first.text)

    assert again.text == ""
    assert len(again.remarks) == 30


def test_server_alone_is_left_out_where_the_reader_refuses_it_alone():
    """A container has to be of the family of the service."""
    servers = real_server(address="fd00:1::7") + real_server(address="192.0.2.1")
    peers = PEERS.replace('subnets = ["10.244.1.0/24"', 'subnets = ["fd00:1::/64", "10.244.1.0/24"')

    imported = keepalived(virtual_server(servers=servers), (), peers)

    assert [each.peer for each in imported.service.servers] == ["a"]
    (remark,) = imported.remarks
    assert remark.startswith("k.conf:5: real_server fd00:1::7 80: servers[0].address ")


def test_file_that_no_section_can_follow_is_refused():
    peers = f'peers = {{ a = {{ public_key = "{KEYS[0]}", address = "10.244.0.1" }} }}\n[network]\nprefix = "10.244.0.0/16"\n'

    assert refusal(CannotFollowError, keepalived, virtual_server(), (), peers)


def test_directors_are_peers_with_an_agent_in_a_new_file():
    imported = keepalived(virtual_server(), ("lb1", "lb2"))

    assert imported.service.directors == ("lb1", "lb2")
    assert [imported.table.peers[name].is_agent for name in ("lb1", "lb2", "10.0.0.2")] == [True, True, False]


def test_without_names_the_director_of_a_new_file_is_the_host_that_was_imported():
    imported = keepalived(virtual_server())

    assert imported.service.directors == ("director",)
    assert imported.table.peers["director"].is_agent


def test_without_names_every_host_of_a_known_file_balances():
    imported = keepalived(virtual_server(), (), LINK.format(""))

    assert imported.service.directors is None
    assert "No directors are named" in imported.text


def test_vrrp_needs_directors_and_gives_the_first_the_priority_of_the_file():
    named = keepalived(VRRP + virtual_server(), ("lb1", "lb2", "lb3"))
    nameless = keepalived(VRRP + virtual_server(), (), LINK.format(""))

    vrrp = named.service.vrrp
    assert (vrrp.router, vrrp.version, vrrp.interface) == (5, 2, "eth0")
    assert [vrrp.priority_of(name, ("lb1", "lb2", "lb3")) for name in ("lb1", "lb2", "lb3")] == [12, 2, 1]
    assert nameless.service.vrrp is None
    assert nameless.remarks == [
        "k.conf:1: vrrp_instance v: the directors of a service speak VRRP; name them with --director"
    ]


def test_output_is_the_same_each_time():
    text = VRRP + virtual_server(servers=real_server("TCP_CHECK {\n}") + real_server("", "10.0.0.3"))

    assert keepalived(text, ("lb1",)).text == keepalived(text, ("lb1",)).text
