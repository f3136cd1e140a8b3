"""collectord: a flight recorder for AI agents.

The package is layered; imports point upwards in this list only, and a test holds it to that:

    errors, limits, model, names     words and numbers, pure
    wire                             frames and messages, sans-IO
    session                          what a run may do, pure
    journal                          the truth on disk
    export                           the trace file, derived from the journal
    daemon                           the trio tasks that tie it all together
    cli                              one module per command
"""

__version__ = "0.1.0"
