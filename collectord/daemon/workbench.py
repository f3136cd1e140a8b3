"""What every owner task works with, and what the tests put in its place: the disk, threads, renderers, the clock.

Owns nothing but the list. Made once by the server, and shared by all owners.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import frozen

from collectord.daemon.absence import Absence
from collectord.daemon.keeper import ReserveKeeper
from collectord.daemon.threads import DirectorySyncs, Threads
from collectord.export.request import RenderRequest, RenderResult
from collectord.journal.disk import Disk
from collectord.journal.store import Store
from collectord.journal.writer import LeftOpen
from collectord.wire.messages import Answer


class Renderer(Protocol):
    """Where documents are rendered: the pool of renderer processes, or a test's."""

    async def render(self, request: RenderRequest, urgent: bool) -> RenderResult:
        """Render one document; raises ``DiskError``."""


class Hears(Protocol):
    """A connection, as the owner sees it: somebody who can be told something. Never blocks and never fails."""

    def say(self, message: Answer) -> None:
        """Send it when the other side takes it."""


@frozen
class FoundOpen:
    """What there is of a run that an earlier collector left open.

    Attributes:
        left: its journal.
        absence: how long its owner is waited for; None where it is not.
    """

    left: LeftOpen
    absence: Absence | None


@frozen
class Workbench:
    """What every owner works with, and what tests replace.

    Attributes:
        disk: synchronous file operations.
        store: where the files of a run are.
        threads: where blocking calls run.
        directories: shared directory syncs.
        renderer: where documents are rendered.
        clock_ns: Unix nanoseconds.
        new_salt: 32 random bits for each journal file.
        keeper: of the room for how runs end.
    """

    disk: Disk
    store: Store
    threads: Threads
    directories: DirectorySyncs
    renderer: Renderer
    clock_ns: Callable[[], int]
    new_salt: Callable[[], int]
    keeper: ReserveKeeper | None = None
