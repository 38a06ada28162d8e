"""Which server's key a client accepts: pinned at first contact, and followed when it changes."""
