"""What is printed on: a terminal or a pipe, how wide it is, and lines of coloured text turned into what it understands.

Owns the decision whether there are colours. Knows nothing of what the lines say.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterable
from typing import TextIO

from rich.console import Console
from rich.text import Text

_PIPE_WIDTH = 120
"""Why: what is read from a pipe has no width of its own; this one cuts few ids and still fits most screens."""


class Paper:
    """Where lines go.

    Args:
        stream: a text stream; it gets escape sequences only if it is a terminal that understands them.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._console = Console(file=stream, markup=False, emoji=False, highlight=False)
        self.is_terminal = self._console.is_terminal and not self._console.is_dumb_terminal

    @property
    def width(self) -> int:
        """How many cells a line may take."""
        return max(20, self._window().columns)

    @property
    def height(self) -> int:
        """How many lines a screen has."""
        return max(5, self._window().lines)

    def _window(self) -> os.terminal_size:
        return shutil.get_terminal_size((80, 24) if self.is_terminal else (_PIPE_WIDTH, 24))

    def print(self, lines: Iterable[Text]) -> None:
        """Write lines, each ending in a newline, in one piece."""
        self.write("".join(line + "\n" for line in self.drawn(lines)))

    def drawn(self, lines: Iterable[Text]) -> list[str]:
        """Lines, none of which holds a newline, as the stream understands them."""
        drawing = Console(
            file=io.StringIO(),
            force_terminal=self.is_terminal,
            color_system="standard" if self.is_terminal and not self._console.no_color else None,
            no_color=self._console.no_color,
            markup=False,
            emoji=False,
            highlight=False,
            width=10_000,
        )
        with drawing.capture() as capture:
            for line in lines:
                drawing.print(line, soft_wrap=True)
        return capture.get().split("\n")[:-1]

    def write(self, text: str) -> None:
        """Write to the stream at once."""
        self._stream.write(text)
        self._stream.flush()
