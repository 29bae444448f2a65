from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.errors import StoreError
from peers.stores.etcd.location import EtcdLocation


def read(text, more=()):
    scheme, _, place = text.partition(":")
    return EtcdLocation.parse(scheme, place, more)


@pytest.mark.parametrize(
    ("text", "endpoints", "path"),
    [
        ("etcd://10.0.0.5:2379/office", ["10.0.0.5:2379"], "office"),
        ("etcd://10.0.0.5/office", ["10.0.0.5:2379"], "office"),
        ("etcd://a.example,b.example:4001/office", ["a.example:2379", "b.example:4001"], "office"),
        ("etcd://[2001:db8::1]:2379,[2001:db8::2]/x", ["[2001:db8::1]:2379", "[2001:db8::2]:2379"], "x"),
        ("etcd://h/coreos.com/network/", ["h:2379"], "coreos.com/network"),
    ],
)
def test_url_names_endpoints_and_a_path(text, endpoints, path):
    location = read(text)

    assert [str(each) for each in location.endpoints] == endpoints
    assert location.path == path
    assert read(str(location)) == location


def test_url_names_files_and_user_and_prints_them_again(tmp_path, monkeypatch):
    text = "etcds://h:1/office?ca=ca.pem&cert=/c.pem&key=/k.pem&user=ann&password-file=pw&admin-key=a+b/c="
    location = read(text, ("admin-key",))

    assert location.is_tls
    assert location.ca == Path("ca.pem")
    assert location.secrets() == (Path("/k.pem"), Path("pw"))
    assert location.more == (("admin-key", "a+b/c="),)
    assert read(str(location), ("admin-key",)) == location
    monkeypatch.chdir(tmp_path)
    assert location.absolute().files() == (
        tmp_path / "ca.pem",
        Path("/c.pem"),
        Path("/k.pem"),
        tmp_path / "pw",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("etcd:office", "needs a URL; write etcd://10.0.0.5:2379/office"),
        ("etcd:///office", "names no host"),
        ("etcd://h,,i/office", "names no host"),
        ("etcd://h:0/office", "no valid port"),
        ("etcd://h:x/office", "no valid port"),
        ("etcd://2001:db8::1/office", r"write the IPv6 address as \[2001:db8::1\]:2379"),
        ("etcd://h?ca=x", "names no network"),
        ("etcd://ann:secret@h/office", r"no place for a login.*password-file=FILE"),
        ("etcd://h/office?password=secret", "no place for a password"),
        ("etcd://h/office?user=ann&password=secret", "no place for a password"),
        ("etcd://h/office?user=ann", "logs in by half; write password-file=FILE too"),
        ("etcd://h/office?password-file=/x", "logs in by half; write user=NAME too"),
        ("etcd://h/office?ca=/x", "are for TLS; write etcds://h/office"),
        ("etcds://h/office?key=/x", "without its certificate"),
        ("etcd://h/office?colour=red", "colour is not known; accepted are ca, cert"),
        ("etcd://h/office?user=a&user=b", "twice"),
        ("etcds://h/office?ca=", "ca has no value"),
        ("etcd://h/office?x", "is not NAME=VALUE"),
        ("etcd://" + ",".join(f"h{n}" for n in range(17)) + "/office", "more than 16 hosts"),
    ],
)
def test_wrong_url_is_refused_with_what_to_write(text, said):
    with pytest.raises(StoreError, match=said) as caught:
        read(text)

    assert "secret" not in str(caught.value)


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text):
    try:
        location = EtcdLocation.parse("etcd", f"//{text}")
    except StoreError:
        return
    assert EtcdLocation.parse("etcd", location.place) == location


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "does not exist"),
        ("", "has not one line"),
        ("one\ntwo\n", "has not one line"),
        ("x" * 5000, "more than 4096 bytes"),
    ],
)
def test_password_that_cannot_be_read_is_one_sentence(tmp_path, content, said):
    path = tmp_path / "password"
    if content is not None:
        path.write_text(content)
    location = read(f"etcd://h/office?user=ann&password-file={path}")

    with pytest.raises(StoreError, match=said):
        location.password()


def test_password_is_the_line_in_its_file(tmp_path):
    (tmp_path / "pw").write_text(" two words \n")

    assert read(f"etcd://h/x?user=ann&password-file={tmp_path}/pw").password() == " two words "


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("ca={}/none", "none does not exist; name the file as ca"),
        ("ca={}/empty", "has no certificates"),
        ("ca={}", "is a directory"),
        ("cert={}/empty", "are not a certificate|is not a certificate"),
        ("cert={}/empty&key={}/empty", "are not a certificate and its unencrypted private key"),
    ],
)
def test_certificates_that_cannot_be_read_are_one_sentence(tmp_path, query, said):
    (tmp_path / "empty").write_text("")
    location = read("etcds://h/office?" + query.replace("{}", str(tmp_path)))

    with pytest.raises(StoreError, match=said):
        location.context()
