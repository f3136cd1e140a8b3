"""What a trace file says of a journal that is not whole, of loss, and of clients that speak for the collector."""

from __future__ import annotations

from collectord.export.render import render
from collectord.journal.reader import JournalReader
from collectord.model import Outcome
from collectord.session import records
from tests.export.journals import SPAN, T0, JournalInMemory, end, facts, start
from tests.export.otlp import attributes_of, check_document, spans_of

PATH = "/state/journals/s~1.0.journal"


def log(text: str) -> list[object]:
    """A ``log``."""
    return [5, T0, 9, text, {}, None]


def damaged(journal: JournalInMemory, offset: int) -> None:
    """Flip a bit of the body of the record that begins there."""
    journal.disk._inode(PATH).content[offset + 40] ^= 1


def test_a_torn_tail_of_the_journal_is_said_wherever_it_is_cut() -> None:
    journal = JournalInMemory()
    journal.events(start())
    whole = journal.disk.size(PATH)
    journal.events(log("torn"))
    for cut in range(whole + 1, journal.disk.size(PATH)):
        parts: list[bytes] = []
        render(lambda cut=cut: JournalReader(journal.disk, [PATH], [cut]), None, parts.append)  # type: ignore[misc]
        document = check_document(b"".join(parts))
        assert document["session"]["integrity"]["torn_bytes"] == cut - whole
        assert document["collectord"]["integrity"] == "torn"


def test_positions_go_on_behind_a_corrupt_record_and_behind_what_named_its_spans() -> None:
    journal = JournalInMemory()
    journal.events(log("1"))
    lost = journal.disk.size(PATH)
    journal.events(start(), log("3"))
    journal.events(end(2), [2, T0, 2, {"a": 1}, None], [3, T0, 2, "e", {}])
    damaged(journal, lost)
    session = journal.document()["session"]
    assert session["integrity"]["last_position"] == 6
    assert (session["counts"]["spans"], session["counts"]["logs"]) == (0, 1)


def test_a_span_whose_end_is_lost_is_unfinished_and_no_end_is_invented() -> None:
    journal = JournalInMemory()
    journal.events(start())
    lost = journal.disk.size(PATH)
    journal.events(end(1))
    journal.append(records.ended(Outcome.COMPLETED, T0 + 5, None, None))
    damaged(journal, lost)
    document = journal.document()
    (span,) = spans_of(document)
    assert "endTimeUnixNano" not in span
    assert document["session"]["counts"]["unfinished"] == 1
    assert document["collectord"]["integrity"] == "damaged"


def test_what_was_received_is_what_was_stored_and_what_was_refused() -> None:
    journal = JournalInMemory()
    journal.events(start(), log("a"))
    journal.append(records.refused(1, 3, 4, "value-invalid", T0))
    journal.append(records.refused(1, 7, 2, "span-ended", T0))
    journal.append(records.duplicates(1, 1, 2, T0))
    integrity = journal.document()["session"]["integrity"]
    assert (integrity["stored"], integrity["received"], integrity["duplicates"]) == (2, 8, 2)
    assert integrity["refused"] == {"value-invalid": 4, "span-ended": 2}


def test_a_second_terminal_record_changes_nothing_and_late_notes_are_shown() -> None:
    journal = JournalInMemory()
    journal.append(records.ended(Outcome.COMPLETED, T0 + 5, None, None))
    before = journal.render()
    journal.append(records.ended(Outcome.FAILED, T0 + 9, "late", None))
    assert journal.render() == before
    journal.append(records.note(T0 + 10, "late-crash", "a report that came too late"))
    assert journal.document()["session"]["notes"] == [
        {"at": "2023-11-14T22:13:20.000000010Z", "kind": "late-crash", "text": "a report that came too late"}
    ]


def test_a_client_cannot_say_in_its_resource_how_its_run_stands() -> None:
    forged = {
        "collectord.crash.reason": "reported",
        "collectord.outcome": "crashed",
        "collectord.run": 9,
        "session.id": "x",
        "k": 1,
    }
    journal = JournalInMemory(facts(resource={**forged, "process.pid": 7, "host.name": "inside"}))
    told = attributes_of(journal.document()["resourceSpans"][0]["resource"])
    assert told == {
        "service.name": "unknown_service", "k": 1, "session.id": "s", "process.pid": 42, "host.name": "inside",
        "collectord.run": 1, "collectord.outcome": "running",
    }  # fmt: skip


def test_where_the_kernel_tells_no_pid_the_clients_word_is_shown_and_none_is_invented() -> None:
    for resource, wanted in (({"process.pid": 7}, 7), ({}, None)):
        journal = JournalInMemory(facts(pid=0, resource=resource))
        assert attributes_of(journal.document()["resourceSpans"][0]["resource"]).get("process.pid") == wanted


def test_a_message_without_a_status_is_kept_as_an_attribute() -> None:
    journal = JournalInMemory()
    journal.events(start(), start(), end(1, message="done, I think"), end(2, message="x\ud800"))
    first, second = spans_of(journal.document())
    assert "status" not in first
    assert attributes_of(first) == {"collectord.span.message": "done, I think"}
    assert attributes_of(second)["collectord.span.message"] == "x\ufffd"


def test_spans_of_another_producer_are_ended_across_and_stay_where_they_began() -> None:
    journal = JournalInMemory()
    journal.events(start())
    journal.append(records.joined(2, T0, 77, "worker", {}, b"x" * 16))
    journal.events(start(), [2, T0, [1, 1], {"from": "worker"}, "renamed"], [3, T0, [1, 1], "seen", {}], producer=2)
    journal.events(end([2, 1], status=2, message="killed by its parent"), end(1), start(), [3, T0, 4, "once", {}], end(4))
    journal.append(records.joined(3, T0, 78, "idle", {}, b"y" * 16))
    document = journal.document()
    groups = [group["scopeSpans"][0]["spans"] for group in document["resourceSpans"]]
    assert [len(spans) for spans in groups] == [2, 1, 0]
    assert len(groups[0][1]["events"]) == 1
    assert groups[0][0]["name"] == "renamed"
    assert attributes_of(groups[0][0]) == {"from": "worker"}
    assert groups[0][0]["events"][0]["name"] == "seen"
    assert groups[1][0]["status"] == {"code": 2, "message": "killed by its parent"}
    assert groups[1][0]["spanId"] == SPAN.hex()
    assert document["session"]["participants"][1]["detached"] is None
