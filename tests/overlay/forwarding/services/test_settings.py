from __future__ import annotations

import pytest

from overlay.forwarding.services.settings import ServiceSettings

CLIENTS = [bytes([198, 51, 100, 7]), bytes(range(1, 17))]


@pytest.mark.parametrize("client", CLIENTS)
def test_without_persistence_each_client_is_by_itself(client):
    assert ServiceSettings(prefix4=8, prefix6=8).network_of(client) == client


@pytest.mark.parametrize("client", CLIENTS)
def test_with_persistence_clients_of_one_network_are_together(client):
    settings = ServiceSettings(persistence=60.0, prefix4=24, prefix6=16)
    kept = 3 if len(client) == 4 else 2

    assert settings.network_of(client) == client[:kept] + bytes(len(client) - kept)
