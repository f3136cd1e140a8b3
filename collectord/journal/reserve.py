"""Room that is kept for terminal records: a file that holds blocks, and gives them up when the disk is full.

Owns that one file. Called from worker threads, from several at once.
"""

from __future__ import annotations

import threading

from collectord.journal.disk import Disk


class Reserve:
    """The reserve of one state directory.

    Args:
        disk: it lies on.
        path: of the file; its directory tells how much is free.
        directory: whose free space counts.
        size_bytes: how much is kept.
    """

    def __init__(self, disk: Disk, path: str, directory: str, size_bytes: int) -> None:
        self._disk = disk
        self._path = path
        self._directory = directory
        self._size_bytes = size_bytes
        self._is_held = False
        self._was_given_up = False
        self._lock = threading.Lock()

    @property
    def is_held(self) -> bool:
        """Whether the room is there for whoever must have it."""
        return self._is_held

    @property
    def is_given_up(self) -> bool:
        """Whether it was held once, and had to be given up."""
        return self._was_given_up

    def hold(self) -> bool:
        """Take the room, if there is as much again beside it; returns whether it is held now. Never raises."""
        with self._lock:
            if self._is_held:
                return True
            try:
                if self._disk.exists(self._path) and self._disk.size(self._path) >= self._size_bytes:
                    self._is_held, self._was_given_up = True, False  # an earlier collector's
                    return True
                if self._disk.free_bytes(self._directory) < 2 * self._size_bytes:
                    return False
                self._disk.allocate(self._path, self._size_bytes)
            except OSError:
                self._drop()
                return False
            self._is_held, self._was_given_up = True, False
            return True

    def release(self) -> bool:
        """Give the room up for a record that must be written; returns whether there was any. Never raises."""
        with self._lock:
            was_held, self._is_held = self._is_held, False
            self._was_given_up |= was_held
            return self._drop() and was_held

    def is_spent(self) -> bool:
        """Whether the room was given up and what is free now is still for those alone for whom it was kept."""
        if not self._was_given_up:
            return False
        try:
            return self._disk.free_bytes(self._directory) < 2 * self._size_bytes
        except OSError:
            return False

    def _drop(self) -> bool:
        try:
            self._disk.unlink(self._path)
        except OSError:
            return False
        return True
