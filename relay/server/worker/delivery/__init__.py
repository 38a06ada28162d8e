"""Bytes on their way to one client's socket: batches, outboxes, streams, and those that stall."""
