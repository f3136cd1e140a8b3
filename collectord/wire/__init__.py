"""The protocol without I/O: bytes in, messages out, and back. docs/protocol.md is its description for people."""
