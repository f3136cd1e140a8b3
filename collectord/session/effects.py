"""What the core wants done, in the order in which it must be done.

The owner task performs an ``Effects`` from top to bottom: what is to be appended is appended and synced first; what may be
said is only ever what an earlier sync has made true. The core never says anything that waits for a sync in the same
``Effects`` as the records it waits for: such answers come with the effects of ``Synced``.
"""

from __future__ import annotations

from enum import Enum

from attrs import Factory, define, frozen

from collectord.model import Record
from collectord.session.inputs import Asker
from collectord.wire.messages import Answer


class ExportKind(Enum):
    """A running document is only renamed; a final one is synced before and its directory after."""

    RUNNING = "running"
    FINAL = "final"


@frozen
class Say:
    """One answer, and to whom."""

    to: Asker
    message: Answer


@frozen
class ExportOrder:
    """Render the journal as it is durable now, and ``terminal`` behind it where that is not written yet."""

    number: int
    kind: ExportKind
    terminal: Record | None = None


@define
class Effects:
    """What is to be done now.

    Attributes:
        records: append them in this order, then sync. When both have happened, feed ``Synced``, else ``SyncFailed``.
        say: may be said at once.
        drop: numbers of exports whose temporary file is to be removed (still being rendered: when it comes).
        rename: the export to rename now; a final one is synced with its directory. Then feed ``Renamed``.
        start: the export to start. Feed ``Rendered`` or ``ExportFailed`` when it is done.
        grace_s: feed ``GraceExpired`` after this many seconds.
        resume_again_s: the absent have so many seconds more; then feed ``ResumeExpired`` once more.
        close: the run is over: close its files, speak, forget it.
    """

    records: list[Record] = Factory(list)
    say: list[Say] = Factory(list)
    drop: list[int] = Factory(list)
    rename: ExportOrder | None = None
    start: ExportOrder | None = None
    grace_s: float | None = None
    resume_again_s: float | None = None
    close: bool = False
