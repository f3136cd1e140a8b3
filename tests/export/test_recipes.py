"""The recipes of docs/trace-format.md do what they say, on a file as it is rendered."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from collectord.model import CrashReason, Verdict
from collectord.session import records
from tests.docs.tables import block, read
from tests.export.journals import T0, JournalInMemory, end, start


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_the_recipes_answer_what_they_ask(tmp_path: Path) -> None:
    journal = JournalInMemory()
    journal.events(start(name="slow"), start(name="quick"), start(name="open"), end(2, T0 + 1_000_000), end(1, T0 + 9_000_000))
    crashed = records.crashed(T0 + 10_000_000, Verdict(CrashReason.PROCESS_DIED, "killed", "SIGKILL"), None)
    (tmp_path / "trace.json").write_bytes(journal.render(crashed))
    recipes = block(read("trace-format.md"), "sh").split("# ")[1:]
    answers = {}
    for recipe in recipes:
        question, _, command = recipe.partition("\n")
        done = subprocess.run(["sh", "-e", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
        answers[question] = done.stdout.splitlines()
    assert '"signal":"SIGKILL"' in answers["how did it end?"][0]
    assert answers["what was open when it died?"] == ["open"]
    slowest = [line.split("\t") for line in answers["the ten slowest spans"]]  # jq counts in doubles: 256 ns, today
    assert [(round(float(taken), 2), name) for taken, name in slowest] == [(9.0, "slow"), (1.0, "quick")]
    assert len(answers) == len(recipes) == 3
