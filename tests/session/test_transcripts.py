"""Lives of runs as people can read them, under transcripts/: each is played again and must read the same.

`python -m tests.session.test_transcripts` writes what follows anew. Read the difference before you commit it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.session.narrator import narrate

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_a_transcript_reads_the_same_when_it_is_played_again(path: Path) -> None:
    assert narrate(path.read_text()) == path.read_text()


def test_each_transcript_says_what_it_shows_and_comes_to_an_end() -> None:
    assert len(TRANSCRIPTS) >= 10
    for path in TRANSCRIPTS:
        lines = path.read_text().splitlines()
        assert lines[0].startswith("# "), path.name
        assert "    the run is closed" in lines, path.name


if __name__ == "__main__":
    for transcript in TRANSCRIPTS:
        transcript.write_text(narrate(transcript.read_text()))
