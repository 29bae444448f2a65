"""Users, passwords and roles of the real etcd."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
import trio

from peers.stores.etcd.gateway import Gateway
from peers.stores.etcd.location import EtcdLocation
from peers.stores.etcd.messages import Cause, GatewayError
from tests.etcd.real import RealEtcd, is_installed

ROOT = "root:rootpw"


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    """An etcd with a login, where ann may read and write below /overlay/office/."""
    if not is_installed() or shutil.which("etcdctl") is None:
        pytest.skip("etcd or etcdctl is not installed (Debian: etcd-server, etcd-client)")
    made = RealEtcd(tmp_path_factory.mktemp("login"))
    made.start()

    def ctl(*arguments):
        command = ["etcdctl", "--endpoints", f"http://{made.url}", *arguments]
        subprocess.run(command, env={**os.environ, "ETCDCTL_API": "3"}, check=True, capture_output=True)

    ctl("user", "add", ROOT)
    ctl("user", "grant-role", "root", "root")
    ctl("user", "add", "ann:secret")
    ctl("role", "add", "office")
    ctl("role", "grant-permission", "office", "--prefix=true", "readwrite", "/overlay/office/")
    ctl("user", "grant-role", "ann", "office")
    ctl("auth", "enable")
    yield made
    made.stop()


def call(etcd, tmp_path, *, user="ann", password="secret", key=b"/overlay/office/x", restart=False):
    query = ""
    if user:
        (tmp_path / "pw").write_text(password + "\n")
        query = f"?user={user}&password-file={tmp_path}/pw"

    async def main():
        gateway = Gateway(EtcdLocation.parse("etcd", f"//{etcd.url}/office{query}"), patience=60.0)
        try:
            await gateway.put(key, b"1")
            if restart:  # its tokens die with it
                etcd.stop()
                etcd.start()
                await gateway.put(key, b"2")
            async with gateway.watch(key, b"", 1) as watch:
                while not (notice := await watch.next()).events:
                    assert not notice.canceled
        finally:
            await gateway.aclose()

    trio.run(main)


def test_user_with_the_right_password_is_let_in(etcd, tmp_path):
    call(etcd, tmp_path)


def test_token_that_died_with_the_member_is_had_anew(etcd, tmp_path):
    call(etcd, tmp_path, restart=True)


@pytest.mark.parametrize(
    ("arguments", "cause", "said"),
    [
        ({"password": "wrong"}, Cause.LOGIN, "does not let ann in; correct user, or the password in"),
        ({"user": "bob"}, Cause.LOGIN, "does not let bob in"),
        ({"user": None}, Cause.LOGIN, "asks for a login; write .user=NAME&password-file=FILE"),
        ({"key": b"/else"}, Cause.FORBIDDEN, "does not permit ann to do that; grant its role readwrite"),
    ],
)
def test_login_that_is_refused_has_a_remedy(etcd, tmp_path, arguments, cause, said):
    with pytest.raises(GatewayError, match=said) as caught:
        call(etcd, tmp_path, **arguments)

    assert caught.value.cause is cause
    assert "secret" not in str(caught.value)
