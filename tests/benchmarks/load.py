"""What the benchmarks send: events as agents make them, in frames that are encoded before the clock starts.

One turn of the mix is forty events: nineteen spans (two of them calls of a model that report usage, the others tools) and two
logs, 160 bytes an event on average. Ids and texts differ from event to event, since a constant would flatter every cache.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any, Final

import msgpack

from collectord.wire.frames import encode_frame

Event = list[Any]

BATCH_EVENTS: Final = 520
TURN_EVENTS: Final = 40
_EPOCH_NS: Final = 1_700_000_000_000_000_000


class Mix:
    """An endless session: each call of ``batch`` goes on where the last one stopped."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._at = _EPOCH_NS
        self._turn = 0
        self.sequence = 0

    def batch(self, turns: int = BATCH_EVENTS // TURN_EVENTS) -> tuple[int, list[Event]]:
        """The sequence of the first event, and the events of some turns."""
        first = self.sequence + 1
        events: list[Event] = []
        for _ in range(turns):
            self._add_turn(events)
        return first, events

    def _add_turn(self, events: list[Event]) -> None:
        self._turn += 1
        agent = self._id()
        start = self._start(events, agent, None, "invoke_agent planner", {"gen_ai.operation.name": "invoke_agent"})
        for step in range(18):
            if step % 9 == 0:
                self._model_call(events, agent)
            else:
                self._tool_call(events, agent, step)
            if step in (6, 13):
                self._put(events, [5, self._now(), 9, f"turn {self._turn}, step {step}: plan has not changed", {}, agent])
        self._end(events, start, 1, None, {"agent.turn": self._turn})

    def _model_call(self, events: list[Event], parent: bytes) -> None:
        start = self._start(
            events, self._id(), parent, "chat gpt-5",
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.request.model": "gpt-5",
                "gen_ai.request.temperature": 0.2,
                "gen_ai.input.messages": self._turn % 60,
            },
        )  # fmt: skip
        tokens = self._random.randrange(200, 90_000)
        self._end(
            events, start, 1, None,
            {
                "gen_ai.response.id": f"resp_{self._random.getrandbits(64):016x}",
                "gen_ai.usage.input_tokens": tokens,
                "gen_ai.usage.output_tokens": tokens // 17,
                "gen_ai.response.finish_reason": "tool_calls",
            },
        )  # fmt: skip

    def _tool_call(self, events: list[Event], parent: bytes, step: int) -> None:
        call = f"call_{self._random.getrandbits(96):024x}"
        start = self._start(
            events, self._id(), parent, "execute_tool bash",
            {
                "gen_ai.tool.name": "bash",
                "gen_ai.tool.call.id": call,
                "gen_ai.tool.call.arguments": f"grep -rn --include='*.py' 'pattern_{self._turn}_{step}' src/ | head -50",
                "attempt": 1,
            },
        )  # fmt: skip
        failed = self._random.random() < 0.05
        self._end(
            events, start, 2 if failed else 1, "exit status 1" if failed else None,
            {
                "process.exit.code": int(failed),
                "gen_ai.tool.call.result": f"src/module_{step}.py:{self._turn}: value = compute({self._turn}, {step})",
                "duration_ms": 12.5,
                "truncated": False,
            },
        )  # fmt: skip

    def _start(self, events: list[Event], span_id: bytes, parent: bytes | None, name: str, attributes: dict[str, Any]) -> int:
        self._put(events, [1, self._now(), span_id, parent, name, 1, attributes])
        return self.sequence

    def _end(self, events: list[Event], start: int, status: int, message: str | None, attributes: dict[str, Any]) -> None:
        self._put(events, [4, self._now(), start, status, message, attributes])

    def _put(self, events: list[Event], event: Event) -> None:
        events.append(event)
        self.sequence += 1

    def _now(self) -> int:
        self._at += self._random.randrange(1, 2_000_000)
        return self._at

    def _id(self) -> bytes:
        return self._random.getrandbits(63).to_bytes(8, "big") or b"\1" * 8


def frames(events: int, seed: int = 1) -> Iterator[tuple[bytes, int]]:
    """Frames of at least ``events`` events in all, each with the sequence of its last event."""
    mix = Mix(seed)
    while mix.sequence < events:
        first, batch = mix.batch()
        yield encode_frame(msgpack.packb({"type": "events", "first_sequence": first, "events": batch})), mix.sequence


def big_session(spans: int = 5_000, text_size: int = 5_000) -> Iterator[list[Event]]:
    """Batches of spans with two attributes of that many random characters each: some 52 MB of trace file as it is."""
    sequence = 0
    for _ in range(0, spans, 50):
        batch: list[Event] = []
        for number in range(50):
            given, found = (os.urandom(text_size // 2).hex() for _ in range(2))
            batch.append([1, _EPOCH_NS + sequence, os.urandom(7) + b"\1", None, f"chat {number}", 3, {"input": given}])
            batch.append([4, _EPOCH_NS + sequence + 1, sequence + 1, 1, None, {"output": found}])
            sequence += 2
        yield batch
