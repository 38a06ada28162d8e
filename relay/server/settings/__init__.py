"""Settings in effect, which processes poll, and their changes at run time."""
