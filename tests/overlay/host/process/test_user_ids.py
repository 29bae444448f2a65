from __future__ import annotations

import os
import subprocess
import sys

import pytest

from overlay.errors import HostError
from overlay.host.process import user_ids
from overlay.host.process.user_ids import MORE_USER_IDS, USER_IDS, take
from tests.netns.topology import ROOT

HOLDER = "import sys\nfrom pathlib import Path\nfrom overlay.host.process.user_ids import take\nprint(take(Path(sys.argv[1])).uid, flush=True)\nsys.stdin.read()"


@pytest.fixture
def taken(tmp_path):
    """Take ids, which are released at the end."""
    held = []

    def one():
        held.append(take(tmp_path))
        return held[-1]

    yield one
    for each in held:
        each.close()


@pytest.fixture
def map_of_ids(tmp_path, monkeypatch):
    """Make a user namespace with other ids than this one."""

    def write(text):
        path = tmp_path / "uid_map"
        path.write_text(text)
        monkeypatch.setattr(user_ids, "UID_MAP", path)

    return write


def test_each_agent_gets_the_lowest_id_that_nobody_has(tmp_path, taken):
    first, second = taken(), taken()
    third = taken()
    second_uid = second.uid
    os.close(os.dup(first.lock))  # does not release it

    assert [first.uid, second_uid, third.uid] == list(USER_IDS[:3])


def test_id_that_was_given_back_is_taken_again(tmp_path):
    first, second = take(tmp_path), take(tmp_path)
    first.close()

    again = take(tmp_path)

    assert again.uid == first.uid != second.uid
    again.close()
    second.close()


def test_killed_agent_gives_its_id_back(tmp_path, taken):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert int(holder.stdout.readline()) == USER_IDS[0]
        assert taken().uid == USER_IDS[1]
        holder.kill()
        holder.wait()

    assert taken().uid == USER_IDS[0]


def test_more_agents_than_ids_below_65536_take_others(taken, map_of_ids):
    map_of_ids("0 0 4294967295\n")

    assert [taken().uid for _ in range(len(USER_IDS) + 2)][-2:] == list(MORE_USER_IDS[:2])


def test_without_any_id_left_the_sentence_says_what_to_do(taken, map_of_ids):
    map_of_ids("0 100000 65536\n")
    for _ in USER_IDS:
        taken()

    with pytest.raises(
        HostError, match=r"every user id for forwarders is in use .* stop one with `overlay down`"
    ):
        taken()


def test_id_that_the_user_namespace_lacks_is_passed_over(taken, map_of_ids):
    map_of_ids("0 100000 1000\n65525 200000 5\n")

    assert taken().uid == 65525


def test_agents_of_different_user_namespaces_share_no_id(taken, map_of_ids):
    map_of_ids("0 100000 1000\n65525 200000 5\n")
    taken()
    map_of_ids("0 0 4294967295\n")

    assert 65525 not in {taken().uid for _ in range(10)}


def test_file_can_be_opened_by_its_owner_alone(tmp_path, taken):
    taken()

    assert (tmp_path / "uids").stat().st_mode & 0o777 == 0o600


def test_link_in_its_place_is_not_followed(tmp_path, taken):
    (tmp_path / "uids").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(HostError, match="uids could not be opened"):
        taken()
    assert not (tmp_path / "elsewhere").exists()


def test_where_the_user_namespace_maps_root_alone_every_agent_gets_an_id_that_nobody_can_become(
    taken, map_of_ids
):
    map_of_ids("0 0 1\n")

    assert [taken().uid for _ in range(3)] == [USER_IDS[0]] * 3
