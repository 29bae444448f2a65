from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.mac import derived_mac, format_mac, parse_mac


@given(mac=st.binary(min_size=6, max_size=6).map(lambda mac: bytes([mac[0] & 0xFE]) + mac[1:]).filter(any))
def test_what_is_formatted_parses_back(mac):
    assert parse_mac(format_mac(mac)) == parse_mac(mac.hex("-").upper()) == mac


@pytest.mark.parametrize(
    "text",
    ["", "02:00:5e:10:00", "02:00:5e:10:00:01:02", "02:00-5e:10:00:01", "02005e100001", "0g:00:5e:10:00:01",
     "01:00:5e:10:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "02:00:5e:10:00:01\n"],
)  # fmt: skip
def test_what_is_no_address_of_one_device_is_refused(text):
    with pytest.raises(ValueError, match="; write "):
        parse_mac(text)


@given(name=st.text())
def test_a_derived_address_is_local_of_one_device_and_always_the_same(name):
    mac = derived_mac(name)

    assert mac == derived_mac(name) != derived_mac(name + "x")
    assert parse_mac(format_mac(mac)) == mac
    assert mac[0] & 3 == 2
