"""Rooms: what is decided about them, their rules for the store, and their expired bans."""
