"""`verify` over state directories in memory: nothing sound is accused, and nothing damaged is passed over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collectord.export.findings import FAULTS, NOTES, Finding, Findings
from collectord.export.verify import Verification
from collectord.journal.format import HEAD_SIZE_BYTES, Head, encode_head, encode_record
from collectord.journal.scan import FoundRecord, scan_segment
from collectord.limits import FINDINGS_MAX
from collectord.model import Outcome, Record, RecordType
from collectord.session import records
from collectord.session.records import pack
from tests.docs.tables import code, read, section, table
from tests.export.journals import SPAN, T0, end, facts, start
from tests.export.states import STATE, RunInMemory, StateInMemory, verified
from tests.simulation.disk import SimulatedDisk


def small_state() -> StateInMemory:
    """A finished run, one in two segments that runs on, and one that nothing was ever said in."""
    state = StateInMemory()
    done = state.run("done")
    done.span()
    done.append(records.refused(1, 3, 2, "span-unknown", T0), records.gap(1, 5, 4, T0), records.duplicates(1, 2, 3, T0))
    done.next_sequence[1] = 9
    done.events([5, T0, 9, "half", {}, None])
    done.end()
    done.export()
    done.append(records.note(T0 + 9, "crash", "too late"))
    going = state.run("going")
    going.span()
    going.fail_once()
    going.events(start())
    going.events([5, T0, 9, "x", {}, None])
    going.export()
    state.run("new").export()
    return state


def found(verification: Verification) -> list[tuple[str, str, int]]:
    """Code, file and offset of every finding."""
    return [(one.code, one.path.removeprefix(f"{STATE}/"), one.offset) for one in verification.findings.items]


# ---------------------------------------------------------------- what is sound


def test_a_sound_state_directory_is_clean_and_everything_in_it_is_counted() -> None:
    verification = small_state().verify()
    assert found(verification) == []
    assert (verification.runs, verification.running, verification.lagging) == (3, 2, 0)
    assert verification.events == 2 + 1 + 2 + 1 + 1
    assert verification.records == 8 + 5 + 1  # of `going`: opened, events, segment, events, events


def test_nothing_is_changed() -> None:
    state = small_state()
    state.put(f"{STATE}/traces/.s~1.0.tmp", b"half")
    before = state.files()
    state.disk.operations.clear()
    state.verify()
    assert state.files() == before
    assert {operation for operation, *_ in state.disk.operations} <= {"read", "size", "list_directory"}


def test_a_running_trace_file_may_be_any_state_in_which_its_journal_was() -> None:
    state = StateInMemory()
    run = state.run()
    lives: list[Callable[[], Any]] = [
        run.span,
        lambda: run.append(records.joined(2, T0, 7, "helper", {"a": 1}, b"t" * 16)),
        lambda: run.events(start(span_id=SPAN[::-1]), producer=2),
        lambda: run.append(records.left(2, T0, True, None)),
        lambda: run.append(records.torn(1, 17, T0)),
        lambda: run.events([7, T0, "space", "key", 1], [6, T0, {"x": "y"}]),
        run.fail_once,
        run.span,
        lambda: run.append(records.note(T0, "end", "another end was asked for")),
        run.writer.checkpoint,
    ]
    documents = [run.rendered()]
    for live in lives:
        live()
        documents.append(run.rendered())
    lagging = []
    for document in documents:
        state.put(run.trace_path, document)
        verification = state.verify()
        assert found(verification) == []
        lagging.append(verification.lagging)
    assert lagging == [1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0]  # what holds all events is not called older


def test_a_running_trace_file_that_shows_no_state_of_its_journal_is_a_fault() -> None:
    state = StateInMemory()
    run, other = state.run("a"), state.run("b")
    for one in (run, other):
        one.span()
    run.events([7, T0, "space", "key", 1])
    other.events([7, T0, "space", "key", 2])
    document = run.rendered()
    at = document.index(b'"key":1') + len(b'"key":')
    state.put(run.trace_path, document[:at] + b"2" + document[at + 1 :])
    other.export()
    assert found(state.verify()) == [("trace-differs", "traces/a.json", at)]


def test_a_finished_trace_file_lacks_the_notes_that_came_later_and_one_derived_later_has_them() -> None:
    state = StateInMemory()
    run = state.run()
    run.end()
    run.export()
    run.append(records.note(T0, "crash", "one"))
    assert found(state.verify()) == []
    run.export()
    run.append(records.note(T0, "crash", "two"))
    assert found(state.verify()) == []


def test_what_a_seam_leaves_behind_is_superseded_and_no_fault() -> None:
    state = StateInMemory()
    run = state.run()
    run.span()
    state.disk.fail_nth("sync", 1, 5)  # all of it is in the file, and not one byte of it is trusted
    run.events(start())
    state.disk.fail_nth("write", 1, 5)
    state.disk.fail_nth("unlink", 1, 5)
    state.disk.fail_nth("create", 1, 5)
    run.export()
    left = [name for name in state.disk.list_directory(f"{STATE}/journals") if name != "s~1.0.journal"]
    assert left
    assert found(state.verify()) == []


def test_other_users_directories_are_looked_through() -> None:
    state = small_state()
    for path, content in state.files().items():
        directory, _, name = path.rpartition("/")
        state.disk.make_directory(f"{directory}/uid-1000")
        state.put(f"{directory}/uid-1000/{name}", content)
    verification = state.verify()
    assert found(verification) == []
    assert verification.runs == 6
    assert not state.disk.exists(f"{STATE}/journals/uid-0")


def test_what_is_not_collectord_s_is_named_and_is_no_fault() -> None:
    state = small_state()
    for name in (
        "traces/notes.txt",
        "traces/.done~1.3.tmp",
        "journals/x.journal",
        "quarantine/y.32.torn",
        "quarantine/y.32.torn.txt",
    ):
        state.put(f"{STATE}/{name}", b"?")
    state.disk.make_directory(f"{STATE}/traces/uid-x")
    verification = state.verify()
    assert sorted(found(verification)) == [
        ("foreign-file", "journals/x.journal", 0),
        ("foreign-file", "traces/notes.txt", 0),
        ("foreign-file", "traces/uid-x", 0),
        ("quarantined", "quarantine/y.32.torn", 0),
        ("temporary-file", "traces/.done~1.3.tmp", 0),
    ]
    assert (verification.findings.faults, verification.findings.notes) == (0, 5)


# ---------------------------------------------------------------- what is not


def _journal_of(run: RunInMemory, *content: Record) -> None:
    """A journal written record by record, whatever sense they make."""
    raw = encode_head(Head(9, run.number, 0))
    for record in content:
        raw += encode_record(record, 9, len(raw), begins_group=True)
    run.disk.write_file(run.journal_path, raw, sync=True)


OPENED = records.opened(facts())


def batch(sequence: int, position: int, count: int = 1, said: int | None = None, producer: int = 1) -> Record:
    """A record of logs."""
    body = pack([[5, T0, 9, "x", {}, None]] * count)
    return Record(RecordType.EVENTS, body, producer, sequence, position, count if said is None else said)


ENDED = records.ended(Outcome.COMPLETED, T0, None, None)
NONSENSE: list[tuple[str, int, list[Record]]] = [
    ("position-wrong", 2, [OPENED, batch(1, 1), batch(2, 3)]),
    ("position-wrong", 2, [OPENED, batch(1, 1), batch(2, 1)]),
    ("position-wrong", 1, [OPENED, batch(1, 2)]),
    ("sequence-wrong", 2, [OPENED, batch(1, 1), batch(3, 2)]),
    ("sequence-wrong", 2, [OPENED, batch(1, 1), batch(1, 2)]),
    ("sequence-wrong", 2, [OPENED, batch(1, 1), records.refused(1, 3, 1, "span-ended", T0)]),
    ("sequence-wrong", 3, [OPENED, batch(1, 1), records.gap(1, 2, 5, T0), batch(6, 2)]),
    ("sequence-wrong", 2, [OPENED, batch(1, 1), records.duplicates(1, 1, 2, T0)]),
    ("count-wrong", 1, [OPENED, batch(1, 1, 2, said=3)]),
    ("producer-unknown", 1, [OPENED, batch(1, 1, producer=2)]),
    ("producer-unknown", 1, [OPENED, records.left(3, T0, True, None)]),
    ("terminal-repeated", 2, [OPENED, ENDED, ENDED]),
    ("record-misplaced", 2, [OPENED, ENDED, batch(1, 1)]),
    ("record-misplaced", 1, [OPENED, OPENED]),
    ("record-misplaced", 1, [OPENED, records.segment(0, 99, "x", T0, 0)]),
    ("record-misplaced", 0, [batch(1, 1), OPENED]),
    ("opened-foreign", 0, [records.opened(facts("another"))]),
    ("opened-foreign", 0, [records.opened(facts(run=7))]),
    ("body-malformed", 1, [OPENED, Record(RecordType.NOTE, b"\xc1")]),
    ("body-malformed", 1, [OPENED, Record(RecordType.TERMINAL, pack({"outcome": "running"}))]),
    ("body-malformed", 1, [OPENED, Record(RecordType.EVENTS, pack([[1]]), 1, 1, 1, 1)]),
]


@pytest.mark.parametrize(("expected", "index", "content"), NONSENSE)
def test_sound_records_that_make_no_sense_are_named_with_their_offset(expected: str, index: int, content: list[Record]) -> None:
    state = StateInMemory()
    run = state.run()
    run.export()
    _journal_of(run, *content)
    offset = HEAD_SIZE_BYTES + sum(36 + len(record.body) for record in content[:index])
    assert (expected, "journals/s~1.0.journal", offset) in found(state.verify())


def test_a_journal_without_its_first_record_is_named() -> None:
    state = StateInMemory()
    run = state.run()
    _journal_of(run, ENDED)
    assert ("opened-missing", "journals/s~1.0.journal", 0) in found(state.verify())


@pytest.mark.parametrize("size", [0, 10, HEAD_SIZE_BYTES, HEAD_SIZE_BYTES + 50])
def test_a_journal_that_is_being_begun_is_torn_and_one_that_was_told_of_has_lost_its_beginning(size: int) -> None:
    state = small_state()
    path = f"{STATE}/journals/new~1.0.journal"
    state.put(path, state.files()[path][:size])
    assert sorted(code for code, *_ in found(state.verify())) == ["opened-missing", "tail-torn"]
    state.disk.unlink(f"{STATE}/traces/new.json")
    assert [code for code, *_ in found(state.verify())] == ["tail-torn"]
    assert [code for code, *_ in found(state.verify(is_live=True))] == ["tail-pending"]


def _change_head(state: StateInMemory, head: Head) -> None:
    path = f"{STATE}/journals/done~1.0.journal"
    state.put(path, encode_head(head) + state.files()[path][HEAD_SIZE_BYTES:])


def _newer(state: StateInMemory) -> None:
    _change_head(state, Head(9, 1, 0, version=2))


def _foreign_head(state: StateInMemory) -> None:
    _change_head(state, Head(9, 2, 0))


def _no_trace(state: StateInMemory) -> None:
    state.disk.unlink(f"{STATE}/traces/going.json")


def _no_finished_trace(state: StateInMemory) -> None:
    state.disk.unlink(f"{STATE}/traces/done.json")


def _no_journal(state: StateInMemory) -> None:
    state.disk.unlink(f"{STATE}/journals/done~1.0.journal")


def _no_first_segment(state: StateInMemory) -> None:
    state.disk.unlink(f"{STATE}/journals/going~1.0.journal")


def _empty_trace(state: StateInMemory) -> None:
    state.put(f"{STATE}/traces/done.json", b"")


def _longer_trace(state: StateInMemory) -> None:
    path = f"{STATE}/traces/done.json"
    state.put(path, state.files()[path] + b"\n")


def _other_trace(state: StateInMemory) -> None:
    state.put(f"{STATE}/traces/done.json", state.files()[f"{STATE}/traces/new.json"])


def _torn(state: StateInMemory) -> None:
    path = f"{STATE}/journals/new~1.0.journal"
    state.put(path, state.files()[path] + b"\1" * 20)


def _ended_unsaid(state: StateInMemory) -> None:
    path = f"{STATE}/journals/new~1.0.journal"
    raw = state.files()[path]
    state.put(path, raw + encode_record(ENDED, 9, len(raw), begins_group=True))


def _end_lost(state: StateInMemory) -> None:
    path = f"{STATE}/journals/done~1.0.journal"
    state.disk.truncate(path, offsets_of(state.files()[path])[-3])


def _seam_lost(state: StateInMemory) -> None:
    """The last segment has lost what it repeats, and with that it does not count."""
    path = f"{STATE}/journals/going~1.1.journal"
    state.disk.truncate(path, offsets_of(state.files()[path])[1])


def _events_lost(state: StateInMemory) -> None:
    path = f"{STATE}/journals/going~1.1.journal"
    state.disk.truncate(path, offsets_of(state.files()[path])[-2])


def _segment_short(state: StateInMemory) -> None:
    state.disk.truncate(
        f"{STATE}/journals/going~1.0.journal", offsets_of(state.files()[f"{STATE}/journals/going~1.0.journal"])[1]
    )


def offsets_of(raw: bytes) -> list[int]:
    """Where each sound record begins, and where the last one ends."""
    items = [
        item for item in scan_segment(lambda offset, size: raw[offset : offset + size], len(raw)) if isinstance(item, FoundRecord)
    ]
    return [*(item.offset for item in items), items[-1].end]


FAULTY: list[tuple[Callable[[StateInMemory], None], set[tuple[str, str]]]] = [
    (_newer, {("journal-newer", "journals/done~1.0.journal")}),
    (_foreign_head, {("head-foreign", "journals/done~1.0.journal")}),
    (_no_trace, {("trace-missing", "traces/going.json")}),
    (_no_finished_trace, {("trace-missing", "traces/done.json")}),
    (_no_journal, {("trace-orphan", "traces/done.json")}),
    (_no_first_segment, {("segment-missing", "journals/going~1.1.journal"), ("opened-missing", "journals/going~1.1.journal")}),
    (_empty_trace, {("trace-damaged", "traces/done.json")}),
    (_longer_trace, {("trace-differs", "traces/done.json")}),
    (_other_trace, {("trace-differs", "traces/done.json")}),
    (_torn, {("tail-torn", "journals/new~1.0.journal")}),
    (_ended_unsaid, {("trace-behind", "traces/new.json")}),
    (_end_lost, {("trace-ahead", "traces/done.json")}),
    (_events_lost, {("trace-ahead", "traces/going.json")}),
    (_seam_lost, {("trace-ahead", "traces/going.json"), *(("tail-torn", f"journals/going~1.{n}.journal") for n in (0, 1))}),
    (_segment_short, {("segment-short", "journals/going~1.0.journal"), ("trace-unproven", "traces/going.json")}),
]


@pytest.mark.parametrize(("break_it", "expected"), FAULTY)
def test_what_is_broken_is_named(break_it: Callable[[StateInMemory], None], expected: set[tuple[str, str]]) -> None:
    state = small_state()
    break_it(state)
    verification = state.verify()
    assert {(one.code, one.path.removeprefix(f"{STATE}/")) for one in verification.findings.items} == expected
    assert verification.findings.faults == len(expected)


@pytest.mark.parametrize(
    ("break_it", "expected"),
    [
        (_torn, [("tail-pending", "journals/new~1.0.journal")]),
        (_no_trace, [("trace-pending", "traces/going.json")]),
        (_ended_unsaid, [("trace-pending", "traces/new.json")]),
    ],
)
def test_what_a_running_collector_still_owes_is_a_note(
    break_it: Callable[[StateInMemory], None], expected: list[tuple[str, str]]
) -> None:
    state = small_state()
    break_it(state)
    verification = state.verify(is_live=True)
    assert [(code, path) for code, path, _ in found(verification)] == expected
    assert verification.findings.faults == 0


def test_a_hole_that_a_power_cut_leaves_in_the_last_group_is_torn_and_one_before_it_is_corrupt() -> None:
    state = StateInMemory()
    run = state.run()
    run.export()
    first = run.append(batch(1, 1, count=400))
    last = run.append(batch(401, 401, count=400), batch(801, 801))
    raw = bytearray(state.files()[run.journal_path])
    sectors = {offset: offset + (512 - offset % 512) for offset in (first, last)}
    torn, corrupt = bytearray(raw), bytearray(raw)
    torn[sectors[last] : sectors[last] + 512] = bytes(512)
    corrupt[sectors[first] : sectors[first] + 512] = bytes(512)
    state.put(run.journal_path, bytes(torn))
    assert found(state.verify()) == [("tail-torn", "journals/s~1.0.journal", last)]
    state.put(run.journal_path, bytes(corrupt))
    assert found(state.verify()) == [("record-corrupt", "journals/s~1.0.journal", first)]


def test_damage_excuses_the_holes_that_it_explains_and_no_others() -> None:
    state = StateInMemory()
    run = state.run()
    run.export()
    lost = run.append(batch(1, 1))
    run.append(batch(2, 2))
    run.append(batch(3, 3))
    wrong = run.append(batch(5, 5))
    raw = bytearray(state.files()[run.journal_path])
    raw[lost + 40] ^= 1
    state.put(run.journal_path, bytes(raw))
    assert found(state.verify()) == [
        ("record-corrupt", "journals/s~1.0.journal", lost),
        ("position-wrong", "journals/s~1.0.journal", wrong),
        ("sequence-wrong", "journals/s~1.0.journal", wrong),
    ]


def test_a_trace_file_without_a_journal_must_add_up() -> None:
    state = small_state()
    path = f"{STATE}/traces/done.json"
    state.put(path, state.files()[path].replace(b'"received":5', b'"received":6'))
    _no_journal(state)
    assert [code for code, *_ in found(state.verify())] == ["trace-orphan", "sums-wrong"]
    state.put(
        path,
        state.files()[path].replace(b'"received":6', b'"received":5').replace(b'"counts":{"events":3', b'"counts":{"events":4'),
    )
    assert [code for code, *_ in found(state.verify())] == ["trace-orphan", "sums-wrong"]


@pytest.mark.parametrize("name", ["traces/done.json", "journals/done~1.0.journal"])
def test_a_file_that_cannot_be_read_is_named(name: str) -> None:
    state = small_state()
    state.disk.hidden.add(f"{STATE}/{name}")
    verification = state.verify()
    assert [(code, path) for code, path, _ in found(verification)] == [("unreadable", name)]
    assert verification.findings.faults == 1


def test_what_does_not_fit_the_list_is_counted() -> None:
    findings, more = Findings(), Findings()
    for number in range(FINDINGS_MAX):
        findings.add(Finding("record-corrupt", "x", number, "x"))
    assert len(findings.items) == FINDINGS_MAX
    for number in range(5):
        more.add(Finding("foreign-file", "x", number, "x"))
    assert not more.truncated
    findings.extend(more)
    assert findings.truncated
    assert (len(findings.items), findings.faults, findings.notes) == (FINDINGS_MAX, FINDINGS_MAX, 5)


def test_the_manual_lists_every_code() -> None:
    listed = {
        code(name): (kind, words) for name, kind, words in table(section(read("operations.md"), "Verifying and recovering"))
    }
    wanted = {name: ("fault", words) for name, words in FAULTS.items()} | {name: ("note", words) for name, words in NOTES.items()}
    assert listed == wanted


def _damage_last(state: StateInMemory, run: RunInMemory) -> int:
    """A bit of the last record is flipped; returns its offset."""
    raw = bytearray(state.files()[run.journal_path])
    offset = offsets_of(bytes(raw))[-2]
    raw[offset + 40] ^= 1
    state.put(run.journal_path, bytes(raw))
    return offset


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_trace_file_that_was_rendered_from_a_damaged_journal_is_what_that_renders_to(goes_on: bool) -> None:
    state = StateInMemory()
    run = state.run()
    run.span()
    run.span()
    offset = _damage_last(state, run)
    run.export()
    assert b'"integrity":"damaged"' in state.files()[run.trace_path]
    if goes_on:
        run.span()
    assert found(state.verify()) == [("record-corrupt", "journals/s~1.0.journal", offset)]


def test_a_torn_tail_is_no_excuse_for_a_trace_file_that_says_more() -> None:
    state = small_state()
    _events_lost(state)
    path = f"{STATE}/journals/going~1.1.journal"
    state.put(path, state.files()[path] + b"\1" * 20)
    assert [code for code, *_ in found(state.verify())] == ["tail-torn", "trace-ahead"]


def test_a_segment_that_was_begun_and_never_finished_is_torn() -> None:
    state = small_state()
    state.put(f"{STATE}/journals/going~1.2.journal", b"")
    state.put(f"{STATE}/journals/new~1.1.journal", encode_head(Head(9, 1, 1)) + b"\1" * 20)
    assert found(state.verify()) == [("tail-torn", "journals/going~1.2.journal", 0), ("tail-torn", "journals/new~1.1.journal", 0)]
    assert state.verify(is_live=True).findings.faults == 0


def test_a_directory_that_is_missing_is_empty_and_one_that_cannot_be_listed_is_named() -> None:
    state = small_state()
    state.disk.fail_nth("list_directory", 3, 5)
    assert [(code, path) for code, path, _ in found(state.verify())] == [("unreadable", "quarantine")]
    assert found(verified(SimulatedDisk())) == []


# ---------------------------------------------------------------- beside a running collector


def _goes_on(state: StateInMemory, run: RunInMemory) -> None:
    run.span()
    run.export()


def _ends(state: StateInMemory, run: RunInMemory) -> None:
    run.span()
    if run.next_sequence[1] == 7:  # once, and then notes come
        run.end()
        run.export()
    else:
        run.append(records.note(T0, "crash", "late"))


def _goes_on_elsewhere(state: StateInMemory, run: RunInMemory) -> None:
    run.fail_once()
    run.span()
    run.export()


def _is_opened(state: StateInMemory, run: RunInMemory) -> None:
    other = state.run(f"other-{state.disk.reads}")
    other.span()
    other.export()


def _is_swept(state: StateInMemory, run: RunInMemory) -> None:
    state.disk.unlink(f"{STATE}/traces/.s~1.0.tmp")


def _is_set_aside(state: StateInMemory, run: RunInMemory) -> None:
    """What a start does with a journal of which nothing can be said."""
    if state.disk.exists(path := f"{STATE}/journals/begun~1.0.journal"):
        state.disk.rename(path, f"{STATE}/quarantine/begun~1.0.journal")


def _is_given_up(state: StateInMemory, run: RunInMemory) -> None:
    """What the writer does with a segment that failed."""
    state.disk.unlink(f"{STATE}/journals/given~1.1.journal")


HAPPENS = [_is_set_aside, _is_given_up, _goes_on, _ends, _goes_on_elsewhere, _is_opened, _is_swept]


def _live_state() -> tuple[StateInMemory, RunInMemory]:
    state = StateInMemory()
    run = state.run()
    for _ in range(2):
        run.span()
    run.export()
    run.events(start())
    state.put(f"{STATE}/traces/.s~1.0.tmp", b"half")
    state.put(f"{STATE}/journals/begun~1.0.journal", b"half")
    state.run("given").export()
    state.put(f"{STATE}/journals/given~1.1.journal", b"half")
    return state, run


@pytest.mark.parametrize("happens", HAPPENS)
def test_whatever_happens_at_any_moment_of_a_look_nobody_is_accused(
    happens: Callable[[StateInMemory, RunInMemory], None],
) -> None:
    state, _ = _live_state()
    state.verify(is_live=True)
    reads = state.disk.reads
    assert reads > 5
    for moment in range(1, reads + 1):
        for until in (moment, moment + 2 * reads):  # once, or at every read of two looks
            state, run = _live_state()
            state.disk.happens = partial(happens, state, run)
            state.disk.at = range(moment, until + 1)
            verification = state.verify(is_live=True)
            assert verification.findings.faults == 0, (moment, until, verification.findings.items)
            if until == moment:
                assert {one.code for one in verification.findings.items} <= {
                    "temporary-file",
                    "trace-pending",
                    "tail-pending",
                    "quarantined",
                }, moment


def test_a_trace_file_that_is_replaced_at_every_moment_is_said_to_be_so() -> None:
    state, run = _live_state()
    state.disk.happens = partial(_goes_on, state, run)
    state.disk.at = range(1, 1_000)
    assert [code for code, *_ in found(state.verify(is_live=True))] == [
        "tail-pending",
        "tail-pending",
        "trace-unsettled",
        "temporary-file",
    ]


def test_a_fault_that_stays_is_named_however_busy_the_run_is() -> None:
    state, run = _live_state()
    raw = bytearray(state.files()[run.journal_path])
    raw[HEAD_SIZE_BYTES + 36 + len(OPENED.body) + 40] ^= 1
    state.put(run.journal_path, bytes(raw))
    state.disk.happens = partial(_goes_on, state, run)
    state.disk.at = range(1, 1_000)
    assert "record-corrupt" in [code for code, *_ in found(state.verify(is_live=True))]


# ---------------------------------------------------------------- any damage at all


def _flips(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """The content with each of its bits flipped, one at a time."""
    for position in range(len(raw)):
        for bit in range(8):
            yield position, raw[:position] + bytes([raw[position] ^ 1 << bit]) + raw[position + 1 :]


def _tiny_state() -> StateInMemory:
    state = StateInMemory()
    run = state.run()
    run.events(start(name="x"))
    run.end()
    run.export()
    return state


def test_every_bit_of_a_journal_that_is_flipped_is_named_where_it_is() -> None:
    state = _tiny_state()
    path = f"{STATE}/journals/s~1.0.journal"
    raw = state.files()[path]
    offsets = [0, *offsets_of(raw)]
    for position, damaged in _flips(raw):
        state.put(path, damaged)
        faults = state.verify().findings.items
        begin = max(offset for offset in offsets if offset <= position)
        assert any(one.is_fault and one.path == path and one.offset == begin for one in faults), (position, faults)
        assert not [one for one in faults if one.path != path and one.code != "trace-unproven"], (position, faults)
    state.put(path, raw)
    assert found(state.verify()) == []


def test_every_bit_of_a_trace_file_that_is_flipped_is_named_where_it_is() -> None:
    state = _tiny_state()
    path = f"{STATE}/traces/s.json"
    raw = state.files()[path]
    for position, damaged in _flips(raw):
        state.put(path, damaged)
        (fault,) = state.verify().findings.items
        assert fault.path == path
        assert (fault.code, fault.offset) in (("trace-differs", position), ("trace-damaged", 0), ("trace-ahead", 0)), position
    state.put(path, raw)
    assert found(state.verify()) == []


@pytest.mark.bed
def test_a_file_that_was_cut_anywhere_is_named() -> None:
    state = small_state()
    for path, raw in state.files().items():
        superseded = path.endswith("going~1.0.journal")
        for cut in range(offsets_of(raw)[-1] if superseded else len(raw)):
            state.put(path, raw[:cut])
            note_alone = path.endswith("done~1.0.journal") and cut == offsets_of(raw)[-2]  # a late note is in no trace file
            assert bool(state.verify().findings.faults) is not note_alone, (path, cut)
        state.put(path, raw)
    assert found(state.verify()) == []


NAMES = ["traces/s.json", "traces/s~2.json", "journals/s~1.0.journal", "journals/s~1.1.journal", "journals/s~2.0.journal"]
ANY_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=4) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
GOOD_BODIES = [
    OPENED.body, ENDED.body, batch(1, 1).body, records.note(T0, "x", "y").body, records.segment(0, 32, "x", T0, 0).body,
    records.joined(2, T0, 7, "c", {}, b"t" * 16).body, records.gap(1, 1, 1, T0).body, pack([start(), end(1)]),
]  # fmt: skip
ANY_RECORD = st.builds(
    Record,
    st.sampled_from(RecordType),
    st.sampled_from(GOOD_BODIES) | ANY_VALUE.map(pack) | st.binary(max_size=40),
    st.integers(0, 3) | st.integers(0, 2**16 - 1),
    st.integers(0, 4) | st.integers(0, 2**64 - 1),
    st.integers(0, 4) | st.integers(0, 2**64 - 1),
    st.integers(0, 4) | st.integers(0, 2**32 - 1),
)


@st.composite
def any_journal(draw: st.DrawFn) -> bytes:
    """Sound records without any sense, and bytes between and behind them."""
    raw = encode_head(Head(9, draw(st.integers(0, 2)), draw(st.integers(0, 1))))
    for record in [OPENED] * draw(st.integers(0, 1)) + draw(st.lists(ANY_RECORD, max_size=6)):
        raw += draw(st.sampled_from([b"", b"", b"", b"junk", bytes(600)]))
        raw += encode_record(record, 9, len(raw), begins_group=draw(st.booleans()))
    return raw + draw(st.binary(max_size=50))


TRACE = small_state().files()[f"{STATE}/traces/done.json"]
ANY_TRACE = st.binary(max_size=200) | st.tuples(
    st.integers(0, len(TRACE)), st.binary(max_size=20), st.integers(0, len(TRACE))
).map(lambda parts: TRACE[: parts[0]] + parts[1] + TRACE[parts[2] :])


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(NAMES), any_journal() | ANY_TRACE), st.booleans())
def test_no_bytes_at_all_make_it_fail(files: dict[str, bytes], is_live: bool) -> None:
    state = StateInMemory()
    for name, content in files.items():
        state.put(f"{STATE}/{name}", content)
    verification = verified(state.disk, is_live)
    for one in verification.findings.items:
        assert one.code in FAULTS or one.code in NOTES
        assert one.message
    traces = [name for name in files if name.startswith("traces/")]
    journals = {name.split(".")[0] for name in files if name.startswith("journals/")}
    assert verification.runs == len(journals)
    if traces and not journals:
        assert verification.findings.faults >= len(traces)
