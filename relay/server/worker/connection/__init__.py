"""One client connection: handshake, login, and the operations that a client may request."""
