"""Hostile conversations, made from sound ones: what the fuzzer sends.

Owns the mutations, at the level of values, fields, messages and bytes. Knows nothing of sockets or daemons. Everything is drawn
from one ``random.Random``, so a seed and a number are a case.
"""

from __future__ import annotations

import copy
import random
import struct
from collections.abc import Callable
from typing import Any, Final

from attrs import define

from tests.process.encoding import Pairs, Raw, framed, nested, pack

NOW_NS: Final = 1_700_000_000_000_000_000


@define
class Conversation:
    """What one connection says.

    Attributes:
        kind: how it was made, for the report.
        stream: all its bytes.
        counted: ``(first_sequence, count)`` of the batches that are sent in dense order and unharmed, or None where that is not
            known any more.
        manners: how the connection is left: ``wait`` for answers, ``shut`` the sending half at once, or ``vanish``.
        due: the ids of the requests that must each be answered, unless the daemon closes the connection; None where that is
            not known, and the end of the conversation must be shown by shutting it.
    """

    kind: str
    stream: bytes
    counted: list[tuple[int, int]] | None = None
    manners: str = "wait"
    due: list[int] | None = None


# ---------------------------------------------------------------- hostile values

_SMALL: Final[list[Any]] = [
    None, True, False, -1, 0, 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 1.5, -0.0,
    float("nan"), float("inf"), float("-inf"),
    "", "\0", "a\0b", "../../../../etc/passwd", "/", ".", "..", "\ud800", "\U0001f4a5", "\u202e\x1b[31m",
    b"", b"\0" * 8, b"\0" * 16, b"12345678", b"1234567890123456", b"\xff" * 7,
    [], [[]], {}, [None] * 7, {"": None}, {"k": {"k": {}}},
    Raw(b""),
    Raw(b"\xc1"),  # begins no value
    Raw(b"\xa4\xff\xfe\xfd\xfc"), Raw(b"\xa3\xed\xa0\x80"),  # text that is not UTF-8, and a lone surrogate
    Raw(b"\xd4\x00\x00"), Raw(b"\xc7\x03\x05abc"),  # extension types
    Raw(b"\xd6\xff\x65\x43\x21\x00"), Raw(b"\xc7\x02\xff\x00\x00"),  # a timestamp, and a broken one
    Raw(b"\xc7\x0c\xff\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x01"),
    Raw(b"\xdd\xff\xff\xff\xff"), Raw(b"\xdf\x7f\xff\xff\xff"),  # lengths that lie
    Raw(b"\xdb\x7f\xff\xff\xff"), Raw(b"\xc6\x00\x7f\xff\xff"), Raw(b"\xc9\xff\xff\xff\xff\x00"),
    Raw(b"\x81\x01\x02"), Raw(b"\x81\x91\x01\x02"), Raw(b"\x82\xa1k\x01\xa1k\x02"),  # keys: no text, an array, twice
    Raw(b"\xca\x7f\xc0\x00\x00"),
]  # fmt: skip

_LARGE: Final[list[Callable[[], Any]]] = [
    lambda: nested(63), lambda: nested(64), lambda: nested(65), lambda: nested(600), lambda: nested(10_000),
    lambda: nested(10_000, b"\x81\xa1k"), lambda: nested(1_000, b"\xdd\x00\x7f\xff\xff"),
    lambda: "x" * 70_000, lambda: b"x" * 300_000, lambda: "\0" * 200_000, lambda: list(range(5_000)),
    lambda: {f"k{n}": n for n in range(1_024)}, lambda: {f"k{n}": n for n in range(1_025)}, lambda: {"k" * 100_000: 1},
    lambda: [{"k": [1, 2, {"n": None}]}] * 500, lambda: "x" * 5_000_000,
]  # fmt: skip


def hostile(rng: random.Random) -> Any:
    """A value that some part of a collector might not expect."""
    if rng.random() < 0.85:
        return copy.deepcopy(rng.choice(_SMALL))  # what is drawn may be changed in its turn
    return rng.choice(_LARGE[:-1] if rng.random() < 0.9 else _LARGE)()


# ---------------------------------------------------------------- sound conversations


class Talk:
    """A sound conversation as messages: hello, open, some batches, an end of some kind.

    Args:
        rng: to draw from.
        session_id: of its session; no other case has the same.
    """

    def __init__(self, rng: random.Random, session_id: str) -> None:
        self.rng = rng
        self.session_id = session_id
        self._ids = iter(range(1, 1_000))
        self._sequence = 0
        # "connection" for most: for a process that lives on, the verdict waits 200 ms to see whether it does
        liveness = "process" if rng.random() < 0.05 else "connection"
        self.messages: list[dict[str, Any]] = [
            {"type": "hello", "id": next(self._ids), "protocol": 1, "client": "fuzz", "pid": 1, "liveness": liveness},
            {"type": "open", "id": next(self._ids), "session_id": session_id, "attributes": {"a": 1}},
        ]
        for _ in range(rng.randint(1, 4)):
            self.messages.append(self._batch())
            if rng.random() < 0.4:
                self.messages.append(
                    {"type": "flush", "id": next(self._ids), "last_sequence": self._sequence, "export": rng.random() < 0.3}
                )
        self._finish()

    def _batch(self) -> dict[str, Any]:
        first = self._sequence + 1
        events = [self._event(first + offset) for offset in range(self.rng.randint(1, 12))]
        self._sequence += len(events)
        return {"type": "events", "first_sequence": first, "events": events}

    def _event(self, sequence: int) -> list[Any]:
        rng = self.rng
        reference = rng.randint(1, sequence)
        span_id = rng.randbytes(7) + b"\1"
        return rng.choice(
            [
                [1, NOW_NS, span_id, None, "span", rng.randint(1, 5), {"k": "v", "n": [1, {"m": 2.5}]}],
                [1, NOW_NS, span_id, rng.randbytes(7) + b"\1", "child", 1, {}, [[b"t" * 16, b"s" * 8, {"l": 1}]]],
                [2, NOW_NS, reference, {"gen_ai.usage.input_tokens": 7}, None],
                [3, NOW_NS, reference, "happened", {"x": None}],
                [4, NOW_NS, reference, 2, "broken", {"gen_ai.response.id": "r", "gen_ai.usage.output_tokens": 3}],
                [4, NOW_NS, [1, reference], 0, None, {}],
                [5, NOW_NS, 9, {"text": "said"}, {}, None],
                [6, NOW_NS, {"attribute": b"bytes"}],
                [7, NOW_NS, "space", "key", [1, 2]],
                [8, NOW_NS, "space", "key"],
                [9, NOW_NS, "space"],
            ]
        )

    def _finish(self) -> None:
        common = {"id": next(self._ids), "last_sequence": self._sequence}
        exception = {"type": "ValueError", "message": "bad", "stack": None}
        self.messages.append(
            self.rng.choice(
                [
                    {"type": "end", "outcome": "completed", "wait": True, **common},
                    {"type": "end", "outcome": "failed", "message": "why", "exception": exception, "wait": False, **common},
                    {"type": "crash", "reason": "broken", "exception": exception, **common},
                    {"type": "cancel", "reason": "enough", **common},
                    {"type": "status", "id": next(self._ids)},
                ]
            )
        )

    def stray(self) -> dict[str, Any]:
        """A sound message that may stand where it does not belong."""
        rng, number = self.rng, next(self._ids)
        return rng.choice(
            [
                {"type": "hello", "id": number, "protocol": rng.choice([1, 1, 0, 2, 99]), "client": "", "pid": 0},
                {"type": "open", "id": number, "session_id": self.session_id},
                {"type": "open", "id": number, "session_id": self.session_id + "'", "join": rng.random() < 0.5},
                {"type": "open", "id": number, "session_id": self.session_id, "resume_token": b"r" * 16},
                {"type": "detach", "id": number, "last_sequence": self._sequence},
                {"type": "end", "id": number, "outcome": "completed", "last_sequence": 2**62},
                {"type": "cancel", "id": number, "reason": "", "session_id": self.session_id, "run": rng.randint(0, 3)},
                {"type": "crash", "id": number, "reason": "", "session_id": self.session_id, "run": rng.randint(0, 3)},
                {"type": "crash", "id": number, "reason": "x", "session_id": "nobody", "pid": 1},
                {"type": "flush", "id": number, "last_sequence": 0, "export": True},
                {"type": "status", "id": number},
                {"type": "events", "first_sequence": 1, "events": []},
                {"type": "welcome", "id": number},
                {"type": "ack", "sequence": 1},
            ]
        )

    def due(self) -> list[int]:
        """The ids of its requests, as far as they are ids."""
        ids = [message.get("id") for message in self.messages]
        return [number for number in ids if type(number) is int and 0 <= number < 1 << 63]

    def counted(self) -> list[tuple[int, int]]:
        """Its batches as they are."""
        return [(m["first_sequence"], len(m["events"])) for m in self.messages if "events" in m]


# ---------------------------------------------------------------- mutations


def _mutate_value(rng: random.Random, message: dict[str, Any]) -> None:
    """One element of one event, at some depth, or of an attribute map."""
    events = message["events"]
    index = rng.randrange(len(events))
    if not isinstance(events[index], list):
        return  # changed already
    place: list[Any] = events[index]
    choice = rng.random()
    if choice < 0.1:
        events[index] = hostile(rng)
    elif choice < 0.25:
        place.insert(rng.randrange(len(place) + 1), hostile(rng))
    elif choice < 0.35 and len(place) > 1:
        del place[rng.randrange(len(place))]
    elif choice < 0.6:
        maps = [position for position, item in enumerate(place) if isinstance(item, dict)]
        if maps:
            position = rng.choice(maps)
            key = hostile(rng) if rng.random() < 0.3 else "k"
            place[position] = Pairs([*place[position].items(), (key, hostile(rng))])
    elif place:
        place[rng.randrange(len(place))] = hostile(rng)


def _mutate_field(rng: random.Random, message: dict[str, Any]) -> None:
    """One field: missing, unknown, twice, or with a value that does not belong."""
    name = rng.choice(list(message))
    choice = rng.random()
    if choice < 0.2:
        del message[name]
    elif choice < 0.35:
        message[rng.choice(["extra", "", "id\0", "x" * 300, "ty\u0440e"])] = hostile(rng)
    else:
        message[name] = hostile(rng)


def _encoded(rng: random.Random, message: dict[str, Any]) -> bytes:
    pairs = Pairs(message.items())
    if rng.random() < 0.03:
        rng.shuffle(pairs)
    if pairs and rng.random() < 0.03:
        pairs.append(rng.choice(pairs))
    return framed(pack(pairs))


def mutated_events(rng: random.Random, session_id: str) -> Conversation:
    """A sound conversation with values in its events changed: the daemon must refuse these and store the others."""
    talk = Talk(rng, session_id)
    batches = [message for message in talk.messages if "events" in message]
    for _ in range(rng.randint(1, 8)):
        _mutate_value(rng, rng.choice(batches))
    stream = b"".join(framed(pack(message)) for message in talk.messages)
    return Conversation("events", stream, talk.counted(), due=talk.due())


def mutated_fields(rng: random.Random, session_id: str) -> Conversation:
    """A sound conversation with a field or two changed, seldom in the hello: nothing but that would be tested."""
    talk = Talk(rng, session_id)
    for _ in range(rng.randint(1, 2)):
        message = rng.choice(talk.messages[0 if rng.random() < 0.1 else 1 :])
        if message:
            _mutate_field(rng, message)
    return Conversation("fields", b"".join(_encoded(rng, message) for message in talk.messages), due=talk.due())


def disordered(rng: random.Random, session_id: str) -> Conversation:
    """Sound messages where they do not belong."""
    talk = Talk(rng, session_id)
    for _ in range(rng.randint(1, 5)):
        talk.messages.insert(rng.randint(0 if rng.random() < 0.2 else 1, len(talk.messages)), talk.stray())
    if rng.random() < 0.3:
        rest = talk.messages[1:]
        rng.shuffle(rest)
        talk.messages[1:] = rest
    return Conversation("order", b"".join(framed(pack(message)) for message in talk.messages), due=talk.due())


def _flip(rng: random.Random, stream: bytearray) -> None:
    for _ in range(rng.randint(1, 6)):
        if not stream:
            return
        at = rng.randrange(len(stream))
        match rng.randrange(5):
            case 0:
                stream[at] ^= 1 << rng.randrange(8)
            case 1:
                stream[at] = rng.choice(b"\x00\x7f\x80\x90\xc0\xc1\xc4\xc7\xca\xd4\xd9\xdb\xdc\xdd\xde\xdf\xff")
            case 2:
                del stream[at : at + rng.randint(1, 8)]
            case 3:
                stream[at:at] = rng.randbytes(rng.randint(1, 8))
            case 4:
                stream[at:at] = stream[rng.randrange(len(stream)) :][: rng.randint(1, 64)]


def _sound_frames(rng: random.Random, session_id: str) -> list[bytes]:
    return [framed(pack(message)) for message in Talk(rng, session_id).messages]


def mutated_bytes(rng: random.Random, session_id: str) -> Conversation:
    """A sound stream with a few bytes changed; mostly behind the hello, or nothing but the hello would be tested."""
    frames = _sound_frames(rng, session_id)
    kept = b"".join(frames[: 0 if rng.random() < 0.15 else rng.randint(1, 2)])
    rest = bytearray(b"".join(frames)[len(kept) :])
    if rest:
        _flip(rng, rest)
    return Conversation("bytes", kept + bytes(rest))


def mutated_payloads(rng: random.Random, session_id: str) -> Conversation:
    """Bytes changed inside payloads whose frames stay sound, so that what lies behind is still read."""
    talk = Talk(rng, session_id)
    frames = []
    for message in [*talk.messages]:
        payload = bytearray(pack(message))
        if message["type"] not in ("hello", "open") and rng.random() < 0.4:
            _flip(rng, payload)
            talk.messages.remove(message)
        frames.append(framed(bytes(payload)))
    return Conversation("payloads", b"".join(frames), due=talk.due())


def cut_short(rng: random.Random, session_id: str) -> Conversation:
    """A sound stream that ends anywhere."""
    stream = b"".join(_sound_frames(rng, session_id))
    return Conversation("cut", stream[: rng.randrange(len(stream))])


def lying_length(rng: random.Random, session_id: str) -> Conversation:
    """One frame whose length is not that of its payload."""
    frames = _sound_frames(rng, session_id)
    index = rng.randrange(len(frames))
    size = len(frames[index]) - 4
    lie = rng.choice([0, 1, size - 1, size + 1, 8 << 20, (8 << 20) + 1, 2**31, 2**32 - 1, rng.randrange(2 * size)])
    frames[index] = struct.pack(">I", lie) + frames[index][4:]
    return Conversation("length", b"".join(frames))


def noise(rng: random.Random, session_id: str) -> Conversation:
    """Bytes without sense, behind some sense or none."""
    frames = _sound_frames(rng, session_id)[: rng.randint(0, 3)]
    junk = rng.randbytes(rng.randint(1, 400))
    return Conversation("noise", b"".join(frames) + (framed(junk) if rng.random() < 0.5 else junk))


_MAKERS: Final = [
    (mutated_events, 28),
    (mutated_fields, 17),
    (disordered, 17),
    (mutated_bytes, 11),
    (mutated_payloads, 11),
    (cut_short, 6),
    (lying_length, 5),
    (noise, 5),
]


def conversation(seed: int, number: int) -> Conversation:
    """The case of that number: always the same one for the same seed."""
    rng = random.Random(f"{seed}:{number}")
    (maker,) = rng.choices([maker for maker, _ in _MAKERS], [weight for _, weight in _MAKERS])
    made = maker(rng, f"fuzz-{number}")
    chance = rng.random()
    made.manners = "vanish" if chance < 0.12 else "shut" if chance < 0.2 or made.due is None else "wait"
    return made
