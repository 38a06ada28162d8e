"""The protocol without I/O: bytes in, events out; calls in, bytes out. No socket, no clock."""
