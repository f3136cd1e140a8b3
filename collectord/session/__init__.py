"""What a run may do, as pure code: no I/O, no clock, no trio. One transition table, and effects that others perform."""
