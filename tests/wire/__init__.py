"""The protocol without I/O: parsers, state, cryptography, published vectors."""
