"""``status --watch``: the same picture again and again, on one screen, over restarts of the daemon.

Owns the screen while it lasts. Draws each picture over the last one in a single write and clears only what is left of it, so
that nothing flickers.
"""

from __future__ import annotations

import sys
import time

from rich.text import Text

from collectord.cli.connection import Connection
from collectord.cli.overview import render
from collectord.cli.paper import Paper
from collectord.cli.status import as_json_text
from collectord.cli.text import age, cut
from collectord.errors import CollectordError
from collectord.wire.messages import Status, StatusAnswer

_OTHER_SCREEN = "\x1b[?1049h\x1b[?25l"
_OWN_SCREEN = "\x1b[?25h\x1b[?1049l"
_BEGIN, _END = "\x1b[?2026h\x1b[H", "\x1b[J\x1b[?2026l"
_END_OF_LINE = "\x1b[K"


class Source:
    """The daemon, asked over one connection that is made again when it is lost.

    Args:
        path: of its socket.

    Raises:
        OperatorError: ``no-daemon``: there must be one to begin with.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: Connection | None = Connection(path)

    def ask(self) -> StatusAnswer:
        """The answer now.

        Raises:
            CollectordError: there is none now; ask again later.
        """
        if self._connection is None:
            self._connection = Connection(self._path, connect_timeout_s=1.0)
        try:
            return self._connection.ask(Status(self._connection.next_id()), StatusAnswer)
        except CollectordError:
            self.close()
            raise

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def watch_status(path: str, interval_s: float, as_json: bool) -> int:
    """Show the status until Ctrl-C, which is how it is meant to end: exit status 0.

    Raises:
        OperatorError: ``no-daemon``, where there was none at the beginning.
    """
    source = Source(path)
    try:
        if as_json:
            _print_json(source, interval_s)
        else:
            _draw(source, interval_s)
    except KeyboardInterrupt:
        return 0
    finally:
        source.close()
    return 0


def _print_json(source: Source, interval_s: float) -> None:
    while True:
        try:
            sys.stdout.write(as_json_text(source.ask()) + "\n")
            sys.stdout.flush()
        except CollectordError as error:
            print(f"collectord: {error.message}: waiting for it", file=sys.stderr)
        time.sleep(interval_s)


def _draw(source: Source, interval_s: float) -> None:
    """On a terminal in place, elsewhere one picture below the other."""
    paper = Paper(sys.stdout)
    picture = Picture()
    if not paper.is_terminal:
        while True:
            paper.print([*picture.next(source, paper.width, None), Text()])
            time.sleep(interval_s)
    lines: list[Text] = []
    paper.write(_OTHER_SCREEN)
    try:
        while True:
            lines = picture.next(source, paper.width, paper.height - 1)
            drawn = "".join(f"{line}{_END_OF_LINE}\r\n" for line in paper.drawn(lines))
            paper.write(f"{_BEGIN}{drawn}{_END}")
            time.sleep(interval_s)
    finally:
        paper.write(_OWN_SCREEN)
        paper.print(lines)


class Picture:
    """What is shown: the last answer, and since when there has been no newer one."""

    def __init__(self) -> None:
        self._answer: StatusAnswer | None = None
        self._answered_at = 0.0

    def next(self, source: Source, width: int, height: int | None) -> list[Text]:
        """The picture now. A daemon that does not answer is said to be away, above what it said last."""
        banner: list[Text] = []
        try:
            self._answer = source.ask()
            self._answered_at = time.monotonic()
        except CollectordError as error:
            away = "" if self._answer is None else f", for {age(int((time.monotonic() - self._answered_at) * 1e9))}"
            banner = [Text(cut(f"waiting for the daemon{away}: {error.message}", width), style="bold red")]
        if self._answer is None:
            return banner
        room = None if height is None else height - len(banner)
        return banner + render(self._answer, time.time_ns(), width, room)
