"""The worker as a process: building, accepting, the turn, its own home's queues, stopping."""
