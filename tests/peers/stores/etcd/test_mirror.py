import pytest

from peers.stores.etcd.messages import Event, Header, KeyValue, Listing, Notice
from peers.stores.etcd.mirror import HANDOVER, HistoryError, Mirror


def kv(key, revision, value=b""):
    return KeyValue(key, value, revision, revision, 1)


def listing(revision, *kvs, cluster=1):
    return Listing(Header(cluster, revision), kvs)


def put(key, revision, value=b""):
    return Notice(Header(1, revision), (Event(kv(key, revision, value)),))


def gone(key, revision):
    return Notice(Header(1, revision), (Event(KeyValue(key, b"", 0, revision), is_deleted=True),))


@pytest.fixture
def mirror():
    made = Mirror()
    made.take_listing(listing(10, kv(b"a", 5), kv(b"b", 7)), 0.0)
    return made


def test_events_change_what_was_listed(mirror):
    mirror.take_notice(put(b"c", 11), 0.0)
    mirror.take_notice(gone(b"a", 12), 0.0)

    assert set(mirror.kvs) == {b"b", b"c"}
    assert mirror.revision == 12


def test_event_that_is_known_already_changes_nothing(mirror):
    before = mirror.generation
    mirror.take_notice(put(b"b", 9, b"old"), 0.0)

    assert mirror.kvs[b"b"].value == b""
    assert (mirror.generation, mirror.revision) == (before, 10)


def test_deletion_and_creation_leave_nobody_departed(mirror):
    mirror.take_notice(gone(b"a", 11), 1.0)
    assert set(mirror.departed) == {b"a"}
    mirror.take_notice(put(b"a", 12), 2.0)
    assert not mirror.departed


def test_departed_are_forgotten_after_a_minute(mirror):
    mirror.take_notice(gone(b"a", 11), 1.0)

    assert not mirror.forget_departed(HANDOVER)
    assert mirror.forget_departed(1.0 + HANDOVER)
    assert not mirror.departed


def test_listing_after_a_compaction_departs_those_that_are_missing(mirror):
    mirror.take_listing(listing(20, kv(b"b", 7), kv(b"c", 15)), 3.0)

    assert set(mirror.kvs) == {b"b", b"c"}
    assert mirror.departed == {b"a": (kv(b"a", 5), 3.0)}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (listing(10, cluster=2), "another cluster"),
        (listing(9), "went back from 10 to 9"),
    ],
)
def test_other_history_is_refused_and_changes_nothing(mirror, found, said):
    with pytest.raises(HistoryError, match=said):
        mirror.take_listing(found, 0.0)

    assert set(mirror.kvs) == {b"a", b"b"}
    mirror.accept()
    mirror.take_listing(found, 0.0)
    assert mirror.kvs == {}


def test_key_that_was_rewritten_in_the_past_is_another_history(mirror):
    mirror.check(Header(1, 12), [kv(b"a", 5), kv(b"b", 11)])
    with pytest.raises(HistoryError, match="b is not as it was at revision 6"):
        mirror.check(Header(1, 12), [kv(b"b", 6)])
    with pytest.raises(HistoryError):
        mirror.check(Header(1, 12), [kv(b"z", 6)])
