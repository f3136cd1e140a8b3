"""How long, and after which pauses, a lost collector is looked for."""

from __future__ import annotations

import os
import random
import time

from collectord_client._limits import RECONNECT_FIRST_S, RECONNECT_GIVE_UP_S, RECONNECT_MAX_S

_random = random.Random(os.urandom(16))  # of our own: the host's may be seeded, and equal seeds come back in one moment


class Patience:
    """Pauses that double, with jitter, until it is enough.

    Only what a collector *does* makes it patient again: one that takes the connection and drops it each time is not looked
    for without end, nor without pause.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self._pause_s = RECONNECT_FIRST_S

    def progress(self) -> None:
        """The collector has acknowledged or answered something: the next loss is a new one."""
        self._since = None

    def next_pause(self) -> float | None:
        """How long to wait before the next try; None where there was the last."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
            self._pause_s = RECONNECT_FIRST_S
        left = self._since + RECONNECT_GIVE_UP_S - now
        if left <= 0:
            return None
        pause = self._pause_s * _random.uniform(0.5, 1.0)
        self._pause_s = min(2 * self._pause_s, RECONNECT_MAX_S)
        return min(pause, left)
