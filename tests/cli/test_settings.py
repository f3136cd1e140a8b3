"""Settings: where each comes from, which wins, and that everything wrong refuses the start (D17)."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from collectord.daemon.settings import (
    KEYS,
    Settings,
    check_directories,
    default_socket_path,
    default_state_dir,
    load,
    locate_socket,
)
from collectord.errors import OperatorError

ORDINARY_UID = 4_000_000_000
"""A user whom no machine has: no directory under /run/user is theirs."""


def refusal(flags: dict[str, object], config: Path | None = None, environ: dict[str, str] | None = None) -> str:
    """What a refused start says; that the code is the right one is checked here, once."""
    with pytest.raises(OperatorError) as caught:
        load(flags, None if config is None else str(config), environ or {}, 0)
    assert caught.value.code == "config-invalid"
    return caught.value.message


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# ---------------------------------------------------------------- defaults


def test_root_has_system_places() -> None:
    found = load({}, None, {"XDG_RUNTIME_DIR": "/x", "XDG_STATE_HOME": "/y"}, 0)
    assert found == Settings("/run/collectord/collectord.sock", "/var/lib/collectord")


def test_others_have_their_base_directories() -> None:
    environ = {"XDG_RUNTIME_DIR": "/r/7", "XDG_STATE_HOME": "/home/a/state", "HOME": "/home/a"}
    assert default_socket_path(environ, ORDINARY_UID) == "/r/7/collectord/collectord.sock"
    assert default_state_dir(environ, ORDINARY_UID) == "/home/a/state/collectord"


@pytest.mark.parametrize("value", ["", "relative/path"])
def test_a_base_directory_that_is_empty_or_relative_counts_as_not_set(value: str) -> None:
    environ = {"XDG_RUNTIME_DIR": value, "XDG_STATE_HOME": value, "HOME": "/home/a"}
    assert default_socket_path(environ, ORDINARY_UID) == f"/tmp/collectord-{ORDINARY_UID}/collectord.sock"
    assert default_state_dir(environ, ORDINARY_UID) == "/home/a/.local/state/collectord"


# ---------------------------------------------------------------- which wins


def test_flags_beat_the_environment_beats_the_file_beats_the_defaults(tmp_path: Path) -> None:
    config = written(tmp_path / "c.toml", 'socket = "/file/s"\nstate_dir = "/file/d"\nlog_level = "debug"\n')
    environ = {"COLLECTORD_SOCKET": "/env/s", "COLLECTORD_STATE_DIR": "/env/d"}
    found = load({"socket": "/flag/s", "state_dir": None}, str(config), environ, 0)
    assert (found.socket_path, found.state_dir, found.log_level) == ("/flag/s", "/env/d", "debug")


def test_a_variable_that_is_empty_counts_as_not_set() -> None:
    assert load({}, None, {"COLLECTORD_SOCKET": ""}, 0).socket_path == "/run/collectord/collectord.sock"


def test_relative_paths_are_relative_to_where_they_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    config = written(tmp_path / "etc" / "c.toml", 'socket = "run/s"\nstate_dir = "~/traces"\n')
    monkeypatch.setenv("HOME", "/home/a")
    monkeypatch.chdir(tmp_path)
    from_file = load({}, str(config), {}, 0)
    assert (from_file.socket_path, from_file.state_dir) == (f"{tmp_path}/etc/run/s", "/home/a/traces")
    assert load({"socket": "run/s"}, None, {}, 0).socket_path == f"{tmp_path}/run/s"


def test_every_setting_can_be_in_the_file(tmp_path: Path) -> None:
    text = 'socket = "/s"\nstate_dir = "/d"\nallow_network_fs = true\ndrain_timeout_s = 3\n'
    text += 'disk_free_min = 4096\nlog_level = "warning"\n'
    assert all(key in text for key in KEYS)
    found = load({}, str(written(tmp_path / "c.toml", text)), {}, 0)
    assert found == Settings("/s", "/d", True, 3.0, 4096, "warning")


def test_commands_look_for_the_socket_where_the_daemon_puts_it() -> None:
    for flag, environ in (("/a", {"COLLECTORD_SOCKET": "/b"}), (None, {"COLLECTORD_SOCKET": "/b"}), (None, {})):
        assert locate_socket(flag, environ, 0) == load({"socket": flag}, None, environ, 0).socket_path


# ---------------------------------------------------------------- D17: what is wrong is refused


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('sokcet = "/s"', "there is no setting 'sokcet': did you mean socket?"),
        ("[daemon]", "there is no setting 'daemon'"),
        ("a.b = 1", "there is no setting 'a'"),
        ('"log level" = 1', "there is no setting 'log level'"),
        ("socket = 7", "socket must be a path"),
        ('socket = ""', "socket must be a path"),
        ('socket = "/a\\u0000b"', "socket must be a path"),
        ('socket = "/run/directory/"', "must name a socket, not a directory"),
        (f'socket = "/{"x" * 107}"', "108 bytes, and a socket's may have 107 at most"),
        ("state_dir = []", "state_dir must be a path"),
        ('state_dir = ""', "state_dir must be a path"),
        ('allow_network_fs = "yes"', "must be true or false"),
        ("allow_network_fs = 1", "must be true or false"),
        ("disk_free_min = -1", "must be a number of bytes, 0 or more"),
        ('disk_free_min = "1G"', "must be a number of bytes, 0 or more"),
        ("disk_free_min = true", "must be a number of bytes, 0 or more"),
        ("drain_timeout_s = true", "must be a number of seconds above 0"),
        ("drain_timeout_s = 0", "must be a number of seconds above 0"),
        ("drain_timeout_s = -1.5", "must be a number of seconds above 0"),
        ("drain_timeout_s = nan", "must be a number of seconds above 0"),
        ("drain_timeout_s = inf", "must be a number of seconds above 0"),
        ("drain_timeout_s = 1e9", "must be a number of seconds above 0, at most 3600"),
        ('drain_timeout_s = "20"', "must be a number of seconds above 0"),
        ('log_level = "loud"', "must be one of debug, info, warning, error"),
        ("log_level = []", "must be one of debug, info, warning, error"),
        ("log_level =", "Invalid value"),
        ("log_level = 'a' 'b'", "Expected newline"),
    ],
)
def test_every_wrong_line_is_refused_with_its_number(tmp_path: Path, line: str, said: str) -> None:
    config = written(tmp_path / "c.toml", f"# a comment\n\n{line}\n")
    message = refusal({}, config)
    assert message.startswith(f"{config}, line 3: "), message
    assert said in message


def test_a_key_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    config = written(tmp_path / "c.toml", 'log_level = "info"\nlog_level = "debug"\n')
    assert refusal({}, config).startswith(f"{config}, line 2: ")


def test_a_file_that_ends_too_early_is_refused_at_its_end(tmp_path: Path) -> None:
    config = written(tmp_path / "c.toml", 'log_level = "info"\nsocket = """')
    assert refusal({}, config).startswith(f"{config}, line 2: ")


def test_a_file_that_is_not_text_is_refused_with_the_line(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_bytes(b'log_level = "info"\n# \xff\n')
    assert refusal({}, config) == f"{config}, line 2: is not UTF-8"


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal({}, tmp_path / "missing.toml")
    assert "Is a directory" in refusal({}, tmp_path)


def test_a_file_without_an_end_is_refused() -> None:
    assert "which no configuration is" in refusal({}, Path("/dev/zero"))


def test_a_wrong_line_is_refused_also_where_a_flag_overrules_it(tmp_path: Path) -> None:
    config = written(tmp_path / "c.toml", "socket = 7\n")
    assert "line 1: socket must be a path" in refusal({"socket": "/s"}, config)


def test_a_wrong_variable_and_a_wrong_flag_are_named() -> None:
    assert refusal({}, environ={"COLLECTORD_SOCKET": "/" + "x" * 107}).startswith("COLLECTORD_SOCKET: ")
    assert refusal({"socket": "/" + "x" * 107}).startswith("--socket: ")
    assert refusal({"drain_timeout_s": float("nan")}).startswith("--drain-timeout: ")
    assert refusal({"log_level": "loud"}).startswith("--log-level: ")


def test_a_socket_path_of_107_bytes_is_accepted() -> None:
    assert len(load({"socket": "/" + "x" * 106}, None, {}, 0).socket_path) == 107


def test_bytes_count_in_a_socket_path_not_letters() -> None:
    assert "a socket's may have" in refusal({"socket": "/" + "é" * 60})


def test_a_default_that_would_be_wrong_is_no_fault_where_another_place_is_named() -> None:
    environ = {"XDG_RUNTIME_DIR": "/" + "x" * 200}
    assert load({"socket": "/s"}, None, environ, ORDINARY_UID).socket_path == "/s"
    with pytest.raises(OperatorError, match="the default socket"):
        load({}, None, environ, ORDINARY_UID)


# ---------------------------------------------------------------- directories


def settings_in(directory: Path, state: str = "state", socket: str = "run/s") -> Settings:
    return Settings(str(directory / socket), str(directory / state))


def test_missing_directories_are_made_for_the_owner_alone(tmp_path: Path) -> None:
    check_directories(settings_in(tmp_path, state="a/b/state"))
    assert (tmp_path / "a" / "b" / "state").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("state", "socket"), [("file", "run/s"), ("state", "file/s"), ("file/state", "run/s")])
def test_a_file_in_the_place_of_a_directory_is_refused(tmp_path: Path, state: str, socket: str) -> None:
    written(tmp_path / "file", "")
    with pytest.raises(OperatorError) as caught:
        check_directories(settings_in(tmp_path, state, socket))
    assert caught.value.code == "directory-unusable"
    assert str(tmp_path / "file") in caught.value.message


def test_a_directory_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(OperatorError, match="cannot be made"):
        check_directories(Settings("/proc/collectord/s", "/proc/collectord/state"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user for this")
def test_a_directory_of_another_user_is_refused() -> None:
    script = (
        "import os, sys\n"
        "from collectord.daemon.settings import Settings, check_directories\n"
        "from collectord.errors import OperatorError\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try: check_directories(Settings(sys.argv[1] + '/s', sys.argv[1]))\n"
        "except OperatorError as error: print(error)"
    )
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        run = subprocess.run([sys.executable, "-c", script, directory], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == f"directory-unusable: {directory} cannot be written by user 65534"


# ---------------------------------------------------------------- the real program


@pytest.mark.process
@pytest.mark.parametrize("case", ["key", "value", "file", "path", "flag"])
def test_d17_a_daemon_with_a_wrong_configuration_says_why_and_exits_2(tmp_path: Path, case: str) -> None:
    written(tmp_path / "key.toml", "\nsokcet = 1\n")
    written(tmp_path / "value.toml", 'log_level = "loud"\n')
    arguments, said = {
        "key": (["--config", "key.toml"], "key.toml, line 2: there is no setting 'sokcet'"),
        "value": (["--config", "value.toml"], "value.toml, line 1: log_level must be one of"),
        "file": (["--state-dir", "value.toml"], "value.toml is not a directory (directory-unusable)"),
        "path": (["--socket", "x" * 120], "a socket's may have 107 at most"),
        "flag": (["--drain-timeout", "soon"], "'soon' is not a valid float"),
    }[case]
    environment = {**os.environ, "COLLECTORD_STATE_DIR": str(tmp_path / "state"), "COLLECTORD_SOCKET": str(tmp_path / "s")}
    run = subprocess.run(
        [sys.executable, "-m", "collectord", "serve", *arguments],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert run.returncode == 2, run.stderr
    assert run.stderr.startswith("collectord: error: ")
    assert said in run.stderr
    assert "\nremedy: " in run.stderr
    assert "Traceback" not in run.stderr
    assert "listening" not in run.stderr
