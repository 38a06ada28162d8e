"""The key agent: the one process that holds the server's private key.

Invariant "The key agent holds the keys".
"""
