"""``python -m collectord``: the same as the ``collectord`` program."""

import sys

from collectord.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
