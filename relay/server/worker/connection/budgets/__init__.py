"""What a connection, a user and a source may use, and which connections may enter. No I/O."""
