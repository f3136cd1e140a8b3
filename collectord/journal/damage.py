"""What was found wrong in the journal of a run, each fault with its file and its offset. Pure."""

from __future__ import annotations

from attrs import Factory, define, frozen

from collectord.journal.scan import Found, FoundBadHead, FoundCorrupt, FoundNewer, FoundTorn


@frozen
class Damage:
    """One fault and where it is."""

    path: str
    offset: int
    length: int
    what: str


@define
class DamageReport:
    """What was found wrong in the journal of a run."""

    torn_bytes: int = 0
    corrupt_records: int = 0
    faults: list[Damage] = Factory(list)

    def note(self, path: str, found: Found) -> None:
        """Count one fault."""
        if isinstance(found, FoundTorn):
            self.torn_bytes += found.length
            self.faults.append(Damage(path, found.offset, found.length, "torn"))
        elif isinstance(found, FoundCorrupt):
            self.corrupt_records += 1
            self.faults.append(Damage(path, found.offset, found.length, found.why))
        elif isinstance(found, FoundBadHead):
            self.corrupt_records += 1
            self.faults.append(Damage(path, 0, 0, found.why))
        elif isinstance(found, FoundNewer):
            self.faults.append(Damage(path, 0, 0, f"written by a newer version ({found.version})"))
