"""Every limit of collectord, in one place: its name, its reason, and what is answered beyond it.

Numbers only; no module may carry a limit of its own. Units stand last in each name.
"""

from __future__ import annotations

from typing import Final

# ---------------------------------------------------------------- the wire

PROTOCOL_VERSION: Final = 1
"""The protocol spoken. To change it: add the new number to ``PROTOCOL_VERSIONS``, keep decoding the old one for one
release, add golden frames under ``tests/vectors``, and say in docs/protocol.md what a client must do."""

PROTOCOL_VERSIONS: Final = (1,)
"""The protocols a daemon of this version accepts; any other is answered ``protocol-unsupported``."""

FRAME_SIZE_MAX_BYTES: Final = 8 << 20
"""Why: one frame is held in memory while it is decoded. Beyond it: ``frame-too-large``, and the connection closes."""

EVENTS_PER_MESSAGE_MAX: Final = 65_536
"""Why: bounds the Python objects that one frame may unfold into. Beyond it: ``message-malformed``."""

SKIM_STEPS_MAX: Final = 100_000
"""Why: what nests deeper than msgpack follows is walked over value by value, in Python, while every other session waits.
Beyond it, in one frame: ``frame-malformed``, and the connection closes."""

VALUE_DEPTH_MAX: Final = 64
"""Why: rendering recurses; the deepest real attribute seen is 24. Beyond it: the event is refused ``value-too-deep``."""

OTLP_DEPTH_MAX: Final = 28
"""Why: readers of OTLP follow a hundred messages into each other, and a map in a map costs three; one value that is too
deep makes the whole document unreadable to them. Beyond it: the rest of the value is JSON text, and marked."""

ATTRIBUTES_MAX: Final = 1_024
"""Why: the OpenTelemetry default is 128; a thousand covers every real trace seen eight times over, and an open span
holds its attributes in the renderer's memory. Beyond it: the event is refused ``attributes-too-many``."""

SESSION_ID_SIZE_MAX_BYTES: Final = 65_536
"""Why: an id is kept in memory, in the journal and in every status answer. Beyond it: ``session-id-invalid``."""

HELLO_TIMEOUT_S: Final = 10.0
"""Why: a connection that never speaks holds a descriptor. Beyond it: ``hello-timeout``, and the connection closes."""

REFUSALS_PER_ACK_MAX: Final = 256
"""Why: an acknowledgement must stay small however wrong its batch was. Beyond it: the rest is counted, not listed."""

ANSWER_BACKLOG_MAX_BYTES: Final = 1 << 20
"""Why: answers wait in memory for a client that does not read. Beyond it: the connection is not read until it does;
cumulative acknowledgements are folded, so a writer that never reads costs one acknowledgement."""

# ---------------------------------------------------------------- a run

OPEN_SPANS_MAX: Final = 65_536
"""Why: memory of a run is bounded by its open spans. Beyond it: the event is refused ``spans-too-many``."""

OPEN_SPAN_NAME_MAX_CHARACTERS: Final = 256
"""Why: the names of open spans are held for `status`, and a name may be as long as a frame. Beyond it: `status` knows the
beginning; the journal and the trace file have it whole."""

PENDING_MAX_BYTES: Final = 8 << 20
"""Why: events accepted and not yet durable wait in memory. Beyond it: the peer is not read (backpressure)."""

GROUP_MAX_BYTES: Final = 4 << 20
"""Why: one group commit should not keep the next waiting for long. Beyond it: the rest goes into the next group."""

RESPONSE_IDS_REMEMBERED_MAX: Final = 4_096
"""Why: usage counts a response once per ``gen_ai.response.id``, and duplicates come close together (a retry, a
wrapper). Beyond it: the oldest id is forgotten, and a duplicate that comes later still is counted."""

REPORT_TEXT_MAX_BYTES: Final = 65_536
"""Why: a crash report's message and stack are kept in memory until the run is closed, and line by line in `status`.
Beyond it: head and tail are kept with the number of bytes left out between them."""

NOTES_MAX: Final = 64
"""Why: notes (a late crash report, say) are shown whole. Beyond it: the last ones say how many more there were at least."""

CANCEL_GRACE_S: Final = 30.0
"""How long an agent that was asked to cancel has before its run becomes `cancelled` without it."""

RESUME_GRACE_ALIVE_S: Final = 300.0
"""How long a run that was found open waits for an owner that is certainly alive: it may be in the middle of a long call, and
reconnects with the next thing it has to say. Beyond it: `crashed`, `collector-restarted`."""

RESUME_GRACE_UNKNOWN_S: Final = 10.0
"""How long it waits where nobody knows whether the owner lives. Clients come back within seconds. Beyond it: the same."""

RECOVERY_LISTEN_WAIT_S: Final = 5.0
"""Why: whoever connects right after a start should find what died before it judged already; but clients that wait to come
back must not wait for thousands of documents. Beyond it: the daemon listens, and the rest is judged beside that."""

VERDICT_WAIT_S: Final = 0.2
"""How long the crash record waits for the kernel to say how the process ended. The mark itself never waits."""

FINISHED_REMEMBERED: Final = 50
"""How many finished runs `status` still shows."""

# ---------------------------------------------------------------- the disk

SEGMENT_SIZE_MAX_BYTES: Final = 1 << 40
"""Why: segments exist for failed files, not for size; the number only keeps offsets within what readers test."""

RESERVE_SIZE_MAX_BYTES: Final = 16 << 20
RESERVE_SHARE: Final = 0.02
"""So much of the disk is kept by a file, for how runs end: the first, or that share of the file system where it is less. Why: a
run that is over must be recorded as that on a full disk too, behind the events it still holds in memory. Beyond it: the
run is stalled until there is room."""

DISK_FREE_MIN_MAX_BYTES: Final = 64 << 20
DISK_FREE_MIN_SHARE: Final = 0.05
"""Below so much free space no new session begins, unless `disk_free_min` says otherwise: the first, or that share of the file
system where it is less. Why: the sessions that run should be able to finish. Beyond it: ``disk-full``."""

EXPORT_RETRY_FIRST_S: Final = 1.0
EXPORT_RETRY_MAX_S: Final = 60.0
"""A trace file that could not be written when its run ended is tried again after the first, doubling up to the second."""

EXPORTS_OWED_MAX: Final = 10_000
"""Why: a disk that takes no trace files for a week must not fill the memory. Beyond it: derived at the next start."""

JOURNAL_THREADS: Final = 8
"""Why: each group commit blocks a thread in fdatasync; eight keep a disk busy, and more only queue in the kernel."""

EXPORT_THREADS: Final = 4
"""Why: renames and directory syncs may be slow (200 ms have been seen); they have threads of their own, so that no
journal waits for them."""

STALL_RETRY_FIRST_S: Final = 0.5
STALL_RETRY_MAX_S: Final = 30.0
"""A stalled run tries its disk again after the first, doubling up to the second: space returns by minutes, not by
microseconds, and every try writes all that is pending."""

# ---------------------------------------------------------------- the export

EXPORT_QUIET_MIN_S: Final = 1.0
EXPORT_RATE_BYTES_PER_S: Final = 1 << 20
"""A running trace file follows the journal within max(EXPORT_QUIET_MIN_S, size / EXPORT_RATE_BYTES_PER_S) of quiet."""

EXPORT_STALE_MAX_S: Final = 60.0
EXPORT_STALE_RATE_BYTES_PER_S: Final = 64 << 10
"""Under a stream that is never quiet, exports are paid for by growth (see docs/decisions/0006); yet a running file is
never older than max(EXPORT_STALE_MAX_S, size / EXPORT_STALE_RATE_BYTES_PER_S)."""

RENDERERS: Final = 2
"""Why: one large export must not keep a small one waiting; more than two only compete for two cores."""

RENDER_TIMEOUT_S: Final = 600.0
"""Why: a renderer that hangs would hold a run open for ever. Beyond it: the renderer is ended, `export-failed`."""

HEAD_LINE_MAX_BYTES: Final = 4_096
"""Line 1 of a trace file is at most this long, whatever the id: a reader can judge a file by one small read."""

TRACE_LINE_MAX_BYTES: Final = 256 << 20
"""Why: `verify` holds the first two lines of a trace file, and a damaged one may have no second line. Beyond it:
``trace-damaged``."""

FINDINGS_MAX: Final = 10_000
"""Why: a disk gone bad has more faults than anybody reads. Beyond it: they are counted, and the list says that it is cut."""

VERIFY_TRIES_MAX: Final = 5
"""Why: beside a running collector a file may be replaced while it is compared. Beyond it: what was found last stands, and a
trace file that was replaced each time is noted ``trace-unsettled``."""

# ---------------------------------------------------------------- the daemon

LISTEN_BACKLOG: Final = 4_096
"""Why: clients that connect during a restart or a burst wait here. Beyond it: connect blocks or says EAGAIN."""

DESCRIPTOR_RESERVE: Final = 64
"""Descriptors kept free of sessions for renderers, directories and for accepting in order to refuse."""

DESCRIPTORS_PER_SESSION: Final = 3
"""A connection, the peer's pidfd, the journal."""

DRAIN_TIMEOUT_S: Final = 20.0
"""How long a stop may take to store what was accepted, before the process leaves with what is durable."""

ACCEPT_RETRY_S: Final = 0.1
"""How long the listener rests when the process has no descriptor left to accept with."""

DRAIN_TIMEOUT_MAX_S: Final = 3_600.0
"""Why: a stop that takes longer than an hour is a stop that hangs. Beyond it: ``config-invalid``."""

SOCKET_PATH_MAX_BYTES: Final = 107
"""Why: the kernel's ``sun_path`` has 108 bytes, the last for the NUL. Beyond it: ``config-invalid``."""

CONFIG_FILE_MAX_BYTES: Final = 1 << 20
"""Why: a configuration is a few lines; a larger file is a wrong path, /dev/zero say. Beyond it: ``config-invalid``."""

# ---------------------------------------------------------------- the command line

CONNECT_TIMEOUT_S: Final = 5.0
"""Why: a daemon that is stopped, or whose backlog is full, never accepts. Beyond it: ``no-daemon``."""

ANSWER_TIMEOUT_S: Final = 15.0
"""Why: a daemon answers questions from memory, at once; fifteen seconds is a machine in trouble. Beyond it: ``no-daemon``."""

TERMINAL_ANSWER_TIMEOUT_S: Final = 120.0
"""Why: the answer to a crash report comes after the trace file of the whole run was written. Beyond it: ``no-daemon``."""
