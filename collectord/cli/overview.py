"""How `status` looks: the daemon's totals, then one line per session and, where there is more to say, one below it.

Pure: an answer, the time and a width in, lines out. Nothing here trusts the answer's types: it may come from an older or newer
daemon, and what agents wrote into it passes ``text.cut`` before it is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import frozen
from rich.text import Text

from collectord.cli.text import age, amount, counted, cut, cut_middle, moment, size
from collectord.cli.verdict import crash_words
from collectord.wire.messages import StatusAnswer

Row = Mapping[str, Any]

GLYPHS: Final = {"running": "▶", "completed": "✓", "failed": "✗", "cancelled": "⊘", "crashed": "†"}
STYLES: Final = {"running": "cyan", "completed": "green", "failed": "red", "cancelled": "yellow", "crashed": "bold magenta"}
"""Colour and glyph of each outcome; the word stands beside them, since neither reaches everybody."""

_OUTCOME_WIDTH: Final = 9
_ID_WIDTH_MIN: Final = 14
_ID_WIDTH_MAX: Final = 60


@frozen
class Column:
    """One column of figures.

    Attributes:
        title: at most as wide as the column.
        width: in cells.
        order: of the columns that give way where the line is narrow; the highest goes first.
        value: what a row shows in it.
    """

    title: str
    width: int
    order: int
    value: Callable[[Row, int], str]


def _age(row: Row, now_ns: int) -> str:
    at = moment(row.get("opened_at"))
    return "" if at is None else age(now_ns - at)


def _idle(row: Row, now_ns: int) -> str:
    """Since the last event; of a session that is over there is none."""
    if row.get("outcome") != "running":
        return "-"
    at = moment(row.get("last_event_at")) or moment(row.get("opened_at"))
    return "" if at is None else age(now_ns - at)


def _tokens(row: Row, _: int) -> str:
    usage = row.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    total = _number(usage, "input_tokens") + _number(usage, "output_tokens")
    return amount(total) if total else "-"


def _pid(row: Row, _: int) -> str:
    pid = _number(row, "pid")
    return str(pid) if pid > 0 else "?"


COLUMNS: Final = (
    Column("AGE", 6, 1, _age),
    Column("IDLE", 6, 2, _idle),
    Column("SPANS", 6, 0, lambda row, _: amount(_number(row, "spans"))),
    Column("OPEN", 5, 4, lambda row, _: amount(_number(row, "unfinished"))),
    Column("ERR", 5, 3, lambda row, _: amount(_number(row, "errors"))),
    Column("TOKENS", 6, 5, _tokens),
    Column("PID", 8, 6, _pid),
)


def render(answer: StatusAnswer, now_ns: int, width: int, height: int | None = None) -> list[Text]:
    """The whole picture.

    Args:
        answer: of the daemon.
        now_ns: Unix nanoseconds, against which ages are told.
        width: no line is wider.
        height: no more lines than these, or None for all; what had no place is counted in the last line.
    """
    lines = _totals(answer.daemon, width)
    columns, id_width = _layout(width)
    if not answer.sessions and not answer.sessions_left_out:
        return [*lines, Text(), Text(cut("no sessions yet", width), style="dim")]
    lines += [Text(), _heading(columns, id_width)]
    left_out = answer.sessions_left_out
    room = None if height is None else height - len(lines)
    for index, row in enumerate(answer.sessions):
        block = _block(row, now_ns, width, columns, id_width)
        after = len(answer.sessions) - index - 1
        if room is not None:
            room -= len(block)
            if room < (1 if after or left_out else 0):
                left_out += after + 1
                break
        lines.extend(block)
    if left_out:
        lines.append(Text(cut(f"… {left_out:,} more not shown", width), style="dim"))
    return lines if height is None else lines[:height]


# ---------------------------------------------------------------- the totals


def _totals(daemon: Row, width: int) -> list[Text]:
    running, total = _number(daemon, "sessions_running"), _number(daemon, "sessions_total")
    up = age(int(_real(daemon, "uptime_s") * 1e9))
    first = f"collectord {_word(daemon, 'version')}  pid {_number(daemon, 'pid')}  up {up}"
    first += f"  {running:,} running of {counted(total, 'session')}"
    received, stored, refused = (_number(daemon, f"events_{what}") for what in ("received", "stored", "refused"))
    second = f"events: {received:,} received = {stored:,} stored + {refused:,} refused"
    duplicates = _number(daemon, "events_duplicate")
    if duplicates:
        second += f"; {duplicates:,} sent twice"
    third = f"traces: {_word(daemon, 'state_dir')}"
    memory, descriptors = _number(daemon, "memory_bytes"), _number(daemon, "descriptors")
    fourth = f"socket: {_word(daemon, 'socket')}   {size(memory)}, {counted(descriptors, 'descriptor')}"
    lines = [
        Text(cut(first, width), style="bold"),
        Text(cut(second, width), style="" if not refused else "yellow"),
        Text(cut(third, width), style="dim"),
        Text(cut(fourth, width), style="dim"),
    ]
    stalled = _number(daemon, "stalled")
    if stalled:
        words = f"{counted(stalled, 'session')} stalled: the disk refuses, and nothing of them is acknowledged until it works"
        lines.append(Text(cut(words, width), style="bold red"))
    return lines


# ---------------------------------------------------------------- the sessions


def _layout(width: int) -> tuple[tuple[Column, ...], int]:
    """Which columns have a place, and how wide ids may be."""
    columns = sorted(COLUMNS, key=lambda column: column.order)
    fixed = 2 + _OUTCOME_WIDTH + 1
    while columns and width - fixed - sum(column.width + 1 for column in columns) < _ID_WIDTH_MIN:
        columns.pop()
    kept = tuple(column for column in COLUMNS if column in columns)
    room = width - fixed - sum(column.width + 1 for column in kept)
    return kept, max(1, min(room, _ID_WIDTH_MAX))


def _heading(columns: tuple[Column, ...], id_width: int) -> Text:
    figures = "".join(f" {column.title:>{column.width}}" for column in columns)
    return Text(f"  {'OUTCOME':<{_OUTCOME_WIDTH}} {cut('SESSION', id_width):<{id_width}}{figures}", style="dim")


def _block(row: Row, now_ns: int, width: int, columns: tuple[Column, ...], id_width: int) -> list[Text]:
    outcome = _word(row, "outcome")
    style = STYLES.get(outcome, "")
    run = _number(row, "run")
    suffix = f" #{run}" if run > 1 else ""
    name = cut_middle(_word(row, "id"), id_width - len(suffix)) + suffix
    line = Text()
    line.append(f"{GLYPHS.get(outcome, '?')} {cut(outcome, _OUTCOME_WIDTH):<{_OUTCOME_WIDTH}} ", style)
    line.append(name)
    line.append(" " * (id_width - Text(name).cell_len))
    for column in columns:
        value = cut(column.value(row, now_ns), column.width)
        alarming = column.title == "ERR" and value != "0"
        line.append(f" {value:>{column.width}}", "red" if alarming else "")
    line.truncate(width)
    details = _details(row, now_ns)
    if not details:
        return [line]
    below = Text("  └ ", style="dim")
    room = width - below.cell_len
    for index, (words, detail_style) in enumerate(details):
        shown = cut(("; " if index else "") + words, room)
        below.append(shown, detail_style)
        room -= Text(shown).cell_len
    return [line, below]


def _details(row: Row, now_ns: int) -> list[tuple[str, str]]:
    """What else there is to say of a session, the most telling first."""
    details: list[tuple[str, str]] = []
    stalled = row.get("stalled")
    if type(stalled) is str and stalled:
        details.append((f"stalled: {stalled}", "bold red"))
    state, outcome = _word(row, "state"), _word(row, "outcome")
    if outcome == "running" and state in _STATES:
        details.append((_STATES[state], "yellow"))
    crash = row.get("crash")
    if isinstance(crash, Mapping):
        details.append((crash_words(dict(crash)), "magenta"))
    activity = row.get("activity")
    if isinstance(activity, Mapping):
        at = moment(activity.get("started_at"))
        since = "" if at is None else f", for {age(now_ns - at)}"
        details.append((f"{cut(_word(activity, 'name'), 60)}{since}", "bold" if outcome == "running" else ""))
    unfinished = _number(row, "unfinished")
    if outcome != "running" and unfinished:
        details.append((f"{counted(unfinished, 'span')} unfinished", ""))
    participants = _number(row, "participants")
    if outcome == "running" and participants:
        details.append((counted(participants, "participant"), "dim"))
    for key, words in (("refused", "event"), ("gaps", "gap")):
        if number := _number(row, key):
            details.append((f"{counted(number, words)}{' refused' if key == 'refused' else ''}", "yellow"))
    if lost := _number(row, "client_lost"):
        details.append((f"{counted(lost, 'event')} lost by the client", "yellow"))
    if corrupt := _number(row, "corrupt_records"):
        details.append((f"{counted(corrupt, 'record')} of its journal damaged", "red"))
    if torn := _number(row, "torn_bytes"):
        details.append((f"{counted(torn, 'byte')} torn off", "yellow"))
    return details


_STATES: Final = {
    "opening": "opening",
    "cancel-requested": "asked to stop",
    "ending": "ending: its trace file is being written",
    "crashing": "its agent is gone: the verdict is being written",
    "recovered": "found open after a restart: its agent may come back",
}
"""What is said of a running session whose state says more than its outcome."""


# ---------------------------------------------------------------- reading the answer


def _number(row: Row, key: str) -> int:
    value = row.get(key)
    return value if type(value) is int else 0


def _real(row: Row, key: str) -> float:
    value = row.get(key)
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e9 else 0.0


def _word(row: Row, key: str) -> str:
    value = row.get(key)
    return value if type(value) is str else "?"
