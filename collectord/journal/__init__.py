"""The truth on disk: the bytes of a journal, how they are read back, and how they get there."""
