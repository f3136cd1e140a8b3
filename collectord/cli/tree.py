"""A trace file as a tree of spans.

Pure: a parsed document (docs/trace-format.md) and a width in, lines out. Believes nothing about the document's shape beyond
JSON: it may be of another version, or damaged, and what agents wrote passes ``text.cut``. Iterative throughout, since real
traces nest without end; spans whose parent is not there, ids that occur twice and parents that form a ring all have a place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from attrs import define
from rich.text import Text

from collectord.cli.overview import GLYPHS, STYLES
from collectord.cli.text import counted, cut, cut_middle, duration, moment
from collectord.cli.verdict import crash_words

_ERROR, _OK = 2, 1
_UNFINISHED: Final = "collectord.span.unfinished"
_SHOWN_ATTRIBUTES: Final = ("gen_ai.request.model", "gen_ai.tool.name", "gen_ai.agent.name")
_TOKENS: Final = ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens")
_DURATION_WIDTH: Final = 8
_STEP_WIDTH: Final = 3
"""How far a span stands to the right of its parent. Steps may take half of a line; deeper spans say their depth in figures."""

_NAME_WIDTH_MAX: Final = 80


@define(eq=False)
class _Node:
    """One span and what hangs below it."""

    span: Mapping[str, Any]
    start: int | None
    end: int | None
    children: list[_Node]
    loose: str = ""


def tree_lines(document: Any, width: int) -> list[Text]:
    """The whole trace: two lines about the session, then its spans, each below its parent, in the order of their start.

    Args:
        document: a parsed trace file.
        width: no line is wider.
    """
    root = _map(document)
    session = _map(root.get("session"))
    nodes = _nodes(root)
    roots = _linked(nodes)
    lines = _session_lines(session, nodes, width)
    lines.extend(_span_lines(roots, width))
    return lines


# ---------------------------------------------------------------- the session


def _session_lines(session: Mapping[str, Any], nodes: list[_Node], width: int) -> list[Text]:
    outcome = str(session.get("outcome", "?"))
    style = STYLES.get(outcome, "")
    run = session.get("run")
    name = cut_middle(str(session.get("id", "?")), _NAME_WIDTH_MAX)
    opened, ended = moment(session.get("opened_at")), moment(session.get("ended_at"))
    took = "" if opened is None or ended is None else f" after {duration(ended - opened)}"
    first = Text()
    first.append(f"{GLYPHS.get(outcome, '?')} {cut(outcome, 20)}", f"{style} bold")
    first.append(cut(f"{took}  {name}{f' #{run}' if type(run) is int and run > 1 else ''}", width - first.cell_len))
    unfinished = sum(node.end is None for node in nodes)
    failed = sum(_status(node.span) == _ERROR for node in nodes)
    counts = [counted(len(nodes), "span")]
    if unfinished:
        counts.append(f"{unfinished:,} unfinished")
    if failed:
        counts.append(counted(failed, "error"))
    second = Text("  ")
    reason = _why(session)
    if reason:
        second.append(cut(reason, width - 4) + "  ", style)
    second.append(cut(", ".join(counts), width - second.cell_len), "dim")
    return [first, second]


def _why(session: Mapping[str, Any]) -> str:
    """Why it ended as it did, where there is more to say than the outcome."""
    crash, end = session.get("crash"), session.get("end")
    if isinstance(crash, Mapping):
        return crash_words(dict(crash))
    if isinstance(end, Mapping):
        exception = end.get("exception")
        kind = exception.get("type") if isinstance(exception, Mapping) else None
        message = end.get("message")
        return ": ".join(part for part in (kind, message) if type(part) is str and part)
    return ""


# ---------------------------------------------------------------- the spans


def _nodes(root: Mapping[str, Any]) -> list[_Node]:
    """Every span of the document, of all its resources, by start."""
    nodes = [
        _Node(span, _time(span, "startTimeUnixNano"), _time(span, "endTimeUnixNano"), [])
        for resource in _maps(root.get("resourceSpans"))
        for scope in _maps(resource.get("scopeSpans"))
        for span in _maps(scope.get("spans"))
    ]
    nodes.sort(key=lambda node: node.start or 0)
    return nodes


def _linked(nodes: list[_Node]) -> list[_Node]:
    """Hang every span below its parent; what is returned has none, or none in this file.

    Where an id occurs twice, children hang below the first. Of a ring of parents the first to start is taken as a root.
    """
    by_id: dict[str, _Node] = {}
    for node in nodes:
        by_id.setdefault(str(node.span.get("spanId")), node)
    roots: list[_Node] = []
    for node in nodes:
        parent_id = node.span.get("parentSpanId")
        parent = by_id.get(str(parent_id)) if parent_id else None
        if parent is not None:
            parent.children.append(node)
            continue
        if parent_id:
            node.loose = f"its parent {cut(str(parent_id), 16)} is not in this file"
        roots.append(node)
    reached: set[int] = set()
    for root in roots:
        _reach(root, reached)
    for node in nodes:
        if id(node) not in reached:
            node.loose = "its parents form a ring"
            roots.append(node)
            _reach(node, reached)
    return roots


def _reach(root: _Node, reached: set[int]) -> None:
    """Note everything below a root; a child that was reached before is where a ring closes, and is cut off there."""
    reached.add(id(root))
    waiting = [root]
    while waiting:
        node = waiting.pop()
        node.children = [child for child in node.children if id(child) not in reached]
        reached.update(map(id, node.children))
        waiting.extend(node.children)


def _span_lines(roots: list[_Node], width: int) -> Iterator[Text]:
    """Depth first, each span behind the lines that lead to its parent."""
    depth_max = max(1, (width - _DURATION_WIDTH) // (2 * _STEP_WIDTH))
    waiting = [(node, "", "", 0) for node in reversed(roots)]
    while waiting:
        node, lead, branch, depth = waiting.pop()
        mark = "" if depth <= depth_max else f"[{depth} deep] "
        yield _span_line(node, lead + branch + mark, width)
        below = lead + {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
        text = _error_text(node.span)
        if text:
            rail = below + ("│  " if node.children else "   ")
            error = Text(f"{' ' * _DURATION_WIDTH} {rail}", "dim")
            error.append(cut(text, width - error.cell_len), "red")
            yield error
        deeper = depth < depth_max
        for index, child in enumerate(reversed(node.children)):
            tail = "└─ " if index == 0 else "├─ "
            waiting.append((child, below, tail, depth + 1) if deeper else (child, lead, branch, depth + 1))


def _span_line(node: _Node, rail: str, width: int) -> Text:
    span = node.span
    status = _status(span)
    attributes = _attributes(span)
    unfinished = node.end is None or _UNFINISHED in attributes
    if unfinished:
        glyph, style, took = "◌", "bold magenta", "…"
    else:
        glyph, style = ("✗", "red") if status == _ERROR else ("✓", "green") if status == _OK else ("•", "")
        took = "?" if node.start is None or node.end is None else duration(node.end - node.start)
    line = Text(f"{took:>{_DURATION_WIDTH}} ", "dim")
    line.append(rail, "dim")
    line.append(f"{glyph} ", style)
    line.append(cut(str(span.get("name", "?")), min(_NAME_WIDTH_MAX, width - line.cell_len)), "bold" if unfinished else "")
    remarks = _remarks(node, attributes, unfinished)
    for words, remark_style in remarks:
        line.append(cut("  " + words, width - line.cell_len), remark_style)
    line.truncate(width)
    return line


def _remarks(node: _Node, attributes: Mapping[str, Any], unfinished: bool) -> Iterator[tuple[str, str]]:
    if unfinished:
        yield "unfinished", "bold magenta"
    name = str(node.span.get("name", ""))
    for key in _SHOWN_ATTRIBUTES:
        value = attributes.get(key)
        if type(value) is str and value not in name:
            yield value, "dim"
    tokens = [attributes.get(key) for key in _TOKENS]
    if any(tokens):
        yield f"{tokens[0] or 0} → {tokens[1] or 0} tokens", "dim"
    if node.loose:
        yield f"({node.loose})", "yellow"


def _error_text(span: Mapping[str, Any]) -> str:
    """The message of a failed span: of its status, else of the exception that was recorded on it."""
    if _status(span) != _ERROR:
        return ""
    message = _map(span.get("status")).get("message")
    if type(message) is str and message:
        return message
    for event in _maps(span.get("events")):
        attributes = _attributes(event)
        if event.get("name") == "exception":
            parts = (attributes.get("exception.type"), attributes.get("exception.message"))
            return ": ".join(str(part) for part in parts if part)
    return ""


# ---------------------------------------------------------------- reading the document


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _maps(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _status(span: Mapping[str, Any]) -> Any:
    return _map(span.get("status")).get("code")


def _time(span: Mapping[str, Any], key: str) -> int | None:
    """OTLP/JSON writes 64-bit integers as strings; some writers do not."""
    value = span.get(key)
    if type(value) is int:
        return value
    return int(value) if type(value) is str and value.isdecimal() and len(value) <= 20 else None


def _attributes(item: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that a line may show: texts, numbers and switches; what is built of parts is left out."""
    found: dict[str, Any] = {}
    for attribute in _maps(item.get("attributes")):
        value = _map(attribute.get("value"))
        for kind in ("stringValue", "intValue", "doubleValue", "boolValue"):
            if kind in value:
                found[str(attribute.get("key"))] = value[kind]
    return found
