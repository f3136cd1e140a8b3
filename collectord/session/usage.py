"""Tokens and cost: what the leaf LLM spans report, each response once.

Pure. Reads the GenAI attribute names in force and their common older spellings; never estimates and never prices.
"""

from __future__ import annotations

import hashlib
from collections import deque
from typing import Any, Final

from collectord.limits import RESPONSE_IDS_REMEMBERED_MAX
from collectord.model import Attributes

_INPUT_KEYS: Final = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt")
_OUTPUT_KEYS: Final = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion")
_COST_KEYS: Final = ("collectord.cost.usd", "gen_ai.usage.cost", "operation.cost", "llm.cost.total")
_RESPONSE_ID: Final = "gen_ai.response.id"
_OPERATION: Final = "gen_ai.operation.name"
_ROLL_UPS: Final = frozenset(("invoke_agent", "create_agent", "invoke_workflow"))
"""Operations whose usage repeats what the calls inside them report."""

_TEXT_KEPT_MAX: Final = 128
"""Why: thousands of ids are kept in memory. A longer one is told from others by its hash."""

KEYS: Final = frozenset((*_INPUT_KEYS, *_OUTPUT_KEYS, *_COST_KEYS, _RESPONSE_ID, _OPERATION))
"""The attributes that an open span must keep for this module."""

_says_no_cost: Final = frozenset(_COST_KEYS).isdisjoint
_NO_ORDER: Final[deque[str]] = deque(maxlen=0)


class Usage:
    """The totals of one run."""

    __slots__ = ("_order", "_seen", "cost", "input_tokens", "output_tokens")

    def __init__(self) -> None:
        self.input_tokens = 0
        self.output_tokens = 0
        self.cost: float | None = None
        self._seen: set[str] | None = None
        self._order: deque[str] = _NO_ORDER

    def count(self, attributes: Attributes) -> bool:
        """Count one ended leaf span.

        Args:
            attributes: of the span, as far as they are among ``KEYS``.

        Returns:
            Whether the span reports usage at all (also where a duplicate was not counted again).
        """
        operation = attributes.get(_OPERATION)
        if type(operation) is str and operation in _ROLL_UPS:  # it may be a list or a map, which cannot be looked up
            return False
        tokens_in = _first(attributes, _INPUT_KEYS)
        tokens_out = _first(attributes, _OUTPUT_KEYS)
        cost = None if _says_no_cost(attributes) else _first(attributes, _COST_KEYS)
        if tokens_in is None and tokens_out is None and cost is None:
            return False
        response = attributes.get(_RESPONSE_ID)
        if type(response) is str and self._is_duplicate(response):
            return True
        if tokens_in is not None:
            self.input_tokens += int(tokens_in)
        if tokens_out is not None:
            self.output_tokens += int(tokens_out)
        if cost is not None:
            self.cost = (self.cost or 0.0) + float(cost)
        return True

    def _is_duplicate(self, response: str) -> bool:
        """Whether a response was counted before. A set and a queue, since an ordered map takes more than twice the time."""
        if self._seen is None:  # most runs never come here
            self._seen, self._order = set(), deque()
        if response in self._seen:
            return True
        self._seen.add(response)
        self._order.append(response)
        if len(self._order) > RESPONSE_IDS_REMEMBERED_MAX:
            self._seen.remove(self._order.popleft())
        return False

    def as_dict(self) -> dict[str, Any]:
        """As the trace file and `status` show it."""
        return {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens, "cost": self.cost}


def relevant(attributes: Attributes) -> Attributes:
    """What an open span keeps of its attributes: numbers and short text, since an agent may put anything of any size there."""
    kept: Attributes = {}
    for key, value in attributes.items():
        if key in KEYS:
            kept[key] = value if type(value) is int else _bounded(value)
    return kept


def _bounded(value: Any) -> str | float | None:
    kind = type(value)
    if kind is int or kind is float:
        return value  # type: ignore[no-any-return]
    if kind is not str:
        return None
    if len(value) <= _TEXT_KEPT_MAX:
        return value  # type: ignore[no-any-return]
    return hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _first(attributes: Attributes, keys: tuple[str, ...]) -> float | None:
    """The first of several spellings that holds a number worth counting."""
    for key in keys:
        value: Any = attributes.get(key)
        if (type(value) is int or type(value) is float) and 0 <= value < 1e15:  # also leaves out NaN and infinity
            return value
    return None
