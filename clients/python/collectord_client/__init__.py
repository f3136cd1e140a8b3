"""The Python client of collectord: what agents import.

    import collectord_client as collectord

    with collectord.session("nightly-42") as session:
        with session.span("execute_tool bash") as span:
            span.set_attribute("gen_ai.tool.name", "bash")

It never raises into the program that it traces, never starts a thread before the first session, and imports nothing beyond
msgpack and the standard library. Without a collector everything works and does nothing; ``statistics()`` says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collectord_client._session import Ended as Ended
    from collectord_client._session import Session as Session
    from collectord_client._session import Space as Space
    from collectord_client._session import current_span as current_span
    from collectord_client._session import session as session
    from collectord_client._session import statistics as statistics
    from collectord_client._span import ROOT as ROOT
    from collectord_client._span import Span as Span

__version__: Final = "0.1.0"
__all__ = ["ROOT", "Ended", "Session", "Space", "Span", "current_span", "session", "statistics"]


def __getattr__(name: str) -> Any:
    """The rest is imported when it is first asked for: a program that never traces pays nothing."""
    if name in __all__:
        from collectord_client import _session, _span

        return getattr(_session, name, None) or getattr(_span, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
