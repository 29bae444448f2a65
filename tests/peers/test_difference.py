from peers.difference import Difference, difference
from tests.peers.services.files import read, web


def test_names_are_added_removed_and_changed():
    before = {"a": 1, "b": 2, "c": 3}

    assert difference(before, {"d": 4, "c": 3, "b": 5}) == Difference(("d",), ("a",), ("b",))


def test_what_is_equal_differs_in_nothing():
    assert not difference({"a": 1}, {"a": 1})
    assert difference({}, {"a": 1})


def test_a_service_changes_with_a_check_that_it_names():
    before = read(web("ports = 80", 'check = "page"'), "[checks.page]", 'kind = "http"')
    now = read(web("ports = 80", 'check = "page"'), "[checks.page]", 'kind = "http"', "every = 9")

    assert difference(before.services, now.services) == Difference(changed=("web",))


def test_servers_of_a_service_are_compared_by_name():
    def servers(text):
        return {server.name: server for server in read(text).services["web"].servers}

    before = servers(web("servers = ['web1', 'web2']"))
    now = servers(web("servers = ['web3', { peer = 'web2', weight = 3 }]"))

    assert difference(before, now) == Difference(("web3",), ("web1",), ("web2",))
