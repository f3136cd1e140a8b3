"""A command's connection to the daemon: blocking, one question after another, every wait with an end.

Owns how a command connects and waits. What is asked, and what an answer means, is the commands'.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from types import TracebackType
from typing import Self, TypeVar

from collectord import __version__
from collectord.errors import CODES, OperatorError, RefusedError
from collectord.limits import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S, PROTOCOL_VERSION
from collectord.wire.connection import ClientConnection
from collectord.wire.messages import Answer, Error, Hello, Request, Welcome, encode_message

_RECEIVE_SIZE_BYTES = 64 << 10

_A = TypeVar("_A")


class Connection:
    """One connection that asks.

    Args:
        path: of the daemon's socket.
        connect_timeout_s: how long the daemon may take to accept.

    Raises:
        OperatorError: ``no-daemon``.
    """

    def __init__(self, path: str, connect_timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        self._path = path
        self._machine = ClientConnection()
        self._last_id = 0
        self._socket = _connected(path, connect_timeout_s)
        try:
            hello = Hello(self.next_id(), PROTOCOL_VERSION, f"collectord-cli/{__version__}", os.getpid())
            self.ask(hello, Welcome)
        except BaseException:
            self.close()
            raise

    def next_id(self) -> int:
        """An id for the next request."""
        self._last_id += 1
        return self._last_id

    def ask(self, request: Request, *kinds: type[_A], timeout_s: float = ANSWER_TIMEOUT_S) -> _A:
        """Send a request and wait for its answer; what else is said meanwhile is not for us.

        Args:
            request: with an id of ``next_id``.
            kinds: the classes that its answer may have.
            timeout_s: how long to wait.

        Raises:
            RefusedError: the daemon said why not.
            OperatorError: ``no-daemon``: it went away, or did not answer in time.
            PeerError: what it said makes no sense; it is no collectord.
        """
        deadline = time.monotonic() + timeout_s
        try:
            self._socket.settimeout(timeout_s)
            self._socket.sendall(encode_message(request))
            while True:
                answer = self._machine.next_answer()
                if answer is None:
                    self._receive(deadline)
                elif isinstance(answer, Error) and answer.id in (None, self._last_id):
                    raise _refusal(answer)
                elif isinstance(answer, kinds) and _id_of(answer) == self._last_id:
                    return answer
        except TimeoutError:
            raise OperatorError("no-daemon", f"the daemon at {self._path} gave no answer within {timeout_s:g} s") from None
        except OSError as error:
            reason = error.strerror or str(error)
            raise OperatorError("no-daemon", f"the daemon at {self._path} went away: {reason}") from None

    def _receive(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        chunk = self._socket.recv(_RECEIVE_SIZE_BYTES)
        if not chunk:
            raise OperatorError("no-daemon", f"the daemon at {self._path} closed the connection before it answered")
        self._machine.receive(chunk)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def _id_of(answer: Answer | object) -> int | None:
    return getattr(answer, "id", None)


def _connected(path: str, timeout_s: float) -> socket.socket:
    """A connected socket. The timeout is the kernel's: Python's own would make a full backlog an error at once."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        seconds = int(timeout_s)
        wait = struct.pack("ll", seconds, int((timeout_s - seconds) * 1_000_000))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise OperatorError("no-daemon", _why_not_connected(path, error)) from None
    return connection


def _why_not_connected(path: str, error: OSError) -> str:
    match error.errno:
        case errno.ENOENT:
            return f"there is no daemon: {path} does not exist"
        case errno.ECONNREFUSED:
            return f"there is no daemon: nobody listens on {path}"
        case errno.EAGAIN | errno.ETIMEDOUT:
            return f"the daemon at {path} does not accept connections: its queue is full"
        case errno.EACCES | errno.EPERM:
            return f"{path} may not be used by user {os.geteuid()}: it is another user's daemon"
        case _:
            return f"cannot connect to {path}: {error.strerror or error}"


def _refusal(answer: Error) -> RefusedError:
    """The daemon's error as an exception; a code that a newer daemon knows and we do not is shown in the message."""
    if answer.code in CODES:
        return RefusedError(answer.code, answer.message)
    return RefusedError("internal-error", f"{answer.message} [{answer.code}]")
