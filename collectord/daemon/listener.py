"""The socket file: made with its mode, at a path that is ours, and taken away again.

Owns the path under the lock that stands beside it. Knows nothing of what is said on a connection.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

from collectord.errors import OperatorError
from collectord.limits import LISTEN_BACKLOG


def listen(path: str) -> socket.socket:
    """A listening Unix socket at ``path``, mode 0600 from its first moment.

    The caller holds the lock beside the socket, so a socket file that is there and that nobody answers is what a killed
    collector left, and is replaced.

    Raises:
        OperatorError: ``socket-unusable``, ``already-running`` or ``directory-unusable``.
    """
    directory = os.path.dirname(path)
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        _clear(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            os.fchmod(listener.fileno(), 0o600)  # before bind: Linux gives the file the mode of the socket
            listener.bind(path)
            listener.listen(LISTEN_BACKLOG)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        code = "socket-unusable" if error.errno in (errno.EADDRINUSE, errno.ENAMETOOLONG) else "directory-unusable"
        raise OperatorError(code, f"cannot listen on {path}: {error.strerror or error}") from None
    return listener


def _clear(path: str) -> None:
    """Make way for our socket, if what is there is a socket that nobody listens on."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OperatorError("socket-unusable", f"{path} exists and is no socket: it is not touched")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:
            pass
        except OSError:
            os.unlink(path)
            return
    raise OperatorError("already-running", f"somebody listens on {path} already, without holding its lock")


def close(listener: socket.socket, path: str) -> None:
    """Stop listening and take the socket file away, if it is still this one's."""
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    listener.close()
