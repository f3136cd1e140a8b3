"""What the daemon is told before it starts: defaults, one TOML file, the environment, the command line.

Owns the names of all settings, what each may hold, and the places where collectord lives when nobody says otherwise. Whatever
is wrong with a setting refuses the start and names where it stands: a collector that runs on with half of what it was told
loses traces in silence. Knows nothing of what the settings are used for.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal

from attrs import frozen

from collectord.errors import OperatorError
from collectord.limits import (
    CONFIG_FILE_MAX_BYTES,
    DRAIN_TIMEOUT_MAX_S,
    DRAIN_TIMEOUT_S,
    SOCKET_PATH_MAX_BYTES,
)

LogLevel = Literal["debug", "info", "warning", "error"]
LOG_LEVELS: Final[tuple[LogLevel, ...]] = ("debug", "info", "warning", "error")

ENVIRONMENT: Final = {"COLLECTORD_SOCKET": "socket", "COLLECTORD_STATE_DIR": "state_dir"}
"""The variables that are read, and the setting that each is."""


@frozen
class Settings:
    """Everything the daemon can be told.

    Attributes:
        socket_path: where it listens; absolute.
        state_dir: where traces and journals are; absolute.
        allow_network_fs: whether a state directory on a network file system is accepted.
        drain_timeout_s: how long a stop may take.
        disk_free_min: below so many free bytes no new session begins; None is a share of the file system.
        log_level: the least serious level that is logged.
    """

    socket_path: str
    state_dir: str
    allow_network_fs: bool = False
    drain_timeout_s: float = DRAIN_TIMEOUT_S
    disk_free_min: int | None = None
    log_level: LogLevel = "info"


@frozen
class _Given:
    """One setting as somebody gave it, and where."""

    key: str
    value: Any
    where: str


# ---------------------------------------------------------------- places


def default_socket_path(environ: Mapping[str, str], uid: int) -> str:
    """Where the socket is when nobody says: for root under /run, for others in their runtime directory.

    Where XDG_RUNTIME_DIR is not set, ``/run/user/<uid>`` stands in for it, and where that is missing too (no login session:
    cron, a container) a directory of the user's own under /tmp, which ``check_directories`` accepts only if it is theirs.
    """
    if uid == 0:
        return "/run/collectord/collectord.sock"
    base = _xdg(environ, "XDG_RUNTIME_DIR")
    if base is None and os.path.isdir(f"/run/user/{uid}"):
        base = f"/run/user/{uid}"
    if base is None:
        return f"/tmp/collectord-{uid}/collectord.sock"
    return os.path.join(base, "collectord", "collectord.sock")


def default_state_dir(environ: Mapping[str, str], uid: int) -> str:
    """Where traces are kept when nobody says: for root under /var/lib, for others in XDG_STATE_HOME or ~/.local/state."""
    if uid == 0:
        return "/var/lib/collectord"
    base = _xdg(environ, "XDG_STATE_HOME")
    if base is None:
        base = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".local", "state")
    return os.path.join(base, "collectord")


def _xdg(environ: Mapping[str, str], name: str) -> str | None:
    """A base directory; one that is empty or not absolute counts as not set, as the specification says."""
    value = environ.get(name, "")
    return value if os.path.isabs(value) else None


# ---------------------------------------------------------------- what each setting may hold


def _path(value: Any) -> str:
    if type(value) is not str or not value or "\0" in value:
        raise ValueError("must be a path")
    return os.path.abspath(value)


def _socket(value: Any) -> str:
    path = _path(value)
    size = len(os.fsencode(path))
    if size > SOCKET_PATH_MAX_BYTES:
        raise ValueError(f"is a path of {size} bytes, and a socket's may have {SOCKET_PATH_MAX_BYTES} at most: {path:.60}…")
    if value.endswith("/"):
        raise ValueError(f"must name a socket, not a directory: {value}")
    return path


def _switch(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("must be true or false")
    return value


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or not 0 < value <= DRAIN_TIMEOUT_MAX_S:
        raise ValueError(f"must be a number of seconds above 0, at most {DRAIN_TIMEOUT_MAX_S:g}")
    return float(value)


def _bytes(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 60:
        raise ValueError("must be a number of bytes, 0 or more")
    return value


def _level(value: Any) -> str:
    if value not in LOG_LEVELS:
        raise ValueError(f"must be one of {', '.join(LOG_LEVELS)}")
    return str(value)


_CHECKS: Final[dict[str, tuple[str, Callable[[Any], Any]]]] = {
    "socket": ("socket_path", _socket),
    "state_dir": ("state_dir", _path),
    "allow_network_fs": ("allow_network_fs", _switch),
    "drain_timeout_s": ("drain_timeout_s", _seconds),
    "disk_free_min": ("disk_free_min", _bytes),
    "log_level": ("log_level", _level),
}
"""Every key of the file, the field that it fills and what it may hold. Flags and variables are the same keys."""

KEYS: Final = tuple(_CHECKS)


# ---------------------------------------------------------------- loading


def load(flags: Mapping[str, Any], config: str | None, environ: Mapping[str, str], uid: int) -> Settings:
    """The settings that stand: defaults, overruled by the file, by the environment, by the command line.

    What is overruled is checked all the same: a wrong line does not become right by being hidden.

    Args:
        flags: what the command line gave, by the names in ``KEYS``; None counts as not given.
        config: path of a TOML file, or None.
        environ: the environment. A variable that is empty counts as not set.
        uid: whose defaults apply.

    Raises:
        OperatorError: ``config-invalid`` or ``socket-unusable``, with the place.
    """
    given = [
        _Given("socket", default_socket_path(environ, uid), "the default socket"),
        _Given("state_dir", default_state_dir(environ, uid), "the default state directory"),
    ]
    if config is not None:
        given.extend(_from_file(config))
    given.extend(_Given(key, environ[name], name) for name, key in ENVIRONMENT.items() if environ.get(name))
    given.extend(_Given(key, value, f"--{_flag(key)}") for key, value in flags.items() if value is not None)
    return Settings(**_checked(given))


def _checked(given: Iterable[_Given]) -> dict[str, Any]:
    """The fields, each by its last giver. A default that is too long is no fault where something else was given."""
    fields: dict[str, Any] = {}
    overruled = {item.key for item in given if not item.where.startswith("the default")}
    for item in given:
        if item.where.startswith("the default") and item.key in overruled:
            continue
        field, check = _CHECKS[item.key]
        try:
            fields[field] = check(item.value)
        except ValueError as error:
            raise OperatorError("config-invalid", f"{item.where}: {item.key} {error}") from None
    return fields


def _flag(key: str) -> str:
    return key.removesuffix("_s").replace("_", "-")


def locate_socket(flag: str | None, environ: Mapping[str, str], uid: int) -> str:
    """Where a command finds the daemon: ``--socket``, else COLLECTORD_SOCKET, else the default.

    Raises:
        OperatorError: ``config-invalid``: no socket can have such a path.
    """
    return load({"socket": flag}, None, environ, uid).socket_path


# ---------------------------------------------------------------- the file


def _from_file(path: str) -> list[_Given]:
    try:
        with open(path, "rb") as file:
            raw = file.read(CONFIG_FILE_MAX_BYTES + 1)
    except OSError as error:
        raise OperatorError("config-invalid", f"{path}: cannot be read: {error.strerror}") from None
    if len(raw) > CONFIG_FILE_MAX_BYTES:
        raise OperatorError("config-invalid", f"{path}: is over {CONFIG_FILE_MAX_BYTES} bytes, which no configuration is")
    try:
        text = raw.decode("utf-8")
        table = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise OperatorError("config-invalid", f"{path}, line {line}: is not UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise OperatorError("config-invalid", _syntax(path, text, str(error))) from None
    base = os.path.dirname(os.path.abspath(path))
    return [_from_line(path, text, base, key, value) for key, value in table.items()]


def _syntax(path: str, text: str, said: str) -> str:
    """Our form of what tomllib says: the line in front, as everywhere else."""
    found = re.search(r"\s*\(at (?:line (\d+)(?:, column \d+)?|end of document)\)", said)
    if found is None:
        return f"{path}: {said}"
    line = found[1] or str(text.rstrip("\n").count("\n") + 1)
    return f"{path}, line {line}: {said[: found.start()]}"


def _from_line(path: str, text: str, base: str, key: str, value: Any) -> _Given:
    where = f"{path}{_line_of(text, key)}"
    if key not in _CHECKS:
        near = difflib.get_close_matches(key, KEYS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(KEYS)}"
        raise OperatorError("config-invalid", f"{where}: there is no setting {key!a}: {hint}")
    if key in ("socket", "state_dir") and type(value) is str and value:
        value = os.path.join(base, os.path.expanduser(value))  # what a file names is relative to the file
    return _Given(key, value, where)


def _line_of(text: str, key: str) -> str:
    """Where a key stands, as words. By searching: tomllib does not tell, and every setting begins a line."""
    name = f"(?:{re.escape(key)}|\"{re.escape(key)}\"|'{re.escape(key)}')"
    found = re.search(rf"^[ \t]*(?:\[+[ \t]*)?{name}[ \t]*[.=\]]", text, re.MULTILINE)
    return "" if found is None else f", line {text.count(chr(10), 0, found.start()) + 1}"


# ---------------------------------------------------------------- directories


def check_directories(settings: Settings) -> None:
    """Make sure that there are directories to work in; they are made where they are missing, for the owner alone.

    Raises:
        OperatorError: ``directory-unusable``, with the reason.
    """
    socket_directory = os.path.dirname(settings.socket_path)
    for path in (settings.state_dir, socket_directory):
        try:
            os.makedirs(path, 0o700, exist_ok=True)
        except FileExistsError:
            raise OperatorError("directory-unusable", f"{path} is not a directory") from None
        except OSError as error:
            raise OperatorError("directory-unusable", f"{path} cannot be made: {error.strerror}") from None
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            raise OperatorError("directory-unusable", f"{path} cannot be written by user {os.geteuid()}")
    if os.path.dirname(socket_directory) == "/tmp":
        _refuse_foreign(socket_directory)


def _refuse_foreign(path: str) -> None:
    """Under /tmp anybody can make the directory first, and then sees and steals every connection."""
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise OperatorError("directory-unusable", f"{path} belongs to somebody else: its owner would see every connection")
