"""What a renderer is asked, and what it answers. Pure: shared by the daemon, which asks, and the worker, which does."""

from __future__ import annotations

import struct
from typing import Final

from attrs import frozen

from collectord.model import Record

RENDER_FAULTS: Final = (
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a bug, or a journal that is not what it was, shows as. Whoever renders catches these: no journal is another's concern."""


@frozen
class RenderRequest:
    """Render one document.

    Attributes:
        segments: path and durable size in bytes of each part of the journal, in order.
        terminal: the terminal record to be, where it is not in the journal yet.
        out: the temporary file to write, in the directory of the trace file.
        sync: whether the file is to be fsynced before the answer.
    """

    segments: list[tuple[str, int]]
    terminal: Record | None
    out: str
    sync: bool


@frozen
class RenderResult:
    """The document stands in its temporary file.

    Attributes:
        size_bytes: of the document.
        last_position: of the last event that is in it.
    """

    size_bytes: int
    last_position: int
