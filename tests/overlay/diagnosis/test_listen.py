from __future__ import annotations

from ipaddress import ip_address
from types import SimpleNamespace

from overlay.diagnosis.listen import check_listen


def test_addresses_that_this_host_lacks_are_named():
    own = SimpleNamespace(listen=tuple(map(ip_address, ("127.0.0.1", "192.0.2.77", "2001:db8::77"))))

    found = list(check_listen(SimpleNamespace(node=SimpleNamespace(own=own))))

    assert [str(each).partition(",")[0] for each in found] == ["192.0.2.77", "2001:db8::77"]
    assert {each.name for each in found} == {"listen_address"}
