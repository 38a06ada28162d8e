"""Messages between homes and members: by the bus, and inside this worker."""
