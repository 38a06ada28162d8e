"""Test vectors of the protocol, how they are made, and an independent decoder of them."""
