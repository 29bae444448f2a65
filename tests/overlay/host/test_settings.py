from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import HostError
from overlay.host import settings, sysctl
from overlay.host.settings import Change, Settings
from tests.netns.topology import ROOT

FILTER, OTHER = "ipv4/conf/br0/rp_filter", "ipv4/conf/br1/rp_filter"
FORWARDING = "ipv4/ip_forward"


@pytest.fixture
def host(lab):
    """A host that the calling thread is on: everything strict, no forwarding."""
    host = lab.namespace("host")
    lab.bridge(host, "br0")
    lab.bridge(host, "br1")
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0")
    host.run("sysctl", "-qw", "net.ipv4.conf.br0.rp_filter=1", "net.ipv4.conf.br1.rp_filter=1")
    with host.entered():
        yield host


@pytest.fixture
def agent(tmp_path):
    """Return a function that makes an agent by its name; one of the same name is its successor."""
    directory = tmp_path / "run"
    directory.mkdir(mode=0o755)
    return lambda name="overlay0": Settings(directory / f"{name}.sysctl")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "overlay0.sysctl"


def values(*names):
    return [sysctl.read(name) for name in names]


@pytest.mark.netns
def test_setting_is_held_and_put_back(host, agent, path):
    one = agent()

    assert one.hold({FILTER: 2, FORWARDING: 1}) == [FILTER, FORWARDING]
    assert values(FILTER, FORWARDING, OTHER) == [2, 1, 1]
    assert one.is_left

    assert one.restore() == [FORWARDING, FILTER]
    assert values(FILTER, FORWARDING) == [1, 0]
    assert not one.is_left
    assert list(path.parent.iterdir()) == [path.with_name(settings.LOCK)]


@pytest.mark.netns
def test_what_is_right_already_or_does_not_exist_is_left_alone(host, agent):
    one = agent()

    assert one.hold({FILTER: 1, "ipv4/conf/none/rp_filter": 2}) == []
    assert not one.is_left


@pytest.mark.netns
def test_more_may_be_held_later(host, agent):
    one = agent()
    one.hold({FILTER: 2})

    assert one.hold({FILTER: 2, OTHER: 2}) == [OTHER]
    assert one.restore() == [OTHER, FILTER]
    assert values(FILTER, OTHER) == [1, 1]


@pytest.mark.netns
def test_file_is_there_before_the_change_and_for_root_alone(host, agent, path, monkeypatch):
    seen = []
    write = sysctl.write
    monkeypatch.setattr(
        sysctl,
        "write",
        lambda *arguments: (seen.append((values(FILTER), path.read_text())), write(*arguments)),
    )

    agent().hold({FILTER: 2})

    ((before, text),) = seen
    assert before == [1]
    assert json.loads(text)["changes"] == [[FILTER, 1, 2, []]]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.netns
def test_successor_of_a_killed_agent_puts_back(host, agent):
    agent().hold({FILTER: 2})

    assert agent().restore() == [FILTER]
    assert values(FILTER) == [1]
    assert agent().restore() == []


@pytest.mark.netns
@pytest.mark.parametrize("value", [0, 1])
def test_value_that_somebody_else_changed_is_left_alone(host, agent, value):
    one = agent()
    one.hold({FILTER: 2, OTHER: 2})
    sysctl.write(FILTER, value)

    assert one.hold({FILTER: 2}) == []
    assert values(FILTER) == [value]
    assert one.restore() == [OTHER]
    assert values(FILTER, OTHER) == [value, 1]


@pytest.mark.netns
def test_interface_that_is_gone_is_no_matter(host, agent):
    one = agent()
    one.hold({FILTER: 2, OTHER: 2})
    host.run("ip", "link", "delete", "br0")

    assert one.restore() == [OTHER]


@pytest.mark.netns
@pytest.mark.parametrize("version", [4, 6])
def test_forwarding_is_put_back_on_every_interface(host, agent, version):
    """The switch for all sets each of them, and for IPv4 the redirects as well."""
    host.run(
        "sysctl", "-qw", f"net.ipv{version}.conf.br1.forwarding=1", "net.ipv4.conf.all.accept_redirects=0"
    )
    before = host.dump()["sysctl"]
    one = agent()

    one.hold({sysctl.FORWARDING[version]: 1})
    assert values(f"ipv{version}/conf/br0/forwarding") == [1]
    one.restore()

    assert host.dump()["sysctl"] == before


@pytest.mark.netns
def test_redirects_that_were_accepted_are_so_again(host, agent):
    host.run("sysctl", "-qw", "net.ipv4.conf.all.accept_redirects=1")
    before = host.dump()["sysctl"]
    one = agent()

    one.hold({FORWARDING: 1})
    one.restore()

    assert host.dump()["sysctl"] == before


@pytest.mark.netns
def test_what_somebody_changed_on_one_interface_meanwhile_stays(host, agent):
    host.run("sysctl", "-qw", "net.ipv4.conf.br0.forwarding=1")
    one = agent()
    one.hold({FORWARDING: 1})
    host.run("sysctl", "-qw", "net.ipv4.conf.br0.forwarding=0")

    one.restore()

    assert values(FORWARDING, "ipv4/conf/br0/forwarding", "ipv4/conf/br1/forwarding") == [0, 0, 0]


# Two agents


@pytest.mark.netns
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_second_agent_does_not_take_the_firsts_value_for_the_administrators(host, agent, order):
    both = agent("overlay0"), agent("second0")
    both[0].hold({FILTER: 2, FORWARDING: 1})

    assert values(FILTER) == [2]
    assert both[1].read(FILTER) == 1
    assert both[1].hold({FILTER: 2, FORWARDING: 1}) == []

    assert both[order[0]].restore() == []
    assert values(FILTER, FORWARDING) == [2, 1]
    assert sorted(both[order[1]].restore()) == sorted([FILTER, FORWARDING])
    assert values(FILTER, FORWARDING, "ipv4/conf/br0/forwarding") == [1, 0, 0]


@pytest.mark.netns
def test_value_changed_by_hand_is_the_administrators_for_a_second_agent(host, agent):
    agent("overlay0").hold({FILTER: 2})
    sysctl.write(FILTER, 0)

    assert agent("second0").read(FILTER) == 0


@pytest.mark.netns
def test_damaged_file_of_another_agent_is_no_matter(host, agent, path):
    path.with_name("second0.sysctl").write_text("garbage")
    one = agent()

    one.hold({FILTER: 2})

    assert one.restore() == [FILTER]


@pytest.fixture
def goes_once_read(host, monkeypatch):
    """Have br0 go just after its setting has been read."""

    def begin():
        read = sysctl.read

        def read_last(name):
            value = read(name)
            if name == FILTER and value is not None:
                host.ip("link delete br0")
            return value

        monkeypatch.setattr(sysctl, "read", read_last)

    return begin


@pytest.mark.netns
def test_setting_of_an_interface_that_goes_while_it_is_restored_goes_with_it(host, agent, goes_once_read):
    agent().hold({OTHER: 2, FILTER: 2})
    goes_once_read()

    assert agent().restore() == [OTHER]
    assert values(OTHER) == [1]
    assert not agent().is_left


@pytest.mark.netns
def test_interface_that_goes_while_its_setting_is_changed_keeps_no_other_from_that(
    host, agent, goes_once_read
):
    goes_once_read()

    assert agent().hold({FILTER: 2, OTHER: 2}) == [OTHER]
    assert agent().restore() == [OTHER]


# Other namespaces


@pytest.mark.netns
def test_file_about_a_namespace_that_is_gone_says_nothing(lab, agent, host):
    """Inode numbers are reused, and the file is named after one."""
    agent().hold({FILTER: 2})
    other = lab.namespace("other")
    lab.bridge(other, "br0")
    other.run("sysctl", "-qw", "net.ipv4.conf.br0.rp_filter=2")

    with other.entered():
        assert agent("second0").read(FILTER) == 2
        assert agent().restore() == []
        assert values(FILTER) == [2]
        assert not agent().is_left


# Attacks and accidents


DAMAGED = {
    "garbage": b"\x00\xff{",
    "empty": b"",
    "deep": b"[" * 100_000,
    "a list": b"[]",
    "another setting": b'{"namespace": "", "changes": [["../kernel/panic", 1, 2, []]]}',
    "a way out": b'{"namespace": "", "changes": [["ipv4/conf/../rp_filter", 1, 2, []]]}',
    "another value": b'{"namespace": "", "changes": [["ipv4/ip_forward", 7, 1, []]]}',
    "no number": b'{"namespace": "", "changes": [["ipv4/ip_forward", "0", 1, []]]}',
    "a truth": b'{"namespace": "", "changes": [["ipv4/ip_forward", false, true, []]]}',
    "along with nonsense": b'{"namespace": "", "changes": [["ipv4/ip_forward", 0, 1, ["x"]]]}',
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_file_is_named_and_kept(agent, path, what):
    path.write_bytes(DAMAGED[what])

    for attempt in (agent().restore, lambda: agent().hold({FORWARDING: 1})):
        with pytest.raises(
            HostError, match=r"overlay0\.sysctl does not contain .*: look at it and remove it$"
        ) as raised:
            attempt()
        assert raised.value.__cause__ is not None

    assert path.read_bytes() == DAMAGED[what]


@given(
    st.binary()
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_any_bytes_are_changes_or_a_value_error(data):
    try:
        settings._decode(data)
    except ValueError:
        return


names = st.sampled_from([FILTER, OTHER, FORWARDING, "ipv6/conf/all/forwarding", "ipv4/conf/a.b/forwarding"])
changes = st.builds(Change, names, st.integers(0, 2), st.integers(0, 2))
whole = st.builds(Change, names, st.integers(0, 2), st.integers(0, 2), st.lists(changes).map(tuple))


@given(st.text(), st.lists(whole))
def test_changes_come_back_as_they_were_written(namespace, written):
    assert settings._decode(settings._encode(namespace, written)) == (namespace, written)


def test_link_in_the_place_of_the_file_is_not_followed(agent, path, tmp_path):
    target = tmp_path / "target"
    target.write_text("precious")
    path.symlink_to(target)

    with pytest.raises(HostError, match=r"could not be opened .*: look at it and remove it"):
        agent().restore()

    assert target.read_text() == "precious"


@pytest.mark.netns
def test_link_in_the_place_of_the_fresh_file_is_not_written_through(host, agent, path, tmp_path):
    target = tmp_path / "target"
    target.write_text("precious")
    path.with_name(".overlay0.sysctl.new").symlink_to(target)

    agent().hold({FILTER: 2})

    assert target.read_text() == "precious"
    assert agent().restore() == [FILTER]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_refused_without_waiting(agent, path, make):
    make(path)

    with pytest.raises(HostError, match="was not written by an agent of this user"):
        agent().restore()


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_file_that_others_may_write_is_not_believed(agent, path, mode):
    path.write_text("{}")
    path.chmod(mode)

    with pytest.raises(HostError, match=r"overlay0\.sysctl was not written by an agent of this user"):
        agent().restore()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files to somebody else")
@pytest.mark.parametrize("what", ["file", "directory"])
def test_file_of_somebody_else_is_not_believed(agent, path, what):
    path.write_text("{}")
    os.chown(path if what == "file" else path.parent, 65528, 65528)

    with pytest.raises(HostError, match=r"was not written by an agent of this user|belongs to another user"):
        agent().restore()


# The lock


@pytest.fixture
def lock(path):
    return path.with_name(settings.LOCK)


def test_whoever_may_only_read_the_directory_holds_nobody_up(agent, path, monkeypatch):
    """Before, the lock was on the directory, which every user may open, and was waited for without end."""
    monkeypatch.setattr(settings, "LOCK_PATIENCE", 0)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_SH)

        assert agent().hold({}) == []
    finally:
        os.close(directory)


def test_lock_may_be_opened_by_its_owner_alone(agent, lock):
    agent().hold({})

    assert lock.stat().st_mode & 0o777 == 0o600


def test_lock_that_is_not_let_go_is_named(agent, lock, monkeypatch):
    monkeypatch.setattr(settings, "LOCK_PATIENCE", 0.05)
    agent().hold({})
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        with pytest.raises(HostError, match=r"/\.settings could not be locked .*: end the process") as raised:
            agent().hold({})

    assert isinstance(raised.value.__cause__, OSError)
    assert agent().hold({}) == []


def test_lock_is_waited_for(agent, lock, monkeypatch):
    agent().hold({})
    held = lock.open()
    fcntl.flock(held, fcntl.LOCK_EX)
    monkeypatch.setattr(settings.time, "sleep", lambda _: held.close())

    assert agent().hold({}) == []


def test_link_in_the_place_of_the_lock_is_not_followed(agent, lock, tmp_path):
    lock.symlink_to(tmp_path / "target")

    with pytest.raises(HostError, match=r"/\.settings could not be opened .*: look at it and remove it"):
        agent().hold({})

    assert not (tmp_path / "target").exists()


def open_to_readers(path):
    path.touch()
    path.chmod(0o644)


@pytest.mark.parametrize("make", [os.mkfifo, open_to_readers])
def test_lock_that_is_no_file_or_that_others_may_open_is_refused(agent, lock, make):
    make(lock)

    with pytest.raises(
        HostError,
        match=r"/\.settings is not a file that this user alone can open, .*: look at it and remove it",
    ):
        agent().hold({})


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files to somebody else")
def test_lock_of_somebody_else_is_refused(agent, lock):
    lock.touch(0o600)
    os.chown(lock, 65528, 65528)

    with pytest.raises(HostError, match="is not a file that this user alone can open"):
        agent().hold({})


def test_directory_that_others_may_write_is_not_used(agent, path):
    path.parent.chmod(0o777)

    with pytest.raises(HostError, match="can be written by others: correct its owner and mode"):
        agent().hold({FORWARDING: 1})


READ_ONLY = """
import sys
from pathlib import Path
from overlay.host.settings import HostError, Settings
try: getattr(Settings(Path(sys.argv[1])), sys.argv[2])(*map(eval, sys.argv[3:]))
except HostError as error: print(error)
"""
MOUNT = 'mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys && exec "$0" -c "$@"'


@pytest.mark.netns
def test_setting_that_may_not_be_changed_is_named_with_the_remedy(host, agent, path):
    said = host.run(
        *("unshare", "--mount", "sh", "-c", MOUNT, sys.executable, READ_ONLY, path, "hold", repr({FILTER: 2}))
    )

    assert said == (
        "net.ipv4.conf.br0.rp_filter could not be set to 2 (Read-only file system): make /proc/sys writable, or set it "
        "before the start and omit --fix-sysctl\n"
    )
    assert agent().restore() == []


@pytest.mark.netns
def test_setting_that_cannot_be_put_back_stays_in_the_file(host, agent, path):
    agent().hold({FILTER: 2, OTHER: 2})

    said = host.run(*("unshare", "--mount", "sh", "-c", MOUNT, sys.executable, READ_ONLY, path, "restore"))

    assert (
        "net.ipv4.conf.br1.rp_filter could not be set back to 1 (Read-only file system): run `sysctl -w"
        in said
    )
    assert sorted(agent().restore()) == [FILTER, OTHER]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_directory_that_may_not_be_opened_is_named(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o700)
    code = READ_ONLY.replace("try:", "import os; os.setresuid(65528, 65528, 65528)\ntry:")

    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "closed" / "overlay0.sysctl", "hold", "{}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "could not be opened: Permission denied; run as root" in done.stdout


FULL = """
import sys
from pathlib import Path
from overlay.errors import HostError
from overlay.host import settings
from overlay.host.process import user_ids
for attempt in (lambda at: settings.Settings(at / "overlay0.settings").hold({}), user_ids.take):
    try:
        attempt(Path(sys.argv[1]))
    except HostError as error:
        print(error)
"""


def test_full_file_system_is_named_as_what_is_to_be_mended(tmp_path):
    """Before, users were told to look at the file that could not be created, and to remove it."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a file system")
    full = f'mount -t tmpfs -o mode=755,nr_inodes=1 none {tmp_path} && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", full, "sh", sys.executable, "-c", FULL, tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if "mount" in done.stderr:
        pytest.skip(f"needs a mount namespace: {done.stderr.strip()}")

    assert done.stdout.splitlines() == [
        f"{tmp_path}/.settings could not be opened (No space left on device): make room on that file system",
        f"{tmp_path}/uids could not be opened: No space left on device; make room on that file system",
    ]
