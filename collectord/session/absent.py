"""Who of a run that was found open has not come back yet, and what its journal says was wanted of it.

Pure. Owns the tokens by which producers are known again. A producer is back only when the record of that is durable: until then
its connection has been promised nothing, and may fail without meaning anything for the run.
"""

from __future__ import annotations

from attrs import Factory, define

from collectord.model import Outcome
from collectord.session import inputs


@define
class Absent:
    """The absent of one run.

    Attributes:
        tokens: of the producers that are not back, by their numbers.
        cancel_reason: somebody wanted the run to stop, and why; None where nobody did.
        end_wanted: the outcome that the owner had asked for, and was waiting to hear of; None where it had not.
        was_heard: whether the owner is known to have heard that its run was opened: it has sent something, or come back.
        coming: those whose return is being recorded.
        turned_away: whether the owner came and could not be let in, because of the disk.
    """

    tokens: dict[int, bytes]
    cancel_reason: str | None = None
    end_wanted: Outcome | None = None
    was_heard: bool = True
    coming: dict[int, inputs.Resume] = Factory(dict)
    turned_away: bool = False

    def number_of(self, token: bytes) -> int | None:
        """Whose token it is; None where it is of nobody who is missed."""
        return next((number for number, known in self.tokens.items() if known == token), None)

    def take_coming(self) -> dict[int, inputs.Resume]:
        """Those whose return was being recorded, once: nobody is coming any more."""
        coming, self.coming = self.coming, {}
        return coming
