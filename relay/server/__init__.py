"""The server: a supervisor that forks a control process, a key agent and workers."""
