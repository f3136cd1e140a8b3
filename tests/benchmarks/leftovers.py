"""State directories as a daemon leaves them that was killed: many open journals, all full of events as agents make them.

Written past the daemon with its own format, a group each time, so that a gigabyte of them takes seconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from collectord.daemon.processes import boot_id, start_time
from collectord.journal.disk import RealDisk
from collectord.journal.format import HEAD_SIZE_BYTES, HEADER_SIZE_BYTES, Head, encode_head, encode_record
from collectord.journal.store import Store
from collectord.model import Record, RecordType
from collectord.session import records
from collectord.session.records import pack
from tests.benchmarks.load import Mix
from tests.export.journals import facts


def groups_of(size_bytes: int) -> list[Record]:
    """What one agent's turns come to: each record is a group of its own."""
    mix, made, size = Mix(), [], HEAD_SIZE_BYTES
    while size < size_bytes:
        first, events = mix.batch(1)
        made.append(Record(RecordType.EVENTS, pack(events), 1, first, first, len(events)))
        size += HEADER_SIZE_BYTES + len(made[-1].body)
    return made


def leave_open(state_dir: Path, owners: Sequence[int], size_bytes: int) -> None:
    """Leave a journal for each owner: sessions ``left-0``, ``left-1`` … of this boot, without a trace file.

    Args:
        state_dir: made if it is not there.
        owners: process ids; one that is not there is an owner that has died.
        size_bytes: of each journal, about.
    """
    store = Store(RealDisk(), str(state_dir), os.geteuid())
    store.prepare()
    groups, boot = groups_of(size_bytes), boot_id()
    for number, pid in enumerate(owners):
        name = f"left-{number}"
        run = facts(
            name, uid=os.geteuid(), pid=pid, process_start_time=start_time(pid) or 1, boot_id=boot, trace_id=os.urandom(16)
        )
        with open(store.segment_path(os.geteuid(), name, 1, 0), "wb") as file:
            file.write(b"".join(_encoded([records.opened(run), *groups], number + 1)))


def _encoded(records_: Sequence[Record], salt: int) -> Iterator[bytes]:
    yield encode_head(Head(salt, 1, 0))
    offset = HEAD_SIZE_BYTES
    for record in records_:
        chunk = encode_record(record, salt, offset, begins_group=True)
        yield chunk
        offset += len(chunk)
