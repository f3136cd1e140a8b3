"""The tree shows the architecture: imports point one way, and the pure layers stay pure."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "collectord"
ORDER = ["errors", "limits", "model", "names", "times", "wire", "session", "journal", "export", "daemon", "cli"]
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name not in ("__init__.py", "__main__.py"))

PURE = [
    "errors.py", "limits.py", "model.py", "names.py", "times.py", "wire", "session", "journal/format.py", "journal/scan.py",
    "journal/damage.py",
    "export/values.py", "export/fold.py", "export/head.py", "export/spans.py", "export/render.py", "export/schedule.py",
    "export/findings.py", "export/inventory.py", "export/claim.py", "export/audit.py", "export/verify.py",
]  # fmt: skip
IMPURE = {"trio", "os", "socket", "time", "random", "logging", "threading", "subprocess", "secrets", "select"}

LINES_MAX = 450
LONGER = {
    "session/core.py": 790,  # one machine, a short method for each action: cut in two, its order would be in neither
    "daemon/peer.py": 500,  # one connection's whole life: what a death means depends on what was read before it
    "daemon/owner.py": 550,  # append, sync, speak, rename in one place: that order is what the rules rest on
}

MAY_RENAME = {"journal/disk.py", "journal/recovery.py", "daemon/owner.py", "daemon/deriver.py", "export/publish.py"}
"""The last one for `recover`: by hand, while it holds the lock of the state directory, so that there is no owner."""

MAY_CATCH_ALL = {"daemon/peer.py": 1, "daemon/owner.py": 1, "daemon/revival.py": 1}


def name_of(path: Path) -> str:
    """A module's path below the package."""
    return str(path.relative_to(PACKAGE))


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == "collectord"}
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    own = ORDER.index(name_of(path).split("/")[0].removesuffix(".py"))
    for module in imports_of(path):
        parts = module.split(".")
        if parts[0] == "collectord" and len(parts) > 1 and parts[1] in ORDER:
            assert ORDER.index(parts[1]) <= own, f"{name_of(path)} imports {module}"


@pytest.mark.parametrize("path", [p for p in MODULES if name_of(p).startswith(tuple(PURE))], ids=name_of)
def test_the_pure_layers_do_no_io_and_have_no_clock(path: Path) -> None:
    assert not {module.split(".")[0] for module in imports_of(path)} & IMPURE


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is_and_can_be_read_in_one_go(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= LONGER.get(name_of(path), LINES_MAX)


def test_only_the_owner_and_recovery_rename_and_nothing_is_abandoned_in_a_thread() -> None:
    renaming = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.keyword) and node.arg == "abandon_on_cancel"), name_of(path)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                on = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
                if node.func.attr in ("rename", "renames") or (
                    on in ("os", "shutil") and node.func.attr in ("replace", "move", "link")
                ):
                    renaming.add(name_of(path))
    assert renaming == MAY_RENAME


def test_everything_is_caught_in_three_places_only() -> None:
    found: dict[str, int] = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            broad = isinstance(node, ast.ExceptHandler) and (
                node.type is None or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"))
            )
            reraises = broad and any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
            if broad and not reraises:
                found[name_of(path)] = found.get(name_of(path), 0) + 1
    assert found == MAY_CATCH_ALL


def test_the_client_imports_nothing_of_the_daemon() -> None:
    client = PACKAGE.parent / "clients" / "python" / "collectord_client"
    for path in client.glob("*.py"):
        assert not {module for module in imports_of(path) if module.split(".")[0] == "collectord"}, path.name
