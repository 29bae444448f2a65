"""What is shown, computed from what agents answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overlay.cli.agents import read_status
from overlay.cli.top.model import (
    EVENTS,
    ORDERS,
    Model,
    Rates,
    Snapshot,
    loss_text,
    rate_text,
    short_rate_text,
    sparkline,
    trip_text,
)
from tests.overlay.cli.fakes import STATUS, peer_status


def status(*peers, **fields):
    return read_status("overlay0", {"status": STATUS | {"peers": list(peers)} | fields})


def counted(name, received, sent, **fields):
    return peer_status(name, rx_bytes=received, tx_bytes=sent, **({"state": "up"} | fields))


def shown(*snapshots):
    model, rates = Model(), Rates()
    for snapshot in snapshots:
        model.take(rates.take(snapshot))
    return model


def event(number, text="ready"):
    return {"number": number, "timestamp_seconds": 1.8e9, "level": "info", "text": text, "peer": None}


def test_rates_are_what_has_changed_in_a_second():
    model = shown(
        Snapshot(10.0, status(counted("tokyo", 1000, 500, drops={"source": 2}), drops={"no_peer": 1})),
        Snapshot(
            12.0, status(counted("tokyo", 5000, 500, drops={"source": 8}), drops={"no_peer": 5, "loop": 0})
        ),
    )

    (row,) = model.rows
    assert (row.received, row.sent, row.dropping) == (2000.0, 0.0, 3.0)
    assert model.picture.totals == (2000.0, 0.0)
    assert model.picture.dropping == {"no_peer": 2.0}


@pytest.mark.parametrize(
    ("later", "fields"),
    [
        (counted("tokyo", 10, 10), {}),  # a forwarder that was started again counts from 0
        (counted("tokyo", 5000, 5000), {"pid": 77}),
        (counted("tokyo", None, None), {}),
        (counted("rome", 5000, 5000), {}),
    ],
)
def test_unknown_counters_do_not_give_a_rate(later, fields):
    model = shown(
        Snapshot(10.0, status(counted("tokyo", 1000, 1000))), Snapshot(11.0, status(later, **fields))
    )

    (row,) = model.rows
    assert (row.received, row.sent, row.traffic) == (None, None, -1.0)
    assert model.picture.totals == (None, None)


def test_the_history_of_a_peer_is_kept_until_it_is_read_again():
    told = {
        "round_trip_seconds": [None, 0.01, 0.02, None],
        "loss_ratio": [1.0, 0.0, 0.5, None],
        "sent_bytes_per_second": [1.0, None, 3.0, 4.0],
        "received_bytes_per_second": [1.0, 2.0, 3.0, 4.0],
    }
    first = Snapshot(1.0, status(counted("tokyo", 1, 1)), history={"tokyo": told})
    model = shown(first, Snapshot(2.0, status(counted("tokyo", 1, 1))))

    (row,) = model.rows
    assert (row.round_trip, row.loss, row.past) == (0.02, 0.5, (2.0, None, 6.0, 8.0))
    model = shown(first, Snapshot(2.0, status(counted("tokyo", 1, 1)), has_restarted=True))
    assert (model.rows[0].round_trip, model.rows[0].past) == (None, ())


def three():
    return Snapshot(
        1.0,
        status(
            counted("b", 0, 0, state="silent", subnets=["10.1.0.0/16"]),
            counted("a", 0, 0, drops={"source": 1}),
            counted("c", 0, 0, endpoint="192.0.2.9:1"),
        ),
    )


@pytest.mark.parametrize(
    ("order", "names"), [("traffic", "cab"), ("name", "abc"), ("trouble", "bca"), ("drops", "abc")]
)
def test_rows_are_sorted_by_what_is_chosen(order, names):
    after = Snapshot(
        2.0,
        status(
            counted("b", 0, 0, state="silent"), counted("a", 1, 0, drops={"source": 5}), counted("c", 9, 9),
        ),
    )  # fmt: skip
    model = shown(three(), after)
    model.order = order
    model.arrange()

    assert "".join(row.name for row in model.rows) == names
    model.is_reversed = True
    model.arrange()
    assert "".join(row.name for row in model.rows) == names[::-1]


def test_every_order_comes_in_turn():
    model = shown(three())
    seen = []
    for _ in ORDERS:
        seen.append(model.order)
        model.next_order()

    assert seen == list(ORDERS)
    assert model.order == seen[0]


@pytest.mark.parametrize(
    ("wanted", "names"), [("B", "b"), ("silent", "b"), ("10.1", "b"), ("192.0.2", "c"), ("zz", "")]
)
def test_rows_are_found_by_any_of_their_words(wanted, names):
    model = shown(three())
    model.wanted = wanted
    model.arrange()

    assert "".join(row.name for row in model.rows) == names


def test_states_are_counted_the_worst_first():
    assert list(shown(three()).counts().items()) == [("silent", 1), ("up", 2)]


def test_events_are_kept_in_bounds_and_services_until_they_are_reported_again():
    many = replace(
        three(), events=[event(number) for number in range(EVENTS + 50)], services=[{"name": "web"}]
    )
    model = shown(many, replace(three(), events=[event(9999)]))

    assert len(model.events) == EVENTS
    assert model.events[-1]["number"] == 9999
    assert model.services == [{"name": "web"}]
    assert shown(many, replace(three(), services=())).services == ()


@pytest.mark.parametrize(
    ("values", "width", "drawn"),
    [
        ([0, 1, 2, 4, 7, 8], 6, "▁▂▃▅██"),
        ([1, None, 8], 5, "  ▂ █"),
        ([1, 2, 3], 2, "▆█"),
        ([0, 0], 2, "▁▁"),
        ([None], 1, " "),
        ([], 3, "   "),
        ([5], 0, ""),
    ],
)
def test_bars_are_parts_of_the_largest(values, width, drawn):
    assert sparkline(values, width) == drawn


def test_bars_without_unicode():
    assert sparkline([0, 4, 8], 3, is_plain=True).isascii()


def test_numbers_as_text():
    assert [rate_text(each) for each in (None, 0, 2048)] == ["-", "0 B/s", "2.00 KiB/s"]
    assert [short_rate_text(each) for each in (None, 0, 2048, 999e6)] == ["-", "0", "2.00Ki", "953Mi"]
    assert [trip_text(each) for each in (None, 0.0004, 0.0123, 0.2)] == ["-", "0.400 ms", "12.3 ms", "200 ms"]
    assert [loss_text(each) for each in (None, 0.0, 0.025, 1.0)] == ["-", "0%", "2.5%", "100%"]
