"""What a server asks of Linux: files in memory, inherited state, limits, threads, protection."""
