"""The server: a supervisor that forks a key agent and workers."""
