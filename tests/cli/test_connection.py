"""A command's connection: every way in which there is no daemon is told apart, and no wait is without an end."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from collectord.cli.connection import Connection
from collectord.errors import CollectordError, OperatorError, PeerError, RefusedError
from collectord.wire.connection import ServerConnection
from collectord.wire.messages import Error, Hello, Stalled, Status, StatusAnswer, Welcome, encode_message

WELCOME = encode_message(Welcome(1, 1, "collectord/test", "boot", {}))


@contextmanager
def listener(backlog: int = 8) -> Iterator[tuple[socket.socket, str]]:
    """A listening socket and its path."""
    with tempfile.TemporaryDirectory(prefix="cd-") as directory, socket.socket(socket.AF_UNIX) as listening:
        path = f"{directory}/s"
        listening.bind(path)
        listening.listen(backlog)
        yield listening, path


@contextmanager
def answering(conversation: Callable[[socket.socket], None]) -> Iterator[str]:
    """Somebody who accepts one connection, and says what the test wants said; hangs up only when the test is over."""
    over = threading.Event()
    with listener() as (listening, path):

        def serve() -> None:
            peer, _ = listening.accept()
            with peer:
                conversation(peer)
                over.wait(30)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield path
        finally:
            over.set()
            thread.join()


def hear(peer: socket.socket, machine: ServerConnection) -> object:
    while (request := machine.next_request()) is None:
        machine.receive(peer.recv(65_536))
    return request


def why_not(path: str) -> str:
    with pytest.raises(OperatorError) as caught, Connection(path, 0.2) as connection:
        connection.ask(Status(connection.next_id()), StatusAnswer, timeout_s=0.2)
    assert caught.value.code == "no-daemon"
    return caught.value.message


def test_no_socket_is_no_daemon(tmp_path: Path) -> None:
    assert "does not exist" in why_not(str(tmp_path / "s"))


def test_a_socket_that_nobody_listens_on_is_no_daemon() -> None:
    with listener() as (listening, path):
        listening.close()
        assert "nobody listens" in why_not(path)


def test_a_file_that_is_no_socket_is_no_daemon(tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    assert "no daemon" in why_not(str(tmp_path / "s"))


def test_a_path_that_no_socket_can_have_is_no_daemon() -> None:
    assert "cannot connect" in why_not("/" + "x" * 200)


def test_a_full_backlog_is_waited_for_and_then_told() -> None:
    with listener(backlog=0) as (_, path), socket.socket(socket.AF_UNIX) as first:
        first.connect(path)
        assert "its queue is full" in why_not(path)


def test_silence_ends() -> None:
    with answering(lambda peer: peer.sendall(WELCOME)) as path:
        assert "gave no answer within 0.2 s" in why_not(path)


def test_a_daemon_that_hangs_up_is_told() -> None:
    def hang_up(peer: socket.socket) -> None:
        hear(peer, ServerConnection())
        peer.close()

    with answering(hang_up) as path, pytest.raises(OperatorError, match="closed the connection before it answered"):
        Connection(path)


def test_something_else_at_the_socket_is_told_apart() -> None:
    with answering(lambda peer: peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as path, pytest.raises(PeerError):
        Connection(path)


def test_what_is_pushed_meanwhile_is_passed_over_and_the_right_answer_is_found() -> None:
    def converse(peer: socket.socket) -> None:
        machine = ServerConnection()
        assert isinstance(hear(peer, machine), Hello)
        peer.sendall(encode_message(Stalled("disk-failed", "full")) + WELCOME)
        request = hear(peer, machine)
        assert isinstance(request, Status)
        other = encode_message(StatusAnswer(request.id + 7, {"pid": 1}, []))
        peer.sendall(other + encode_message(StatusAnswer(request.id, {"pid": 2}, [])))

    with answering(converse) as path, Connection(path) as connection:
        assert connection.ask(Status(connection.next_id()), StatusAnswer).daemon == {"pid": 2}


@pytest.mark.parametrize(("code", "raised"), [("session-unknown", "session-unknown"), ("of-the-future", "internal-error")])
def test_a_refusal_is_raised_also_with_a_code_that_only_a_newer_daemon_knows(code: str, raised: str) -> None:
    def refuse(peer: socket.socket) -> None:
        hear(peer, ServerConnection())
        peer.sendall(encode_message(Error(code, "no", False, 1)))

    with answering(refuse) as path, pytest.raises(RefusedError) as caught:
        Connection(path)
    assert caught.value.code == raised
    assert raised == code or code in caught.value.message


def test_an_error_without_an_id_is_for_us_too() -> None:
    def drain(peer: socket.socket) -> None:
        hear(peer, ServerConnection())
        peer.sendall(encode_message(Error("collector-draining", "the collector is stopping", True)))

    with answering(drain) as path, pytest.raises(CollectordError) as caught:
        Connection(path)
    assert caught.value.code == "collector-draining"
