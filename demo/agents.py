"""Three small agents as they are written in earnest, with everything but the model. Run as `python demo/agents.py NAME`.

Each is a process of its own that streams its spans to the collector while it works. `researcher` does its job, `deployer` meets
an error that it does not handle, `migrator` says on stdout when it is inside a tool call, and waits there to be killed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import collectord_client as collectord

PROVIDER, MODEL = "example", "example-large-2"
IN_THE_TOOL_CALL = "in the tool call"


class Agent:
    """What the three have in common: model calls and tool calls, with the attribute names of the GenAI conventions."""

    def __init__(self, name: str, session: collectord.Session) -> None:
        self.name = name
        self._session = session
        self._calls = 0

    def run(self, task: str) -> None:
        """The whole job, below one span."""
        about = {"gen_ai.operation.name": "invoke_agent", "gen_ai.provider.name": PROVIDER, "gen_ai.agent.name": self.name}
        with self._session.span(f"invoke_agent {self.name}", attributes=about):
            self.work(task)

    def work(self, task: str) -> None:
        raise NotImplementedError

    def chat(self, prompt: str, answer: str, tokens: tuple[int, int]) -> None:
        """Ask the model: what was asked is there when the span begins, what it cost when it ends."""
        self._calls += 1
        asked = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": PROVIDER,
            "gen_ai.request.model": MODEL,
            "gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": prompt}]}],
        }
        with self._session.span(f"chat {MODEL}", kind="client", attributes=asked) as span:
            time.sleep(0.06)
            span.add_event("first token")
            time.sleep(0.08)
            reply = {"role": "assistant", "parts": [{"type": "text", "content": answer}], "finish_reason": "stop"}
            span.set_attribute("gen_ai.response.id", f"resp-{os.getpid()}-{self._calls}")
            span.set_attribute("gen_ai.response.model", MODEL)
            span.set_attribute("gen_ai.response.finish_reasons", ["stop"])
            span.set_attribute("gen_ai.usage.input_tokens", tokens[0])
            span.set_attribute("gen_ai.usage.output_tokens", tokens[1])
            span.set_attribute("gen_ai.output.messages", [reply])

    @contextmanager
    def tool(self, name: str, arguments: dict[str, object]) -> Iterator[collectord.Span]:
        """Run a tool: what it was called with is there when the span begins."""
        self._calls += 1
        about = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.type": "function",
            "gen_ai.tool.call.id": f"call-{self._calls}",
            "gen_ai.tool.call.arguments": arguments,
        }
        with self._session.span(f"execute_tool {name}", attributes=about) as span:
            time.sleep(0.05)
            yield span


class Researcher(Agent):
    """Completes."""

    def work(self, task: str) -> None:
        self.chat(task, "I will search for it.", (812, 64))
        with self.tool("web_search", {"query": "flight recorders, history"}) as span:
            span.set_attribute("gen_ai.tool.call.result", "3 documents")
        with self.tool("read_page", {"document": 1}) as span:
            span.set_attribute("gen_ai.tool.call.result", "1,204 words")
        self.chat("Summarise what you found.", "The first one recorded on photographic film.", (2_310, 402))


class Deployer(Agent):
    """Fails: the tool raises, and nobody handles it."""

    def work(self, task: str) -> None:
        self.chat(task, "I will read the manifest first.", (640, 38))
        self._session.log("the manifest has moved before, looking in the old place", severity="warn")
        with self.tool("read_file", {"path": "deploy/manifest.toml"}):
            raise FileNotFoundError("deploy/manifest.toml: no such file")


class Migrator(Agent):
    """Is killed while a command runs."""

    def work(self, task: str) -> None:
        self.chat(task, "I will run the migration.", (1_120, 57))
        with self.tool("bash", {"command": "python manage.py migrate --database=orders"}):
            self._session.flush()
            print(IN_THE_TOOL_CALL, flush=True)
            time.sleep(60)


AGENTS: dict[str, tuple[type[Agent], str]] = {
    "researcher": (Researcher, "When was the first flight recorder built?"),
    "deployer": (Deployer, "Deploy the release candidate to staging."),
    "migrator": (Migrator, "Bring the orders database up to date."),
}


def main(name: str) -> int:
    """Run one agent in a session of its own name."""
    kind, task = AGENTS[name]
    try:
        with collectord.session(name, attributes={"team": "demo", "task": task}) as session:
            kind(name, session).run(task)
    except FileNotFoundError as error:
        print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0 if session.path is not None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
