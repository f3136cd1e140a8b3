"""What is said to a service manager: ``sd_notify`` over a datagram, nothing where there is none."""

from __future__ import annotations

import os
import socket


def notify(*lines: str) -> None:
    """Tell the service manager; where none asked to be told, or it does not listen, nothing happens.

    Args:
        lines: assignments such as ``READY=1``; see sd_notify(3).
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address or address[0] not in "/@":
        return
    if address[0] == "@":
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        try:
            manager.sendto("\n".join(lines).encode(), address)
        except OSError:
            return  # a manager that is gone must not take us along
