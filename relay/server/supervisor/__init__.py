"""The supervisor: a synchronous program that forks the key agent and the workers.

No event loop, thread, OpenSSL or SQLite may be loaded here: a fork would copy their state.
"""
