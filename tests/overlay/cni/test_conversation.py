from __future__ import annotations

import json
import socket
import threading

import pytest

from overlay.cni import conversation
from overlay.cni.conversation import NoAgentError, ask, control_path
from overlay.cni.errors import PluginError
from overlay.host import control


@pytest.fixture
def agent(tmp_path):
    """Return a function that has an agent answer with such bytes, and returns where."""
    sockets = []

    def answering(answer, reads=True):
        listener = socket.socket(socket.AF_UNIX)
        sockets.append(listener)
        path = str(tmp_path / f"overlay{len(sockets)}.sock")
        listener.bind(path)
        listener.listen(1)

        def serve():
            client, _ = listener.accept()
            with client:
                if reads:
                    client.makefile("rb").readline()
                client.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        return path

    yield answering
    for each in sockets:
        each.close()


def test_agent_is_looked_for_where_it_listens():
    assert control_path("overlay0") == str(control.control_path("overlay0"))


def test_path_of_another_namespace_has_its_inode(monkeypatch, tmp_path):
    for module in (conversation, control):
        there = tmp_path / "there"
        monkeypatch.setattr(module, "ONLY_IN_INITIAL_NAMESPACE", there if module is control else str(there))

        before = control_path("overlay0"), str(control.control_path("overlay0"))

    assert before[0] == before[1]
    assert before[0].count(".") == 2


def test_answer_comes_back(agent):
    assert ask(agent(b'{"ok":true,"x":[1]}\n'), {"op": "x"}) == {"ok": True, "x": [1]}


def test_answer_to_a_long_question_comes_back(agent):
    assert ask(agent(b'{"ok":true}\n'), {"op": "x" * 3_000_000}) == {"ok": True}


@pytest.mark.parametrize("answer", [b"", b"{", b"garbage\n", b"[]\n", b'{"ok"'])
def test_agent_that_ends_in_the_middle_is_to_be_asked_again(agent, answer):
    with pytest.raises(PluginError) as refused:
        ask(agent(answer), {"op": "x"})

    assert refused.value.code == 11


def test_agent_that_hangs_up_is_to_be_asked_again(agent):
    with pytest.raises(PluginError) as refused:
        ask(agent(b"", reads=False), {"op": "x" * 3_000_000})

    assert refused.value.code == 11


def test_no_agent_is_to_be_asked_again_and_says_how_to_start_one(tmp_path):
    with pytest.raises(NoAgentError) as refused:
        ask(str(tmp_path / "overlay0.4026532177.sock"), {"op": "x"})

    assert refused.value.code == 11
    assert refused.value.message == "no overlay agent runs for overlay0 here"
    assert "overlay up" in refused.value.details


def test_agent_that_does_not_answer_is_given_up(agent, monkeypatch, tmp_path):
    monkeypatch.setattr(conversation, "PATIENCE", 0.05)
    path = str(tmp_path / "silent.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)

        with pytest.raises(PluginError) as refused:
            ask(path, {"op": "x"})

    assert (refused.value.code, "did not answer" in refused.value.message) == (11, True)


def test_question_is_one_line_of_json(tmp_path):
    path, found = str(tmp_path / "one.sock"), []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)

        def serve():
            client, _ = listener.accept()
            with client:
                found.append(client.makefile("rb").readline())
                client.sendall(b'{"ok":true}\n')

        thread = threading.Thread(target=serve)
        thread.start()
        ask(path, {"op": "x", "name": "a\nb"})
        thread.join()

    assert json.loads(found[0]) == {"op": "x", "name": "a\nb"}
