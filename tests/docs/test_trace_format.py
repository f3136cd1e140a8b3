"""docs/trace-format.md: its example is a trace file to every check there is, and is what is rendered."""

from __future__ import annotations

from collectord.model import CrashReason, Verdict
from collectord.session import records
from tests.docs.tables import block, read
from tests.export.journals import JournalInMemory, facts
from tests.export.otlp import check_document

TEXT = read("trace-format.md")


def test_the_example_is_what_the_journal_of_that_run_renders_to() -> None:
    opened_at = 1_769_821_323_000_000_000
    journal = JournalInMemory(
        facts("nightly-42", pid=4242, opened_at=opened_at, attributes={"team": "ci"}, resource={"service.name": "nightly"})
    )
    journal.events([1, 1_769_821_480_000_000_000, bytes(range(1, 9)), None, "execute_tool bash", 1, {}])
    verdict = Verdict(CrashReason.PROCESS_DIED, "the agent was killed by SIGKILL", "SIGKILL")
    raw = journal.render(records.crashed(1_769_821_515_250_000_000, verdict, None))
    check_document(raw)
    assert block(TEXT, "json") == raw.decode()
