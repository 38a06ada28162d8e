"""The key agent: the only process that holds the server's private key.

Invariant "The key agent holds the keys".
"""
