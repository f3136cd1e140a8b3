"""Where the collector listens, when nobody says."""

from __future__ import annotations

import os


def default_socket_path() -> str:
    """``COLLECTORD_SOCKET``, else root's or the user's own runtime directory, with the specified fallbacks."""
    told = os.environ.get("COLLECTORD_SOCKET")
    if told:
        return told
    uid = os.getuid()
    if uid == 0:
        return "/run/collectord/collectord.sock"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if not os.path.isabs(runtime):  # the specification says to ignore a relative one
        runtime = f"/run/user/{uid}"
        if not os.path.isdir(runtime):
            return f"/tmp/collectord-{uid}/collectord.sock"
    return os.path.join(runtime, "collectord", "collectord.sock")
