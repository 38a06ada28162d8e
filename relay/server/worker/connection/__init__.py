"""One client's connection: handshake, login, and what each of its operations does."""
