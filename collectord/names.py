"""Session ids as file names: an injective mapping that can neither collide nor escape (design rule 12).

Pure. Owns every name under ``traces/`` and ``journals/``; knows nothing of directories or of which files exist.

``[A-Za-z0-9_.-]`` is kept, a leading dot and every other byte of the UTF-8 form is written ``%XX``. A result over
``NAME_SIZE_MAX_BYTES`` becomes a prefix and ``~h`` with a 128-bit hash of the whole id. ``~`` itself is always escaped, so
a ``~`` in a file name is always collectord's own separator.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from attrs import frozen

NAME_SIZE_MAX_BYTES: Final = 150
"""Why: file names end at 255 bytes, and the suffixes of runs, segments and temporary files must fit behind."""

_HASH_SIZE_BYTES: Final = 16
_PREFIX_SIZE_BYTES: Final = NAME_SIZE_MAX_BYTES - len("~h") - 2 * _HASH_SIZE_BYTES

_KEPT: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")
_JOURNAL: Final = re.compile(r"(?P<name>.+)~(?P<run>[1-9][0-9]*)\.(?P<segment>0|[1-9][0-9]*)\.journal")
_TRACE: Final = re.compile(r"(?P<name>.+?)(?:~(?P<run>[2-9]|[1-9][0-9]+))?\.json")  # the first run has no number
_PLAIN: Final = re.compile(r"(?:[A-Za-z0-9_-]|%[0-9A-F]{2})(?:[A-Za-z0-9_.-]|%[0-9A-F]{2})*(?:~h[0-9a-f]{32})?")

TEMPORARY_SUFFIX: Final = ".tmp"


def encode_session_id(session_id: str) -> str:
    """The file name stem of a session id.

    Args:
        session_id: any text that is not empty. Lone surrogates are allowed and escape as their three-byte form.

    Returns:
        At most ``NAME_SIZE_MAX_BYTES`` bytes of ASCII. Two ids give the same stem only if they are equal, or if two 128-bit
        BLAKE2 hashes collide, which is why the raw id is compared again when a run is opened.
    """
    raw = session_id.encode("utf-8", "surrogatepass")
    escaped = "".join(
        chr(byte) if byte in _KEPT and not (index == 0 and byte == 0x2E) else f"%{byte:02X}"
        for index, byte in enumerate(raw[: NAME_SIZE_MAX_BYTES + 1])
    )
    if len(escaped) <= NAME_SIZE_MAX_BYTES and len(raw) <= NAME_SIZE_MAX_BYTES:
        return escaped
    prefix = escaped[:_PREFIX_SIZE_BYTES]
    cut = prefix.rfind("%", _PREFIX_SIZE_BYTES - 2)
    if cut >= 0:  # never end in the middle of an escape
        prefix = prefix[:cut]
    return f"{prefix}~h{hashlib.blake2b(raw, digest_size=_HASH_SIZE_BYTES).hexdigest()}"


def is_stem(name: str) -> bool:
    """Whether a name could have come from ``encode_session_id``."""
    return _PLAIN.fullmatch(name) is not None and len(name) <= NAME_SIZE_MAX_BYTES


def trace_file_name(stem: str, run: int) -> str:
    """``<stem>.json`` for the first run, ``<stem>~<run>.json`` for the later ones."""
    return f"{stem}.json" if run == 1 else f"{stem}~{run}.json"


def journal_file_name(stem: str, run: int, segment: int) -> str:
    """``<stem>~<run>.<segment>.journal``; the first segment is 0."""
    return f"{stem}~{run}.{segment}.journal"


def temporary_file_name(stem: str, run: int, number: int) -> str:
    """The name under which an export is rendered: in the trace directory, since a rename must not cross file systems."""
    return f".{stem}~{run}.{number}{TEMPORARY_SUFFIX}"


@frozen
class JournalName:
    """What the name of a journal file says."""

    stem: str
    run: int
    segment: int


@frozen
class TraceName:
    """What the name of a trace file says."""

    stem: str
    run: int


def parse_journal_file_name(name: str) -> JournalName | None:
    """The parts of a journal file's name, or None where it is not one of ours."""
    match = _JOURNAL.fullmatch(name)
    if match is None or not is_stem(match["name"]):
        return None
    return JournalName(match["name"], int(match["run"]), int(match["segment"]))


def parse_trace_file_name(name: str) -> TraceName | None:
    """The parts of a trace file's name, or None where it is not one of ours."""
    match = _TRACE.fullmatch(name)
    if match is None or not is_stem(match["name"]):
        return None
    return TraceName(match["name"], int(match["run"] or 1))
