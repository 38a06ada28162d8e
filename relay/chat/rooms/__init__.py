"""Rooms: their state, who may do what in them, and how requests about them are decided. No I/O."""
