"""Names, runs, locks and recovery: where things are, and what is done with what is found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectord import names
from collectord.errors import OperatorError
from collectord.journal.disk import RealDisk
from collectord.journal.store import StateLock, Store, file_system_of, refuse_network_file_system


@given(st.text(min_size=1), st.text(min_size=1))
def test_two_ids_never_share_a_name(one: str, other: str) -> None:
    assert (names.encode_session_id(one) == names.encode_session_id(other)) == (one == other)


@given(st.text(min_size=1, alphabet=st.characters()), st.integers(1, 10**6))
def test_names_cannot_escape_and_are_read_back(session_id: str, run: int) -> None:
    stem = names.encode_session_id(session_id)
    assert len(stem) <= names.NAME_SIZE_MAX_BYTES
    assert "/" not in stem
    assert "\0" not in stem
    assert not stem.startswith(".")
    assert names.is_stem(stem)
    assert names.parse_trace_file_name(names.trace_file_name(stem, run)) == names.TraceName(stem, run)
    assert names.parse_journal_file_name(names.journal_file_name(stem, run, 3)) == names.JournalName(stem, run, 3)
    assert names.parse_trace_file_name(names.temporary_file_name(stem, run, 1)) is None


@pytest.mark.parametrize("session_id", ["..", ".", "\0", "x" * 10_000, "🦀" * 3_000, "a/b", "~", "a~2", "\ud800", "%41"])
def test_strange_ids_are_safe(session_id: str) -> None:
    stem = names.encode_session_id(session_id)
    assert names.is_stem(stem)
    assert stem not in (".", "..")


def test_long_ids_that_differ_at_the_end_differ() -> None:
    assert names.encode_session_id("x" * 200 + "a") != names.encode_session_id("x" * 200 + "b")


def test_run_numbers_go_on_from_the_highest_ever_used(tmp_path: Path) -> None:
    store = Store(RealDisk(), str(tmp_path), os.geteuid())
    store.prepare()
    uid = os.geteuid()
    assert store.next_run(uid, "s") == 1
    for run in range(1, 12):
        (tmp_path / "journals" / f"s~{run}.0.journal").touch()
        assert store.next_run(uid, "s") == run + 1
    assert store.next_run(uid, "s~") == 1


def test_the_files_of_other_users_lie_apart(tmp_path: Path) -> None:
    store = Store(RealDisk(), str(tmp_path), 1)
    store.prepare()
    assert store.trace_path(1, "s", 1) == str(tmp_path / "traces" / "s.json")
    assert store.trace_path(2, "s", 2) == str(tmp_path / "traces" / "uid-2" / "s~2.json")
    assert (tmp_path / "traces" / "uid-2").stat().st_mode & 0o777 == 0o700


def test_a_second_holder_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    with StateLock(str(tmp_path / "lock")):
        code = f"from collectord.journal.store import StateLock\nStateLock({str(tmp_path / 'lock')!r}).acquire()"
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert f"pid {os.getpid()}" in second.stderr
        with pytest.raises(OperatorError):
            StateLock(str(tmp_path / "lock")).acquire()
    with StateLock(str(tmp_path / "lock")):
        pass


def test_a_network_file_system_is_refused(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/x / ext4 rw 0 0\nserver:/x {tmp_path}/net nfs4 rw 0 0\n")
    assert file_system_of(str(tmp_path / "here"), str(mounts)) == "ext4"
    refuse_network_file_system(str(tmp_path / "here"), str(mounts))
    with pytest.raises(OperatorError) as refused:
        refuse_network_file_system(str(tmp_path / "net" / "deep"), str(mounts))
    assert refused.value.code == "network-file-system"
