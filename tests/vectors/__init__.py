"""Test vectors of the protocol, their generator, and an independent decoder."""
