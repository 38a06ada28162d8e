"""The durable, ordered log of every conversation."""
