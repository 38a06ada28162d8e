"""The requests of clients: what is done for each operation, from HELLO on."""
