"""Real processes: the console commands against a real server."""
