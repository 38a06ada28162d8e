"""The server, process by process."""
