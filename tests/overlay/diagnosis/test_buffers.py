from __future__ import annotations

from types import SimpleNamespace

import pytest

from overlay.diagnosis.buffers import LEAST, WANTED, check_buffers
from overlay.host.sockets.underlay import BUFFER
from tests.overlay.diagnosis.examples import facts


def socket(receive_buffer):
    return SimpleNamespace(receive_buffer=receive_buffer)


def test_small_buffer_of_one_socket_is_found_with_the_setting():
    (finding,) = check_buffers(facts(udp=[socket(WANTED), socket(212992)]))

    assert finding.name == "udp_buffers"
    assert "buffers of 208 KiB" in finding.problem
    assert f"sysctl -w net.core.rmem_max={WANTED}" in finding.remedy


@pytest.mark.parametrize("size", [LEAST, WANTED, 0])  # 0: it receives nothing
def test_a_buffer_that_is_large_enough_is_not_found(size):
    assert not list(check_buffers(facts(udp=[socket(size)])))


def test_what_is_wanted_is_what_sockets_ask_for():
    assert WANTED == BUFFER
