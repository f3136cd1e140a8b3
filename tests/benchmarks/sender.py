"""The agent of the ingest benchmark, a process of its own: everything is encoded before it says that it is ready.

    python -m tests.benchmarks.sender SOCKET EVENTS [--sink]

It waits for a line on standard input, sends, and prints what that came to as one line of JSON. With ``--sink`` the other end is
no collector but something that only takes bytes, and the time ends when that has closed the connection.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time

from tests.benchmarks.load import frames
from tests.process.client import RawClient


def main(path: str, events: int, to_sink: bool) -> None:
    """Encode, wait, send, print."""
    encoded = list(frames(events))
    last = encoded[-1][1]
    stream = [frame for frame, _ in encoded]
    connection, client = (_connected(path), None) if to_sink else _opened(path)
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    receiving = threading.Thread(target=_receive, args=(connection, client, last))
    receiving.start()
    for frame in stream:
        connection.sendall(frame)
    if client is None:
        connection.shutdown(socket.SHUT_WR)
    receiving.join()
    seconds = time.perf_counter() - began
    if client is not None:
        assert client.refused == [], client.refused[:3]
        assert client.end().outcome.value == "completed"
    print(json.dumps({"events": last, "bytes": sum(map(len, stream)), "seconds": seconds}), flush=True)


def _connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(path)
    return connection


def _opened(path: str) -> tuple[socket.socket, RawClient]:
    client = RawClient(path)
    client.hello()
    client.open("ingest")
    return client.socket, client


def _receive(connection: socket.socket, client: RawClient | None, last: int) -> None:
    """Until the last event is acknowledged, or the sink has closed."""
    if client is not None:
        client.wait_acknowledged(last)
        return
    while connection.recv(4_096):
        pass


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), "--sink" in sys.argv)
