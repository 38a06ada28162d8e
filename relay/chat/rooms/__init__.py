"""Rooms: their state, the rights in them, and decisions about requests. No I/O."""
