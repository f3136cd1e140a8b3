"""The trace file: a pure function of the journal, rendered in a process of its own."""
