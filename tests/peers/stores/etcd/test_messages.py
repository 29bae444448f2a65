"""etcd's messages are read in full or refused, whatever the bytes."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.stores.etcd import messages
from peers.stores.etcd.messages import CallRefusedError, Event, GarbledError, Header, KeyValue

# Transcripts of etcd 3.4.23
HEADER = {
    "cluster_id": "14841639068965178418",
    "member_id": "10276657743932975437",
    "revision": "3",
    "raft_term": "2",
}
EVENT = (
    '{"result":{"header":{"cluster_id":"14841639068965178418","revision":"3"},"events":[{"kv":{"key":"YQ==",'
    '"create_revision":"3","mod_revision":"3","version":"1","value":"Yg==","lease":"123456"}}]}}'
)
DELETION = (
    '{"result":{"header":{"cluster_id":"14841639068965178418","revision":"4"},"events":[{"type":"DELETE","kv":'
    '{"key":"YQ==","mod_revision":"4"},"prev_kv":{"key":"YQ=="}}]}}'
)
COMPACTED = '{"result":{"header":{"cluster_id":"1"},"canceled":true,"compact_revision":"3"}}'

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["YQ==", "9" * 30, "-1"]),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(
                [
                    "header",
                    "kvs",
                    "count",
                    "events",
                    "kv",
                    "key",
                    "value",
                    "revision",
                    "error",
                    "result",
                    "TTL",
                    "ID",
                    "lease",
                    "responses",
                    "response_range",
                    "code",
                    "message",
                    "cluster_id",
                    "canceled",
                    "more",
                    "type",
                ]
            ),
            inner,
        )
    ),
)


def test_line_of_a_watch_is_read_as_etcd_writes_it():
    notice = messages.parse_notice(messages.parse_line(EVENT.encode()))

    assert notice.header == Header(14841639068965178418, 3)
    assert notice.events == (Event(KeyValue(b"a", b"b", 3, 3, 1, 123456)),)
    (deleted,) = messages.parse_notice(messages.parse_line(DELETION.encode())).events
    assert deleted == Event(KeyValue(b"a", b"", 0, 4), is_deleted=True)
    notice = messages.parse_notice(messages.parse_line(COMPACTED.encode()))
    assert (notice.canceled, notice.compacted) == (True, 3)


def test_error_with_a_second_object_behind_it_is_read():
    found = messages.refusal_in(messages.parse_object(b'{"error":"x","code":5}{"trailer":1}'))

    assert (found.code, found.message) == (5, "x")


def test_errors_of_other_releases_are_read():
    assert messages.refusal_in({"code": 7, "message": "no", "details": []}).code == 7
    assert messages.refusal_in({"error": {"grpc_code": 14, "message": "gone"}}).message == "gone"


@pytest.mark.parametrize("number", [None, True, 1.5, "x", "1e3", "9" * 21, 2**63, [], "\u0663"])
def test_what_is_no_number_of_64_bits_is_refused(number):
    with pytest.raises(GarbledError, match="revision is not a number"):
        messages.parse_header({"header": HEADER | {"revision": number}})


@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_read_or_refused(data):
    for parse in (
        messages.parse_page,
        messages.parse_outcome,
        messages.parse_lease,
        messages.parse_header,
    ):
        with contextlib.suppress(GarbledError):
            parse(messages.parse_object(data))
    said = ""
    try:
        messages.parse_notice(messages.parse_line(data))
    except (GarbledError, CallRefusedError) as error:
        said = str(error)
    assert not said or said.isprintable()


def test_what_is_said_is_the_gateways_json():
    body = messages.transaction(
        [messages.is_absent(b"k"), messages.is_unchanged(b"k", 7)],
        [messages.Put(b"k", b"v", 123456), messages.Delete(b"k", b"l")],
        [messages.Get(b"k")],
    )

    assert body == {
        "compare": [
            {"key": "aw==", "target": "VERSION", "result": "EQUAL", "version": "0"},
            {"key": "aw==", "target": "MOD", "result": "EQUAL", "mod_revision": "7"},
        ],
        "success": [
            {"request_put": {"key": "aw==", "value": "dg==", "lease": "123456"}},
            {"request_delete_range": {"key": "aw==", "range_end": "bA=="}},
        ],
        "failure": [{"request_range": {"key": "aw=="}}],
    }
    assert messages.prefix_end(b"/subnets/") == b"/subnets0"
