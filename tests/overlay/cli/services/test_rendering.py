from overlay.cli.services.rendering import format_rate, render
from tests.overlay.cli.services.rows import ANSWER, SERVER, SERVICE, UNKNOWN

DOWN = SERVER | {
    "name": "web2",
    "state": "down",
    "effective_weight": 0,
    "weight": 1,
    "reason": "connection refused",
    "set_by_hand": True,
}
ROUTER = {
    "group": "services/web",
    "ip_version": 4,
    "router": 51,
    "interface": "eth0",
    "state": "backup",
    "reason": "192.0.2.1 has a higher priority",
    "since_s": 61.0,
    "priority": 140,
    "active_router": "192.0.2.1",
    "refused": {},
    "unsent": 0,
}


def told(**fields):
    return ANSWER | {"services": [SERVICE | fields]}


def test_a_service_has_its_servers_in_a_table_with_a_total():
    assert render(told(servers=[SERVER, DOWN])) == (
        "web: up\n"
        "  tcp 203.0.113.80 port 80,443, wlc\n"
        "  balanced by lb1 (this node) of lb1, lb2, because it is the first of its directors\n"
        "  live weight 3, quorum 1\n"
        "  SERVER  STATE  WEIGHT  ACTIVE  INACTIVE  CONNS  PACKETS     BYTES  CONNS/S  PACKETS/S   BYTES/S  SINCE     "
        "  REASON\n  web1    up          2      12         3     99     1234  55.5 KiB      0.4         21  2.00 KiB  "
        "1 min 15 s  answers 200\n  web2    down   0 (1)*      12         3     99     1234  55.5 KiB      0.4        "
        " 21  2.00 KiB  1 min 15 s  connection refused\n  total               3      12         3    120     1334  "
        "65.2 KiB      0.4         21  2.00 KiB\n\n"
        "rates are those of the last 2.3 s"
    )


def test_unknown_values_are_not_zero():
    answer = told(servers=[SERVER | UNKNOWN], **UNKNOWN, drops=None) | {"rates_over_s": None, "drops": None}

    row = render(answer).split("\n")[5].split()

    assert row[:11] == ["web1", "up", "2", *"????????"]


def test_quorum_vrrp_drops_and_notes_are_shown():
    quorum = SERVICE["quorum"] | {"quorum": 4, "hysteresis": 1, "gained_at": 5, "lost_below": 3}
    answer = told(
        state="degraded",
        reason="the quorum is lost",
        persistence=300,
        one_packet=True,
        quorum=quorum,
        vrrp=[ROUTER],
        drops={"service_rate": 2, "service_full": 0, "service_empty": 7},
    ) | {"notes": ["eth0 is down"], "drops": {"service_port": 4}}

    text = render(answer)

    assert text.startswith("web: degraded (the quorum is lost)\n")
    assert "wlc, persistence 300 s, each datagram by itself\n" in text
    assert "\n  live weight 3, quorum 4, lost below 3, gained at 5\n" in text
    assert (
        "\n  VRRP services/web for IPv4 on eth0: backup for 1 min 1 s, priority 140, because 192.0.2.1 has a higher "
        "priority; 192.0.2.1 is active\n"
    ) in text
    assert "\n  dropped: service_empty 7, service_rate 2\n" in text
    assert text.endswith("\n\ndropped, for no service: service_port 4\nnote: eth0 is down")


def test_a_node_that_is_not_a_director_says_who_balances_and_why():
    director = {
        "directors": ["lb1", "lb2"],
        "active": "lb2",
        "is_here": False,
        "reason": "lb1 is gone",
    }
    answer = told(state="elsewhere", reason="balanced by lb2", director=director, quorum=None, servers=[])

    assert render(answer).split("\n")[:3] == [
        "web: elsewhere (balanced by lb2)",
        "  tcp 203.0.113.80 port 80,443, wlc",
        "  balanced by lb2 of lb1, lb2, because lb1 is gone",
    ]


def test_every_node_may_balance():
    director = SERVICE["director"] | {
        "directors": None,
        "reason": "each node balances the connections that start there",
    }

    assert "\n  balanced here: each node balances the connections that start there\n" in render(
        told(director=director)
    )


def test_services_without_servers_and_no_services_say_so():
    assert "\n  no servers" in render(told(servers=[]))
    assert render(ANSWER | {"services": []}) == "there are no services"


def test_columns_that_have_no_room_are_left_out():
    answer = told(servers=[SERVER, DOWN])

    wide, narrow = render(answer), render(answer, 100)

    assert "CONNS  PACKETS" in wide
    assert "PACKETS " not in narrow
    assert "CONNS/S" in narrow
    table = [line for line in narrow.split("\n") if line.startswith(("  SERVER", "  web1", "  total"))]
    assert all(len(line) <= 100 for line in table)


def test_rates_have_as_many_digits_as_mean_something():
    assert [format_rate(each) for each in (0, 0.04, 0.4, 9.94, 9.96, 1234.5)] == [
        "0",
        "0.0",
        "0.4",
        "9.9",
        "10",
        "1234",
    ]
