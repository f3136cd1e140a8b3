"""The renderer process: `python -m collectord.export.worker`, requests on standard input, answers on standard output.

Owns the file it is told to write, until it has answered; it renames nothing. A process of its own because rendering beside a
journal's commit, in a thread, makes that commit wait for the interpreter, and because a bug in it must not be the daemon's.
Kept light: it imports neither trio nor cattrs.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, BinaryIO, Final

import msgpack

from collectord.export.render import JournalIsEmpty, render
from collectord.export.request import RENDER_FAULTS, RenderRequest, RenderResult
from collectord.journal.disk import RealDisk
from collectord.journal.reader import JournalReader
from collectord.model import Record, RecordType

BUFFER_SIZE_BYTES: Final = 1 << 20
NICENESS: Final = 5
"""Why: on a busy machine the daemon's own loop, which acknowledges, goes before its renderers, which follow."""


def encode_request(request: RenderRequest) -> bytes:
    """A request as one frame."""
    terminal = request.terminal
    fields = None
    if terminal is not None:
        fields = [
            int(terminal.type),
            terminal.body,
            terminal.producer,
            terminal.first_sequence,
            terminal.first_position,
            terminal.count,
        ]
    return frame([request.segments, fields, request.out, request.sync])


def frame(value: Any) -> bytes:
    """One value behind its length."""
    payload: bytes = msgpack.packb(value, unicode_errors="surrogateescape")
    return len(payload).to_bytes(4, "big") + payload


def unframe(payload: bytes) -> Any:
    """The value of a payload."""
    return msgpack.unpackb(payload, unicode_errors="surrogateescape")


def _decode_request(payload: bytes) -> RenderRequest:
    segments, fields, out, sync = unframe(payload)
    terminal = None if fields is None else Record(RecordType(fields[0]), *fields[1:])
    return RenderRequest([(path, size) for path, size in segments], terminal, out, sync)


def carry_out(request: RenderRequest) -> RenderResult:
    """Render one document into its temporary file.

    Raises:
        OSError: the journal cannot be read, or the file not written.
        JournalIsEmpty: nothing is known of the run.

    Durability: with ``sync``, the file's bytes are durable when this returns; its name is not.
    """
    disk = RealDisk()
    paths, limits = [path for path, _ in request.segments], [size for _, size in request.segments]
    fd = os.open(request.out, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb", buffering=BUFFER_SIZE_BYTES) as file:
        result = render(lambda: JournalReader(disk, paths, list(limits)), request.terminal, file.write)
        file.flush()
        if request.sync:
            os.fsync(fd)
    return result


def answer(payload: bytes) -> Any:
    """Carry out one request; whatever goes wrong becomes the answer, and the next request is served all the same."""
    try:
        result = carry_out(_decode_request(payload))
    except OSError as error:
        return [False, f"{error.strerror or error} ({error.filename or 'while writing'})", error.errno or 0]
    except JournalIsEmpty:
        return [False, "the journal has no first record", 0]
    except RENDER_FAULTS as error:
        return [False, f"{type(error).__name__}: {error}", 0]
    return [True, result.size_bytes, result.last_position]


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Request after request, until the other side is closed, or gone.

    A request may be read after the daemon that made it was killed: what it names may be another daemon's by then.
    """
    daemon = os.getppid()
    while True:
        header = requests.read(4)
        if len(header) < 4:
            return
        payload = requests.read(int.from_bytes(header, "big"))
        if os.getppid() != daemon:
            return
        try:
            answers.write(frame(answer(payload)))
            answers.flush()
        except BrokenPipeError:
            return


def main() -> None:
    """Serve on the standard streams."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the daemon, which needs us to finish
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # and so is a signal to the whole group; the end of our input ends us
    os.nice(NICENESS)
    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
