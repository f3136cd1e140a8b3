"""The switch of a disk that goes bad: a file that says which writes fail, and how often.

Shared by the bed, which throws it, and the process that serves the disk, which looks at it at each write.
"""

from __future__ import annotations

import os

FOR_EVER = -1


class BadDisk:
    """One switch.

    Args:
        path: of its file; no file, no fault.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def fail(self, token: bytes, times: int) -> None:
        """From now on writes that hold these bytes fail, so many times or ``FOR_EVER``."""
        self._put(times, token)

    def heal(self) -> None:
        """The disk is well again."""
        os.unlink(self._path)

    @property
    def is_bad(self) -> bool:
        """Whether there is a write that would fail."""
        return os.path.exists(self._path)

    def hits(self, content: bytes) -> bool:
        """Whether this write fails; counts it."""
        try:
            with open(self._path, "rb") as file:
                times, _, token = file.read().partition(b" ")
        except FileNotFoundError:
            return False
        if token not in content:
            return False
        left = int(times) - 1 if int(times) > 0 else FOR_EVER
        if left == 0:
            os.unlink(self._path)
        else:
            self._put(left, token)
        return True

    def _put(self, times: int, token: bytes) -> None:
        with open(self._path + ".new", "wb") as file:
            file.write(b"%d %s" % (times, token))
        os.rename(self._path + ".new", self._path)
