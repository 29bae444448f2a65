import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.addresses import parse_prefix
from peers.stores.etcd import saved
from peers.stores.etcd.messages import KeyValue
from peers.stores.etcd.saved import Saved

KNOWN = Saved(2**63 + 5, 77, (KeyValue(b"\xff", b"\x00v", 1, 2, 3, 4),), (parse_prefix("10.244.7.0/24"),), 3)


def test_what_was_written_is_read_again_by_its_owner_alone(tmp_path):
    path = tmp_path / "state" / "office.json"
    saved.write(path, KNOWN)

    found, confirmed = saved.read(path)

    assert found == KNOWN
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path]
    assert confirmed == path.stat().st_mtime


def test_file_that_others_may_write_is_not_read(tmp_path):
    path = tmp_path / "office.json"
    saved.write(path, KNOWN)
    path.chmod(0o620)

    assert saved.read(path) is None


def test_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "office.json"
    path.mkdir()

    with pytest.raises(OSError, match="directory"):
        saved.write(path, KNOWN)

    assert list(tmp_path.iterdir()) == [path]


@given(st.binary(max_size=200) | st.fixed_dictionaries({
    "format": st.just(1), "cluster": st.integers() | st.text(), "revision": st.integers() | st.none(),
    "serial": st.integers(), "subnets": st.lists(st.text()) | st.integers(),
    "keys": st.lists(st.lists(st.text() | st.integers())) | st.text(),
}).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_any_file_is_read_or_of_no_use(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("saved") / "office.json"
    path.write_bytes(data)

    found = saved.read(path)

    assert found is None or isinstance(found[0], Saved)


def test_file_that_is_not_there_is_of_no_use(tmp_path):
    assert saved.read(tmp_path / "none") is None
    saved.confirm(tmp_path / "none")
