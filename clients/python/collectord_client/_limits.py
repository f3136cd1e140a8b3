"""The client's limits: each with its reason and what happens beyond it."""

from __future__ import annotations

from typing import Final

PROTOCOL_VERSION: Final = 1

MEMORY_MAX_BYTES: Final = 32 << 20
"""Why: events that the collector has not acknowledged are kept; an agent's memory is not ours to fill. Beyond it: new events
are lost, counted, and show as a gap in the trace."""

FRAME_SIZE_MAX_BYTES: Final = 8 << 20
"""Why: the collector takes no larger frame. Beyond it: long texts of the event are cut, and marked."""

ANSWER_SIZE_MAX_BYTES: Final = 8 << 20
"""Why: an answer is held in memory until it is whole, and whoever listens at the socket may announce 4 GiB. Beyond it: the
connection is dropped; no collector says more in one frame."""

BATCH_SIZE_MAX_BYTES: Final = 256 << 10
"""Why: a frame is decoded as a whole; a few hundred events at once are as cheap as more."""

BATCH_EVENTS_MAX: Final = 2_000
"""As above, by number."""

VALUE_DEPTH_MAX: Final = 60
"""Why: the collector refuses deeper values. Beyond it: the rest is written as its repr, and marked."""

ATTRIBUTES_MAX: Final = 1_000
"""Why: the collector refuses more at once. Beyond it: the rest is left out and counted in an attribute."""

REPR_MAX: Final = 8_192
"""Why: the repr of an unknown object may be anything. Beyond it: it is cut."""

VALUE_ITEMS_MAX: Final = 200_000
"""Why: a container that holds another twice, which holds another twice, and so on, unfolds without end. Beyond it: the rest
of the value is left out, and marked."""

CUT_TEXT_KEPT: Final = 65_536
"""How many characters of a text that is too long are kept, half at each end."""

CONNECT_TIMEOUT_S: Final = 5.0
"""How long opening a session may take before it goes on without a collector."""

END_TIMEOUT_S: Final = 30.0
"""How long a terminal call waits for the outcome that stands, also over a restart of the collector, which takes 20 s at most
where it is stopped in the middle of its work. Beyond it: the call answers `unknown`, and what it asked stays asked."""

CRASH_TIMEOUT_S: Final = 2.0
"""How long an unhandled exception may hold up the death of its process, for all sessions together."""

EXIT_TIMEOUT_S: Final = 1.0
"""How long the exit of an interpreter waits for what is queued to be sent, and for an end that was asked for to be answered, for
all sessions together, whether the collector is there or about to come back. Beyond it: the run is found crashed."""

RECONNECT_FIRST_S: Final = 0.05
RECONNECT_MAX_S: Final = 2.0
"""A lost collector is looked for after pauses that double from the first to the second, each shortened by up to a half at
random, so that a thousand agents do not come back in one moment. The second is well below the 10 s for which a collector
waits for an agent that it cannot see to be alive."""

RECONNECT_ANSWER_S: Final = 30.0
"""How long a collector that took the connection may take for its answers. Why so long: a resume that it grants and that we have
given up meanwhile is the end of the agent to it. Beyond it: the connection is dropped, and the next one tried."""

RECONNECT_GIVE_UP_S: Final = 900.0
"""How long a collector is looked for. Why: a restart takes seconds, an upgrade or a drain of a slow disk minutes; a collector
gives a live agent five minutes from its own start, and within two seconds of that start we have found it, so this bounds only how
long it may be away. It costs one `connect` every two seconds, and never holds up the host. Beyond it: all is quiet, and what
was not acknowledged is given up."""

REQUESTS_MAX: Final = 1_000
"""Why: a host may ask to flush again and again while the collector is away, and each question is kept. Beyond it: a flush is
answered at once, with no."""
