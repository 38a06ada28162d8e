"""One turn of the event loop, and what it leaves of the CPU to others."""
