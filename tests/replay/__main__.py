"""`python -m tests.replay FOLDER`: stream recorded traces through the real client and daemon, and compare span by span."""

from __future__ import annotations

import sys

from tests.replay.replay import replay_folder

if __name__ == "__main__":
    sys.exit(replay_folder(sys.argv[1]))
