from __future__ import annotations

from types import SimpleNamespace

import pytest

from overlay.answers import elsewhere
from overlay.host import clock
from overlay.services.health import Condition
from overlay.services.sharing import Disagreement
from peers.service import Server, Service

WEB = Service("web", (), servers=(Server("web1", "web1"),))


@pytest.fixture
def told(monkeypatch):
    monkeypatch.setattr(clock, "now", lambda: 100.0)

    def made(*differences, unheard=(), healths=("web",)):
        sharing = SimpleNamespace(differences=lambda *_: list(differences), unheard=lambda *_: list(unheard))
        watching = SimpleNamespace(healths=dict.fromkeys(healths))
        return SimpleNamespace(shared=SimpleNamespace(sharing=sharing), watching=watching)

    return made


def test_difference_is_told_with_its_age(told):
    balancing = told(Disagreement("lb2", Condition.DOWN, 0, 88.0), Disagreement("lb3", None, 0, 100.0))

    assert elsewhere.differs_at(balancing, WEB, WEB.servers[0]) == [
        {"director": "lb2", "state": "down", "effective_weight": 0, "since_s": 12.0},
        {"director": "lb3", "state": None, "effective_weight": None, "since_s": None},
    ]


def test_directors_that_are_told_of_are_not_without_end(told):
    balancing = told(*[Disagreement(f"lb{number}", Condition.UP, 1, 0.0) for number in range(100)])

    assert len(elsewhere.differs_at(balancing, WEB, WEB.servers[0])) == elsewhere.MOST


def test_who_is_no_director_hears_nothing_of_any(told):
    assert elsewhere.not_heard(told(unheard=["lb2"]), WEB) == ["lb2"]
    assert elsewhere.not_heard(told(healths=()), WEB) is None
