"""The trace file as a function of the journal: what is in it, in which order, and read by two parsers that are not ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from collectord.export.render import JournalIsEmpty, render
from collectord.export.values import ENCODED_PREFIX
from collectord.journal.reader import JournalReader
from collectord.limits import HEAD_LINE_MAX_BYTES
from collectord.model import CrashReason, Outcome, Verdict
from collectord.session import records
from tests.export.journals import SPAN, T0, JournalInMemory, end, facts, start
from tests.export.otlp import attributes_of, check_document, logs_of, spans_of, value_of

CRASHED = records.crashed(
    T0 + 99,
    Verdict(CrashReason.PROCESS_DIED, "killed", "SIGKILL", None, {"type": "E", "message": "m", "stack": None}),
    "completed",
)


def ids(document: dict[str, Any]) -> list[int]:
    """The last bytes of the span ids, in the order of the file."""
    return [bytes.fromhex(span["spanId"])[-1] for span in spans_of(document)]


def span_id(number: int) -> bytes:
    """An id that is known by its last byte."""
    return bytes([1] * 7 + [number])


def test_spans_stand_in_the_order_in_which_they_ended_and_unfinished_ones_last() -> None:
    journal = JournalInMemory()
    journal.events(*(start(span_id=span_id(n)) for n in range(1, 6)))
    journal.events(end(4), end(2))
    document = journal.document()
    assert ids(document) == [4, 2, 1, 3, 5]
    assert document["session"]["counts"]["unfinished"] == 3


def test_what_is_said_of_a_span_is_put_together_and_the_later_word_wins() -> None:
    journal = JournalInMemory()
    journal.events(
        start(attributes={"a": 1, "b": 1, "c": 1}, links=[[bytes(range(1, 17)), SPAN, {"l": 1}]]),
        [2, T0, 1, {"b": 2, "c": 2}, "renamed"],
        [3, T0 + 5, 1, "first token", {"n": 0}],
        end(1, T0 + 9, {"c": 3, "d": 3}, 2, "it failed"),
    )
    (span,) = spans_of(journal.document())
    assert attributes_of(span) == {"a": 1, "b": 2, "c": 3, "d": 3}
    assert span["name"] == "renamed"
    assert span["status"] == {"code": 2, "message": "it failed"}
    assert span["events"] == [
        {"timeUnixNano": str(T0 + 5), "name": "first token", "attributes": [{"key": "n", "value": {"intValue": "0"}}]}
    ]
    assert span["links"][0]["spanId"] == SPAN.hex()
    assert "parentSpanId" not in span


def test_a_status_that_was_not_given_is_absent_and_no_end_is_invented() -> None:
    journal = JournalInMemory()
    journal.events(start(span_id=span_id(1)), start(span_id=span_id(2)), end(1))
    ended, unfinished = spans_of(journal.document(CRASHED))
    assert "status" not in ended
    assert "endTimeUnixNano" not in unfinished
    assert attributes_of(unfinished) == {"collectord.span.unfinished": True}


def test_a_document_with_its_terminal_record_to_be_equals_the_one_rendered_after_it_was_written() -> None:
    for terminal in (CRASHED, records.ended(Outcome.FAILED, T0 + 7, "no", None)):
        journal = JournalInMemory()
        journal.events(start(), [5, T0, 9, "log", {}, SPAN], [7, T0, "space", "k", {"v": 1}])
        before = journal.render(terminal)
        journal.append(terminal)
        assert journal.render() == before


def test_the_verdict_stands_in_line_1_in_the_session_and_in_every_resource() -> None:
    journal = JournalInMemory(facts(resource={"service.name": "nightly", "telemetry.sdk.name": "collectord"}))
    journal.events(start())
    document = journal.document(CRASHED)
    assert document["collectord"]["signal"] == "SIGKILL"
    assert document["session"]["crash"] == {
        "reason": "process-died", "signal": "SIGKILL", "exit_code": None, "message": "killed",
        "exception": {"type": "E", "message": "m", "stack": None}, "end_requested": "completed",
    }  # fmt: skip
    told = attributes_of(document["resourceSpans"][0]["resource"])
    assert told["collectord.crash.signal"] == "SIGKILL"
    assert told["collectord.crash.reason"] == "process-died"
    assert "collectord.crash.exit_code" not in told
    assert told["service.name"] == "nightly"
    assert told["process.pid"] == 42


def test_each_participant_has_a_resource_of_its_own_and_spans_stay_with_who_started_them() -> None:
    journal = JournalInMemory()
    journal.events(start(span_id=span_id(1)))
    journal.append(records.joined(2, T0, 77, "worker", {"service.name": "worker"}, b"x" * 16))
    journal.events(start(span_id=span_id(2)), end([1, 1]), [5, T0, 9, "from the worker", {}, None], producer=2)
    journal.events(start(span_id=span_id(3)), end([2, 1]))
    journal.append(records.left(2, T0 + 5, True, None))
    document = journal.document()
    groups = [
        ([span["spanId"][-1] for span in group["scopeSpans"][0]["spans"]], attributes_of(group["resource"])["process.pid"])
        for group in document["resourceSpans"]
    ]
    assert groups == [(["1", "3"], 42), (["2"], 77)]
    assert document["session"]["participants"][0]["detached"] is True
    assert attributes_of(document["resourceLogs"][0]["resource"])["service.name"] == "worker"


def test_orphans_and_repeated_ids_are_kept_as_they_are() -> None:
    journal = JournalInMemory()
    journal.events(start(span_id=span_id(1), parent=span_id(9)), start(span_id=span_id(1), parent=span_id(9)), end(1), end(2))
    spans = spans_of(journal.document())
    assert [(span["spanId"], span["parentSpanId"]) for span in spans] == [(span_id(1).hex(), span_id(9).hex())] * 2


def test_what_is_missing_is_counted_and_said() -> None:
    journal = JournalInMemory()
    journal.events(start())
    journal.append(records.gap(1, 2, 5, T0))
    journal.append(records.refused(1, 7, 3, "event-malformed", T0))
    journal.append(records.duplicates(1, 1, 1, T0))
    journal.append(records.torn(1, 17, T0))
    document = journal.document()
    integrity = document["session"]["integrity"]
    assert document["collectord"]["integrity"] == "gaps"
    assert integrity["gaps"] == [{"producer": 1, "first_sequence": 2, "count": 5, "reason": "client-lost"}]
    assert (integrity["client_lost"], integrity["duplicates"], integrity["torn_bytes"]) == (5, 1, 17)
    assert integrity["refused"] == {"event-malformed": 3}
    assert integrity["received"] == 4


def test_a_corrupt_record_marks_the_file_and_everything_else_is_there() -> None:
    journal = JournalInMemory()
    journal.events(start(span_id=span_id(1)))
    before = journal.disk.size("/state/journals/s~1.0.journal")
    journal.events(start(span_id=span_id(2)))
    journal.events(start(span_id=span_id(3)), end(1))
    content = journal.disk._inode("/state/journals/s~1.0.journal").content
    content[before + 40] ^= 1
    document = journal.document()
    assert ids(document) == [1, 3]
    assert document["collectord"]["integrity"] == "damaged"
    assert document["session"]["integrity"]["corrupt_records"] == 1


def test_a_journal_cut_short_renders_what_is_before_the_cut() -> None:
    journal = JournalInMemory()
    path = "/state/journals/s~1.0.journal"
    journal.events(start(span_id=span_id(1)))
    first = journal.disk.size(path)
    journal.events(start(span_id=span_id(2)))
    journal.events(start(span_id=span_id(3)))
    seen = set()
    for cut in range(first, journal.disk.size(path) + 1):
        parts: list[bytes] = []
        render(lambda cut=cut: JournalReader(journal.disk, [path], [cut]), None, parts.append)  # type: ignore[misc]
        seen.add(len(spans_of(check_document(b"".join(parts)))))
    assert seen == {1, 2, 3}


def test_a_journal_without_its_first_record_cannot_be_rendered() -> None:
    journal = JournalInMemory()
    with pytest.raises(JournalIsEmpty):
        render(lambda: JournalReader(journal.disk, ["/state/journals/s~1.0.journal"], [32]), None, lambda _: None)


@pytest.mark.parametrize("session_id", ["x", "\0" * 10_000, "🦀" * 10_000, '"\\\n' * 3_000, "\ud800" * 2_000])
def test_line_1_is_short_whatever_the_id_is(session_id: str) -> None:
    raw = JournalInMemory(facts(session_id)).render()
    assert len(raw.split(b"\n", 1)[0]) <= HEAD_LINE_MAX_BYTES
    document = check_document(raw)
    if "\ud800" not in session_id:
        assert document["session"]["id"] == session_id


def test_logs_carry_their_severity_and_span() -> None:
    journal = JournalInMemory()
    journal.events([5, T0, 17, {"what": ["broken"]}, {"a": 1}, SPAN], [5, T0, 1, "fine", {}, None])
    first, second = logs_of(journal.document())
    assert (first["severityNumber"], first["severityText"], first["spanId"]) == (17, "ERROR", SPAN.hex())
    assert value_of(first["body"]) == {"what": ["broken"]}
    assert "spanId" not in second


def test_the_state_of_the_spaces_and_the_attributes_of_the_session_are_their_last() -> None:
    journal = JournalInMemory(facts(attributes={"team": "ci", "try": 1}))
    journal.events(
        [6, T0, {"try": 2}], [7, T0, "memory", "a", 1], [7, T0, "memory", "b", 2], [8, T0, "memory", "a"],
        [7, T0, "gone", "x", 1], [9, T0, "gone"],
    )  # fmt: skip
    document = journal.document()
    assert document["session"]["attributes"] == {"team": "ci", "try": 2}
    assert document["spaces"] == {"memory": {"b": 2}}


def test_text_that_is_not_unicode_is_replaced_and_marked_wherever_it_stands() -> None:
    journal = JournalInMemory()
    journal.events(
        start(attributes={"a": "x\ud800y", "b": ["\udfff"], "fine": 1}, name="n\ud800"),
        [3, T0, 1, "e\ud800", {"k": "\ud800"}],
        end(1, attributes={"late": "\ud800"}, status=2, message="m\ud800"),
        [5, T0, 9, "body \ud800", {}, None],
    )
    document = journal.document()
    (span,) = spans_of(document)
    found = attributes_of(span)
    assert found["a"] == "x\ufffdy"
    assert found["b"] == ["\ufffd"]
    marks = {key for key, value in found.items() if value == "surrogates"}
    assert marks == {ENCODED_PREFIX + key for key in ("a", "b", "late", "span.name", "span.status.message")}
    assert span["events"][0]["name"] == "e\ufffd"
    assert attributes_of(logs_of(document)[0])[f"{ENCODED_PREFIX}log.body"] == "surrogates"


def test_memory_is_bounded_by_open_spans_and_not_by_the_length_of_the_session(tmp_path: Path) -> None:
    script = """
import resource, sys
from tests.export.journals import *
from collectord.journal.disk import RealDisk
from collectord.journal.writer import JournalWriter
from collectord.export.worker import carry_out
from collectord.export.request import RenderRequest
import os
os.makedirs(sys.argv[1] + "/j")
writer = JournalWriter(RealDisk(), sys.argv[1] + "/j", "s", 1, lambda: 9, lambda: T0)
writer.create([records.opened(facts())])
text = "x" * 5_000
for number in range(int(sys.argv[2])):
    pairs = [(start(attributes={"i": text}), end(100 * number + 2 * n + 1, attributes={"o": text})) for n in range(50)]
    body = pack([event for pair in pairs for event in pair])
    writer.append([Record(RecordType.EVENTS, body, 1, 100 * number + 1, 100 * number + 1, 100)])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
segments = [(part.path, part.durable_offset) for part in writer.segments]
result = carry_out(RenderRequest(segments, None, sys.argv[1] + "/out", False))
print(result.size_bytes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", script, str(tmp_path), "100"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    size, grown = map(int, done.stdout.split())
    assert size > 50_000_000
    assert grown < 12_000, f"rendering {size} bytes took {grown} KiB more"
    with (tmp_path / "out").open("rb") as file:
        assert orjson.loads(file.readline().rstrip(b",\n") + b"}")["collectord"]["outcome"] == "running"
