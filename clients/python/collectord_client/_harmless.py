"""The client's boundary: no call of a host's raises into it, whatever it was called with."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Blamed(Protocol):
    """Keeps what a wrong call said, for ``statistics()``."""

    def blame(self, call: str, error: Exception) -> None:
        """A call raised."""


S = TypeVar("S", bound=Blamed)


def harmless(instead: Any) -> Callable[[Callable[Concatenate[S, P], R]], Callable[Concatenate[S, P], R]]:
    """Have a method answer instead of raising.

    Args:
        instead: the answer, or a function that makes it from the object.
    """

    def decorate(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
        @wraps(method)
        def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return method(self, *args, **kwargs)
            except Exception as error:  # noqa: BLE001 — a wrong argument, a value's own code, or a bug of ours: never the host's trouble
                self.blame(method.__name__, error)
                answer: R = instead(self) if callable(instead) else instead
                return answer

        return call

    return decorate
