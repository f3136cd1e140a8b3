"""The agents of the group benchmark, in one process: each sends a batch, and the next when enough is acknowledged.

    python -m tests.benchmarks.crowd SOCKET SESSIONS SECONDS WINDOW

Everything is encoded and every session opened before it says that it is ready. It waits for a line on standard input, sends
for that many seconds, reads what is left of the acknowledgements, and prints what that came to as one line of JSON.
``WINDOW`` is how many batches of a session may be on their way at once: with one, an agent waits for each acknowledgement.
"""

from __future__ import annotations

import json
import selectors
import sys
import time
from collections import deque
from typing import Final

import msgpack

from collectord.wire.connection import ClientConnection
from collectord.wire.frames import encode_frame
from collectord.wire.messages import Ack
from tests.benchmarks.load import Mix
from tests.process.client import RawClient

BATCH_EVENTS: Final = 10
BATCHES_MAX: Final = 15_000
"""Encoded beforehand, and the same for each session; one that has sent them all sends no more."""


def batches(count: int) -> list[bytes]:
    """Frames of a few events each, as one session sends them one after the other."""
    mix = Mix()
    frames: list[bytes] = []
    while len(frames) < count:
        first, events = mix.batch(1)
        for index in range(0, len(events), BATCH_EVENTS):
            body = {"type": "events", "first_sequence": first + index, "events": events[index : index + BATCH_EVENTS]}
            frames.append(encode_frame(msgpack.packb(body)))
    return frames


class Agent:
    """One session."""

    def __init__(self, path: str, name: str, frames: list[bytes]) -> None:
        self.client = RawClient(path)
        self.client.hello()
        self.client.open(name)
        self._frames = frames
        self._machine = ClientConnection()
        self._sent_at: deque[float] = deque()
        self._sent = 0
        self.latencies: list[float] = []

    @property
    def waits(self) -> bool:
        """Whether something is not acknowledged."""
        return bool(self._sent_at)

    def send(self, window: int) -> None:
        """As much as the window lets it."""
        while len(self._sent_at) < window and self._sent < len(self._frames):
            self._sent_at.append(time.perf_counter())
            self.client.socket.sendall(self._frames[self._sent])
            self._sent += 1

    def receive(self) -> None:
        """Take the acknowledgements that are there."""
        self._machine.receive(self.client.socket.recv(1 << 16))
        now = time.perf_counter()
        while (answer := self._machine.next_answer()) is not None:
            assert isinstance(answer, Ack), answer
            assert not answer.refused, answer
            while self._sent_at and (self._sent - len(self._sent_at) + 1) * BATCH_EVENTS <= answer.sequence:
                self.latencies.append(now - self._sent_at.popleft())

    def end(self) -> None:
        """End the run without waiting for its trace file."""
        self.client.sequence = self._sent * BATCH_EVENTS
        self.client.send_end(wait=False)


def main(path: str, sessions: int, seconds: float, window: int) -> None:
    """Open, wait, send, print."""
    frames = batches(BATCHES_MAX)
    agents = [Agent(path, f"busy-{number}", frames) for number in range(sessions)]
    print("ready", flush=True)
    sys.stdin.readline()
    with selectors.DefaultSelector() as selector:
        for agent in agents:
            selector.register(agent.client.socket, selectors.EVENT_READ, agent)
        began = time.perf_counter()
        for agent in agents:
            agent.send(window)
        while any(agent.waits for agent in agents):
            for key, _ in selector.select():
                key.data.receive()
                if time.perf_counter() - began < seconds:
                    key.data.send(window)
        took = time.perf_counter() - began
    latencies = [latency for agent in agents for latency in agent.latencies]
    print(json.dumps({"seconds": took, "latencies": latencies, "events": len(latencies) * BATCH_EVENTS}), flush=True)
    sys.stdin.readline()
    for agent in agents:
        agent.end()
        agent.client.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
