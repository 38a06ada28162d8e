"""The key agent: the one process that holds the server's private key (handshake.md, rule 16)."""
